//! Decides what a node does with its own copy of a service's data.
//! In: `InstanceView`. Out: at most one `Action` at a time, with the reason.
//! States: empty → copied → standby → (appointed) primary → (another appointed) fenced → rejoined.
//! Keeps: INV-1 a primary that is not the appointed one is fenced at once; INV-2 a promise comes
//! before everything else; INV-3 an instance starts as a standby and is promoted at most once per
//! term (H5, H12), and never from a disk that lost a write (H26); H7 it acknowledges nothing before
//! its barrier (`Action::RecordTerm`); INV-6 an action that was done is not planned again.
//! Not here: who is appointed (`controller.rs`), how an action is carried out (the adapter).
//! Tested by: the scenarios, crash replay, the simulator.

use super::action::Action;
use super::rejoin::{Rung, rung};
use crate::cluster::state::{Appointment, ServiceState};
use crate::facts::{Data, InstanceFacts, NodeFacts, Process};
use crate::ids::{NodeId, ServiceId, Term};
use crate::reason::Reason;
use crate::replication::primary_replica::sync_quorum::CommitRule;
use crate::spec::Timing;
use crate::time::{Observed, Timestamp};
use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::ToString as _;
use core::time::Duration;

/// Rejoin attempts after which a human is asked; each was a complete copy that did not stream.
const REJOIN_FAILURES_MAX: u32 = 8;

/// How long the barrier may be unconfirmed before others are given the chance to rewind.
const BARRIER_PATIENCE: Duration = Duration::from_secs(1);

/// What a node knows about its own copy.
#[derive(Clone, Debug)]
pub struct InstanceView<'a> {
    /// This node.
    pub me: &'a NodeId,
    /// How long things may take.
    pub timing: Timing,
    /// What is agreed.
    pub state: &'a ServiceState,
    /// The own copy.
    pub own: &'a InstanceFacts,
    /// The appointed primary's copy, if heard lately and not this node's.
    pub primary: Option<&'a InstanceFacts>,
    /// A term that a controller asked this node to promise.
    pub asked: Option<Term>,
}

/// What to do now, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Next {
    /// Nothing is "wait".
    pub action: Option<Action>,
    /// Why.
    pub reason: Reason,
}

impl<'a> InstanceView<'a> {
    /// The appointed primary's copy, unless it is this node's or was heard too long ago (INV-8).
    pub fn heard_primary(
        me: &NodeId,
        (service, state): (&ServiceId, &ServiceState),
        facts: &'a BTreeMap<NodeId, Observed<NodeFacts>>,
        (timing, now): (&Timing, Timestamp),
    ) -> Option<&'a InstanceFacts> {
        let primary = &state.appointment.as_ref().filter(|it| it.primary != *me)?.primary;
        facts.get(primary)?.fresh(now, timing.suspicion)?.instances.get(service)
    }
}

fn act(action: Action, reason: impl Into<Reason>) -> Next {
    Next { action: Some(action), reason: reason.into() }
}

fn wait(reason: impl Into<Reason>) -> Next {
    Next { action: None, reason: reason.into() }
}

/// Words that end with their term.
fn of_term(words: &str, term: Term) -> Reason {
    Reason::new(format!("{words} {term}")).number("term", term.0)
}

/// Plans for the own copy.
pub fn plan(view: &InstanceView<'_>) -> Next {
    if let Some(next) = promise(view) {
        return next;
    }
    match &view.state.appointment {
        None => found(view),
        Some(appointment) if view.own.promised > appointment.term => vote(view),
        Some(appointment) if appointment.primary == *view.me => lead(view, appointment),
        Some(appointment) => follow(view, appointment),
    }
}

