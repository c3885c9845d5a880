//! Decides which of PostgreSQL's own settings and rules the owner may set.
//! In: the written settings, `pg_hba.conf` lines, paths and user. Out: the ones that can be used.
//! Handles: H10, H15, H20 (settings that belong to failover are Tandem's), H13 and H14 (no commit
//! is acknowledged before a standby flushed it).
//! Not here: which settings those are (`tandem_core::replication::primary_replica::settings`).

use super::checker::Checker;
use crate::config::problem::{Code, Say};
use crate::config::raw::{self, Scalar};
use crate::config::value::Unreadable;
use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};
use tandem_core::replication::primary_replica::settings::{self, Fault, Refusal};
use toml::Spanned;

const SETTINGS_MAX: usize = 500;
const TEXT_BYTES_MAX: usize = 4096;
const HBA_LINES_MAX: usize = 500;
const USER_CHARS_MAX: usize = 32;

fn text_of(scalar: &Scalar) -> String {
    match scalar {
        Scalar::Text(text) => text.clone(),
        Scalar::Integer(number) => number.to_string(),
        Scalar::Float(number) => number.to_string(),
        Scalar::Boolean(true) => "on".to_owned(),
        Scalar::Boolean(false) => "off".to_owned(),
    }
}

pub(super) fn settings(
    raw: &raw::Postgres,
    check: &mut Checker<'_, '_>,
) -> BTreeMap<String, String> {
    let mut settings = BTreeMap::new();
    if let Some((name, _)) = raw.settings.get(SETTINGS_MAX) {
        let what = format!("more than {SETTINGS_MAX} PostgreSQL settings");
        let say = Say::new(what, "PostgreSQL has fewer", "remove some");
        check.problems.error(Code::OutOfRange, &name.span(), say);
    }
    for (name, value) in raw.settings.iter().take(SETTINGS_MAX) {
        // PostgreSQL does not tell `TimeZone` from `timezone`: nor may two keys here.
        let plain_name = name.get_ref().to_lowercase();
        let text = text_of(value.get_ref());
        let verdict = setting(&plain_name, &text).and_then(|()| {
            if settings.contains_key(&plain_name) {
                return Err(Verdict::name("it is written twice", "keep one of them"));
            }
            Ok(())
        });
        if let Err(verdict) = verdict {
            let place = if verdict.at_value { value.span() } else { name.span() };
            let what = format!(
                "services.{}.postgresql.{plain_name} cannot be set{}",
                raw.name.get_ref(),
                if verdict.at_value { " to this" } else { "" }
            );
            let say = Say::new(what, verdict.why.because, verdict.why.try_);
            check.problems.error(Code::Setting, &place, say);
        }
        settings.insert(plain_name, text);
    }
    settings
}

/// Why a setting is refused, and whether its name or its value is to blame.
struct Verdict {
    at_value: bool,
    why: Unreadable,
}

impl Verdict {
    fn name(because: impl Into<String>, try_: impl Into<String>) -> Self {
        Self { at_value: false, why: Unreadable { because: because.into(), try_: try_.into() } }
    }

    fn value(because: impl Into<String>, try_: impl Into<String>) -> Self {
        Self { at_value: true, why: Unreadable { because: because.into(), try_: try_.into() } }
    }
}

fn setting(name: &str, text: &str) -> Result<(), Verdict> {
    if let Some(Refusal { fault, because, instead }) = settings::refusal(name, text) {
        return Err(match fault {
            Fault::Name => Verdict::name(because, instead),
            Fault::Value => Verdict::value(because, instead),
        });
    }
    if text.len() > TEXT_BYTES_MAX {
        let because = format!("a value is at most {TEXT_BYTES_MAX} bytes long");
        return Err(Verdict::value(because, "write a shorter one"));
    }
    if text.to_lowercase().contains("password=") {
        let because = "this file is the same on every node and printed by `config show`";
        return Err(Verdict::value(because, "keep the password in a file of its own"));
    }
    Ok(())
}

const HBA_TYPES: &[&str] = &["local", "host", "hostssl", "hostnossl", "hostgssenc", "hostnogssenc"];

