//! Decides what a node does with its own copy of a command.
//! In: `SingletonView`. Out: at most one `Action` at a time, with the reason.
//! States: stopped → (appointed, lease proven) starting → runs → (ended) stopped → …; runs → (by
//! plan) withdrawn → (doors let go, or the bound passed) stopping → stopped → (asked) promised →
//! voted.
//! Keeps: INV-12 it starts only where it is appointed, with a proven lease, and ends at once where
//! it is not: a fence waits for no door, and a copy that waits for doors has its lease as ever;
//! INV-2 a promise comes before everything else; INV-6 what was done is not planned again; INV-14
//! what serves is withdrawn before it is stopped by a plan, and what owns a part of divided work is
//! emptied before it starts anew for its configuration.
//! Not here: who is appointed (`controller.rs`), what proves a lease (`cluster/lease.rs`).
//! Tested by: `tests.rs`, and the simulator (`sim/src/singleton`).

use crate::cluster::state::{Appointment, ServiceState, Switchover};
use crate::facts::withdrawal::{Doors, Ending, Wish};
use crate::facts::{Ballot, InstanceFacts, Process};
use crate::ids::{NodeId, Term};
use crate::reason::Reason;
use crate::spec::Timing;
use crate::time::Timestamp;
use alloc::format;
use core::fmt;

/// What a node knows about its own copy.
#[derive(Clone, Debug)]
pub struct SingletonView<'a> {
    /// This node.
    pub me: &'a NodeId,
    /// How long things may take.
    pub timing: Timing,
    /// What is agreed.
    pub state: &'a ServiceState,
    /// The own copy; `Stopped` only while its keeper says that no process of it is left.
    pub own: &'a InstanceFacts,
    /// A term that a controller asked this node to promise.
    pub asked: Option<Term>,
    /// Until when the own lease is proven, if it is.
    pub lease: Option<Timestamp>,
    /// From when on a ballot of this node counts (`lease::outlived`); none is at once.
    pub counts_from: Option<Timestamp>,
    /// Not started again before.
    pub retry_at: Timestamp,
    /// What an operator or the node wants of this copy.
    pub wish: Wish,
    /// It owns work that others take first, where it is to start anew since its configuration has
    /// changed (`active_active/seat.rs`).
    pub is_emptied_first: bool,
    /// What is known of the doors that may lead here.
    pub doors: Doors<'a>,
}

/// One thing to do with the own copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Make the term durable, then tell it.
    Promise {
        /// The term.
        term: Term,
    },
    /// Tell the ballot of the promised term.
    Vote {
        /// The term.
        term: Term,
        /// `Ballot::held`.
        held: Option<Term>,
    },
    /// Make the term durable as begun, then have the keeper start a copy under the proven lease.
    Start {
        /// The term.
        term: Term,
    },
    /// The running copy goes on under a new term: make it durable as begun.
    GoOn {
        /// The term.
        term: Term,
    },
    /// Tell the doors to hold whoever comes.
    Withdraw,
    /// Tell them that they may lead here again.
    Return,
    /// End it in good order, within bounds.
    Stop,
    /// Kill it at once.
    Fence,
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Promise { term } => write!(f, "promise term {term}"),
            Self::Vote { term, .. } => write!(f, "vote in term {term}"),
            Self::Start { term } => write!(f, "start in term {term}"),
            Self::GoOn { term } => write!(f, "go on in term {term}"),
            Self::Withdraw => f.write_str("withdraw from the doors"),
            Self::Return => f.write_str("return to the doors"),
            Self::Stop => f.write_str("stop in good order"),
            Self::Fence => f.write_str("kill the copy"),
        }
    }
}

/// What to do now, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Next {
    /// Nothing is "wait".
    pub action: Option<Action>,
    /// Why.
    pub reason: Reason,
    /// Look again then, if nothing changes before.
    pub again: Option<Timestamp>,
}

fn act(action: Action, reason: impl Into<Reason>) -> Next {
    Next { action: Some(action), reason: reason.into(), again: None }
}

fn wait(reason: impl Into<Reason>) -> Next {
    Next { action: None, reason: reason.into(), again: None }
}

fn of_term(words: &str, term: Term) -> Reason {
    Reason::new(format!("{words} {term}")).number("term", term.0)
}

/// Plans for the own copy.
pub fn plan(view: &SingletonView<'_>, now: Timestamp) -> Next {
    let settled = view.state.term();
    let asked = view.asked.filter(|term| *term > view.own.promised && *term > settled);
    if let Some(term) = asked {
        return act(Action::Promise { term }, of_term("asked to promise term", term));
    }
    match &view.state.appointment {
        _ if view.own.promised > settled => vote(view, now),
        Some(appointment) if appointment.primary == *view.me => hold(view, appointment, now),
        Some(Appointment { primary, term, .. }) => {
            stay_off(view, of_term(&format!("{primary} runs it in term"), *term))
        }
        None => stay_off(view, Reason::new("nobody was appointed yet")),
    }
}

/// It runs elsewhere, or nowhere.
fn stay_off(view: &SingletonView<'_>, reason: Reason) -> Next {
    match view.own.process {
        Process::Stopped => wait(reason),
        Process::Starting
        | Process::Standby
        | Process::Promoting
        | Process::Primary
        | Process::Stopping => act(Action::Fence, reason),
    }
}