/// A promise that is asked for, or one that is durable but whose ballot a restart took away.
fn promise(view: &InstanceView<'_>) -> Option<Next> {
    let own = view.own;
    let settled = view.state.term();
    let asked = view.asked.filter(|term| *term > own.promised && *term > settled);
    if let Some(term) = asked {
        return Some(act(Action::Promise { term }, of_term("asked to promise term", term)));
    }
    // Without data it has only its promise to give, which counts where promises alone do (`Async`).
    let is_empty =
        own.process == Process::Stopped && !matches!(own.data, Data::Present | Data::Foreign);
    let can_vote = own.process == Process::Standby || is_empty;
    let term = own.promised;
    let is_told = own.ballot.is_some_and(|ballot| ballot.term >= term);
    (term > settled && !is_told && can_vote)
        .then(|| act(Action::Promise { term }, of_term("votes, as promised, in term", term)))
}

fn found(view: &InstanceView<'_>) -> Next {
    if view.state.founder.as_ref() != Some(view.me) {
        return wait("waits for the first copy");
    }
    match (&view.own.data, view.own.process) {
        (Data::Empty | Data::Mixed, Process::Stopped) => {
            act(Action::Found, "chosen to make the first copy")
        }
        (Data::Foreign, Process::Stopped) => act(Action::Found, "chosen to adopt what it holds"),
        (Data::Present, Process::Stopped) => {
            act(Action::Start { upstream: None, timeline: None }, "the first copy is made")
        }
        (data, process) => wait(format!("makes the first copy: {data}, {process}")),
    }
}

/// Between a promise and the appointment: run in recovery, fed by nobody.
fn vote(view: &InstanceView<'_>) -> Next {
    let term = view.own.promised;
    if let (Data::Suspect { reason }, Process::Stopped) = (&view.own.data, view.own.process) {
        return suspect(reason);
    }
    match view.own.process {
        Process::Primary => act(Action::Fence, of_term("serves no longer: promised term", term)),
        Process::Stopped if view.own.data == Data::Present => act(
            Action::Start { upstream: None, timeline: None },
            of_term("starts to vote in term", term),
        ),
        Process::Stopped
        | Process::Starting
        | Process::Standby
        | Process::Promoting
        | Process::Stopping => wait(of_term("waits for its appointment: promised term", term)),
    }
}

/// This node is the appointed primary.
fn lead(view: &InstanceView<'_>, appointment: &Appointment) -> Next {
    let own = view.own;
    let term = appointment.term;
    let Some(rule) = appointment.rules.last().cloned() else {
        return wait("no commit rule is agreed");
    };
    if let (Data::Suspect { reason }, Process::Stopped) = (&own.data, own.process) {
        return suspect(reason);
    }
    match own.process {
        Process::Stopped if own.data == Data::Present && view.state.switchover.is_none() => act(
            Action::Start { upstream: None, timeline: None },
            of_term("appointed for term", term),
        ),
        Process::Standby if own.promoted < term => {
            act(Action::Promote { term }, of_term("appointed for term", term))
        }
        Process::Standby => wait(of_term("needs a new term (H12): was primary in term", term)),
        Process::Primary if own.promoted < term && own.promoted > Term(0) => {
            act(Action::Reaffirm { term }, of_term("goes on as primary in term", term))
        }
        Process::Primary if own.promoted != term => {
            act(Action::Fence, "promoted by somebody else (H6)")
        }
        Process::Primary => serve(view, term, rule),
        Process::Stopped | Process::Starting | Process::Promoting | Process::Stopping => {
            let text = format!("{} on the way to term {term}", own.process);
            wait(Reason::new(text).number("term", term.0))
        }
    }
}

