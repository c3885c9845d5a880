//! Decides what the cluster does for one service: who is primary, under which rule, and when that
//! changes. Runs on the Raft leader; without memory, so it may stop and move at any time.
//! In: `ControllerView`. Out: `Plan`: promises to ask for and commands to propose, with the reason.
//! States: no primary → founded → appointed → active → (verdict, operator) elected → appointed.
//! Keeps: INV-1, INV-4, INV-11 (through `election.rs`); H17, H30, H36, H37, H39.
//! Not here: what a node does with its own copy (`instance.rs`).
//! Tested by: `controller/tests.rs`, the scenarios, and every run of the simulator.

use super::singleton;
use super::trail::Trails;
use super::verdict::{self, Verdict};
use super::{election, founding, steady};
use crate::cluster::command::ServiceCommand;
use crate::cluster::state::{Cause, ServiceState};
use crate::facts::{Data, InstanceFacts, Link, NodeFacts};
use crate::ids::{NodeId, ServiceId, Term};
use crate::pairing::Kind;
use crate::reason::Reason;
use crate::spec::{NodeRole, NodeSpec, ServiceSpec};
use crate::time::{Observed, Timestamp};
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::vec::Vec;
use core::fmt;
use core::time::Duration;

/// Everything the controller knows about one service.
#[derive(Clone, Debug)]
pub struct ControllerView<'a> {
    /// The node that plans.
    pub me: &'a NodeId,
    /// The service.
    pub service: &'a ServiceId,
    /// What its owner asked for.
    pub spec: &'a ServiceSpec,
    /// Every machine.
    pub nodes: &'a BTreeMap<NodeId, NodeSpec>,
    /// Machines that are being emptied.
    pub draining: &'a BTreeSet<NodeId>,
    /// What is agreed.
    pub state: &'a ServiceState,
    /// What is agreed of every service, this one included.
    pub services: &'a BTreeMap<ServiceId, ServiceState>,
    /// What each node last said, this one included.
    pub facts: &'a BTreeMap<NodeId, Observed<NodeFacts>>,
    /// How far each primary had come, and when, by its own clock.
    pub trails: &'a Trails,
    /// Milliseconds since 1970, for records, patience and hold-off only.
    pub unix_ms: u64,
}

/// What to do now, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// To be done, in any order; none is "wait".
    pub steps: Vec<Step>,
    /// Why.
    pub reason: Reason,
}

/// One thing the controller may do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Ask a node to promise a term.
    Recruit {
        /// The node.
        node: NodeId,
        /// The term to promise.
        term: Term,
    },
    /// Propose a command, planned on the view's revision.
    Propose(ServiceCommand),
}

impl Plan {
    pub(in crate::clustering) fn wait(reason: impl Into<Reason>) -> Self {
        Self { steps: Vec::new(), reason: reason.into() }
    }

    pub(in crate::clustering) fn propose(
        command: ServiceCommand,
        reason: impl Into<Reason>,
    ) -> Self {
        Self { steps: [Step::Propose(command)].into(), reason: reason.into() }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Recruit { node, term } => write!(f, "ask {node} to promise term {term}"),
            Self::Propose(command) => write!(f, "propose to {command}"),
        }
    }
}

impl ControllerView<'_> {
    /// What a node said, unless that is older than the suspicion time (INV-8).
    pub fn fresh(&self, node: &NodeId, now: Timestamp) -> Option<&NodeFacts> {
        self.facts.get(node)?.fresh(now, self.spec.timing.suspicion)
    }

    /// The same, and how long ago it was said.
    pub fn fresh_with_age(&self, node: &NodeId, now: Timestamp) -> Option<(&NodeFacts, Duration)> {
        Some((self.fresh(node, now)?, self.facts.get(node)?.age(now)))
    }

    /// How `from` sees `to`, unless it said so too long ago.
    pub fn link(&self, from: &NodeId, to: &NodeId, now: Timestamp) -> Option<Link> {
        self.fresh(from, now)?.links.get(to).copied()
    }

    /// A node's instance, unless heard too long ago.
    pub fn instance(&self, node: &NodeId, now: Timestamp) -> Option<&InstanceFacts> {
        self.fresh(node, now)?.instances.get(self.service)
    }

    /// Machines that hold data.
    pub fn data_nodes(&self) -> impl Iterator<Item = &NodeId> {
        self.nodes.iter().filter(|(_, spec)| spec.role == NodeRole::Data).map(|(node, _)| node)
    }

    /// The greatest term that any node is known to have promised.
    pub fn promised_max(&self) -> Term {
        self.facts
            .values()
            .filter_map(|facts| facts.last_known().instances.get(self.service))
            .map(|instance| instance.promised)
            .max()
            .unwrap_or_default()
    }
}