/// Between a promise and the next appointment nothing runs here.
fn vote(view: &SingletonView<'_>, now: Timestamp) -> Next {
    let term = view.own.promised;
    if view.own.process != Process::Stopped {
        return stay_off(view, of_term("serves no longer: promised term", term));
    }
    // The holder's own word is proof by itself: its copy is gone and does not start again. It is
    // that of nobody who only took itself for the holder, since it knew of no later one.
    let held = view.state.appointment.as_ref().filter(|it| it.primary == *view.me);
    let held = held.map(|it| it.term);
    let counts =
        |ballot: Ballot| ballot.term >= term && (ballot.held.is_none() || ballot.held == held);
    if view.own.ballot.is_some_and(counts) {
        return wait(of_term("waits for an appointment: promised term", term));
    }
    match view.counts_from {
        Some(until) if until > now && held.is_none() => {
            let ms = until.since(now).as_millis();
            let text = format!("its vote in term {term} counts in {ms} ms: a lease may hold");
            let reason = Reason::new(text).number("term", term.0).number("wait_ms", ms);
            Next { again: Some(until), ..wait(reason) }
        }
        Some(_) | None => {
            act(Action::Vote { term, held }, of_term("votes, as promised, in term", term))
        }
    }
}

/// This node is the holder.
fn hold(view: &SingletonView<'_>, appointment: &Appointment, now: Timestamp) -> Next {
    let (own, term) = (view.own, appointment.term);
    match own.process {
        Process::Primary if own.promoted != term && is_still_its_own(view, term) => {
            act(Action::GoOn { term }, of_term("goes on in term", term))
        }
        Process::Primary if own.promoted != term => {
            act(Action::Fence, of_term("was started for another term than", term))
        }
        Process::Primary => match ends(view) {
            Some(why) => end(view, &why, now),
            None if own.withdrawn.is_some() => act(Action::Return, of_term("stays in term", term)),
            None if own.pending_restart => {
                let words = "is out of date, and starts anew once others own its work; in term";
                wait(of_term(words, term))
            }
            None => wait(of_term("runs in term", term)),
        },
        Process::Stopped => match leaves(view) {
            Some(it) => wait(format!("stopped, so that {} can run it", it.to)),
            None => start(view, term, now),
        },
        Process::Starting | Process::Standby | Process::Promoting | Process::Stopping => {
            wait(of_term(&format!("{} in term", own.process), term))
        }
    }
}

/// Where it shall run instead.
fn leaves<'a>(view: &'a SingletonView<'_>) -> Option<&'a Switchover> {
    view.state.switchover.as_ref().filter(|it| it.to != *view.me)
}

/// Why what runs shall end by a plan.
fn ends(view: &SingletonView<'_>) -> Option<Reason> {
    if let Some(it) = leaves(view) {
        return Some(format!("{} shall run it", it.to).into());
    }
    match view.wish {
        Wish::Leave => Some(Reason::new("its node leaves")),
        Wish::Restart => Some(Reason::new("it shall start anew")),
        Wish::Agreed => {
            let why = Reason::new("its configuration has changed, so it starts anew");
            // One that is not well serves nobody: what was changed may mend it.
            let waits = view.is_emptied_first && view.own.serving.is_some();
            (view.own.pending_restart && !waits).then_some(why)
        }
    }
}

/// Withdraws it, waits for the doors, stops it. Where nobody leads to it there is nothing to wait
/// for.
fn end(view: &SingletonView<'_>, why: &Reason, now: Timestamp) -> Next {
    let own = view.own;
    if view.doors.left(own.withdrawn, now).is_nothing() {
        return act(Action::Stop, why.clone());
    }
    match view.doors.ending(own.withdrawn, why, now) {
        Ending::Withdraw => act(Action::Withdraw, why.clone()),
        Ending::Wait(until, reason) => Next { again: Some(until), ..wait(reason) },
        Ending::End(reason) => act(Action::Stop, reason),
    }
}

/// Whether nobody else held it since the running copy was started: then its lease never ended.
fn is_still_its_own(view: &SingletonView<'_>, term: Term) -> bool {
    let begun = view.own.promoted;
    let mut since = view.state.history.iter().filter(|line| line.term > begun);
    // Of a seat nobody else ever is the holder; a new sitting is what ends its copies.
    begun > Term(0)
        && begun < term
        && view.state.sitting <= begun
        && view.state.history.iter().any(|line| line.term == begun)
        && since.all(|line| line.primary == *view.me)
}

fn start(view: &SingletonView<'_>, term: Term, now: Timestamp) -> Next {
    if view.retry_at > now {
        let (failures, ms) = (view.own.starts_failed, view.retry_at.since(now).as_millis());
        let text = format!("failed {failures} times in a row, starts again in {ms} ms");
        let reason = Reason::new(text).number("failures", failures).number("wait_ms", ms);
        return Next { again: Some(view.retry_at), ..wait(reason) };
    }
    // Half a lease, so that it is not killed before its first renewal.
    let enough = now.plus(view.timing.lease / 2);
    match view.lease {
        Some(until) if until >= enough => {
            let ms = until.since(now).as_millis();
            let reason = of_term("appointed for term", term).number("lease_ms", ms);
            act(Action::Start { term }, reason)
        }
        Some(_) | None => wait(of_term("no majority proves its lease yet in term", term)),
    }
}