fn serve(view: &InstanceView<'_>, term: Term, rule: CommitRule) -> Next {
    let own = view.own;
    if own.serving != Some(term) {
        if own.stalled >= BARRIER_PATIENCE && !own.checkpointed {
            // Whoever should confirm the barrier may have to rewind first.
            return act(Action::Checkpoint, "nobody confirms; others may have to rewind (H18)");
        }
        let text = format!("term {term} needs its barrier under {rule}");
        let reason = Reason::new(text).number("term", term.0).number("acks_needed", rule.acks);
        return act(Action::RecordTerm { term, rule }, reason);
    }
    if let Some(switchover) = &view.state.switchover {
        let to = switchover.to.clone();
        if !own.replicas.get(&to).is_some_and(|replica| replica.streaming) {
            return wait(format!("{to} shall be primary, which it does not feed"));
        }
        return act(
            Action::StopForSwitchover { to },
            format!("{} shall be primary", switchover.to),
        );
    }
    let feeds = own.replicas.iter().filter(|(_, replica)| replica.streaming);
    let fed = feeds.map(|(node, _)| node.clone()).collect();
    if !own.checkpointed && !rule.acknowledges(&fed) {
        // No rule can be proven before somebody comes, who may have to rewind first.
        return act(Action::Checkpoint, "nobody can confirm; others may have to rewind (H18)");
    }
    if own.rule.as_ref() != Some(&rule) {
        let reason = Reason::new(format!("the commit rule becomes {rule}"));
        let reason = reason.number("acks_needed", rule.acks);
        return act(Action::ApplyRule { rule }, reason);
    }
    if !own.checkpointed {
        return act(Action::Checkpoint, "others may have to rewind (H18)");
    }
    wait(of_term("serves term", term))
}

/// Another node is the appointed primary.
fn follow(view: &InstanceView<'_>, appointment: &Appointment) -> Next {
    let own = view.own;
    let (primary, term) = (&appointment.primary, appointment.term);
    match (&own.data, own.process) {
        (_, Process::Primary) => {
            act(Action::Fence, of_term(&format!("{primary} is primary in term"), term))
        }
        (Data::Witness, _) => wait("holds no data"),
        (Data::Quarantined { reason }, _) => wait(format!("quarantined: {reason}")),
        (Data::Suspect { reason }, _) => suspect(reason),
        (Data::Copying { .. }, _) => wait(format!("copies from {primary}")),
        (Data::Empty | Data::Mixed, Process::Stopped) => match serving_primary(view, term) {
            Some(_) if own.rejoin_failures >= REJOIN_FAILURES_MAX => quarantine(own),
            Some(serving) => {
                let (from, timeline) = (primary.clone(), serving.timeline);
                act(Action::Clone { from, term, timeline }, "has no usable data")
            }
            None => wait(format!("waits until {primary} serves, to copy from it")),
        },
        (Data::Mixed, Process::Standby) => {
            act(Action::StopToRejoin, "its data is given up: a copy of it was begun (H19)")
        }
        (Data::Present, Process::Stopped) => rejoin(view, appointment),
        (Data::Foreign, Process::Stopped) => replace_foreign(view, appointment),
        (Data::Present, Process::Standby) => stay_fed(view, appointment),
        (
            Data::Present | Data::Empty | Data::Mixed | Data::Foreign,
            Process::Starting | Process::Promoting | Process::Stopping,
        )
        | (Data::Empty | Data::Foreign, Process::Standby) => wait(format!("it is {}", own.process)),
    }
}

/// The appointed primary's copy, if it really is primary in that term by now.
fn serving_primary<'a>(view: &InstanceView<'a>, term: Term) -> Option<&'a InstanceFacts> {
    view.primary.filter(|p| p.process == Process::Primary && p.promoted == term)
}

