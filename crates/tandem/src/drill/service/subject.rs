//! Decides what a drill is about: which services there are, what is done to each, what it may cost.
//! In: a name. Out: `Subject`, its faults, budgets.
//! Not here: whom a fault hits (`faults.rs`, and `drill/fault.rs` for PostgreSQL).
//! Tested by: below.

use crate::drill::peers::Budget;
use crate::drill::{Error, Fault};
use std::fmt;
use std::str::FromStr;

/// A service that can be drilled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject {
    /// PostgreSQL, `active-passive` × `primary-replica`.
    Postgres,
    /// A command of which one copy runs.
    Singleton,
    /// A command of which a copy runs on every node, behind doors that spread requests.
    Copies,
    /// The same, where a client's requests stay at one copy.
    Sessions,
    /// A command of which a copy runs on every node, each with its part of the work.
    Partitions,
    /// The same behind doors that lead each request to the copy that owns its key.
    Keys,
    /// Requests spread over endpoints that the drill runs.
    Http,
    /// The same by connections.
    Tcp,
}

/// What is done to one that runs alone.
const OF_SINGLETON: &[Fault] = &[
    Fault::InstanceKill,
    Fault::NodeKill,
    Fault::DaemonKill,
    Fault::DaemonFreeze,
    Fault::InstanceFreeze,
    Fault::Slow,
    Fault::Lie,
    Fault::NodeCut,
    Fault::Switchover,
    Fault::Drain,
    Fault::Scale,
    Fault::Change,
];

/// To copies side by side.
const OF_COPIES: &[Fault] = &[
    Fault::InstanceKill,
    Fault::InstanceFreeze,
    Fault::Slow,
    Fault::Lie,
    Fault::Drain,
    Fault::Scale,
    Fault::Resize,
    Fault::Restart,
    Fault::Change,
    Fault::NodeKill,
    Fault::DaemonKill,
    Fault::DaemonFreeze,
    Fault::NodeCut,
];

/// To those with sessions.
const OF_SESSIONS: &[Fault] = &[
    Fault::InstanceKill,
    Fault::Lie,
    Fault::Drain,
    Fault::Scale,
    Fault::Restart,
    Fault::NodeKill,
    Fault::NodeCut,
];

/// To divided work.
const OF_PARTITIONS: &[Fault] = &[
    Fault::InstanceKill,
    Fault::InstanceFreeze,
    Fault::Slow,
    Fault::Lie,
    Fault::Drain,
    Fault::Scale,
    Fault::Resize,
    Fault::Change,
    Fault::NodeKill,
    Fault::NodeCut,
    Fault::DaemonKill,
    Fault::DaemonFreeze,
];

/// To divided work that clients ask for.
const OF_KEYS: &[Fault] = &[
    Fault::InstanceKill,
    Fault::InstanceFreeze,
    Fault::Slow,
    Fault::Lie,
    Fault::Drain,
    Fault::Scale,
    Fault::Change,
    Fault::NodeKill,
    Fault::NodeCut,
    Fault::DaemonKill,
    Fault::DaemonFreeze,
];

/// To endpoints of requests.
const OF_HTTP: &[Fault] = &[
    Fault::InstanceKill,
    Fault::InstanceFreeze,
    Fault::Slow,
    Fault::Lie,
    Fault::Drain,
    Fault::Resize,
    Fault::NodeKill,
    Fault::DaemonKill,
    Fault::DaemonFreeze,
    Fault::NodeCut,
];

/// To those of connections.
const OF_TCP: &[Fault] = &[
    Fault::InstanceKill,
    Fault::InstanceFreeze,
    Fault::Drain,
    Fault::Resize,
    Fault::NodeKill,
    Fault::DaemonKill,
    Fault::DaemonFreeze,
    Fault::NodeCut,
];

/// How many failed requests are one too many: one in a thousand.
const FAILED_SHARE_MAX: f64 = 0.001;

