//! Decides PostgreSQL's settings: our defaults, the owner's, and what high availability rests on.
//! In: `InstanceConfig`. Out: the text of `tandem.conf`, or a refusal that says what instead.
//! Keeps: H5 `restart_after_crash`, H13 `synchronous_commit`, H14 and H26 `fsync` and
//! `data_sync_retry`, H15 no `restore_command`, H25 a bound on what a slot retains.
//! Not here: what an owner may choose (`tandem_core::replication::primary_replica::settings`).
//! Tested by: below.

use super::super::{Error, InstanceConfig};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use tandem_core::replication::primary_replica::settings::{Refusal, is_ours, refusal};

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
    // Nothing that a client chooses, a user's name before it is checked say: a line that it could
    // write there would count as the server's own last words (H26).
    ("log_line_prefix", "%m [%p] %b "),
];

const FIXED: &[(&str, &str)] = &[
    ("hot_standby", "on"),
    ("fsync", "on"),
    ("full_page_writes", "on"),
    ("data_sync_retry", "off"),
    ("wal_log_hints", "on"),
    ("restart_after_crash", "off"),
    // What the server says before it ends is read (H26).
    ("lc_messages", "C"),
    ("recovery_target_timeline", "latest"),
    ("recovery_min_apply_delay", "0"),
    ("restore_command", ""),
    ("password_encryption", "scram-sha-256"),
    ("superuser_reserved_connections", "5"),
    ("unix_socket_permissions", "0700"),
    ("wal_receiver_create_temp_slot", "off"),
];

/// Refuses what high availability cannot work with.
pub(super) fn check(settings: &BTreeMap<String, String>) -> Result<(), Error> {
    for (name, value) in settings {
        if let Some(Refusal { because, instead, .. }) = refusal(name, value) {
            return Err(Error::Setting { name: name.clone(), because, instead });
        }
    }
    Ok(())
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
        ("hba_file", config.data_dir().join("pg_hba.conf").display().to_string()),
        ("ident_file", config.data_dir().join("pg_ident.conf").display().to_string()),
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
    fn what_a_configuration_may_say_can_be_run() {
        let file = |name: &str, value: &str| {
            format!(
                "cluster = 'x'\n[nodes.a]\naddress = '10.0.0.1:7400'\n[nodes.b]\n\
                 address = '10.0.0.2:7400'\n[nodes.c]\naddress = '10.0.0.3:7400'\n\
                 [services.x]\nkind = 'postgres'\n\
                 clustering = 'active-passive'\nreplication = 'primary-replica'\nlisten = 5432\n\
                 durability = 'async'\n[services.x.postgresql]\n{name} = {value:?}\n"
            )
        };
        let names = DEFAULTS.iter().chain(FIXED).map(|(name, _)| *name).chain([
            "work_mem",
            "archive_cleanup_command",
            "client_min_messages",
            "recovery_end_command",
            "recovery_target_xid",
            "synchronous_standby_names",
            "include",
            "pgaudit.log",
            "listen_addresses",
        ]);
        let values = ["on", "off", "0", "0s", "1", "8", "", "local", "replica", "error", "a\\b'c"];
        let mut accepted = 0;
        for name in names {
            for value in values.iter().chain(DEFAULTS.iter().chain(FIXED).map(|(_, v)| v)) {
                let Ok(config) = crate::config::Config::parse(&file(name, value), "t") else {
                    continue;
                };
                accepted += 1;
                for service in config.services.values() {
                    let checked = check(&service.settings);
                    assert!(checked.is_ok(), "{name} = {value}: {checked:?}");
                }
            }
        }
        assert!(accepted > 100, "{accepted}");
    }

    #[test]
    fn our_own_defaults_are_ones_that_an_owner_may_choose() {
        for (name, value) in DEFAULTS.iter().filter(|(name, _)| *name != "logging_collector") {
            assert_eq!(refusal(name, value), None, "{name} = {value}");
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
