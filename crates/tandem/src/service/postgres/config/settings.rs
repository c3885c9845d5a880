//! Decides PostgreSQL's settings: what high availability rests on, what the owner may choose.
//! In: `InstanceConfig`. Out: the text of `tandem.conf`, or a refusal that says what instead.
//! Keeps: H5 `restart_after_crash`, H13 `synchronous_commit`, H14 and H26 `fsync` and
//! `data_sync_retry`, H15 no `restore_command`, H25 a bound on what a slot retains.
//! Tested by: below.

use super::super::{Error, InstanceConfig};
use std::collections::BTreeMap;
use std::fmt::Write as _;

/// Settings that are ours alone, and what to do instead.
const OURS: &[(&str, &str)] = &[
    ("archive_cleanup_command", "WAL comes from the primary only"),
    ("cluster_name", "it names the node"),
    ("config_file", "the files are written by Tandem"),
    ("data_directory", "it follows from the node's folder"),
    ("data_sync_retry", "an fsync that failed once must end the instance"),
    ("external_pid_file", "the keeper supervises the process"),
    ("fsync", "an acknowledged commit must be on disk"),
    ("full_page_writes", "pg_rewind and crash recovery need it"),
    ("hba_file", "use hba for more lines"),
    ("hot_standby", "a standby is observed through SQL"),
    ("ident_file", "the files are written by Tandem"),
    ("listen_addresses", "use the node's address"),
    ("password_encryption", "every role uses SCRAM"),
    ("port", "use the service's instance port"),
    ("primary_conninfo", "it follows from the agreed primary"),
    ("primary_slot_name", "it follows from the node's name"),
    ("promote_trigger_file", "only an appointment promotes"),
    ("recovery_end_command", "use a hook"),
    ("recovery_min_apply_delay", "a delayed standby cannot take over"),
    ("recovery_target_timeline", "a standby follows the agreed primary"),
    ("restart_after_crash", "a primary that crashed is replaced, not restarted"),
    ("restore_command", "WAL from an archive would arrive during a vote"),
    ("superuser_reserved_connections", "they are reserved for the probes"),
    ("synchronous_standby_names", "use durability"),
    ("unix_socket_directories", "it follows from the node's folder"),
    ("unix_socket_permissions", "the socket's folder is private"),
    ("wal_log_hints", "pg_rewind needs it"),
    ("wal_receiver_create_temp_slot", "each member has a slot"),
];

/// Settings that have a default of ours and may be changed.
const DEFAULTS: &[(&str, &str)] = &[
    ("max_connections", "200"),
    ("wal_level", "replica"),
    ("max_wal_senders", "16"),
    ("max_replication_slots", "16"),
    ("wal_keep_size", "512MB"),
    // A member that is away for longer is cloned again instead of filling the primary's disk (H25).
    ("max_slot_wal_keep_size", "8GB"),
    ("synchronous_commit", "on"),
    // A WAL receiver that lost its primary tries again at once, not after 5 s.
    ("wal_retrieve_retry_interval", "100ms"),
    ("wal_receiver_timeout", "1500ms"),
    ("wal_receiver_status_interval", "1s"),
    // A standby that is cut off frees its slot after this.
    ("wal_sender_timeout", "5s"),
    ("tcp_keepalives_idle", "5"),
    ("tcp_keepalives_interval", "2"),
    ("tcp_keepalives_count", "3"),
    ("tcp_user_timeout", "10s"),
    // After a crash or a rewind: one call instead of an fsync of every file.
    ("recovery_init_sync_method", "syncfs"),
    ("log_destination", "stderr"),
    ("logging_collector", "off"),
    ("log_line_prefix", "%m [%p] %q%u@%d "),
    ("lc_messages", "C"),
];

const FIXED: &[(&str, &str)] = &[
    ("hot_standby", "on"),
    ("fsync", "on"),
    ("full_page_writes", "on"),
    ("data_sync_retry", "off"),
    ("wal_log_hints", "on"),
    ("restart_after_crash", "off"),
    ("recovery_target_timeline", "latest"),
    ("recovery_min_apply_delay", "0"),
    ("restore_command", ""),
    ("password_encryption", "scram-sha-256"),
    ("superuser_reserved_connections", "5"),
    ("unix_socket_permissions", "0700"),
    ("wal_receiver_create_temp_slot", "off"),
];

/// Whether a setting is ours alone: refused from the owner, removed from postgresql.auto.conf.
pub(super) fn is_ours(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    why_ours(&name).is_some()
}

fn why_ours(name: &str) -> Option<&'static str> {
    if name.starts_with("recovery_target") {
        return Some("a standby follows the agreed primary");
    }
    OURS.iter().find(|(ours, _)| *ours == name).map(|(_, because)| *because)
}

/// Refuses what high availability cannot work with.
pub(super) fn check(settings: &BTreeMap<String, String>) -> Result<(), Error> {
    for (name, value) in settings {
        if let Some(because) = refusal(name, value) {
            return Err(Error::Setting { name: name.clone(), because });
        }
    }
    Ok(())
}

