//! Carries out the plans for this node's own copy of a command: one that runs alone, under a lease,
//! or one of many (`beside.rs`).
//! In: agreed state, facts, the keeper's words, answers of checks, requests. Out: facts, the
//! lease, one thing at a time for the keeper.
//! States: Nothing → (hook) Opening → Launching → Runs → Ending → (hook) Closing → Nothing.
//! Keeps: INV-12 "stopped" is told only once the keeper says that no process is left, and nothing
//! is started but under a lease that is proven; INV-2 what is told as promised is durable; INV-3
//! the lease is pushed only while it is proven; H50 every hook has a limit; a fence waits for
//! nothing.
//! Not here: the decisions (`tandem_core::clustering::active_passive::singleton`), the programs
//! (`service/command`), the processes (`fence`).
//! Tested by: `tests/singleton`, and the model of it in the simulator (`sim/src/singleton`).

mod acting;
pub mod beside;
pub mod doors;
mod health;
mod keeper;
mod lease;
pub mod route;
mod told;
mod wishes;

use super::explain::Explanations;
use super::hub::Hub;
use super::instance::wishes::Asked;
use crate::consensus::Agreed;
use crate::fence::client::{Keeper, KeeperEvent};
use crate::runtime::clock;
use crate::runtime::supervisor::{Supervisor, TaskKind};
use crate::service::command::{CommandConfig, Runs, State};
use crate::telemetry::events::EventLog;
use acting::{Finished, Work};
use beside::Beside;
use health::Checks;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tandem_core::cluster::lease::{counts_from, outlives};
use tandem_core::cluster::state::ServiceState;
use tandem_core::clustering::active_passive::singleton::{
    Next, RAN_WELL_AFTER, SingletonView, instance,
};
use tandem_core::facts::{Data, InstanceFacts, Process};
use tandem_core::ids::{NodeId, ServiceId, Term};
use tandem_core::spec::ServiceSpec;
use tandem_core::time::Timestamp;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

/// How often to plan when nothing changes.
const TICK: Duration = Duration::from_millis(200);
/// Failures are forgotten where it has not been tried for so long.
const FORGET_AFTER: Duration = Duration::from_secs(600);
/// A new holder asks this often for the proof of its lease, and for so long.
const PROOF_EVERY: Duration = Duration::from_millis(10);
const PROOF_WITHIN: Duration = Duration::from_secs(1);
/// How often its log is looked at.
const LOG_EVERY: Duration = Duration::from_secs(5);

/// What a driver is connected to.
#[derive(Debug)]
pub struct Wiring {
    /// What is run.
    pub config: CommandConfig,
    /// Resource limits, as the keeper takes them.
    pub limits: BTreeMap<crate::fence::protocol::Limit, u64>,
    /// The parent of the copy.
    pub keeper: Keeper,
    /// What it says.
    pub keeper_events: mpsc::Receiver<KeeperEvent>,
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
    /// What happened, for operators.
    pub events: EventLog,
    /// What is durable.
    pub state: State,
    /// There if it is one of many, and none of them alone: no lease is needed.
    pub beside: Option<Beside>,
}

/// What the keeper holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Life {
    Nothing,
    /// The hook before a start, with its limit.
    Opening(Timestamp),
    Launching,
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
    own: InstanceFacts,
    life: Life,
    /// Counts what the keeper was told to run: an answer about an earlier one is no news.
    lives: u64,
    durable: State,
    writing: Option<Work>,
    /// What is to begin once that is written.
    begins_next: Option<(Term, Runs)>,
    finished: (mpsc::Sender<Finished>, mpsc::Receiver<Finished>),
    asked: Option<Term>,
    /// When it had last answered each peer at its last promise.
    answered: BTreeMap<NodeId, Timestamp>,
    started: Timestamp,
    lease: Timestamp,
    retry_at: Timestamp,
    failed_at: Timestamp,
    ran_since: Timestamp,
    stalled_since: Option<Timestamp>,
    away_until: Timestamp,
    checks: Checks,
    log_looked_at: Timestamp,
    /// The keeper is gone, and what it held is not known to be.
    keeper_lost: bool,
    /// The service was agreed since the daemon started.
    was_agreed: bool,
    /// What was last agreed of a service that may be taken out.
    last_spec: Option<ServiceSpec>,
    /// It was taken out since: what this daemon knows of it may be of the past if it comes back.
    was_removed: bool,
}

