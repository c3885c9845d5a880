//! Decides for a service of copies: where they run, and whose turn it is to start anew.
//! In: `CopiesView`. Out: at most one command, with the reason.
//! States of a round: nobody's turn → (a copy is out of date, the others serve) its turn → (it
//! serves again, up to date, or its node is lost) the next one's → … → nobody's.
//! Keeps: INV-14 at most one copy ends for a restart, while every other that can serve does, and
//! one at least. A copy that does not come back stops the round: what broke it does not reach the
//! next one.
//! Not here: who replaces whom (`placement.rs`), what a node does (`copy.rs`).
//! Tested by: `tests.rs`.

use super::placement::{Candidate, Candidates, Grade, place};
use super::{is_spared, takes_work, wanted};
use crate::attempts::FAILURES_MAX;
use crate::cluster::copies::CopiesCommand;
use crate::cluster::state::ServiceState;
use crate::facts::{InstanceFacts, Link, NodeFacts, Process};
use crate::ids::{NodeId, ServiceId};
use crate::reason::{Reason, list};
use crate::spec::{NodeRole, NodeSpec, ServiceSpec};
use crate::time::{Observed, Timestamp};
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

pub use crate::facts::withdrawal::LOST_AFTER;

/// What the leader knows about a service of copies.
#[derive(Clone, Debug)]
pub struct CopiesView<'a> {
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
    /// What each node last said, the own one included.
    pub facts: &'a BTreeMap<NodeId, Observed<NodeFacts>>,
    /// Milliseconds since 1970, for records only.
    pub unix_ms: u64,
}

/// What to propose now, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// None is "wait".
    pub command: Option<CopiesCommand>,
    /// Why.
    pub reason: Reason,
}

fn wait(reason: impl Into<Reason>) -> Decision {
    Decision { command: None, reason: reason.into() }
}

impl CopiesView<'_> {
    fn fresh(&self, node: &NodeId, now: Timestamp) -> Option<&NodeFacts> {
        self.facts.get(node)?.fresh(now, self.spec.timing.suspicion)
    }

    fn copy(&self, node: &NodeId, now: Timestamp) -> Option<&InstanceFacts> {
        self.fresh(node, now)?.instances.get(self.service)
    }

    /// Whether nobody who answers has heard the node for `LOST_AFTER`.
    pub fn is_lost(&self, node: &NodeId, now: Timestamp) -> bool {
        if self.fresh(node, now).is_some() {
            return false;
        }
        let others = self.nodes.keys().filter(|other| *other != node);
        let mut links = others.filter_map(|other| self.fresh(other, now)?.links.get(node));
        links.all(|link| match link {
            Link::Up(_) => false,
            // A daemon that has just started has not heard anybody yet.
            Link::Refused(age) | Link::Silent(age) | Link::Never(age) => *age >= LOST_AFTER,
        })
    }

    fn candidates(&self, now: Timestamp) -> Candidates {
        let can = |(node, spec): &(&NodeId, &NodeSpec)| {
            spec.role == NodeRole::Data && !self.draining.contains(*node)
        };
        let grade = |node: &NodeId| match self.copy(node, now) {
            Some(own) if own.starts_failed >= FAILURES_MAX => Grade::Failing,
            None if self.is_lost(node, now) => Grade::Lost,
            Some(_) | None => Grade::Good,
        };
        let candidate = |(node, spec): (&NodeId, &NodeSpec)| {
            let (zone, capacity) = (spec.zone.clone(), spec.capacity);
            (node.clone(), Candidate { grade: grade(node), zone, capacity })
        };
        self.nodes.iter().filter(can).map(candidate).collect()
    }
}

/// Plans for one service.
pub fn plan(view: &CopiesView<'_>, now: Timestamp) -> Decision {
    replace(view, now).unwrap_or_else(|| round(view, now))
}