fn refusal(name: &str, value: &str) -> Option<&'static str> {
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '.';
    if name.is_empty() || !name.chars().all(word) {
        return Some("it is not the name of a setting");
    }
    if value.contains(['\n', '\r', '\0']) {
        return Some("its value must be one line");
    }
    let name = name.to_ascii_lowercase();
    if name == "include" || name == "include_dir" || name == "include_if_exists" {
        return Some("put each setting here instead of a file");
    }
    if let Some(because) = why_ours(&name) {
        return Some(because);
    }
    let number = value.trim().parse::<u32>().ok();
    match name.as_str() {
        "wal_level" if !["replica", "logical"].contains(&value) => {
            Some("it must be replica or logical")
        }
        "synchronous_commit" if !["on", "remote_apply"].contains(&value) => {
            Some("it must be on or remote_apply; a weaker one loses acknowledged commits")
        }
        "max_wal_senders" | "max_replication_slots" if number.is_none_or(|n| n < 8) => {
            Some("standbys, base backups and their slots need at least 8")
        }
        "wal_sender_timeout" | "wal_receiver_timeout" if number == Some(0) => {
            Some("without it a dead connection is kept for ever")
        }
        _ => None,
    }
}

/// The text of `tandem.conf`: our defaults, then the owner's settings, then what is ours alone.
pub(super) fn text(config: &InstanceConfig) -> String {
    let listen: Vec<String> = config.listen.iter().map(ToString::to_string).collect();
    let run = config.dir.join("run").display().to_string();
    let port = config.port.to_string();
    let name = format!("{}/{}", config.service, config.me);
    let placed = [
        ("listen_addresses", listen.join(",")),
        ("port", port),
        ("unix_socket_directories", format!("\"{run}\"")),
        ("cluster_name", name),
        // A distribution's own postgresql.conf may point elsewhere.
        ("hba_file", config.dir.join("data/pg_hba.conf").display().to_string()),
        ("ident_file", config.dir.join("data/pg_ident.conf").display().to_string()),
    ];
    let mut text = String::from("# Written by Tandem before every start; edits are lost.\n");
    let defaults = DEFAULTS.iter().chain(FIXED).map(|(name, value)| (*name, *value));
    let (defaults, fixed) = (defaults.clone().take(DEFAULTS.len()), defaults.skip(DEFAULTS.len()));
    let owner = config.user_settings.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    let placed = placed.iter().map(|(name, value)| (*name, value.as_str()));
    for (name, value) in defaults.chain(owner).chain(fixed).chain(placed) {
        line(&mut text, name, value);
    }
    text.push_str("include_if_exists 'tandem.sync.conf'\n");
    text.push_str("include_if_exists 'tandem.upstream.conf'\n");
    text
}

/// One setting, quoted.
pub(super) fn line(text: &mut String, name: &str, value: &str) {
    let value = value.replace('\\', "\\\\").replace('\'', "''");
    let _ = writeln!(text, "{name} = '{value}'");
}

/// postgresql.auto.conf without the settings that would override ours: ALTER SYSTEM, or what a
/// rewind or base backup brought along. None where nothing has to go.
pub(super) fn clean_auto_conf(text: &str) -> Option<String> {
    let ours = |line: &&str| {
        let name: String = line
            .trim_start()
            .chars()
            .take_while(|c| c.is_ascii_alphanumeric() || *c == '_' || *c == '.')
            .collect();
        is_ours(&name)
    };
    if !text.lines().any(|line| ours(&line)) {
        return None;
    }
    Some(text.lines().filter(|line| !ours(line)).flat_map(|line| [line, "\n"]).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_ha_rests_on_is_refused() {
        let refused = |name: &str, value: &str| {
            check(&BTreeMap::from([(name.to_owned(), value.to_owned())])).is_err()
        };
        for (name, value) in [
            ("fsync", "off"),
            ("FSYNC", "off"),
            ("synchronous_commit", "local"),
            ("synchronous_standby_names", "*"),
            ("restart_after_crash", "on"),
            ("recovery_target_lsn", "0/1"),
            ("wal_level", "minimal"),
            ("max_wal_senders", "1"),
            ("work_mem", "1MB'\nfsync = off"),
            ("work mem", "1MB"),
            ("include", "/etc/x"),
        ] {
            assert!(refused(name, value), "{name}");
        }
        for (name, value) in
            [("work_mem", "64MB"), ("synchronous_commit", "remote_apply"), ("pgaudit.log", "ddl")]
        {
            assert!(!refused(name, value), "{name}");
        }
    }

    #[test]
    fn fixed_settings_are_all_refused_from_the_owner() {
        for (name, _) in FIXED {
            assert!(is_ours(name), "{name}");
        }
    }

    #[test]
    fn auto_conf_loses_only_what_is_ours() {
        let text = "# Do not edit\nwork_mem = '64MB'\n primary_conninfo = 'host=x'\n\
                    Synchronous_Standby_Names = '*'\nport_x = '1'\n";
        assert_eq!(
            clean_auto_conf(text).as_deref(),
            Some("# Do not edit\nwork_mem = '64MB'\nport_x = '1'\n")
        );
        assert_eq!(clean_auto_conf("work_mem = '1MB'\n"), None);
    }

    #[test]
    fn values_are_quoted() {
        let mut text = String::new();
        line(&mut text, "a", "it's \\ here");
        assert_eq!(text, "a = 'it''s \\\\ here'\n");
    }
}
