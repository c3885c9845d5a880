//! Decides where the one copy of a command runs, and when that changes.
//! In: `ControllerView`. Out: `Plan`.
//! States: nobody → appointed → runs → (death, silence, crash loop, operator) elected → appointed.
//! Keeps: INV-12 (through `election.rs`); H37, H47. What is judged here decides only when: whether
//! the old copy is gone is proven by promises.
//! Not here: the proof and the choice (`election.rs`), what a node does (`instance.rs`).
//! Tested by: `tests.rs`, and the simulator (`sim/src/singleton`).

use super::FAILURES_MAX;
use super::election::{self, Move};
use crate::cluster::command::ServiceCommand;
use crate::cluster::state::{Appointment, Cause, Forced, Phase, Switchover};
use crate::clustering::active_passive::controller::{
    ControllerView, MOVE_MAX_MS, Plan, hold_off, is_over,
};
use crate::clustering::active_passive::verdict::{PROMOTION_PATIENCE, Verdict};
use crate::facts::{Data, Link, NodeFacts, Process};
use crate::ids::NodeId;
use crate::reason::Reason;
use crate::time::Timestamp;
use alloc::format;

/// A copy stays this long before a preferred node takes it back, in milliseconds (H37).
const BACK_AFTER_MS: u64 = 60_000;

/// Plans for one singleton.
pub fn plan(view: &ControllerView<'_>, now: Timestamp) -> Plan {
    let Some(appointment) = &view.state.appointment else {
        let why = Reason::new("nobody was appointed yet");
        return election::plan(view, Move { cause: Cause::Founded, why: &why, to: None }, now);
    };
    if let Some(forced) = &view.state.forced {
        return force(view, appointment, forced, now);
    }
    if let Some(switchover) = &view.state.switchover {
        return switch_over(view, appointment, switchover, now);
    }
    let begun = view.promised_max() > appointment.term;
    match judge(view, appointment, now) {
        Verdict::Serving if begun => go_on(view, appointment),
        Verdict::Serving => steady(view, appointment, now),
        Verdict::Moving(why) if begun => {
            let to = Some(&appointment.primary);
            election::plan(view, Move { cause: Cause::Resumed, why: &why, to }, now)
        }
        Verdict::Moving(reason) | Verdict::Unknown(reason) => Plan::wait(reason),
        Verdict::Dead(_, reason) if view.state.paused => {
            Plan::wait(reason.within(|why| format!("paused by an operator, though: {why}")))
        }
        Verdict::Dead(cause, why) => match hold_off(view) {
            Some(wait) if !begun => {
                let ms = wait.as_millis();
                let text = format!("it did not last where it ran, so waiting {ms} ms more (H37)");
                Plan::wait(why.and(&Reason::new(text).number("wait_ms", ms)))
            }
            Some(_) | None => election::plan(view, Move { cause, why: &why, to: None }, now),
        },
    }
}

/// A minority promised a later term, while the holder runs: it goes on under that term, since no
/// other node is concerned.
fn go_on(view: &ControllerView<'_>, appointment: &Appointment) -> Plan {
    let text = format!("{} goes on, after an election that was begun", appointment.primary);
    let why = Reason::new(text);
    let term = view.promised_max();
    election::appoint(view, &appointment.primary, (term, Cause::Resumed, &why))
}

fn force(
    view: &ControllerView<'_>,
    appointment: &Appointment,
    forced: &Forced,
    now: Timestamp,
) -> Plan {
    let cancel = |why: &str| Plan::propose(ServiceCommand::CancelFailover, why);
    if is_over(forced.deadline_unix_ms, view) {
        return cancel("no failover was possible in time");
    }
    let to = forced.to.as_ref();
    if to.is_some_and(|to| *to == appointment.primary) {
        return cancel("it is there already");
    }
    if to.is_some_and(|to| !election::is_fit(view, to, now)) {
        return cancel("the node does not answer, or the command fails there");
    }
    let why = Reason::new("demanded by an operator");
    election::plan(view, Move { cause: Cause::Forced, why: &why, to }, now)
}

/// The holder stops its copy in good order first, and only then promises.
fn switch_over(
    view: &ControllerView<'_>,
    appointment: &Appointment,
    switchover: &Switchover,
    now: Timestamp,
) -> Plan {
    let (holder, to) = (&appointment.primary, &switchover.to);
    let cancel = |why| Plan::propose(ServiceCommand::CancelSwitchover, Reason::new(why));
    if is_over(switchover.deadline_unix_ms, view) {
        return cancel(format!("the switchover to {to} took too long"));
    }
    if to == holder {
        return cancel(format!("{to} runs it already"));
    }
    if !election::is_fit(view, to, now) {
        return cancel(format!("{to} does not answer, or the command fails there"));
    }
    let Some(own) = view.instance(holder, now) else {
        return cancel(format!("{holder} does not answer"));
    };
    // What it says may be of before it knew: a copy that just ended by itself starts again.
    if own.process != Process::Stopped || own.revision < view.state.revision {
        return Plan::wait(format!("{holder} stops, so that {to} can run it"));
    }
    let why = Reason::new(format!("planned switchover, {holder} stopped"));
    election::plan(view, Move { cause: Cause::Switchover, why: &why, to: Some(to) }, now)
}

/// Judges the holder.
pub fn judge(view: &ControllerView<'_>, appointment: &Appointment, now: Timestamp) -> Verdict {
    let holder = &appointment.primary;
    let refused = matches!(view.link(view.me, holder, now), Some(Link::Refused(_)));
    match view.fresh(holder, now) {
        Some(facts) if !refused => judge_by_itself(view, appointment, facts),
        Some(_) | None => judge_by_others(view, holder, now),
    }
}