pub(super) fn hba(raw: &raw::Postgres, check: &mut Checker<'_, '_>) -> Vec<String> {
    let key = format!("services.{}.hba", raw.name.get_ref());
    if let Some(line) = raw.hba.get(HBA_LINES_MAX) {
        let what = format!("{key} has more than {HBA_LINES_MAX} lines");
        let because = "PostgreSQL reads them one after the other for every connection";
        let say = Say::new(what, because, "join some: one line may name several users");
        check.problems.error(Code::OutOfRange, &line.span(), say);
    }
    for line in raw.hba.iter().take(HBA_LINES_MAX) {
        hba_line(&key, line, check);
    }
    raw.hba.iter().map(|line| line.get_ref().trim().to_owned()).collect()
}

fn hba_line(key: &str, line: &Spanned<String>, check: &mut Checker<'_, '_>) {
    let text = line.get_ref();
    let lower = text.to_lowercase();
    if lower.contains("ldapbindpasswd=") || lower.contains("radiussecrets=") {
        let what = format!("{key} holds a secret");
        let because = "this file is the same on every node and printed by `config show`";
        let say = Say::new(what, because, "use a method without a secret in its options");
        check.problems.error(Code::Secret, &line.span(), say);
        return;
    }
    let words: Vec<&str> = text.split_whitespace().collect();
    let kind = words.first().copied().unwrap_or("");
    let least = if kind == "local" { 4 } else { 5 };
    let because =
        if text.len() > TEXT_BYTES_MAX || text.chars().any(|c| c.is_control() && c != '\t') {
            format!("a rule is one line of at most {TEXT_BYTES_MAX} bytes")
        } else if !HBA_TYPES.contains(&kind) {
            format!("a rule starts with one of: {}", HBA_TYPES.join(", "))
        } else if words.len() < least {
            "a rule has type, database, user, address (not for local) and method".to_owned()
        } else {
            weak(key, line, &words, check);
            return;
        };
    let try_ = "write it like \"hostssl all all 10.0.0.0/8 scram-sha-256\"".to_owned();
    check.bad(key, line, Unreadable { because, try_ });
}

/// Rules that let in whoever asks, or that show the password to the network.
fn weak(key: &str, line: &Spanned<String>, words: &[&str], check: &mut Checker<'_, '_>) {
    let because = if words.contains(&"trust") {
        "`trust` lets in everybody who can reach the port, as any user they name"
    } else if words.contains(&"password") && words[0] != "hostssl" {
        "`password` sends passwords readable over the network"
    } else {
        return;
    };
    let say = Say::new(format!("{key} opens a door"), because, "use scram-sha-256");
    check.problems.warning(Code::OpenDoor, &line.span(), say);
}

/// The system user of an instance.
pub(super) fn user(text: &str) -> Result<String, Unreadable> {
    if text == "root" {
        return Err(Unreadable {
            because: "PostgreSQL refuses to run as root".to_owned(),
            try_: "write run_as = \"postgres\"".to_owned(),
        });
    }
    let good = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "_-".contains(c);
    let start = text.starts_with(|c: char| c.is_ascii_lowercase() || c == '_');
    if start && text.len() <= USER_CHARS_MAX && text.chars().all(good) {
        return Ok(text.to_owned());
    }
    Err(Unreadable {
        because: "it is not the name of a system user".to_owned(),
        try_: "write run_as = \"postgres\", or remove it".to_owned(),
    })
}

/// A folder on every node.
pub(super) fn folder(text: &str) -> Result<PathBuf, Unreadable> {
    let path = Path::new(text);
    let because = if text.chars().any(char::is_control) {
        "it has control characters"
    } else if !path.is_absolute() {
        "a relative path depends on where the daemon was started"
    } else if path.components().any(|part| part == Component::ParentDir) {
        "`..` hides which folder it is"
    } else if path.components().count() < 2 {
        "it is the root of the file system"
    } else {
        return Ok(path.components().collect());
    };
    Err(Unreadable {
        because: because.to_owned(),
        try_: "write an absolute path, such as \"/srv/postgresql/orders\"".to_owned(),
    })
}
