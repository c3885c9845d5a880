//! Decides whether a session asks at its start for commits that wait for less than the service
//! promises (H13), or for not being told when such a wait was cancelled (H11).
//! In: the startup parameters. Out: the offending setting.
//! Not here: a `SET` within the session (`scan.rs`); roles' and databases' settings are for the
//! audit.
//! Tested by: below, `tests/startup.rs`.

use std::fmt;
use tandem_core::replication::primary_replica::settings::{
    self, CLIENT_MIN_MESSAGES, COMMIT_SETTINGS,
};

/// A setting that counts, and the values that lower nothing. What is unknown does not pass.
pub(in crate::proxy) use settings::CommitSetting as Setting;

/// A setting that a session may not have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::proxy) struct Lowered {
    pub(in crate::proxy) setting: &'static Setting,
    /// What was asked for; none where that cannot be told from the statement.
    pub(in crate::proxy) value: Option<String>,
}

impl fmt::Display for Lowered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.value {
            Some(value) => write!(f, "{} = \"{value}\"", self.setting.name),
            None => write!(f, "{} to be set to a value that it cannot read", self.setting.name),
        }
    }
}

/// How long the longest name is.
pub(in crate::proxy) const NAME_MAX: usize = CLIENT_MIN_MESSAGES.name.len();

/// The setting of that name, if it counts.
pub(in crate::proxy) fn setting(name: &[u8]) -> Option<&'static Setting> {
    COMMIT_SETTINGS.into_iter().find(|setting| name.eq_ignore_ascii_case(setting.name.as_bytes()))
}

/// The first setting that lowers what the service promises.
pub(in crate::proxy) fn lowered<'a>(
    parameters: impl Iterator<Item = (&'a [u8], &'a [u8])>,
) -> Option<Lowered> {
    for (name, value) in parameters {
        if let Some(setting) = setting(name)
            && !setting.keeps(value)
        {
            let value = Some(String::from_utf8_lossy(value).into_owned());
            return Some(Lowered { setting, value });
        }
        if name == b"options" {
            let lowered = COMMIT_SETTINGS.into_iter().find_map(|setting| {
                let value = Some(lowered_by_options(setting, value)?);
                Some(Lowered { setting, value })
            });
            if lowered.is_some() {
                return lowered;
            }
        }
    }
    None
}

/// Any word of the command line that names the setting counts, so that no bundling of flags hides
/// it; PostgreSQL reads dashes in a name as underscores.
fn lowered_by_options(setting: &Setting, options: &[u8]) -> Option<String> {
    for word in words(options) {
        let text = String::from_utf8_lossy(&word).to_ascii_lowercase();
        let Some(at) = text.replace('-', "_").find(setting.name) else { continue };
        let value = text.get(at..).and_then(|rest| rest.split_once('=')).map(|(_, value)| value);
        match value {
            Some(value) if setting.keeps(value.as_bytes()) => {}
            Some(value) => return Some(value.to_owned()),
            None => return Some(text),
        }
    }
    None
}

/// Splits as PostgreSQL does: at white space, and a backslash takes the next byte as it is.
fn words(options: &[u8]) -> Vec<Vec<u8>> {
    let mut words = Vec::new();
    let mut word = Vec::new();
    let mut bytes = options.iter();
    while let Some(byte) = bytes.next() {
        match byte {
            b'\\' => word.extend(bytes.next()),
            b' ' | b'\t' | b'\n' | b'\r' | 0x0b | 0x0c => words.push(std::mem::take(&mut word)),
            other => word.push(*other),
        }
    }
    words.push(word);
    words
}

#[cfg(test)]
mod tests {
    use super::{Lowered, lowered};

    fn one(name: &str, value: &str) -> Option<Lowered> {
        lowered([(name.as_bytes(), value.as_bytes())].into_iter())
    }

    #[test]
    fn h11_every_way_to_silence_the_warning_at_startup_is_seen() {
        for value in ["error", "ERROR", "fatal", "panic", ""] {
            assert!(one("client_min_messages", value).is_some(), "{value}");
        }
        for options in ["-c client_min_messages=error", "--client-min-messages=Error"] {
            let found = one("options", options).unwrap();
            assert_eq!(found.setting.name, "client_min_messages", "{options}");
        }
        for value in ["warning", "NOTICE", "log", "debug1"] {
            assert_eq!(one("client_min_messages", value), None, "{value}");
            assert_eq!(one("options", &format!("-c client_min_messages={value}")), None);
        }
    }

    #[test]
    fn h13_every_way_to_lower_it_at_startup_is_seen() {
        for value in ["off", "local", "remote_write", "OFF", "false", "no", "0", "", "on "] {
            assert!(one("synchronous_commit", value).is_some(), "{value}");
            assert!(one("Synchronous_Commit", value).is_some(), "{value}");
        }
        for options in [
            "-c synchronous_commit=off",
            "-csynchronous_commit=local",
            "--synchronous-commit=off",
            "--Synchronous-Commit=Remote_Write",
            "-c geqo=off -c synchronous_commit=on -c synchronous_commit=off",
            "-c\tsynchronous\\_commit=off",
            "-Ecsynchronous_commit=off",
            "-c synchronous_commit",
        ] {
            assert!(one("options", options).is_some(), "{options}");
        }
    }

    #[test]
    fn what_does_not_lower_it_passes() {
        for value in ["on", "ON", "remote_apply", "1", "true", "yes"] {
            assert_eq!(one("synchronous_commit", value), None, "{value}");
        }
        for options in
            ["", "-c geqo=off", "-c synchronous_commit=on", "\\", "--synchronous-commit=on"]
        {
            assert_eq!(one("options", options), None, "{options}");
        }
        assert_eq!(one("application_name", "synchronous_commit=off"), None);
    }
}
