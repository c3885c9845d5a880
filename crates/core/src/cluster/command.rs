//! What can be agreed: the commands of the replicated log.
//! Each service command names the revision it was planned on, so that a plan made on an older
//! state, or sent twice, changes nothing (INV-6).
//! Not here: what a command does (`state.rs`).

use crate::cluster::copies::CopiesCommand;
use crate::cluster::partitions::{self, Change};
use crate::cluster::seats::SeatCommand;
use crate::cluster::state::{Appointment, Cause, Forced};
use crate::ids::{ClusterId, ConfigVersion, NodeId, Revision, ServiceId, SystemId, Term};
use crate::replication::primary_replica::sync_quorum::CommitRule;
use crate::spec::ClusterSpec;
use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use serde::{Deserialize, Serialize};

/// One entry of the replicated log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Command {
    /// Changes nothing; proves that a majority can write.
    Noop,
    /// The first command of a cluster.
    Found {
        /// Its identity.
        cluster: ClusterId,
        /// Its first configuration.
        config: Box<Config>,
    },
    /// A new configuration.
    Configure {
        /// The version it replaces.
        expected: ConfigVersion,
        /// The new one.
        config: Box<Config>,
    },
    /// Empties a node, or ends that.
    Drain {
        /// Which.
        node: NodeId,
        /// On or off.
        draining: bool,
    },
    /// Something about one service.
    Service {
        /// Which.
        service: ServiceId,
        /// The revision it was planned on.
        expected: Revision,
        /// What.
        command: ServiceCommand,
    },
}

/// A configuration file and what it says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Config {
    /// As its owner wrote it.
    pub text: String,
    /// What decisions need of it.
    pub spec: ClusterSpec,
}

/// Something about one service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ServiceCommand {
    /// Who makes the first copy of the data.
    ChooseFounder {
        /// The node.
        node: NodeId,
    },
    /// A primary for a new term; ends a switchover.
    Appoint {
        /// Who, and under which rules.
        appointment: Appointment,
        /// Why.
        cause: Cause,
        /// Why, in words with numbers.
        reason: String,
        /// Identity of the data, where it was not known before.
        system: Option<SystemId>,
        /// Milliseconds since 1970 on the controller's clock.
        at_unix_ms: u64,
    },
    /// The primary's barrier of the term was acknowledged under `rule`.
    Activate {
        /// Its term.
        term: Term,
        /// The rule that is in effect.
        rule: CommitRule,
        /// Identity of the data.
        system: SystemId,
        /// Milliseconds since 1970 on the controller's clock.
        at_unix_ms: u64,
    },
    /// The primary shall apply another rule; until it is settled, both count (H8).
    ChangeRule {
        /// The term it belongs to.
        term: Term,
        /// The new rule.
        rule: CommitRule,
    },
    /// The primary proved that only `rule` is in effect: the older ones no longer count (H9).
    SettleRule {
        /// The term it belongs to.
        term: Term,
        /// The rule in effect.
        rule: CommitRule,
    },
    /// Change the primary, planned.
    RequestSwitchover {
        /// The next primary.
        to: NodeId,
        /// Given up after this, milliseconds since 1970.
        deadline_unix_ms: u64,
    },
    /// Change the primary, demanded by an operator.
    RequestFailover {
        /// To whom, and at what price.
        forced: Forced,
    },
    /// Give a demanded failover up.
    CancelFailover,
    /// Give a switchover up.
    CancelSwitchover,
    /// Automatic failover off or on.
    Pause {
        /// Off if true.
        paused: bool,
    },
    /// A command runs, and is healthy, where it was appointed to.
    ConfirmRunning {
        /// Its term.
        term: Term,
        /// Milliseconds since 1970 on the controller's clock.
        at_unix_ms: u64,
    },
    /// A new term for the copy of one node.
    Seat(SeatCommand),
    /// Partitions change hands, or shall.
    Partition {
        /// Which, and how.
        changes: Vec<Change>,
        /// Why, in words with numbers.
        reason: String,
    },
    /// Something about copies that run side by side.
    Copies(CopiesCommand),
}

impl fmt::Display for ServiceCommand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ChooseFounder { node } => write!(f, "let {node} make the first copy"),
            Self::ConfirmRunning { term, .. } => write!(f, "confirm that it runs in term {term}"),
            Self::Appoint {
                appointment: Appointment { term, primary, rules, phase: _ }, ..
            } => {
                write!(f, "appoint {primary} for term {term}")?;
                for (index, rule) in rules.iter().enumerate() {
                    write!(f, "{}{rule}", if index == 0 { " under " } else { " and " })?;
                }
                Ok(())
            }
            Self::Activate { term, rule, .. } => write!(f, "activate term {term} under {rule}"),
            Self::ChangeRule { term, rule } => {
                write!(f, "change the commit rule of term {term} to {rule}")
            }
            Self::SettleRule { term, rule } => {
                write!(f, "settle the commit rule of term {term} at {rule}")
            }
            Self::RequestSwitchover { to, .. } => write!(f, "switch over to {to}"),
            Self::RequestFailover { forced: Forced { to, accept_loss, .. } } => {
                f.write_str("fail over")?;
                if let Some(to) = to {
                    write!(f, " to {to}")?;
                }
                f.write_str(if *accept_loss { ", loss accepted" } else { "" })
            }
            Self::Seat(command) => command.fmt(f),
            Self::Partition { changes, .. } => partitions::fmt(changes, f),
            Self::CancelFailover => f.write_str("give the failover up"),
            Self::CancelSwitchover => f.write_str("give the switchover up"),
            Self::Pause { paused: true } => f.write_str("pause automatic failover"),
            Self::Pause { paused: false } => f.write_str("resume automatic failover"),
            Self::Copies(command) => command.fmt(f),
        }
    }
}
