//! Carries out the plans for this node's own copy of a command: one that runs alone, under a lease,
//! or one of many (`beside.rs`).
//! In: agreed state, facts, the keeper's words, answers of checks, requests. Out: facts, the
//! lease, one thing at a time for the keeper.
//! States: Nothing → (hook) Opening → Launching → Runs → (by plan, the doors let go first) Ending →
//! (hook) Closing → Nothing.
//! Keeps: INV-12 "stopped" is told only once the keeper says that no process is left, and nothing
//! is started but under a lease that is proven; INV-2 what is told as promised is durable; INV-3
//! the lease is pushed only while it is proven; H50 every hook has a limit; a fence waits for
//! nothing; INV-14 doors are told before a plan stops what serves.
//! Not here: the decisions (`tandem_core::clustering::active_passive::singleton`), the programs
//! (`service/command`), the processes (`fence`).
//! Tested by: `tests/singleton`, and the model of it in the simulator (`sim/src/singleton`).

mod acting;
mod asking;
pub mod beside;
mod changes;
mod deciding;
mod divided;
mod health;
mod keeper;
mod lease;
mod output;
mod progress;
mod ready;
mod told;
mod wishes;

use super::explain::Explanations;
use super::hub::Hub;
use super::instance::wishes::Asked;
use super::seats::Own;
use crate::consensus::Agreed;
use crate::fence::client::{Keeper, KeeperEvent};
use crate::runtime::clock;
use crate::runtime::supervisor::Supervisor;
use crate::runtime::user::User;
use crate::service::command::{CommandConfig, State};
use crate::telemetry::events::EventLog;
use acting::{Ended, Finished, Part, Work};
use beside::Beside;
pub use changes::Change;
use divided::Hook;
use health::Checks;
use output::Output;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tandem_core::cluster::lease::outlives;
use tandem_core::cluster::memory::Memory;
use tandem_core::cluster::state::ServiceState;
use tandem_core::facts::withdrawal::Wish;
use tandem_core::facts::{Data, InstanceFacts, Process};
use tandem_core::ids::{NodeId, ServiceId, Term};
use tandem_core::spec::{ServiceSpec, Timing};
use tandem_core::time::Timestamp;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio_util::sync::CancellationToken;

/// How often to plan when nothing changes.
const TICK: Duration = Duration::from_millis(200);

/// What a driver is connected to.
#[derive(Debug)]
pub struct Wiring {
    /// What is run.
    pub config: CommandConfig,
    /// Resource limits, as the keeper takes them.
    pub limits: BTreeMap<crate::fence::protocol::Limit, u64>,
    /// The binary that a keeper is made of.
    pub exe: std::path::PathBuf,
    /// What this node knows.
    pub hub: Arc<Hub>,
    /// The last plans, for operators.
    pub explanations: Arc<Explanations>,
    /// Who spawns.
    pub supervisor: Supervisor,
    /// What is agreed.
    pub agreed: watch::Receiver<Agreed>,
    /// Terms that controllers ask to promise.
    pub asks: mpsc::Receiver<Term>,
    /// What operators want.
    pub wishes: mpsc::Receiver<Asked>,
    /// Other ways to run it.
    pub changes: mpsc::Receiver<Change>,
    /// What happened, for operators.
    pub events: EventLog,
    /// There if it is one of many, and none of them alone: no lease is needed.
    pub beside: Option<Beside>,
    /// There if its work is divided: what it was told of its partitions last.
    pub divided: Option<watch::Receiver<Option<Own>>>,
}

/// What the keeper holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Life {
    Nothing,
    /// The hook before a start, with its limit.
    Opening(Timestamp),
    /// What becomes the command, until when it must be that.
    Launching(Timestamp),
    Runs,
    /// Was asked to end; killed from then on.
    Ending {
        kill_at: Timestamp,
        why: Why,
    },
    /// The hook after an end, with its limit.
    Closing(Timestamp),
}

/// Why it is being ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Why {
    /// A move, a restart.
    Planned,
    /// Its checks fail.
    Unwell,
    /// It may not run here.
    Fenced,
}