impl Subject {
    /// Each of them.
    pub const ALL: &'static [Self] = &[
        Self::Postgres,
        Self::Singleton,
        Self::Copies,
        Self::Sessions,
        Self::Partitions,
        Self::Keys,
        Self::Http,
        Self::Tcp,
    ];

    /// Its name on the command line and in reports.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Postgres => "postgres",
            Self::Singleton => "singleton",
            Self::Copies => "copies",
            Self::Sessions => "sessions",
            Self::Partitions => "partitions",
            Self::Keys => "keys",
            Self::Http => "http",
            Self::Tcp => "tcp",
        }
    }

    /// What is done to it, in the order of a drill.
    pub const fn faults(self) -> &'static [Fault] {
        match self {
            Self::Postgres => Fault::OF_POSTGRES,
            Self::Singleton => OF_SINGLETON,
            Self::Copies => OF_COPIES,
            Self::Sessions => OF_SESSIONS,
            Self::Partitions => OF_PARTITIONS,
            Self::Keys => OF_KEYS,
            Self::Http => OF_HTTP,
            Self::Tcp => OF_TCP,
        }
    }

    /// Whose rules hold for it: copies are copies, however a door chooses among them, and divided
    /// work is divided whether or not anybody asks for it.
    pub const fn rules(self) -> Self {
        match self {
            Self::Sessions => Self::Copies,
            Self::Keys => Self::Partitions,
            other => other,
        }
    }

    /// What a fault may cost it.
    pub fn budget(self, fault: Fault) -> Budget {
        let outage = |seconds| Budget { outage_s: Some(seconds), ..Budget::default() };
        match (self.rules(), fault) {
            (Self::Postgres, _) => fault.budget(),
            // By hash everybody soon waits for a copy behind the cut, while it lasts.
            (_, Fault::NodeCut) if self == Self::Sessions => Budget::default(),
            (Self::Singleton, Fault::InstanceKill) => outage(0.5),
            (Self::Singleton, Fault::NodeKill | Fault::NodeCut | Fault::DaemonFreeze) => {
                outage(1.5)
            }
            // Somebody waits for each part: for the copy that begins anew on its node, or from the
            // release of what moves until its next owner begins.
            _ if self == Self::Keys && fault == Fault::InstanceKill => outage(0.5),
            _ if self == Self::Keys
                && matches!(fault, Fault::Drain | Fault::Scale | Fault::Change) =>
            {
                outage(1.0)
            }
            // Their leases pass, and all that they owned is worked on elsewhere.
            (Self::Partitions, Fault::NodeKill | Fault::NodeCut | Fault::DaemonFreeze) => {
                outage(1.5)
            }
            (Self::Singleton | Self::Partitions, _) => Budget::default(),
            // What is under way to a copy behind a cut has no answer.
            (Self::Copies, Fault::NodeCut) => outage(1.5),
            (Self::Copies, Fault::InstanceKill | Fault::Drain | Fault::Scale | Fault::Resize)
            | (Self::Copies, Fault::Restart | Fault::Change) => {
                Budget { failed_share_max: Some(0.0), ..outage(0.0) }
            }
            // The door tries a request once more where that is safe, so that nobody sees a thing.
            (Self::Http, Fault::InstanceKill | Fault::Drain | Fault::Resize | Fault::NodeCut) => {
                Budget { failed_share_max: Some(0.0), ..outage(0.0) }
            }
            (Self::Tcp, Fault::InstanceKill) => {
                Budget { failed_share_max: Some(FAILED_SHARE_MAX), ..outage(0.0) }
            }
            (Self::Tcp, Fault::Drain | Fault::Resize | Fault::NodeCut) => {
                Budget { failed_share_max: Some(0.0), ..outage(0.0) }
            }
            (Self::Copies | Self::Http | Self::Tcp, _) => outage(0.0),
            // Never asked for: the rules of others hold for them.
            (Self::Sessions | Self::Keys, _) => Budget::default(),
        }
    }

    /// Whether its only copy must be on another node in the end.
    pub const fn moves(self, fault: Fault) -> bool {
        matches!(
            (self, fault),
            (Self::Singleton, Fault::Drain | Fault::Switchover | Fault::NodeKill | Fault::NodeCut)
        )
    }

    /// Whether no request at all may fail: it is planned, or the door makes up for it.
    pub const fn forgives_nothing(self, fault: Fault) -> bool {
        matches!(
            (self.rules(), fault),
            (Self::Http | Self::Tcp, Fault::Drain | Fault::Resize | Fault::NodeCut)
                | (Self::Copies, Fault::Drain | Fault::Scale | Fault::Resize)
                | (Self::Copies, Fault::Restart | Fault::Change)
                | (Self::Singleton, Fault::Drain | Fault::Switchover | Fault::Scale)
                | (Self::Singleton, Fault::Change)
        ) || matches!((self, fault), (Self::Keys, Fault::Drain | Fault::Scale | Fault::Change))
    }

    /// Whether every request that may be repeated must be answered.
    pub const fn repeats(self, fault: Fault) -> bool {
        matches!((self.rules(), fault), (Self::Copies | Self::Http, Fault::InstanceKill))
    }

    /// Whether a copy that answers badly is found out by its own checks, and started anew: no door
    /// could send anybody elsewhere.
    pub const fn mends_itself(self, fault: Fault) -> bool {
        matches!(
            (self.rules(), fault),
            (Self::Singleton | Self::Partitions, Fault::Slow | Fault::Lie)
        )
    }

    /// Whether the drill runs endpoints of its own.
    pub const fn has_endpoints(self) -> bool {
        matches!(self, Self::Http | Self::Tcp)
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Subject {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self, Error> {
        Self::ALL.iter().copied().find(|it| it.name() == name).ok_or_else(|| {
            let known: Vec<&str> = Self::ALL.iter().map(|it| it.name()).collect();
            Error::UnknownSubject { name: name.into(), known: known.join(", ") }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_keys_may_cost_is_their_own_where_they_are_moved() {
        let of = |subject: Subject, fault| subject.budget(fault).outage_s;
        for fault in [Fault::Drain, Fault::Scale, Fault::Change] {
            assert_eq!(of(Subject::Keys, fault), Some(1.0), "somebody waits for the next owner");
            assert_eq!(of(Subject::Partitions, fault), None);
        }
        assert_eq!(of(Subject::Keys, Fault::InstanceKill), Some(0.5));
        assert_eq!(of(Subject::Keys, Fault::NodeKill), of(Subject::Partitions, Fault::NodeKill));
        assert_eq!(of(Subject::Sessions, Fault::Drain), of(Subject::Copies, Fault::Drain));
    }

    #[test]
    fn each_has_a_name_and_faults_of_its_own() {
        for subject in Subject::ALL {
            assert_eq!(subject.name().parse::<Subject>().unwrap(), *subject);
            assert!(!subject.faults().is_empty());
        }
        let error = "redis".parse::<Subject>().unwrap_err().to_string();
        assert!(error.contains("copies, sessions, partitions, keys, http"), "{error}");
        assert_eq!(Subject::Singleton.budget(Fault::InstanceKill).outage_s, Some(0.5));
        assert_eq!(Subject::Postgres.budget(Fault::InstanceKill), Budget::default());
        let cut = [Subject::Keys, Subject::Sessions].map(|it| it.budget(Fault::NodeCut).outage_s);
        assert_eq!(cut, [Some(1.5), None]);
    }
}
