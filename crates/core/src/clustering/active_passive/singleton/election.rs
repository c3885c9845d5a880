//! Decides whether the old copy is proven gone, and who runs the next one.
//! In: `ControllerView`, why it shall move. Out: `Plan`: promises to ask for, or an appointment.
//! Keeps: INV-12 nobody is appointed before the holder's own ballot, or the ballots of a majority
//! of the voters, each of which waited until no lease can rest on its answers any more.
//! Not here: whether it shall move (`controller.rs`), when a ballot is told (`instance.rs`,
//! `witness.rs`).
//! Tested by: `tests.rs`, and the simulator (`sim/src/singleton`), with the proof left out as well.

use super::FAILURES_MAX;
use crate::cluster::command::ServiceCommand;
use crate::cluster::state::{Appointment, Cause, Phase};
use crate::clustering::active_passive::candidate::preference;
use crate::clustering::active_passive::controller::{ControllerView, Plan, Step};
use crate::facts::{Data, Link};
use crate::ids::{NodeId, Term};
use crate::reason::Reason;
use crate::time::Timestamp;
use alloc::format;
use alloc::string::ToString as _;
use alloc::vec::Vec;

/// Why it shall run elsewhere, and where.
#[derive(Clone, Copy, Debug)]
pub(super) struct Move<'a> {
    pub cause: Cause,
    pub why: &'a Reason,
    /// The node that shall have it, if that is fit; none is the best one.
    pub to: Option<&'a NodeId>,
}

/// Whether a node could run it now: it answers us, and has not failed again and again.
pub fn is_fit(view: &ControllerView<'_>, node: &NodeId, now: Timestamp) -> bool {
    let refused = matches!(view.link(view.me, node, now), Some(Link::Refused(_)));
    let fits = |own: &crate::facts::InstanceFacts| {
        own.data == Data::Present && own.starts_failed < FAILURES_MAX
    };
    !refused && view.instance(node, now).is_some_and(fits)
}

/// The best node but one: not one that is being emptied, by priority, then in the same zone.
pub fn best(view: &ControllerView<'_>, but: Option<&NodeId>, now: Timestamp) -> Option<NodeId> {
    let key = |node: &&NodeId| {
        let near = but.unwrap_or(node);
        (!view.draining.contains(*node), preference(view.nodes, near, node))
    };
    view.data_nodes()
        .filter(|node| Some(*node) != but && is_fit(view, node, now))
        .max_by_key(key)
        .cloned()
}

/// Plans a move: first the proof, then the appointment.
pub(super) fn plan(view: &ControllerView<'_>, it: Move<'_>, now: Timestamp) -> Plan {
    let holder = view.state.appointment.as_ref().map(|appointment| &appointment.primary);
    let term = view.state.term().next().max(view.promised_max());
    let asked_for = it.to.filter(|to| is_fit(view, to, now)).cloned();
    // Without anybody to take over, a promise would only keep the holder from going on.
    let Some(next) = asked_for.or_else(|| best(view, holder, now)) else {
        return Plan::wait(it.why.clone().within(|why| format!("{why}; nobody can take over")));
    };
    let voters = view.nodes.len();
    let ballots = ballots(view, term);
    let holder_says = holder.is_some_and(|holder| ballots.contains(&holder));
    if holder_says || ballots.len() * 2 > voters {
        let proof = if holder_says {
            "its node says that it is gone".to_string()
        } else {
            format!("{} of {voters} waited its lease out", ballots.len())
        };
        let why = it.why.clone().within(|why| format!("{why}; {proof}"));
        let why = why.number("ballots", ballots.len()).number("voters", voters);
        return appoint(view, &next, (term, it.cause, &why));
    }
    let text = format!("{} of {voters} voted in term {term}", ballots.len());
    let so_far = Reason::new(text).number("ballots", ballots.len()).number("voters", voters);
    let steps = recruits(view, (holder, it.cause), term, now);
    Plan { steps, reason: it.why.clone().and(&so_far.number("election_term", term.0)) }
}

/// Who has voted in a term.
pub fn ballots<'a>(view: &ControllerView<'a>, term: Term) -> Vec<&'a NodeId> {
    view.nodes.keys().filter(|node| has_voted(view, node, term)).collect()
}

/// A ballot is made of a durable promise, so it counts however long ago it was heard; but not one
/// from before the service was taken out and put back: it waited for no lease of that time. One
/// that did not wait is the holder's own word, and counts for the appointment that it held: a
/// daemon that was killed may come back to an older one, and had supported its successor's lease.
fn has_voted(view: &ControllerView<'_>, node: &NodeId, term: Term) -> bool {
    let told = view.facts.get(node).map(|facts| facts.last_known());
    let own = told.and_then(|facts| facts.instances.get(view.service));
    let own = own.filter(|own| own.revision >= view.state.first_revision());
    let is_so = |held: Term| {
        let appointment = view.state.appointment.as_ref();
        appointment.is_some_and(|it| it.primary == *node && it.term == held)
    };
    own.and_then(|own| own.ballot)
        .is_some_and(|ballot| ballot.term == term && ballot.held.is_none_or(is_so))
}

/// A holder that cooperates is asked alone: its word is enough, and no other vote would end its
/// lease if it were needed after all.
pub fn recruits(
    view: &ControllerView<'_>,
    (holder, cause): (Option<&NodeId>, Cause),
    term: Term,
    now: Timestamp,
) -> Vec<Step> {
    let only_holder = matches!(cause, Cause::Switchover | Cause::CrashLoop)
        && holder.is_some_and(|holder| view.instance(holder, now).is_some());
    let is_asked = |node: &&NodeId| {
        (!only_holder || holder == Some(*node))
            && view.instance(node, now).is_some_and(|own| own.promised < term)
    };
    let ask = |node: &NodeId| Step::Recruit { node: node.clone(), term };
    view.nodes.keys().filter(is_asked).map(ask).collect()
}

/// Proposes an appointment.
pub(super) fn appoint(
    view: &ControllerView<'_>,
    node: &NodeId,
    (term, cause, why): (Term, Cause, &Reason),
) -> Plan {
    let appointment =
        Appointment { term, primary: node.clone(), rules: Vec::new(), phase: Phase::Appointed };
    let reason = why.clone().within(|why| format!("{node} runs it in term {term}: {why}"));
    let command = ServiceCommand::Appoint {
        appointment,
        cause,
        reason: reason.to_string(),
        system: None,
        at_unix_ms: view.unix_ms,
    };
    Plan::propose(command, reason.number("term", term.0))
}
