//! Talks about why: the last plans with their reasons and numbers, and what a check found.
//! In: what the planner decided and on what. Out: `Explanation`, `Finding`.
//! Not here: the decision (`core`), words for people (`cli/ask/explain.rs`).
//! Tested by: `tests/mod.rs`.

mod divided;

use crate::api::status::{Phase, ScheduledSwitchover, words};
pub use divided::{OnePartition, PartitionState, ShareNow};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fmt;
use tandem_core::cluster::state::Cause;
use tandem_core::ids::{NodeId, ServiceId, Term};
use tandem_core::lsn::Lsn;
use tandem_core::pairing::Kind;

/// Why a service is as it is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Explanation {
    /// Which.
    pub service: ServiceId,
    /// Its kind; none from a node of before that was told.
    #[serde(default)]
    pub kind: Option<Kind>,
    /// The present term.
    pub term: Term,
    /// How far it has come.
    pub phase: Phase,
    /// The primary of the term.
    pub primary: Option<NodeId>,
    /// How it is now, in one sentence.
    pub summary: String,
    /// A switchover that waits for its time.
    #[serde(default)]
    pub scheduled: Option<ScheduledSwitchover>,
    /// Why no failover happens now, each with its numbers; empty while one is under way.
    pub no_failover_because: Vec<Reason>,
    /// What a failover at this moment would do.
    pub failover_now: FailoverNow,
    /// The last plans that differed from the one before, newest first.
    pub plans: Vec<Planned>,
    /// Past and present primaries, newest first.
    pub history: Vec<Appointed>,
    /// Where copies that run side by side were placed, newest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub placements: Vec<Placement>,
    /// What each node has of divided work, and whether it may have more.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub shares: Vec<ShareNow>,
}

/// Where copies shall run from some moment on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Placement {
    /// Where.
    pub nodes: Vec<NodeId>,
    /// Why.
    pub reason: String,
    /// When, milliseconds since 1970.
    pub at_unix_ms: u64,
}

/// A reason with its numbers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Reason {
    /// In words.
    pub text: String,
    /// The numbers it rests on.
    #[serde(default)]
    pub numbers: BTreeMap<String, Value>,
}

impl Reason {
    /// A reason in words.
    pub fn new(text: impl Into<String>) -> Self {
        Self { text: text.into(), numbers: BTreeMap::new() }
    }

    /// With one of its numbers.
    #[must_use]
    pub fn number(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.numbers.insert(name.to_owned(), value.into());
        self
    }
}

impl From<&tandem_core::reason::Reason> for Reason {
    fn from(reason: &tandem_core::reason::Reason) -> Self {
        let numbers = reason.numbers().iter();
        numbers.fold(Self::new(reason.text()), |told, (name, value)| told.number(name, *value))
    }
}

/// One plan of the controller or of a node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Planned {
    /// When it was first made, milliseconds since 1970.
    pub unix_ms: u64,
    /// Who made it.
    pub by: NodeId,
    /// What shall be done, as "promote b in term 5" or "wait".
    pub plan: String,
    /// Why.
    pub reason: Reason,
    /// How often in a row the same plan was made.
    pub times: u64,
}

/// One line of the history.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Appointed {
    /// The term.
    pub term: Term,
    /// Its primary.
    pub primary: NodeId,
    /// Why.
    pub cause: Cause,
    /// The controller's words, with numbers.
    pub reason: String,
    /// When it was decided, milliseconds since 1970.
    pub at_unix_ms: u64,
    /// When it served.
    pub active_unix_ms: Option<u64>,
}

words! {
    /// Whether a failover at this moment would keep every acknowledged commit.
    Safety {
        /// It would.
        Safe => "safe",
        /// It could lose some.
        Unsafe => "unsafe",
        /// It cannot happen: nobody can be chosen.
        Impossible => "impossible",
    }
}

/// What a failover at this moment would do.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FailoverNow {
    /// Whether it would keep every acknowledged commit.
    pub safety: Safety,
    /// Why.
    pub because: Reason,
    /// Who would be primary.
    pub would_choose: Option<NodeId>,
    /// At most this much could be lost, where known.
    pub may_lose_bytes: Option<u64>,
    /// Every node that might be asked.
    pub candidates: Vec<Candidate>,
}

/// One node that might become primary.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Candidate {
    /// Which.
    pub node: NodeId,
    /// It may be chosen.
    pub eligible: bool,
    /// What it holds.
    pub lsn: Option<Lsn>,
    /// Bytes behind the primary as last seen.
    pub lag_bytes: Option<u64>,
    /// Why it may or may not.
    pub because: String,
}

words! {
    /// How bad a finding is.
    Severity {
        /// As it should be.
        Good => "good",
        /// Works, and should be looked at.
        Warning => "warning",
        /// Does not work, or soon will not.
        Bad => "bad",
    }
}

/// What a check found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// What was checked, as "clock" or "orders on b".
    pub subject: String,
    /// What was found.
    pub what: String,
    /// Why, where it is not good.
    pub because: Option<String>,
    /// What may help, where it is not good.
    #[serde(rename = "try")]
    pub try_: Option<String>,
}

impl Finding {
    /// Something that is as it should be.
    pub fn good(subject: impl Into<String>, what: impl Into<String>) -> Self {
        let (subject, what) = (subject.into(), what.into());
        Self { severity: Severity::Good, subject, what, because: None, try_: None }
    }

    /// Something that is not as it should be.
    pub fn new(severity: Severity, subject: impl Into<String>, what: impl Into<String>) -> Self {
        Self { severity, ..Self::good(subject, what) }
    }

    /// Why, and what may help.
    #[must_use]
    pub fn advice(mut self, because: impl Into<String>, try_: impl Into<String>) -> Self {
        self.because = Some(because.into());
        self.try_ = Some(try_.into());
        self
    }
}
