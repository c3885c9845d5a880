//! Decides the terms of a seat: the copy of one node, of a command whose work is divided.
//! In: `ControllerView` of the seat. Out: `Plan`.
//! States: nobody → seated → runs → (silent, dead or stuck, and owns something) seated anew → runs.
//! Keeps: INV-13 a seat gets a new sitting only by its node's own ballot, or by those of a majority
//! of the voters, each of which waited the lease out: then no copy of an earlier one is left.
//! A node that answers and was asked to promise goes on under the later term; what it owns is its.
//! One sitting that owns nothing is proof enough: no more elections while the node stays away. A
//! crash loop stays where it is; that its partitions move is decided elsewhere (`controller.rs`).
//! Where a copy does not die, a node cannot read what it must know, or its disk takes nothing and
//! no copy starts, nothing is released there: a majority proves that the lease has passed.
//! Not here: what the node does (`active_passive/singleton/instance.rs`, the same).
//! Tested by: `tests.rs`, and the simulator (`sim/src/singleton`).

use crate::cluster::command::ServiceCommand;
use crate::cluster::seats::{Earlier, SeatCommand};
use crate::cluster::state::{Appointment, Cause, ClusterState, Phase};
use crate::clustering::active_passive::singleton::{ballots, judge, recruits};
use crate::clustering::active_passive::verdict::Verdict;
use crate::clustering::active_passive::{ControllerView, Plan};
use crate::facts::{InstanceFacts, Process};
use crate::ids::{NodeId, Term};
use crate::reason::Reason;
use crate::spec::Seat;
use crate::time::Timestamp;
use alloc::format;
use alloc::string::ToString as _;

/// INV-14: whether what its copy owns is given to others before it starts anew, which it waits for:
/// there are others.
pub fn is_emptied_first(state: &ClusterState, seat: &Seat) -> bool {
    let sitting = state.services.get(&Seat::name(&seat.of, &seat.node)).map(|it| it.sitting);
    let table = state.services.get(&seat.of).and_then(|it| it.partitions.as_ref());
    let owned = table.zip(sitting).map_or(0, |(it, sitting)| it.owned_by(&seat.node, sitting));
    let is_other = |node: &&NodeId| **node != seat.node && !state.draining.contains(*node);
    owned > 0 && state.spec.data_nodes().any(|node| is_other(&node))
}

/// Plans for one seat.
pub fn plan(view: &ControllerView<'_>, seat: &Seat, now: Timestamp) -> Plan {
    let node = &seat.node;
    let Some(appointment) = &view.state.appointment else {
        return match view.instance(node, now) {
            Some(_) => elect(view, node, (Cause::Founded, "nobody sat here yet".into()), now),
            None => Plan::wait(format!("{node} has not been heard")),
        };
    };
    let is_begun = view.promised_max() > appointment.term;
    let verdict = judge(view, appointment, now);
    let (cause, why) = match verdict {
        Verdict::Serving | Verdict::Moving(_) if is_begun => return go_on(view, node),
        Verdict::Serving => return confirm(view, appointment, now),
        Verdict::Moving(why) | Verdict::Unknown(why) => return Plan::wait(why),
        Verdict::Dead(cause @ (Cause::NodeDied | Cause::NodeSilent), why) => (cause, why),
        // Nobody there can say that it released anything.
        Verdict::Dead(cause @ (Cause::InstanceHung | Cause::CrashLoop), why)
            if is_stuck(view, seat, cause, now) =>
        {
            // Its own word cannot be had: it would have to be durable.
            (Cause::InstanceHung, why)
        }
        // It answers: what it owns is released in good order.
        Verdict::Dead(_, _) if is_begun => return go_on(view, node),
        Verdict::Dead(_, why) => return Plan::wait(why),
    };
    if is_paused(view, seat) {
        return Plan::wait(why.within(|why| format!("paused by an operator, though: {why}")));
    }
    match owned(view, seat) {
        0 => Plan::wait(why.within(|why| format!("{why}; it owns nothing"))),
        owned => {
            let text = format!("it owns {owned} partitions");
            elect(view, node, (cause, why.and(&Reason::new(text).number("owned", owned))), now)
        }
    }
}

