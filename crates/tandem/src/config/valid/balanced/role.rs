//! Decides whether PostgreSQL servers that something else runs can be asked as written.
//! In: the written table. Out: `RoleCheck`.
//! Not here: whether the file with the password can be read (`proxy/balancer/check/role.rs`).
//! Tested by: `config/tests/balanced.rs`.

use crate::config::problem::{Code, Say};
use crate::config::raw::{self, Switch};
use crate::config::valid::checker::Checker;
use crate::config::valid::http::{file, unreadable};
use crate::config::value::Unreadable;
use std::path::PathBuf;

/// What an endpoint must be to get connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// A server that lets its user in.
    Any,
    /// Not in recovery: it takes writes.
    Primary,
    /// In recovery: it only reads.
    Replica,
}

impl Role {
    /// Every word, as written in the configuration.
    pub const WORDS: &'static [&'static str] = &["any", "primary", "replica"];

    /// The value of a word.
    pub fn from_word(word: &str) -> Option<Self> {
        Some(match word {
            "any" => Self::Any,
            "primary" => Self::Primary,
            "replica" => Self::Replica,
            _ => return None,
        })
    }

    /// The word as written in the configuration.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Any => "any",
            Self::Primary => "primary",
            Self::Replica => "replica",
        }
    }
}

/// How PostgreSQL servers are asked what they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RoleCheck {
    /// What they must be.
    pub role: Role,
    /// Who logs in.
    pub user: String,
    /// Where.
    pub database: String,
    /// What has the password; none: the server wants none.
    pub password_file: Option<PathBuf>,
}

/// The longest name that PostgreSQL does not cut off, in bytes.
const NAME_MAX: usize = 63;

pub(in crate::config) fn check(
    raw: &raw::Balanced,
    check: &mut Checker<'_, '_>,
) -> Option<RoleCheck> {
    let Switch::On(health) = &raw.health else { return None };
    let Switch::On(written) = &health.postgres else { return None };
    let key = format!("services.{}.health.postgres", raw.name.get_ref());
    let path = |name: &str| format!("{key}.{name}");
    contradictions(health, &key, check);
    if written.role.is_none() {
        let because = "a primary and its replicas answer alike but for their role";
        check.missing(&path("role"), because, "\"primary\"");
    }
    if written.user.is_none() {
        let because = "a server tells its role only to who has logged in";
        check.missing(&path("user"), because, "\"monitor\"");
    }
    let role = written
        .role
        .as_ref()
        .and_then(|word| check.word(&path("role"), word, (Role::WORDS, Role::from_word)));
    let user = check.read(&path("user"), written.user.as_ref(), name);
    let database = check.read(&path("database"), written.database.as_ref(), name);
    let password_file = check.read(&path("password_file"), written.password_file.as_ref(), file);
    let database = database.unwrap_or_else(|| "postgres".to_owned());
    Some(RoleCheck { role: role?, user: user?, database, password_file })
}

fn contradictions(health: &raw::Health, key: &str, check: &mut Checker<'_, '_>) {
    let place = check.place_of(key);
    let mut say = |other: &str, because: &str| {
        let what = format!("{key} does not go with {other}");
        let instead = format!("remove {other}, or postgres");
        check.problems.error(Code::Contradiction, &place, Say::new(what, because, instead));
    };
    if health.question.path.is_some() {
        say("path", "an endpoint speaks PostgreSQL's protocol or HTTP, not both on one port");
    }
    if matches!(health.tls, Switch::On(_)) {
        say("tls", "PostgreSQL begins in clear, and this check stays there");
    }
}

fn name(text: &str) -> Result<String, Unreadable> {
    if (1..=NAME_MAX).contains(&text.len()) && !text.contains('\0') {
        return Ok(text.to_owned());
    }
    Err(unreadable("PostgreSQL's names have 1 to 63 bytes", "write it like \"monitor\""))
}
