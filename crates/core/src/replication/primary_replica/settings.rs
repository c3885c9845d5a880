//! Decides which of PostgreSQL's settings an owner may choose.
//! In: a name and a value. Out: nothing, or a `Refusal` that says what instead.
//! One table for whoever reads a configuration and for whoever runs it: what the first accepts must
//! not keep the second from starting.
//! Keeps: H5 `restart_after_crash`; H10, H20 what belongs to the failover is not the owner's; H11
//! the warning of a cancelled wait is sent; H13, H14 a commit is acknowledged once a standby
//! flushed it; H15 no `restore_command`; H26 `data_sync_retry`.
//! Not here: what the settings are set to, and whether PostgreSQL knows a name and takes a value:
//! its own program is asked before anything is agreed (the PostgreSQL adapter).
//! Tested by: below.

use alloc::string::String;

/// What is wrong about a setting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It cannot be set at all.
    Name,
    /// Not to this value.
    Value,
}

/// Why a setting cannot be set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Whether another value would do.
    pub fault: Fault,
    /// Why.
    pub because: &'static str,
    /// What to do instead.
    pub instead: &'static str,
}

const SETS: &str = "Tandem sets it, differently on each node";
const FOLLOWS: &str = "remove it: a standby follows its primary to the end";

/// Not the owner's: name, because, instead.
const OURS: &[(&str, &str, &str)] = &[
    ("archive_cleanup_command", "WAL comes from the primary only", "remove it"),
    ("cluster_name", SETS, "remove it: standbys are told apart by it"),
    ("config_file", SETS, "remove it: the file is in the data directory"),
    ("data_directory", SETS, "use the service's `data_dir`"),
    ("data_sync_retry", "an fsync that failed once must end the instance", "remove it: it is off"),
    ("external_pid_file", SETS, "remove it: the keeper knows the process"),
    ("hba_file", SETS, "use the service's `hba`"),
    ("hot_standby", SETS, "remove it: standbys must answer queries"),
    ("ident_file", SETS, "remove it: the file is in the data directory"),
    ("lc_messages", "what the server says as it ends is read: in English", "remove it: it is C"),
    ("listen_addresses", SETS, "use the node's `bind`"),
    ("logging_collector", SETS, "remove it: the keeper collects the log"),
    ("password_encryption", "every role uses SCRAM", "remove it: it is scram-sha-256"),
    ("port", SETS, "use the service's `port`"),
    ("primary_conninfo", SETS, "remove it: it follows the primary"),
    ("primary_slot_name", SETS, "remove it: it follows the node"),
    ("promote_trigger_file", SETS, "remove it: use `tandem switchover`"),
    ("recovery_end_command", "a promotion waits for nobody's program", "remove it"),
    ("recovery_min_apply_delay", "a delayed standby cannot take over", "remove it"),
    ("recovery_target_timeline", SETS, "remove it: standbys always follow the latest timeline"),
    ("restart_after_crash", SETS, "remove it: after a crash the cluster decides who serves"),
    ("restore_command", "WAL from an archive would arrive during a vote", "remove it"),
    ("superuser_reserved_connections", "they are reserved for the probes", "remove it: it is 5"),
    ("synchronous_standby_names", SETS, "use the service's `durability` and `acks`"),
    ("unix_socket_directories", SETS, "remove it: the socket is in the node's own folder"),
    ("unix_socket_permissions", "only the daemon uses the socket", "remove it: it is 0700"),
    ("wal_receiver_create_temp_slot", "each member has a slot of its own", "remove it"),
    ("include", SETS, "write the settings here"),
    ("include_dir", SETS, "write the settings here"),
    ("include_if_exists", SETS, "write the settings here"),
];

