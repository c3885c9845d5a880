//! Decides what a node does with its own copy of a command that need not be alone.
//! In: `CopyView`. Out: at most one `Action` at a time, with the reason.
//! States: stopped → starting → runs → (not wanted, out of date) withdrawn → (no door has anything
//! there, or the bound passed) stopping → stopped.
//! Keeps: INV-14 what is stopped by a plan is withdrawn first, and nobody leaves or starts anew who
//! is the last that serves: no request is lost by it.
//! Not here: where copies run, whose turn it is (`controller.rs`).
//! Tested by: `tests.rs`.

use super::{is_spared, serves, takes_work, wanted};
use crate::cluster::state::ServiceState;
pub use crate::facts::withdrawal::Wish;
use crate::facts::withdrawal::{Doors, Ending};
use crate::facts::{InstanceFacts, NodeFacts, Process};
use crate::ids::{NodeId, ServiceId, Term};
use crate::reason::Reason;
use crate::spec::{Copies, NodeSpec, ServiceSpec};
use crate::time::{Observed, Timestamp};
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use core::fmt;
use core::time::Duration;

/// One that is not wanted here waits so long for others that do not serve yet, while some do.
const PATIENCE: Duration = Duration::from_secs(30);

/// What a node knows about its own copy.
#[derive(Clone, Debug)]
pub struct CopyView<'a> {
    /// This node.
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
    /// What each node last said, this one included.
    pub facts: &'a BTreeMap<NodeId, Observed<NodeFacts>>,
    /// The own copy; `Stopped` only while its keeper says that no process of it is left.
    pub own: &'a InstanceFacts,
    /// What an operator or the node wants of this one copy.
    pub wish: Wish,
    /// Since when it shall end, if it shall.
    pub unwanted_since: Option<Timestamp>,
    /// Not started again before.
    pub retry_at: Timestamp,
    /// Whether its checks have said how it is.
    pub judged: Judged,
}

/// Whether its checks have said how a copy is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Judged {
    /// It is as it says.
    #[default]
    Yes,
    /// A restarted daemon found it running, and has not asked it often enough to know.
    NotYet,
}

/// One thing to do with the own copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Start it.
    Start {
        /// What for.
        term: Term,
    },
    /// Tell the doors to send nothing new.
    Withdraw,
    /// Tell them that they may.
    Return,
    /// End it in good order, within bounds.
    Stop,
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Start { term } => write!(f, "start for round {term}"),
            Self::Withdraw => f.write_str("withdraw from the doors"),
            Self::Return => f.write_str("return to the doors"),
            Self::Stop => f.write_str("stop in good order"),
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
    /// Whether it shall end here.
    pub is_unwanted: bool,
}

impl Next {
    /// Since when it shall end here, for the next plan.
    pub fn unwanted_since(&self, before: Option<Timestamp>, now: Timestamp) -> Option<Timestamp> {
        self.is_unwanted.then(|| before.unwrap_or(now))
    }
}

fn act(action: Action, reason: impl Into<Reason>) -> Next {
    Next { action: Some(action), reason: reason.into(), again: None, is_unwanted: false }
}

fn wait(reason: impl Into<Reason>) -> Next {
    Next { action: None, reason: reason.into(), again: None, is_unwanted: false }
}

impl CopyView<'_> {
    /// What is known of the doors that may lead here.
    const fn doors(&self) -> Doors<'_> {
        let drain_max = match self.spec.copies {
            Some(Copies { drain_max, .. }) => drain_max,
            None => Duration::ZERO,
        };
        Doors {
            me: self.me,
            service: self.service,
            nodes: self.nodes,
            facts: self.facts,
            suspicion: self.spec.timing.suspicion,
            drain_max,
        }
    }

    /// Whether clients may be served by it now.
    fn may_serve(&self) -> bool {
        let is_found = self.own.process == Process::Primary && self.judged == Judged::NotYet;
        serves(self.own) || is_found
    }

    /// The other nodes on which a copy shall run for long.
    fn others<'a>(&self, wanted: &'a BTreeSet<NodeId>) -> impl Iterator<Item = &'a NodeId> {
        wanted.iter().filter(|it| *it != self.me && !self.draining.contains(*it))
    }

    /// Whether it may be away for a while: another one serves, or never does, or it serves nobody.
    fn is_spared(&self, now: Timestamp) -> bool {
        let wanted = wanted(self.nodes, self.spec, &self.state.copies);
        let takes = |node: &NodeId| self.takes_work(node, now);
        !self.may_serve() || is_spared(self.me, (&wanted, self.draining), takes)
    }

    fn takes_work(&self, node: &NodeId, now: Timestamp) -> bool {
        let facts = self.facts.get(node);
        let facts = facts.and_then(|it| it.fresh(now, self.spec.timing.suspicion));
        facts.and_then(|it| it.instances.get(self.service)).is_some_and(takes_work)
    }
}