fn rejoin(view: &InstanceView<'_>, appointment: &Appointment) -> Next {
    let own = view.own;
    let (from, term) = (appointment.primary.clone(), appointment.term);
    let Some(primary) = serving_primary(view, term) else {
        return if own.was_primary {
            // Started beside the new primary it would only have to be stopped again to rewind.
            wait(format!("waits until {from} serves, to compare with it"))
        } else {
            // PostgreSQL compares numbers of timelines only, so nobody is fed uncompared (H6).
            let upstream = (own.followed == term).then_some((from, term));
            act(Action::Start { upstream, timeline: None }, "a standby starts")
        };
    };
    if own.rejoin_failures >= REJOIN_FAILURES_MAX {
        return quarantine(own);
    }
    match rung(own, primary, view.state) {
        Rung::Follow => {
            let (upstream, timeline) = (Some((from, term)), Some(primary.timeline));
            act(Action::Start { upstream, timeline }, "its log is part of the primary's")
        }
        Rung::Rewind if !primary.checkpointed => {
            wait(format!("waits for the checkpoint of {from}, to rewind (H18)"))
        }
        Rung::Rewind => {
            let text = format!("at {} of timeline {}: rewinds", own.flushed, own.timeline);
            let reason = Reason::new(text).number("timeline", own.timeline.0);
            act(Action::Rewind { from, term, timeline: primary.timeline }, reason)
        }
        Rung::Clone => {
            let timeline = primary.timeline;
            act(Action::Clone { from, term, timeline }, "cannot be rewound")
        }
    }
}

/// Data of another's making, beside a primary that is not this node: replaced only if the primary
/// has all of it. Whom it followed is not recorded, so it is not fed as it is (H6).
fn replace_foreign(view: &InstanceView<'_>, appointment: &Appointment) -> Next {
    let own = view.own;
    let (from, term) = (appointment.primary.clone(), appointment.term);
    let Some(primary) = serving_primary(view, term) else {
        return wait(format!("its data was not made here: waits until {from} serves, to compare"));
    };
    if own.system.is_none() || own.system != primary.system {
        return wait(format!(
            "its data is another database's than that of {from}, and is not touched: empty the \
             data directory, or reinit"
        ));
    }
    if own.was_primary || own.flushed > primary.flushed {
        return wait(format!(
            "its data is of the same database, and may hold what {from} has not: reinit \
             replaces it"
        ));
    }
    if own.rejoin_failures >= REJOIN_FAILURES_MAX {
        return quarantine(own);
    }
    let timeline = primary.timeline;
    act(Action::Clone { from, term, timeline }, "holds an older copy of the same database")
}

fn stay_fed(view: &InstanceView<'_>, appointment: &Appointment) -> Next {
    let own = view.own;
    let (primary, term) = (&appointment.primary, appointment.term);
    let follows = own.upstream == Some((primary.clone(), term));
    let Some(serving) = serving_primary(view, term) else {
        return if follows {
            wait(format!("waits until {primary} serves"))
        } else if own.followed != term {
            wait(format!("waits until {primary} serves, to compare with it (H6)"))
        } else {
            let action = Action::Follow { primary: primary.clone(), term, timeline: None };
            act(action, of_term("follows in term", term))
        };
    };
    let stalled = own.stalled >= view.timing.rejoin_patience;
    if follows && !stalled {
        return wait(format!("follows {primary}"));
    }
    if rung(own, serving, view.state) != Rung::Follow {
        return act(Action::StopToRejoin, format!("{primary} went another way"));
    }
    if follows {
        let ms = own.stalled.as_millis();
        let reason = Reason::new(format!("not fed by {primary} for {ms} ms"))
            .number("stalled_ms", ms)
            .number("stalled_ms_max", view.timing.rejoin_patience.as_millis());
        return act(Action::StopToRejoin, reason);
    }
    let timeline = Some(serving.timeline);
    let action = Action::Follow { primary: primary.clone(), term, timeline };
    act(action, of_term("follows in term", term))
}

/// Recovery would take what the disk kept for all there was.
fn suspect(reason: &str) -> Next {
    wait(format!("its disk is suspect, so it is not started: {reason}"))
}

fn quarantine(own: &InstanceFacts) -> Next {
    let failures = own.rejoin_failures;
    let text = format!("{failures} attempts to rejoin failed: see the node's log, then reinit");
    let reason =
        Reason::new(text).number("failures", failures).number("failures_max", REJOIN_FAILURES_MAX);
    act(Action::Quarantine { reason: reason.to_string() }, reason)
}