fn judge_by_itself(
    view: &ControllerView<'_>,
    appointment: &Appointment,
    facts: &NodeFacts,
) -> Verdict {
    let (node, term) = (&facts.node, appointment.term);
    let Some(own) = facts.instances.get(view.service) else {
        return Verdict::Unknown(format!("{node} does not speak of the service yet").into());
    };
    if let Data::Quarantined { reason } = &own.data {
        return Verdict::Dead(Cause::InstanceHung, Reason::new(format!("{node}: {reason}")));
    }
    let serves = own.process == Process::Primary && own.serving == Some(term);
    if own.starts_failed >= FAILURES_MAX && !serves {
        let text = format!("it failed {} times in a row on {node}", own.starts_failed);
        let reason = Reason::new(text).number("failures", own.starts_failed);
        return Verdict::Dead(Cause::CrashLoop, reason.number("failures_max", FAILURES_MAX));
    }
    if own.stalled >= PROMOTION_PATIENCE {
        let ms = own.stalled.as_millis();
        let reason = Reason::new(format!("{node} has not started it for {ms} ms"));
        let reason = reason.number("stalled_ms", ms);
        let limit = PROMOTION_PATIENCE.as_millis();
        return Verdict::Dead(Cause::InstanceHung, reason.number("stalled_ms_max", limit));
    }
    match own.process {
        Process::Primary if own.promoted == term => Verdict::Serving,
        Process::Stopped
        | Process::Starting
        | Process::Standby
        | Process::Promoting
        | Process::Primary
        | Process::Stopping => {
            let text = format!("{node} is on its way in term {term}: {}", own.process);
            Verdict::Moving(Reason::new(text).number("term", term.0))
        }
    }
}

/// Where a majority does not hear the holder, it has no lease for long.
fn judge_by_others(view: &ControllerView<'_>, holder: &NodeId, now: Timestamp) -> Verdict {
    if !view.nodes.contains_key(holder) {
        let text = format!("{holder} is no member of the cluster any more");
        return Verdict::Dead(Cause::NodeDied, Reason::new(text));
    }
    let (mut refused, mut silent) = (0_usize, 0_usize);
    for node in view.nodes.keys().filter(|node| *node != holder) {
        match view.link(node, holder, now) {
            Some(Link::Refused(_)) => refused += 1,
            Some(Link::Silent(age)) if age >= view.spec.timing.suspicion => silent += 1,
            Some(Link::Never(_)) => silent += 1,
            Some(Link::Up(_) | Link::Silent(_)) | None => {}
        }
    }
    let nodes = view.nodes.len();
    let enough = (nodes / 2 + 1).min(nodes.saturating_sub(1)).max(1);
    if refused >= enough {
        let text = format!("{refused} of {nodes} nodes are refused by {holder}");
        let reason = Reason::new(text).number("refused", refused).number("nodes", nodes);
        return Verdict::Dead(Cause::NodeDied, reason.number("needed", enough));
    }
    let deaf = refused + silent;
    if deaf >= enough {
        let silence = view.spec.timing.suspicion.as_millis();
        let text = format!("{deaf} nodes do not hear {holder} for {silence} ms");
        let reason = Reason::new(text).number("unheard_by", deaf).number("needed", enough);
        return Verdict::Dead(Cause::NodeSilent, reason.number("suspicion_ms", silence));
    }
    let text = format!("{holder}: {refused} refused, {silent} silent, {enough} needed");
    let reason = Reason::new(text).number("refused", refused).number("silent", silent);
    Verdict::Unknown(reason.number("needed", enough))
}

/// Plans while it runs.
fn steady(view: &ControllerView<'_>, appointment: &Appointment, now: Timestamp) -> Plan {
    let (holder, term) = (&appointment.primary, appointment.term);
    let is_healthy = view.instance(holder, now).is_some_and(|own| own.serving == Some(term));
    if appointment.phase == Phase::Appointed && is_healthy {
        let command = ServiceCommand::ConfirmRunning { term, at_unix_ms: view.unix_ms };
        let reason = Reason::new(format!("{holder} runs it in term {term}"));
        return Plan::propose(command, reason.number("term", term.0));
    }
    leave(view, holder, now).unwrap_or_else(|| Plan::wait(format!("{holder} runs it")))
}

/// A planned move that nobody asked for by name: off a node that is being emptied or that its owner
/// wants to run it never for long, or back to a node that is preferred.
fn leave(view: &ControllerView<'_>, holder: &NodeId, now: Timestamp) -> Option<Plan> {
    let to = election::best(view, Some(holder), now)?;
    let priority = |node: &NodeId| view.nodes.get(node).map_or(0, |spec| spec.priority);
    let empties = view.draining.contains(holder);
    let last = view.state.history.last().map_or(0, |line| line.at_unix_ms);
    // By far ahead of ours it was a clock that is wrong.
    let is_settled = view.unix_ms.abs_diff(last) >= BACK_AFTER_MS;
    let why = match (empties, priority(holder), priority(&to)) {
        (true, _, _) if !view.draining.contains(&to) => "it is being emptied",
        // Nobody asked for these: while an operator has paused the service it stays where it is.
        (true, _, _) => return None,
        (false, _, _) if view.state.paused || view.draining.contains(&to) => return None,
        (false, 0, there) if there > 0 => "its owner wants it never there for long (priority 0)",
        (false, here, there) if there > here && is_settled => "the node is preferred",
        (false, _, _) => return None,
    };
    let reason = format!("{holder} hands over to {to}: {why}");
    // The stop of a command, the hook after it and that before the next start may take 4 minutes
    // each.
    let deadline_unix_ms = view.unix_ms + MOVE_MAX_MS;
    Some(Plan::propose(ServiceCommand::RequestSwitchover { to, deadline_unix_ms }, reason))
}