/// Settings of which some values lose data or block a failover: name, good values, because, and
/// instead.
const GUARDED: &[(&str, &[&str], &str, &str)] = &[
    (
        "fsync",
        &["on"],
        "without it a crash loses commits that were acknowledged",
        "remove it, or write \"on\"",
    ),
    (
        "full_page_writes",
        &["on"],
        "without it a crash in the middle of a page destroys it",
        "remove it, or write \"on\"",
    ),
    (
        "wal_log_hints",
        &["on"],
        "pg_rewind needs it to bring an old primary back",
        "remove it, or write \"on\"",
    ),
    (
        "wal_level",
        &["replica", "logical"],
        "standbys need it",
        "remove it, or write \"replica\" or \"logical\"",
    ),
    (
        SYNCHRONOUS_COMMIT.name,
        SYNCHRONOUS_COMMIT.good,
        "a commit would be acknowledged before it is on disk where the service promises it to be",
        "remove it; with durability = \"async\" a session or role may lower its own",
    ),
    (
        CLIENT_MIN_MESSAGES.name,
        CLIENT_MIN_MESSAGES.good,
        "clients and the front door must see the warning that a commit is not replicated",
        "remove it, or write \"warning\" or less",
    ),
];

/// A setting with which a session can weaken its own commits.
#[derive(Debug, PartialEq, Eq)]
pub struct CommitSetting {
    /// Its name.
    pub name: &'static str,
    /// Values that weaken nothing, in small letters. Every other one, known or not, counts as weak.
    pub good: &'static [&'static str],
    /// The good values in words, for whoever asked for another one.
    pub advice: &'static str,
}

/// Until when a commit waits (H13): `on`, its hidden synonyms, and more than that.
pub const SYNCHRONOUS_COMMIT: CommitSetting = CommitSetting {
    name: "synchronous_commit",
    good: &["on", "remote_apply", "true", "yes", "1"],
    advice: "on or remote_apply",
};

/// Whether warnings are sent: the one that says that a commit was not replicated is all that tells
/// it from a success (H11).
pub const CLIENT_MIN_MESSAGES: CommitSetting = CommitSetting {
    name: "client_min_messages",
    good: &[
        "debug5", "debug4", "debug3", "debug2", "debug1", "debug", "log", "info", "notice",
        "warning",
    ],
    advice: "warning or lower",
};

/// All of them.
pub const COMMIT_SETTINGS: [&CommitSetting; 2] = [&SYNCHRONOUS_COMMIT, &CLIENT_MIN_MESSAGES];

impl CommitSetting {
    /// Whether a value weakens nothing.
    pub fn keeps(&self, value: &[u8]) -> bool {
        self.good.iter().any(|good| value.eq_ignore_ascii_case(good.as_bytes()))
    }
}

/// Ours even where the owner may write the one good value.
const FIXED: &[&str] = &["fsync", "full_page_writes", "wal_log_hints"];

const CONNECTIONS_MIN: u32 = 8;
const CLIENTS_MIN: u32 = 10;

/// Whether nobody but Tandem sets it, so that it is removed where it came along with a copy.
pub fn is_ours(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    FIXED.contains(&name.as_str()) || ours(&name).is_some()
}

/// Why an owner may not set this; none if they may.
pub fn refusal(name: &str, value: &str) -> Option<Refusal> {
    if !is_name(name) {
        let because = "PostgreSQL has no setting of such a name";
        let instead = "use a name as in postgresql.conf, such as work_mem";
        return Some(Refusal { fault: Fault::Name, because, instead });
    }
    let name = name.to_ascii_lowercase();
    if let Some((because, instead)) = ours(&name) {
        return Some(Refusal { fault: Fault::Name, because, instead });
    }
    let at_value = |because, instead| Some(Refusal { fault: Fault::Value, because, instead });
    if value.chars().any(char::is_control) {
        return at_value("a value is one line", "remove line ends and control characters");
    }
    let value = plain(value);
    if let Some((_, good, because, instead)) = GUARDED.iter().find(|(guarded, ..)| *guarded == name)
        && !good.contains(&value.as_str())
    {
        return at_value(because, instead);
    }
    match name.as_str() {
        "max_connections" if value.parse::<u32>().is_ok_and(|number| number < CLIENTS_MIN) => {
            at_value("5 of them are reserved for the probes", "write 10 or more")
        }
        "max_wal_senders" | "max_replication_slots"
            if value.parse::<u32>().map_or(true, |number| number < CONNECTIONS_MIN) =>
        {
            at_value("standbys, base backups and their slots need at least 8", "write 8 or more")
        }
        "wal_sender_timeout" | "wal_receiver_timeout" if is_below_one(&value) => {
            at_value("without it a dead connection is kept for ever", "write \"5s\", or remove it")
        }
        _ => None,
    }
}