impl SingletonDriver {
    /// A driver; nothing is done before `run`.
    pub fn new(wiring: Wiring) -> Self {
        let now = clock::now();
        let own = InstanceFacts {
            data: Data::Present,
            promised: wiring.state.promised,
            promoted: wiring.state.begun,
            // Until its keeper has said otherwise.
            process: Process::Stopping,
            ..InstanceFacts::default()
        };
        Self {
            durable: wiring.state,
            it: wiring,
            own,
            life: Life::Nothing,
            lives: 0,
            writing: None,
            begins_next: None,
            finished: mpsc::channel(8),
            asked: None,
            answered: BTreeMap::new(),
            started: now,
            lease: Timestamp(0),
            retry_at: Timestamp(0),
            failed_at: now,
            ran_since: now,
            stalled_since: None,
            away_until: Timestamp(0),
            checks: Checks::default(),
            log_looked_at: now,
            keeper_lost: false,
            was_agreed: false,
            last_spec: None,
            was_removed: false,
        }
    }

    fn service(&self) -> &ServiceId {
        &self.it.config.service
    }

    /// Plans and acts until `stop`. The copy goes on: its keeper holds it, until its lease passes.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut changed = self.it.hub.changed();
        // The first word of a keeper is what it holds.
        if let Some(event) = self.it.keeper_events.recv().await {
            self.on_keeper(event).await;
        }
        let mut again = self.go_on().await;
        loop {
            let pause = self.pause(again);
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                Some(event) = self.it.keeper_events.recv() => self.on_keeper(event).await,
                Some(finished) = self.finished.1.recv() => self.on_finished(finished).await,
                Some(term) = self.it.asks.recv() => self.asked = self.asked.max(Some(term)),
                Some(asked) = self.it.wishes.recv() => self.on_wish(asked).await,
                change = Beside::next(&mut self.it.beside) => self.on_change(change),
                result = self.it.agreed.changed() => if result.is_err() { return },
                result = changed.changed() => if result.is_err() { return },
                () = tokio::time::sleep(pause) => {}
            }
            again = self.go_on().await;
            if self.has_ended() {
                return self.retire().await;
            }
        }
    }

    /// Until when nothing needs to be looked at.
    fn pause(&self, again: Option<Timestamp>) -> Duration {
        let now = clock::now();
        let limit = match self.life {
            Life::Opening(until) | Life::Closing(until) => Some(until),
            Life::Ending { kill_at, .. } => Some(kill_at),
            Life::Nothing | Life::Launching | Life::Runs => None,
        };
        let check = self.checks.due(&self.it.config, self.life);
        let next = [again, limit, check].into_iter().flatten().min();
        let pause = next.map_or(TICK, |next| next.since(now).min(TICK));
        // What is overdue and cannot be done now is looked at again soon, not at once for ever.
        pause.max(Duration::from_millis(2))
    }

    async fn go_on(&mut self) -> Option<Timestamp> {
        let now = clock::now();
        if self.keeper_lost {
            self.reattach().await;
        }
        let agreed = self.it.agreed.borrow_and_update().clone();
        let spec = agreed.state.spec.services.get(self.service()).cloned();
        let state = agreed.state.services.get(self.service()).cloned();
        if let Some((spec, state)) = spec.as_ref().zip(state.as_ref()) {
            self.own.outlives = outlives(spec, state);
            self.own.revision = state.revision;
            // What it voted for was decided.
            self.own.ballot = self.own.ballot.filter(|ballot| ballot.term > state.term());
        }
        self.note_progress(state.as_ref(), now);
        self.publish();
        self.enforce(now).await;
        self.bound_log(now);
        // Before anything is agreed, nothing is known to have ended.
        agreed.state.cluster.as_ref()?;
        if self.it.beside.is_some() {
            return self.go_on_beside(&agreed, (spec, state)).await;
        }
        self.was_removed |= self.was_agreed && spec.is_none();
        self.was_agreed |= spec.is_some();
        let is_member = agreed.state.spec.nodes.contains_key(self.it.hub.me());
        let may_run = is_member && !self.was_removed;
        let (Some(spec), Some(state)) = (spec.filter(|_| may_run), state) else {
            self.leave().await;
            return None;
        };
        if self.away_until > now {
            self.leave().await;
        }
        let voters = agreed.state.spec.nodes.keys().cloned().collect();
        let lease = self.hold_lease(&spec, &state, &voters).await;
        self.check_health(state.term());
        let again = self.decide(&spec, &state, lease).await;
        self.publish();
        again
    }

    async fn decide(
        &mut self,
        spec: &ServiceSpec,
        state: &ServiceState,
        lease: Option<Timestamp>,
    ) -> Option<Timestamp> {
        let now = clock::now();
        let me = self.it.hub.me().clone();
        let view = SingletonView {
            me: &me,
            timing: spec.timing,
            state,
            own: &self.own,
            asked: self.asked,
            lease,
            counts_from: counts_from(spec, state, &self.answered, self.started),
            retry_at: self.retry_at.max(self.away_until),
        };
        let Next { action, reason, again } = instance::plan(&view, now);
        let steps = action.iter().map(ToString::to_string).collect();
        self.it.explanations.note(self.service(), "instance", steps, &reason);
        match action {
            Some(action) => {
                self.act(action).await;
                again
            }
            None => again.or_else(|| self.ask_for_proof(state, lease)),
        }
    }

    /// A holder that may not start yet does not wait for the next heartbeat: whoever has just
    /// learnt of its appointment supports it now.
    fn ask_for_proof(&self, state: &ServiceState, lease: Option<Timestamp>) -> Option<Timestamp> {
        let holds = self.holds(state) && state.switchover.is_none();
        let waits = holds && self.own.process == Process::Stopped && lease.is_none();
        // Where no majority answers, the usual heartbeats must do.
        (waits && self.own.stalled < PROOF_WITHIN).then(|| {
            self.it.hub.nudge();
            clock::now().plus(PROOF_EVERY)
        })
    }

    fn holds(&self, state: &ServiceState) -> bool {
        state.appointment.as_ref().is_some_and(|it| it.primary == *self.it.hub.me())
    }

    fn publish(&self) {
        self.it.hub.publish(self.service(), &self.own, clock::now());
    }

    fn note_progress(&mut self, state: Option<&ServiceState>, now: Timestamp) {
        let runs = self.own.process == Process::Primary;
        if runs && now.since(self.ran_since) >= RAN_WELL_AFTER && !self.checks.fail() {
            self.own.starts_failed = 0;
        }
        if self.life == Life::Nothing && now.since(self.failed_at) >= FORGET_AFTER {
            self.own.starts_failed = 0;
        }
        let holds = state.is_some_and(|it| self.holds(it) && it.switchover.is_none());
        let waits = holds && self.life == Life::Nothing && self.own.starts_failed == 0;
        if waits && self.away_until <= now {
            self.stalled_since.get_or_insert(now);
        } else {
            self.stalled_since = None;
        }
        self.own.stalled = self.stalled_since.map_or(Duration::ZERO, |since| now.since(since));
    }

    fn bound_log(&mut self, now: Timestamp) {
        if now.since(self.log_looked_at) < LOG_EVERY {
            return;
        }
        self.log_looked_at = now;
        let config = self.it.config.clone();
        self.it.supervisor.spawn("log of a command", TaskKind::Session, async move {
            let service = config.service.clone();
            let bounded = tokio::task::spawn_blocking(move || config.bound_log()).await;
            if let Ok(Err(error)) = bounded {
                tracing::warn!(%service, %error, "the log cannot be kept within its bounds");
            }
        });
    }
}