/// The driver of one node's copy.
#[derive(Debug)]
pub struct SingletonDriver {
    it: Wiring,
    /// The parent of the copy, and what it says.
    keeper: Keeper,
    keeper_events: mpsc::Receiver<KeeperEvent>,
    own: InstanceFacts,
    life: Life,
    /// Counts what the keeper was told to run: an answer about an earlier one is no news.
    lives: u64,
    durable: State,
    writing: Option<Work>,
    /// What is to begin once that is written.
    begins_next: Option<(Term, Part)>,
    finished: (mpsc::Sender<Finished>, mpsc::Receiver<Finished>),
    asked: Option<Term>,
    /// When it had last answered each peer at its last promise.
    answered: BTreeMap<NodeId, Timestamp>,
    memory: Memory,
    lease: Timestamp,
    retry_at: Timestamp,
    /// What an operator wants of this copy.
    wish: Wish,
    failed_at: Timestamp,
    /// Since when the copy is well; none: it is not.
    well_since: Option<Timestamp>,
    /// Since when it is where it should have ended.
    overdue_since: Option<Timestamp>,
    /// The life of which it was told last that it does not end.
    told_overdue: u64,
    stalled_since: Option<Timestamp>,
    away_until: Timestamp,
    checks: Checks,
    output: Output,
    /// Whom it runs as, looked up anew before each start; or why not.
    user: Result<Option<User>, String>,
    /// Since when that is not known.
    unanswered_since: Option<Timestamp>,
    looks_up: bool,
    look_at: Timestamp,
    questions: Arc<Semaphore>,
    /// The program that is told of its partitions.
    hook: Hook,
    /// Ends the program that asks the copy to end.
    stopper: Option<CancellationToken>,
    /// What the keeper said while that still ran.
    ended: Option<Ended>,
    /// When the daemon last ended what its keeper should have.
    swept_at: Timestamp,
    /// The life of which that was told.
    told_swept: Option<u64>,
    /// Since when it is not known what an earlier daemon left; none once a keeper has said so.
    unheard: Option<Timestamp>,
    /// For so long a lease is proven at most.
    lease_max: Duration,
    /// A keeper is being looked for; if none is found, not again before then.
    attaching: bool,
    attach_at: Timestamp,
    /// The keeper is gone, and what it held is not known to be.
    keeper_lost: bool,
    /// What was last agreed of a service that may be taken out.
    last_spec: Option<ServiceSpec>,
    /// Its name has another pattern now: another driver waits for what this one has.
    gives_way: bool,
}

impl SingletonDriver {
    /// A driver; nothing is done before `run`.
    pub fn new(wiring: Wiring) -> Self {
        let now = clock::now();
        let own = InstanceFacts {
            data: Data::Present,
            // Until its keeper has said otherwise.
            process: Process::Stopping,
            ..InstanceFacts::default()
        };
        let (keeper, keeper_events) = Keeper::gone();
        Self {
            durable: State::default(),
            unheard: wiring.beside.is_none().then_some(now),
            it: wiring,
            keeper,
            keeper_events,
            own,
            life: Life::Nothing,
            lives: 0,
            writing: None,
            begins_next: None,
            finished: mpsc::channel(8),
            asked: None,
            answered: BTreeMap::new(),
            memory: Memory::new(now),
            lease: Timestamp(0),
            retry_at: Timestamp(0),
            wish: Wish::Agreed,
            failed_at: now,
            well_since: None,
            overdue_since: None,
            told_overdue: 0,
            stalled_since: None,
            away_until: Timestamp(0),
            checks: Checks::default(),
            output: Output::default(),
            user: Ok(None),
            unanswered_since: None,
            looks_up: false,
            look_at: now,
            questions: Arc::new(Semaphore::new(ready::QUESTIONS_MAX)),
            hook: Hook::default(),
            stopper: None,
            ended: None,
            swept_at: Timestamp(0),
            told_swept: None,
            lease_max: Timing::of_command().lease,
            attaching: false,
            attach_at: now,
            keeper_lost: true,
            last_spec: None,
            gives_way: false,
        }
    }

    fn service(&self) -> &ServiceId {
        &self.it.config.service
    }

    /// Plans and acts until `stop`. The copy goes on: its keeper holds it, until its lease passes.
    /// True if nothing is left to do here, ever.
    pub async fn run(mut self, stop: CancellationToken) -> bool {
        let mut changed = self.it.hub.changed();
        if !self.is_ready(&stop).await {
            return false;
        }
        let mut again = self.go_on().await;
        loop {
            let pause = self.pause(again);
            tokio::select! {
                biased;
                () = stop.cancelled() => return false,
                event = self.keeper_events.recv(), if !self.keeper_lost => {
                    // The end of what it says is its end: the last word may have found no room.
                    self.on_keeper(event.unwrap_or(KeeperEvent::KeeperGone)).await;
                }
                Some(finished) = self.finished.1.recv() => self.on_finished(finished).await,
                Some(term) = self.it.asks.recv() => self.asked = self.asked.max(Some(term)),
                Some(asked) = self.it.wishes.recv() => self.on_wish(asked).await,
                Some(change) = self.it.changes.recv() => self.on_change(change),
                () = Beside::until_end(self.it.beside.as_ref()) => self.note_end(),
                result = self.it.agreed.changed() => if result.is_err() { return false },
                result = changed.changed() => if result.is_err() { return false },
                () = divided::told(&mut self.it.divided) => {}
                () = tokio::time::sleep(pause) => {}
            }
            again = self.go_on().await;
            if self.has_ended() {
                self.retire().await;
                return true;
            }
        }
    }