fn ours(name: &str) -> Option<(&'static str, &'static str)> {
    let found = OURS.iter().find(|(ours, ..)| *ours == name);
    match found {
        Some((_, because, instead)) => Some((because, instead)),
        None => name.starts_with("recovery_target").then_some((SETS, FOLLOWS)),
    }
}

/// PostgreSQL's other words for on and off.
fn plain(value: &str) -> String {
    let value = value.trim().to_lowercase();
    match value.as_str() {
        "true" | "yes" | "1" => "on".into(),
        "false" | "no" | "0" => "off".into(),
        _ => value,
    }
}

/// Zero with any unit turns a timeout off; so does what is rounded to it.
fn is_below_one(value: &str) -> bool {
    let whole = value.split(|c: char| !c.is_ascii_digit()).next().unwrap_or_default();
    whole.trim_start_matches('0').is_empty()
}

/// Whether PostgreSQL would take it for the name of a setting.
fn is_name(name: &str) -> bool {
    let part = |part: &str| {
        part.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
            && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
    };
    name.len() <= 63 * 2 && name.split('.').count() <= 2 && name.split('.').all(part)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_ha_rests_on_is_refused() {
        for (name, value, fault) in [
            ("fsync", "off", Fault::Value),
            ("FSYNC", "no", Fault::Value),
            ("wal_log_hints", "0", Fault::Value),
            ("synchronous_commit", "local", Fault::Value),
            ("synchronous_commit", "off", Fault::Value),
            ("client_min_messages", "ERROR", Fault::Value),
            ("wal_level", "minimal", Fault::Value),
            ("max_connections", "5", Fault::Value),
            ("max_wal_senders", "1", Fault::Value),
            ("max_replication_slots", "many", Fault::Value),
            ("wal_sender_timeout", "0", Fault::Value),
            ("wal_receiver_timeout", "0ms", Fault::Value),
            ("wal_receiver_timeout", "-1", Fault::Value),
            ("work_mem", "1MB'\nfsync = off", Fault::Value),
            ("synchronous_standby_names", "*", Fault::Name),
            ("restart_after_crash", "on", Fault::Name),
            ("restore_command", "cp", Fault::Name),
            ("recovery_target_lsn", "0/1", Fault::Name),
            ("work mem", "1MB", Fault::Name),
            ("a$b.c", "1", Fault::Name),
            ("include", "/etc/x", Fault::Name),
        ] {
            let refused = refusal(name, value).map(|refusal| refusal.fault);
            assert_eq!(refused, Some(fault), "{name} = {value}");
        }
        for (name, value) in [
            ("work_mem", "64MB"),
            ("fsync", "On"),
            ("full_page_writes", "yes"),
            ("synchronous_commit", "remote_apply"),
            ("client_min_messages", "Warning"),
            ("max_wal_senders", "8"),
            ("wal_sender_timeout", "10s"),
            ("pgaudit.log", "ddl"),
        ] {
            assert_eq!(refusal(name, value), None, "{name} = {value}");
        }
    }

    #[test]
    fn what_may_be_written_to_its_one_value_is_ours_all_the_same() {
        assert!(is_ours("Fsync") && is_ours("port") && is_ours("recovery_target_xid"));
        assert!(!is_ours("wal_level") && !is_ours("work_mem"));
    }
}