/// Plans for the own copy.
pub fn plan(view: &CopyView<'_>, now: Timestamp) -> Next {
    match view.own.process {
        Process::Primary => runs(view, now),
        Process::Stopped => stopped(view, now),
        Process::Starting | Process::Standby | Process::Promoting | Process::Stopping => {
            wait(format!("{}", view.own.process))
        }
    }
}

/// Whether a copy shall run here, and why not.
fn unwanted(view: &CopyView<'_>) -> Option<Reason> {
    if view.wish == Wish::Leave {
        return Some(Reason::new("it has no place here any more"));
    }
    if !wanted(view.nodes, view.spec, &view.state.copies).contains(view.me) {
        return Some(Reason::new("no copy is wanted here"));
    }
    let drained = view.draining.contains(view.me);
    drained.then(|| Reason::new("this node is drained"))
}

fn stopped(view: &CopyView<'_>, now: Timestamp) -> Next {
    if let Some(why) = unwanted(view) {
        return wait(why);
    }
    if view.retry_at > now {
        let (failures, ms) = (view.own.starts_failed, view.retry_at.since(now).as_millis());
        let text = format!("failed {failures} times in a row, starts again in {ms} ms");
        let reason = Reason::new(text).number("failures", failures).number("wait_ms", ms);
        return Next { again: Some(view.retry_at), ..wait(reason) };
    }
    act(Action::Start { term: view.state.copies.term }, "a copy is wanted here")
}

fn runs(view: &CopyView<'_>, now: Timestamp) -> Next {
    let ends = match unwanted(view) {
        Some(why) => match stays(view, now) {
            None => Some((why, true)),
            Some((because, again)) => {
                let text = format!("{why}, but {because}");
                let back = view.own.withdrawn.map(|_| Action::Return);
                return Next { action: back, again, is_unwanted: true, ..wait(text) };
            }
        },
        None => outdated(view).map(|why| (why, false)),
    };
    let last = ends.as_ref().filter(|(_, is_unwanted)| !is_unwanted && !view.is_spared(now));
    if let Some((why, _)) = last {
        let text = format!("{why}, but no other copy serves, so it goes on");
        return if view.own.withdrawn.is_some() { act(Action::Return, text) } else { wait(text) };
    }
    let Some((why, is_unwanted)) = ends else {
        return match view.own.withdrawn {
            Some(_) => act(Action::Return, "it is wanted again"),
            None if serves(view.own) => wait("serves"),
            None if view.may_serve() => wait("was found running, and is asked how it is"),
            None => wait("runs, and is not healthy yet"),
        };
    };
    Next { is_unwanted, ..end(view, &why, now) }
}

/// Why it may not go yet though nobody wants it here: others shall serve in its place first.
fn stays(view: &CopyView<'_>, now: Timestamp) -> Option<(&'static str, Option<Timestamp>)> {
    if view.wish == Wish::Leave || !view.may_serve() {
        return None;
    }
    let wanted = wanted(view.nodes, view.spec, &view.state.copies);
    let others = || view.others(&wanted);
    let serving = others().filter(|it| view.takes_work(it, now)).count();
    if serving == 0 {
        return Some(("no other copy serves, so it stays", None));
    }
    let until = view.unwanted_since.unwrap_or(now).plus(PATIENCE);
    // With one on every node nobody comes in its place.
    let are_chosen = view.spec.copies.is_some_and(|copies| copies.replicas.is_some());
    let is_going = view.own.withdrawn.is_some();
    let is_early = !is_going && are_chosen && serving < others().count() && now < until;
    is_early.then_some(("not all others serve yet, so it stays", Some(until)))
}

/// Why it shall start anew, and may.
fn outdated(view: &CopyView<'_>) -> Option<Reason> {
    if view.wish == Wish::Restart {
        return Some(Reason::new("an operator wants it to start anew"));
    }
    let is_old = view.own.promoted < view.state.copies.term;
    if !is_old && !view.own.pending_restart {
        return None;
    }
    let is_its_turn = view.state.copies.turn.as_ref() == Some(view.me);
    // One that serves nobody is no loss.
    (is_its_turn || !view.may_serve()).then(|| {
        Reason::new(match is_old {
            true => "every copy starts anew, and it is its turn",
            false => "its configuration changed, and it is its turn",
        })
    })
}

/// Withdraws it, waits for the doors, stops it.
fn end(view: &CopyView<'_>, why: &Reason, now: Timestamp) -> Next {
    match view.doors().ending(view.own.withdrawn, why, now) {
        Ending::Withdraw => act(Action::Withdraw, format!("{why}")),
        Ending::Wait(until, reason) => Next { again: Some(until), ..wait(reason) },
        Ending::End(reason) => act(Action::Stop, reason),
    }
}