    /// Until when nothing needs to be looked at.
    fn pause(&self, again: Option<Timestamp>) -> Duration {
        let now = clock::now();
        let limit = match self.life {
            Life::Opening(until) | Life::Launching(until) | Life::Closing(until) => Some(until),
            Life::Ending { kill_at, .. } => Some(kill_at),
            Life::Nothing | Life::Runs => None,
        };
        let check = self.check_due();
        let lease = self.outlives_at();
        let next = [again, limit, check, lease].into_iter().flatten().min();
        let pause = next.map_or(TICK, |next| next.since(now).min(TICK));
        // What is overdue and cannot be done now is looked at again soon, not at once for ever.
        pause.max(Duration::from_millis(2))
    }

    async fn go_on(&mut self) -> Option<Timestamp> {
        let now = clock::now();
        if self.keeper_lost {
            self.reattach();
        }
        if self.life == Life::Runs {
            self.awaits_user();
        }
        let agreed = self.it.agreed.borrow_and_update().clone();
        let spec = agreed.state.spec.services.get(self.service());
        // Also where that came and went unseen.
        let out = agreed.state.taken_out.get(self.service());
        let has_other_pattern =
            spec.map_or(out.is_some_and(|out| out.beside), |spec| !spec.is_appointed());
        self.gives_way = self.it.beside.is_none() && has_other_pattern;
        if self.gives_way {
            // To whoever has the name now, it is no copy that serves.
            self.own.serving = None;
        }
        let spec = spec.filter(|_| !self.gives_way).cloned();
        let state = agreed.state.services.get(self.service());
        let state = state.filter(|_| !self.gives_way).cloned();
        if self.memory.learn(&agreed.state, &self.it.config.service, now) {
            self.answered = self.it.hub.answered_all();
            self.own.ballot = None;
            self.asked = None;
            self.own.starts_failed = 0;
            self.retry_at = now;
        }
        self.own.outlives = self.memory.outlives();
        self.own.is_leaving = self.memory.leaving().is_some();
        if let Some((spec, state)) = spec.as_ref().zip(state.as_ref()) {
            self.own.outlives = outlives(spec, state);
            self.own.revision = state.revision;
            self.lease_max = spec.timing.lease;
            // What it voted for was decided.
            self.own.ballot = self.own.ballot.filter(|ballot| ballot.term > state.term());
        }
        self.note_progress(state.as_ref(), now);
        let left = self.memory.leaving().map(|(_, state)| state);
        let holds = state.as_ref().or(left).is_some_and(|it| self.holds(it));
        self.it.hub.rest(self.service(), holds && (left.is_none() || self.life != Life::Nothing));
        self.publish();
        let version = agreed.state.config_version;
        self.it.hub.goes_by(self.service(), version, self.own.is_leaving);
        self.enforce(now).await;
        if self.life != Life::Runs {
            self.checks.leave();
        }
        self.fence_beside_keeper(now);
        self.tell_of_partitions();
        self.follow_output(now);
        // Before anything is agreed, nothing is known to have ended.
        agreed.state.cluster.as_ref()?;
        if self.it.beside.is_some() {
            return self.go_on_beside(&agreed, (spec, state)).await;
        }
        let is_member = agreed.state.spec.nodes.contains_key(self.it.hub.me());
        let (Some(spec), Some(state)) = (spec.filter(|_| is_member), state) else {
            self.leave(is_member).await;
            return None;
        };
        let voters = self.memory.voters().clone();
        let lease = self.hold_lease(&spec, &state, &voters).await;
        self.own.pending_restart = self.is_outdated();
        self.check_health();
        let again = self.decide((&spec, &state), &agreed.state, lease).await;
        self.publish();
        again
    }

    fn holds(&self, state: &ServiceState) -> bool {
        state.appointment.as_ref().is_some_and(|it| it.primary == *self.it.hub.me())
    }

    fn publish(&self) {
        self.it.hub.publish(self.service(), &self.own, clock::now());
    }
}

#[cfg(test)]
mod tests;