/// Another choice of nodes, if a better one is needed.
fn replace(view: &CopiesView<'_>, now: Timestamp) -> Option<Decision> {
    let replicas = view.spec.copies?.replicas?;
    let present = &view.state.copies.nodes;
    let candidates = view.candidates(now);
    // Before a node was heard, nothing is known of it that could be a reason to choose it.
    let known = |node: &NodeId| present.contains(node) || view.fresh(node, now).is_some();
    let candidates: Candidates = candidates.into_iter().filter(|(node, _)| known(node)).collect();
    let nodes = place(present, &candidates, replicas as usize);
    if nodes == *present || view.state.paused {
        return None;
    }
    let why = |node: &NodeId| match candidates.get(node).map(|it| it.grade) {
        _ if view.draining.contains(node) => format!("{node} is drained"),
        None => format!("{node} holds no data any more"),
        Some(Grade::Lost) => format!("{node} is lost"),
        Some(Grade::Failing) => format!("it failed {FAILURES_MAX} times in a row on {node}"),
        Some(Grade::Good) => format!("{node} is one too many"),
    };
    let causes: Vec<String> = present.difference(&nodes).map(why).collect();
    let begins = nodes.difference(present);
    let text = match causes.is_empty() {
        true => format!("{replicas} copies are wanted, so {} joins", list(begins)),
        false if nodes.is_subset(present) => causes.join(", "),
        false => format!("{}, so {} takes over", causes.join(", "), list(begins)),
    };
    let reason = Reason::new(text).number("replicas", replicas).number("placed", nodes.len());
    let (words, at_unix_ms) = (reason.text().into(), view.unix_ms);
    let command = CopiesCommand::Place { nodes, reason: words, at_unix_ms };
    Some(Decision { command: Some(command), reason })
}

/// Whether a copy shall be started anew.
fn is_outdated(view: &CopiesView<'_>, own: &InstanceFacts) -> bool {
    let is_old = own.pending_restart || own.promoted < view.state.copies.term;
    own.process == Process::Primary && is_old
}

fn round(view: &CopiesView<'_>, now: Timestamp) -> Decision {
    let wanted = wanted(view.nodes, view.spec, &view.state.copies);
    let turn = view.state.copies.turn.as_ref();
    if let Some(node) = turn.filter(|node| wanted.contains(*node)) {
        let own = view.copy(node, now);
        let is_done = own.is_some_and(|own| takes_work(own) && !is_outdated(view, own));
        if !is_done && !view.is_lost(node, now) && !view.draining.contains(node) {
            return wait(match own {
                None => format!("{node} starts its copy anew, and does not answer"),
                Some(own) if own.starts_failed > 0 => format!(
                    "the copy of {node} does not start ({} failures), so no other is started anew",
                    own.starts_failed
                ),
                Some(_) => format!("{node} starts its copy anew"),
            });
        }
    }
    let to = next(view, &wanted, now);
    match (turn, to) {
        (_, Ok(Some(node))) => {
            let text = format!("the copy of {node} is out of date, and the others serve");
            let command = CopiesCommand::GiveTurn { to: Some(node) };
            Decision { command: Some(command), reason: text.into() }
        }
        (Some(node), Ok(None) | Err(_)) => {
            let reason = Reason::new(format!("{node} has had its turn"));
            Decision { command: Some(CopiesCommand::GiveTurn { to: None }), reason }
        }
        (None, Ok(None)) => wait(summary(view, &wanted, now)),
        (None, Err(reason)) => wait(reason),
    }
}

/// Whose turn is next, or why it is nobody's though somebody waits for it.
fn next(
    view: &CopiesView<'_>,
    wanted: &BTreeSet<NodeId>,
    now: Timestamp,
) -> Result<Option<NodeId>, String> {
    let outdated = |node: &&NodeId| {
        let drained = view.draining.contains(*node);
        view.copy(node, now).is_some_and(|own| is_outdated(view, own)) && !drained
    };
    let Some(node) = wanted.iter().find(outdated) else { return Ok(None) };
    let others = || wanted.iter().filter(|it| *it != node && !view.draining.contains(*it));
    let takes = |node: &NodeId| view.copy(node, now).is_some_and(takes_work);
    let is_away = |it: &&NodeId| !takes(it) && !view.is_lost(it, now);
    let away: BTreeSet<&NodeId> = others().filter(is_away).collect();
    let waits = match away.is_empty() {
        false => format!("{} serves", list(away.iter().copied())),
        // Where nobody else ever serves there is nobody to wait for.
        true if is_spared(node, (wanted, view.draining), takes) => return Ok(Some(node.clone())),
        true => "another one serves: it is the only one".into(),
    };
    Err(format!("the copy of {node} is out of date, and waits until {waits}"))
}

fn summary(view: &CopiesView<'_>, wanted: &BTreeSet<NodeId>, now: Timestamp) -> Reason {
    let wanted: Vec<&NodeId> = wanted.iter().filter(|it| !view.draining.contains(*it)).collect();
    let takes = |node: &&&NodeId| view.copy(node, now).is_some_and(takes_work);
    let (serving, wanted) = (wanted.iter().filter(takes).count(), wanted.len());
    let text = format!("{serving} of {wanted} copies serve");
    Reason::new(text).number("serving", serving).number("wanted", wanted)
}