/// Plans for one service.
pub fn plan(view: &ControllerView<'_>, now: Timestamp) -> Plan {
    if view.spec.pairing.kind() == Kind::Command {
        return singleton::plan(view, now);
    }
    let Some(appointment) = &view.state.appointment else {
        return founding::plan(view, now);
    };
    if let Some(forced) = &view.state.forced {
        if is_over(forced.deadline_unix_ms, view) {
            return Plan::propose(
                ServiceCommand::CancelFailover,
                "no failover was possible in time",
            );
        }
        if let Some(to) = forced.to.as_ref().filter(|to| has_no_data(view, to, now)) {
            // Waiting for it would only keep everybody else from taking over.
            let reason = format!("{to} has no usable data to take over with");
            return Plan::propose(ServiceCommand::CancelFailover, reason);
        }
        let why = Reason::new("demanded by an operator");
        return election::plan(view, appointment, Cause::Forced, &why, now);
    }
    if let Some(switchover) = &view.state.switchover {
        return steady::switch_over(view, appointment, switchover, now);
    }
    let verdict = verdict::judge(view, appointment, now);
    let begun = view.promised_max() > appointment.term;
    match verdict {
        Verdict::Serving if begun => election::reaffirm(view, appointment),
        Verdict::Serving => steady::plan(view, appointment, now),
        Verdict::Moving(reason) if begun => {
            election::plan(view, appointment, Cause::Resumed, &reason, now)
        }
        Verdict::Moving(reason) => {
            steady::activate(view, appointment, now).unwrap_or_else(|| Plan::wait(reason))
        }
        Verdict::Unknown(reason) => Plan::wait(reason),
        Verdict::Dead(_, reason) if view.state.paused => {
            Plan::wait(reason.within(|why| format!("paused by an operator, though: {why}")))
        }
        Verdict::Dead(cause, reason) => match hold_off(view) {
            Some(wait) if !begun => {
                let ms = wait.as_millis();
                let text =
                    format!("the last primaries did not last, so waiting {ms} ms more (H37)");
                Plan::wait(reason.and(&Reason::new(text).number("wait_ms", ms)))
            }
            Some(_) | None => election::plan(view, appointment, cause, &reason, now),
        },
    }
}

fn has_no_data(view: &ControllerView<'_>, node: &NodeId, now: Timestamp) -> bool {
    view.instance(node, now).is_some_and(|own| own.data != Data::Present)
}

/// A planned move takes minutes, not hours: a deadline further away was set by a clock that is
/// wrong, and nothing would be planned until then.
const DEADLINE_MAX_MS: u64 = 15 * 60_000;

/// The longest that a planned move may be given, in milliseconds: two controllers' clocks may be
/// two minutes apart before its deadline counts as a wrong clock's.
pub const MOVE_MAX_MS: u64 = DEADLINE_MAX_MS - 2 * 60_000;

/// Whether an operator's demand is to be given up.
pub(super) fn is_over(deadline_unix_ms: u64, view: &ControllerView<'_>) -> bool {
    view.unix_ms > deadline_unix_ms || deadline_unix_ms - view.unix_ms > DEADLINE_MAX_MS
}

/// How long to wait before the next failover: doubles with each primary that did not last (H37).
pub fn hold_off(view: &ControllerView<'_>) -> Option<Duration> {
    let history = &view.state.history;
    let stable_ms = u64::try_from(view.spec.timing.stable_after.as_millis()).unwrap_or(u64::MAX);
    let is_short = |began: u64, ended: u64| ended.saturating_sub(began) < stable_ms;
    let mut ended = view.unix_ms;
    let mut flaps = 0_u32;
    for line in history.iter().rev() {
        if matches!(line.cause, Cause::Switchover | Cause::Forced | Cause::Founded)
            || !is_short(line.at_unix_ms, ended)
        {
            break;
        }
        flaps += 1;
        ended = line.at_unix_ms;
    }
    let last = history.last()?;
    let wait_ms = if flaps < 3 { 0 } else { 1000_u64 << (flaps - 3).min(8) };
    // Recorded by a clock that is ahead of ours: how long ago that was is not known.
    let passed = view.unix_ms.checked_sub(last.at_unix_ms)?;
    (passed < wait_ms).then(|| Duration::from_millis(wait_ms - passed))
}

#[cfg(test)]
mod tests;