/// It owns something, and nobody there can say that a copy ended: it hangs in the kernel, or what
/// the node must know of it cannot be read. Or its disk takes nothing: no copy starts, and that
/// something was released cannot be made durable.
fn is_stuck(view: &ControllerView<'_>, seat: &Seat, cause: Cause, now: Timestamp) -> bool {
    let is_so = |own: &InstanceFacts| {
        own.seat.mute || (cause == Cause::InstanceHung && own.process != Process::Stopped)
    };
    owned(view, seat) > 0 && view.instance(&seat.node, now).is_some_and(is_so)
}

fn is_paused(view: &ControllerView<'_>, seat: &Seat) -> bool {
    view.services.get(&seat.of).is_some_and(|state| state.paused)
}

/// What rests on the present sitting.
fn owned(view: &ControllerView<'_>, seat: &Seat) -> usize {
    let table = view.services.get(&seat.of).and_then(|state| state.partitions.as_ref());
    table.map_or(0, |table| table.owned_by(&seat.node, view.state.sitting))
}

fn confirm(view: &ControllerView<'_>, appointment: &Appointment, now: Timestamp) -> Plan {
    let (node, term) = (&appointment.primary, appointment.term);
    let is_well = view.instance(node, now).is_some_and(|own| own.serving == Some(term));
    if appointment.phase == Phase::Appointed && is_well {
        let command = ServiceCommand::ConfirmRunning { term, at_unix_ms: view.unix_ms };
        let reason = Reason::new(format!("{node} runs its copy in term {term}"));
        return Plan::propose(command, reason.number("term", term.0));
    }
    Plan::wait(format!("{node} runs its copy"))
}

/// Nobody else is concerned, so it needs no proof, and proves nothing.
fn go_on(view: &ControllerView<'_>, node: &NodeId) -> Plan {
    let why = Reason::new(format!("{node} goes on, after an election that was begun"));
    seat(view, node, (view.promised_max(), Earlier::MayRun), (Cause::Resumed, why))
}

/// First the proof, then the new sitting.
fn elect(
    view: &ControllerView<'_>,
    node: &NodeId,
    (cause, why): (Cause, Reason),
    now: Timestamp,
) -> Plan {
    let term = view.state.term().next().max(view.promised_max());
    let ballots = ballots(view, term);
    let voters = view.nodes.len();
    let own_word = view.state.appointment.is_some() && ballots.contains(&node);
    if own_word || ballots.len() * 2 > voters {
        let proof = if own_word {
            "its node says that the copy is gone".to_string()
        } else {
            format!("{} of {voters} waited its lease out", ballots.len())
        };
        let why = why.within(|why| format!("{why}; {proof}"));
        let why = why.number("ballots", ballots.len()).number("voters", voters);
        return seat(view, node, (term, Earlier::Gone), (cause, why));
    }
    let text = format!("{} of {voters} voted in term {term}", ballots.len());
    let so_far = Reason::new(text).number("ballots", ballots.len()).number("voters", voters);
    let steps = recruits(view, (Some(node), cause), term, now);
    Plan { steps, reason: why.and(&so_far.number("election_term", term.0)) }
}

fn seat(
    view: &ControllerView<'_>,
    node: &NodeId,
    (term, earlier): (Term, Earlier),
    (cause, why): (Cause, Reason),
) -> Plan {
    let command = SeatCommand {
        node: node.clone(),
        term,
        earlier,
        cause,
        reason: why.to_string(),
        at_unix_ms: view.unix_ms,
    };
    Plan::propose(ServiceCommand::Seat(command), why.number("term", term.0))
}
