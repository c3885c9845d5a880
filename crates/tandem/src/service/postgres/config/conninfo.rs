//! Decides the connection strings of WAL receivers, base backups and rewinds.
//! Always written by us, never by PostgreSQL's programs, and never with a password in it: libpq
//! reads that from the password file.
//! Keeps: H10, the application name carries cluster and node; H38 a stream that is not taken does
//! not keep its sender.
//! Tested by: below.

use super::super::{Error, Postgres, REPLICATION_ROLE, names};
use tandem_core::ids::NodeId;

/// For the sender of a stream. One whose standby takes nothing cannot end: it waits to send its
/// last words, until the kernel gives the connection up. That must be before a planned stop loses
/// its patience (H38); a base backup may wait for a slow disk for longer.
const STREAM_OPTIONS: &str = "options='-c tcp_user_timeout=2500'";

impl Postgres {
    /// How this node is fed by `source`.
    pub(in super::super) fn stream_conninfo(&self, source: &NodeId) -> Result<String, Error> {
        Ok(format!("{} {STREAM_OPTIONS}", self.conninfo(source, None)?))
    }

    /// How this node reaches PostgreSQL on `source`; with a database for SQL, without for
    /// streaming.
    pub(in super::super) fn conninfo(
        &self,
        source: &NodeId,
        database: Option<&str>,
    ) -> Result<String, Error> {
        let config = self.config();
        let address =
            config.peers.get(source).ok_or_else(|| Error::NoAddress { node: source.clone() })?;
        let passfile = self.passfile().display().to_string();
        let port = address.port.to_string();
        let application = names::application(&config.cluster, &config.me);
        let mut words = vec![
            ("host", address.host.as_str()),
            ("port", &port),
            ("user", REPLICATION_ROLE),
            ("application_name", &application),
            ("passfile", &passfile),
            ("connect_timeout", "2"),
            ("sslmode", "prefer"),
            ("gssencmode", "disable"),
            ("keepalives", "1"),
            ("keepalives_idle", "1"),
            ("keepalives_interval", "1"),
            ("keepalives_count", "3"),
            ("tcp_user_timeout", "3000"),
        ];
        words.extend(database.map(|name| ("dbname", name)));
        let words: Vec<String> =
            words.iter().map(|(key, value)| format!("{key}={}", quoted(value))).collect();
        Ok(words.join(" "))
    }

    /// The password file's text.
    pub(in super::super) fn passfile_text(&self) -> String {
        let password = self.config().passwords.replication.replace('\\', "\\\\");
        format!("*:*:*:{REPLICATION_ROLE}:{}\n", password.replace(':', "\\:"))
    }
}

fn quoted(value: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "._-/:".contains(c);
    if !value.is_empty() && value.chars().all(plain) {
        return value.to_owned();
    }
    format!("'{}'", value.replace('\\', "\\\\").replace('\'', "\\'"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn odd_values_are_quoted() {
        assert_eq!(quoted("127.0.0.1"), "127.0.0.1");
        assert_eq!(quoted("/a b/it's"), "'/a b/it\\'s'");
        assert_eq!(quoted(""), "''");
    }
}
