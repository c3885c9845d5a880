//! Names what can be done with the own copy: one thing at a time, each safe to cut and to repeat.
//! Keeps: INV-6 an action that is planned again after it was cut goes on where it stopped.
//! Not here: when (`instance.rs`), how (the shell).

use crate::ids::{NodeId, Term, TimelineId};
use crate::replication::primary_replica::sync_quorum::CommitRule;
use alloc::string::String;
use core::fmt;

/// One thing to do with the own copy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Make the term durable, stop the WAL receiver, then publish the ballot (H15).
    Promise {
        /// The term.
        term: Term,
    },
    /// Make the first copy.
    Found,
    /// Start, in recovery, fed by nobody or by the appointed primary.
    Start {
        /// Whom to follow, as appointed in which term.
        upstream: Option<(NodeId, Term)>,
        /// The timeline that the upstream made in that term, where it serves it by now.
        timeline: Option<TimelineId>,
    },
    /// Be fed by the appointed primary.
    Follow {
        /// The primary.
        primary: NodeId,
        /// The term it was appointed for; becomes the least that is followed.
        term: Term,
        /// The timeline that it made in that term, where it serves it by now.
        timeline: Option<TimelineId>,
    },
    /// Make the term durable as begun, have nobody's word suffice for a commit (H7), then leave
    /// recovery.
    Promote {
        /// The term.
        term: Term,
    },
    /// The same primary goes on under a new term: make it durable as begun.
    Reaffirm {
        /// The term.
        term: Term,
    },
    /// Record the term in the data and wait until as many have that as the rule demands: the
    /// barrier. Only then put the rule in force, so that commits are acknowledged (H7).
    RecordTerm {
        /// The term.
        term: Term,
        /// The rule.
        rule: CommitRule,
    },
    /// Apply a commit rule and prove that every WAL sender obeys it (H9).
    ApplyRule {
        /// The rule.
        rule: CommitRule,
    },
    /// Write a checkpoint, so that others can rewind to this timeline (H18).
    Checkpoint,
    /// Checkpoint, end the sessions, stop cleanly.
    StopForSwitchover {
        /// The next primary.
        to: NodeId,
    },
    /// Stop cleanly in order to rejoin.
    StopToRejoin,
    /// Undo what the primary does not have.
    Rewind {
        /// The primary.
        from: NodeId,
        /// The term it serves; becomes the last that was followed.
        term: Term,
        /// The timeline that it made in that term.
        timeline: TimelineId,
    },
    /// Copy everything from the primary.
    Clone {
        /// The primary.
        from: NodeId,
        /// The term it serves; becomes the last that was followed.
        term: Term,
        /// The timeline that it made in that term.
        timeline: TimelineId,
    },
    /// Leave it to a human, durably: what it tried does not help.
    Quarantine {
        /// Why.
        reason: String,
    },
    /// Kill the instance at once.
    Fence,
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Promise { term } => write!(f, "promise term {term}"),
            Self::Found => f.write_str("make the first copy"),
            Self::Start { upstream: None, .. } => f.write_str("start in recovery, fed by nobody"),
            Self::Start { upstream: Some((node, term)), timeline } => {
                write!(f, "start as standby of {node} in term {term}")?;
                on(f, *timeline)
            }
            Self::Follow { primary, term, timeline } => {
                write!(f, "follow {primary} in term {term}")?;
                on(f, *timeline)
            }
            Self::Promote { term } => write!(f, "promote in term {term}"),
            Self::Reaffirm { term } => write!(f, "go on as primary in term {term}"),
            Self::RecordTerm { term, rule } => {
                write!(f, "record term {term} and wait until it is confirmed under {rule}")
            }
            Self::ApplyRule { rule } => write!(f, "apply the commit rule {rule}"),
            Self::Checkpoint => f.write_str("write a checkpoint"),
            Self::StopForSwitchover { to } => write!(f, "stop cleanly, to switch over to {to}"),
            Self::StopToRejoin => f.write_str("stop cleanly, to rejoin"),
            Self::Rewind { from, term, timeline } => {
                write!(f, "rewind to {from} in term {term}")?;
                on(f, Some(*timeline))
            }
            Self::Clone { from, term, timeline } => {
                write!(f, "copy everything from {from} in term {term}")?;
                on(f, Some(*timeline))
            }
            Self::Quarantine { reason } => write!(f, "leave the data to a human: {reason}"),
            Self::Fence => f.write_str("kill the instance"),
        }
    }
}

fn on(f: &mut fmt::Formatter<'_>, timeline: Option<TimelineId>) -> fmt::Result {
    match timeline {
        Some(timeline) => write!(f, ", timeline {timeline}"),
        None => Ok(()),
    }
}
