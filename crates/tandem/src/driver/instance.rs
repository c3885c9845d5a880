//! Carries out the plans for this node's own copy of one service.
//! In: agreed state, facts, observations, the keeper's events, requests. Out: facts, one action at
//! a time, the lease.
//! Keeps: INV-3 the lease is pushed only while it is proven, and before a promotion (H42); INV-8 an
//! observation that began before the last change is thrown away; a fence waits for nothing.
//! Not here: the decisions (`tandem_core::clustering::active_passive::instance`), the actions'
//! steps (`actions.rs`), the SQL (`service/postgres`).

mod told;
pub mod wishes;

use super::actions::{Change, Context, Failure, Given};
use super::explain::Explanations;
use super::hub::Hub;
use super::observer::{Observed, Observer};
use super::sweep::sweep;
use super::upkeep::Upkeep;
use crate::consensus::Agreed;
use crate::fence::client::KeeperEvent;
use crate::fence::protocol::{State, Status};
use crate::runtime::clock;
use crate::runtime::supervisor::{Supervisor, TaskKind};
use crate::telemetry::event_kind::EventKind;
use crate::telemetry::events::EventLog;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use tandem_core::cluster::lease::{self, Proof};
use tandem_core::cluster::state::{Appointment, ServiceState};
use tandem_core::clustering::active_passive::{Action, InstanceView, instance};
use tandem_core::facts::{Data, InstanceFacts, NodeFacts, Process, Stream};
use tandem_core::ids::{NodeId, ServiceId, Term};
use tandem_core::spec::ServiceSpec;
use tandem_core::time::Timestamp;
use tokio::sync::{Notify, mpsc, watch};
use tokio_util::sync::CancellationToken;

/// How often to plan when nothing changes.
const TICK: Duration = Duration::from_millis(100);
/// The lease is pushed again when it grew by this much.
const LEASE_STEP: Duration = Duration::from_millis(150);
/// After a failed action, doubled each time up to the maximum.
const BACKOFF: Duration = Duration::from_millis(200);
const BACKOFF_MAX: Duration = Duration::from_secs(10);

/// The driver of one instance.
#[derive(Debug)]
pub struct InstanceDriver {
    context: Context,
    hub: Arc<Hub>,
    explanations: Arc<Explanations>,
    supervisor: Supervisor,
    agreed: watch::Receiver<Agreed>,
    asks: mpsc::Receiver<Term>,
    asked: Option<Term>,
    wishes: mpsc::Receiver<wishes::Asked>,
    events: EventLog,
    keeper_events: mpsc::Receiver<KeeperEvent>,
    observer: Observer,
    upkeep_due: Arc<Notify>,
    own: InstanceFacts,
    observed_at: Timestamp,
    /// Observations that began before this are stale.
    changed_at: Timestamp,
    started: Timestamp,
    adopting: bool,
    stalled_since: Option<Timestamp>,
    running: Option<Running>,
    finished: (mpsc::Sender<Finished>, mpsc::Receiver<Finished>),
    lease: Timestamp,
    has_keeper: bool,
    failures: u32,
    retry_at: Timestamp,
    /// The action that failed last, until another succeeds.
    failed: Option<Action>,
}

#[derive(Debug)]
struct Running {
    action: Action,
    cancel: CancellationToken,
}

struct Finished {
    action: Action,
    result: Result<Change, Failure>,
}

impl std::fmt::Debug for Finished {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Finished").field("action", &self.action).finish_non_exhaustive()
    }
}

/// What a driver is connected to.
#[derive(Debug)]
pub struct Wiring {
    /// What actions need.
    pub context: Context,
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
    pub wishes: mpsc::Receiver<wishes::Asked>,
    /// What happened, for operators.
    pub events: EventLog,
    /// What the keeper says.
    pub keeper_events: mpsc::Receiver<KeeperEvent>,
    /// The own copy as its files describe it.
    pub own: InstanceFacts,
}

impl InstanceDriver {
    /// A driver; nothing is done before `run`.
    pub fn new(wiring: Wiring) -> Self {
        let observer = Observer::start(wiring.context.postgres.clone(), &wiring.supervisor);
        let upkeep_due = Arc::new(Notify::new());
        let upkeep = Upkeep {
            service: wiring.context.service.clone(),
            hub: wiring.hub.clone(),
            postgres: wiring.context.postgres.clone(),
            events: wiring.events.clone(),
            due: upkeep_due.clone(),
        };
        let stop = wiring.supervisor.stopping();
        wiring.supervisor.spawn("instance upkeep", TaskKind::Session, upkeep.run(stop));
        Self {
            context: wiring.context,
            hub: wiring.hub,
            explanations: wiring.explanations,
            supervisor: wiring.supervisor,
            agreed: wiring.agreed,
            asks: wiring.asks,
            asked: None,
            wishes: wiring.wishes,
            events: wiring.events,
            keeper_events: wiring.keeper_events,
            observer,
            upkeep_due,
            own: wiring.own,
            observed_at: clock::now(),
            changed_at: Timestamp(0),
            started: clock::now(),
            adopting: true,
            stalled_since: None,
            running: None,
            finished: mpsc::channel(4),
            lease: Timestamp(0),
            has_keeper: true,
            failures: 0,
            retry_at: Timestamp(0),
            failed: None,
        }
    }

    fn service(&self) -> &ServiceId {
        &self.context.service
    }

    /// Plans and acts until `stop`. The instance goes on: its keeper holds it (upgrade, restart).
    pub async fn run(mut self, stop: CancellationToken) {
        let mut changed = self.hub.changed();
        let mut observations = self.observer.observations();
        let mut copied = self.context.progress.subscribe();
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        // What the keeper says first is whether something runs: "stopped" would be a claim (H3).
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            Some(event) = self.keeper_events.recv() => self.on_keeper(event).await,
        }
        self.publish();
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                Some(event) = self.keeper_events.recv() => self.on_keeper(event).await,
                Some(finished) = self.finished.1.recv() => self.on_finished(finished).await,
                Some(term) = self.asks.recv() => self.asked = self.asked.max(Some(term)),
                Some(asked) = self.wishes.recv() => self.on_wish(asked).await,
                Ok(()) = observations.changed() => {
                    let observed = observations.borrow_and_update().clone();
                    self.on_observed(observed).await;
                }
                Ok(()) = copied.changed() => self.on_copied(*copied.borrow_and_update()),
                result = self.agreed.changed() => if result.is_err() { return },
                result = changed.changed() => {
                    if result.is_err() { return }
                    // A peer that went away may have been our primary: look at the stream now.
                    self.observer.look();
                }
                _ = ticks.tick() => {}
            }
            if !self.has_keeper && clock::now() >= self.retry_at {
                self.reattach().await;
            }
            self.note_stall();
            self.publish();
            let agreed = self.agreed.borrow_and_update().clone();
            let Some(state) = agreed.state.services.get(self.service()).cloned() else { continue };
            let Some(spec) = agreed.state.spec.services.get(self.service()).cloned() else {
                continue;
            };
            let voters = agreed.state.spec.nodes.keys().cloned().collect();
            self.hold_lease(&state, &spec, &voters).await;
            self.decide(&state, &spec, voters).await;
        }
    }

    fn publish(&mut self) {
        self.own.stalled =
            self.stalled_since.map_or(Duration::ZERO, |since| clock::now().since(since));
        self.hub.publish(&self.context.service, &self.own, self.observed_at);
    }

    fn note_stall(&mut self) {
        let should_stream = match self.own.process {
            Process::Standby => self.own.upstream.is_some(),
            Process::Primary => self.own.serving.is_none(),
            _ => false,
        };
        let streams = matches!(self.own.stream, Stream::Connected(_));
        if streams {
            self.own.rejoin_failures = 0;
        }
        if !should_stream || streams {
            self.stalled_since = None;
        } else {
            self.stalled_since.get_or_insert_with(clock::now);
        }
    }

    async fn on_keeper(&mut self, event: KeeperEvent) {
        match event {
            KeeperEvent::Started { .. } => {}
            KeeperEvent::Exited(end) => {
                self.tell_end(&end);
                self.gone(end.is_clean()).await;
            }
            KeeperEvent::Stuck { pids } => {
                tracing::error!(service = %self.service(), ?pids, "killed processes do not die");
            }
            KeeperEvent::KeeperGone => {
                let Some(left) = self.sweep().await else { return };
                let message =
                    format!("the keeper is gone, and the instance with it; {left} were killed");
                self.tell(EventKind::InstanceExited, message);
                self.gone(false).await;
                self.reattach().await;
            }
            KeeperEvent::Status(status) => self.on_keeper_status(&status).await,
        }
    }

    async fn on_keeper_status(&mut self, status: &Status) {
        if status.state != State::Idle {
            if self.own.process == Process::Stopped {
                self.own.process = Process::Starting;
                self.observer.watch_running(true);
                self.tell(EventKind::InstanceAdopted, "a running instance was taken over");
            }
            return;
        }
        // An earlier keeper may have been killed while nobody was there to hear of it.
        let Some(left) = self.sweep().await else { return };
        if left > 0 {
            let message = format!("{left} processes without a keeper were killed");
            self.tell(EventKind::InstanceExited, message);
        }
        if self.own.process != Process::Stopped {
            self.gone(false).await;
        }
    }

    /// Returns once no process works in the data directory (H3); how many were killed for it.
    /// None if the daemon is to end meanwhile: then nothing is claimed.
    async fn sweep(&self) -> Option<usize> {
        let data = self.context.postgres.data_dir();
        let stop = self.supervisor.stopping();
        tokio::select! {
            biased;
            () = stop.cancelled() => None,
            killed = sweep(&data) => Some(killed.len()),
        }
    }

    /// The keeper is a new one after it was killed; until it is there nothing can be started.
    async fn reattach(&mut self) {
        match self.context.reattach(&self.supervisor).await {
            Ok((keeper, events)) => {
                self.context.keeper = keeper;
                self.keeper_events = events;
                self.has_keeper = true;
            }
            Err(error) => {
                tracing::error!(service = %self.service(), %error, "no keeper can be started");
                let (_, never) = mpsc::channel(1);
                self.keeper_events = never;
                self.has_keeper = false;
                self.back_off();
            }
        }
    }

    /// No process of the instance is left.
    async fn gone(&mut self, clean: bool) {
        if self.own.process == Process::Starting {
            // It ended before it answered once: the next start would end the same way.
            self.back_off();
        }
        self.observer.watch_running(false);
        self.context.stopped.send_replace(true);
        self.changed_at = clock::now();
        self.lease = Timestamp(0);
        let ended = InstanceFacts {
            process: Process::Stopped,
            ballot: None,
            upstream: None,
            stream: Stream::None,
            serving: None,
            rule: None,
            replicas: std::collections::BTreeMap::new(),
            checkpointed: false,
            stopped_cleanly: clean,
            ..self.own.clone()
        };
        if !clean {
            // The others need to know at once; where the log ends matters only later.
            self.own = ended.clone();
            self.publish();
        }
        self.own = ended;
        self.context.inspect(&mut self.own).await;
        self.observed_at = clock::now();
    }

    async fn on_finished(&mut self, Finished { action, result }: Finished) {
        if self.running.as_ref().is_some_and(|running| running.action == action) {
            self.running = None;
        }
        match result {
            Ok(change) => {
                self.tell_action(&action, None);
                self.changed_at = clock::now();
                self.observed_at = self.changed_at;
                change(&mut self.own);
                self.failed = None;
                if !matches!(action, Action::Start { .. }) {
                    self.failures = 0;
                    self.retry_at = Timestamp(0);
                }
                self.observer.watch_running(self.own.process != Process::Stopped);
                self.observer.look();
                self.upkeep_due.notify_one();
            }
            Err(Failure { text, passes }) => {
                tracing::warn!(service = %self.service(), ?action, error = text, "action failed");
                self.tell_action(&action, Some(&text));
                self.back_off();
                self.failed = Some(action.clone());
                let copies = matches!(action, Action::Rewind { .. } | Action::Clone { .. });
                if copies && !passes {
                    self.own.rejoin_failures += 1;
                }
                if copies || action == Action::Found {
                    // What it left behind decides what is possible now.
                    self.context.inspect(&mut self.own).await;
                }
            }
        }
    }

    /// A copy has come this far.
    fn on_copied(&mut self, percent: Option<u8>) {
        if let Data::Copying { percent: known } = &mut self.own.data {
            *known = percent;
        }
    }

    fn back_off(&mut self) {
        self.failures = self.failures.saturating_add(1);
        let wait = BACKOFF.saturating_mul(1 << self.failures.min(6)).min(BACKOFF_MAX);
        self.retry_at = clock::now().plus(wait);
    }

    async fn on_observed(&mut self, observed: Observed) {
        let settled = !matches!(self.own.process, Process::Stopped | Process::Stopping);
        if observed.began < self.changed_at || !settled {
            return;
        }
        let promoting =
            matches!(self.running, Some(Running { action: Action::Promote { .. }, .. }));
        let before = self.own.process;
        observed.apply(&mut self.own, promoting);
        if self.own.process != before {
            self.upkeep_due.notify_one();
        }
        self.context.history(&mut self.own).await;
        self.observed_at = observed.began;
        if self.adopting && matches!(self.own.process, Process::Primary | Process::Standby) {
            // Found running after the daemon's restart: a barrier that is in the data was
            // acknowledged, since a row is visible only after the wait for its confirmation.
            self.adopting = false;
            let adopted = self.own.process == Process::Primary
                && self.own.promoted > Term(0)
                && self.own.data_term == self.own.promoted;
            if adopted {
                self.own.serving = Some(self.own.promoted);
            }
        }
    }

    /// Pushes the lease of a primary as far as it is proven (INV-3).
    async fn hold_lease(
        &mut self,
        state: &ServiceState,
        spec: &ServiceSpec,
        voters: &BTreeSet<NodeId>,
    ) {
        let rises = matches!(self.running, Some(Running { action: Action::Promote { .. }, .. }));
        if self.own.process != Process::Primary && !rises {
            return;
        }
        let Some(appointment) = state.appointment.as_ref() else { return };
        let Some(until) = self.proven_until(appointment, spec, voters) else { return };
        if until >= self.lease.plus(LEASE_STEP) {
            self.lease = until;
            if let Err(error) = self.context.keeper.renew(until).await {
                tracing::warn!(service = %self.service(), %error, "the lease was not renewed");
            }
        }
    }

    fn proven_until(
        &self,
        appointment: &Appointment,
        spec: &ServiceSpec,
        voters: &BTreeSet<NodeId>,
    ) -> Option<Timestamp> {
        let me = self.hub.me();
        let term = appointment.term;
        if appointment.primary != *me || self.own.promised > term {
            return None;
        }
        let proof = Proof {
            me,
            voters,
            rules: &appointment.rules,
            acknowledged: &self.hub.proof(self.service(), term),
        };
        lease::valid_until(&proof, spec.timing.lease)
    }

    async fn decide(&mut self, state: &ServiceState, spec: &ServiceSpec, voters: BTreeSet<NodeId>) {
        self.own.revision = state.revision;
        let everyone = self.hub.everyone();
        let now = clock::now();
        let primary = state
            .appointment
            .as_ref()
            .filter(|appointment| appointment.primary != *self.hub.me())
            .and_then(|appointment| everyone.get(&appointment.primary))
            .and_then(|facts| facts.fresh(now, spec.timing.suspicion))
            .and_then(|facts: &NodeFacts| facts.instances.get(self.service()));
        let view = InstanceView {
            me: self.hub.me(),
            timing: spec.timing,
            state,
            own: &self.own,
            primary,
            asked: self.asked,
        };
        let next = instance::plan(&view);
        let steps = next.action.iter().map(|action| format!("{action:?}")).collect();
        self.explanations.note(self.service(), "instance", steps, &next.reason);
        let Some(action) = next.action else {
            self.stop_running(None);
            return;
        };
        if action == Action::Fence {
            self.stop_running(Some(&action));
            self.fence().await;
            return;
        }
        if self.running.as_ref().is_some_and(|running| running.action == action) {
            return;
        }
        self.stop_running(Some(&action));
        // One that cannot be made durable waits like everything else before it is tried again.
        let has_failed = self.failed.as_ref() == Some(&action);
        let urgent = matches!(action, Action::Promise { .. }) && !has_failed;
        if self.running.is_none() && (urgent || now >= self.retry_at) {
            let lease = state
                .appointment
                .as_ref()
                .and_then(|appointment| self.proven_until(appointment, spec, &voters));
            self.begin(action, lease, spec);
        }
    }

    /// Ends an action that only waits, when another one, or none, is due.
    fn stop_running(&mut self, next: Option<&Action>) {
        let Some(running) = &self.running else { return };
        let waits = matches!(
            running.action,
            Action::RecordTerm { .. } | Action::ApplyRule { .. } | Action::Checkpoint
        );
        let copies = matches!(running.action, Action::Clone { .. });
        let yields = waits || copies && next.is_some();
        if yields && next != Some(&running.action) {
            running.cancel.cancel();
            self.running = None;
        }
    }

    async fn fence(&mut self) {
        if let Err(error) = self.context.keeper.kill().await {
            tracing::error!(service = %self.service(), %error, "the keeper did not take the kill");
        }
    }

    fn begin(&mut self, action: Action, lease: Option<Timestamp>, spec: &ServiceSpec) {
        tracing::info!(service = %self.service(), ?action, "begins");
        self.tell_begin(&action);
        match &action {
            // From the first byte of the new setting on, nothing is proven (H9).
            Action::ApplyRule { .. } => self.own.rule = None,
            Action::RecordTerm { rule, .. } => {
                self.own.rule.take_if(|own| own != rule);
            }
            Action::Promote { .. } => self.own.process = Process::Promoting,
            Action::StopForSwitchover { .. } | Action::StopToRejoin => {
                self.own.process = Process::Stopping;
                self.context.stopped.send_replace(false);
            }
            Action::Clone { .. } => {
                self.context.progress.send_replace(None);
                self.own.data = Data::Copying { percent: None };
            }
            // From now on what this node acknowledges proves no lease any more; the ballot follows
            // once the promise is durable.
            Action::Promise { term } => self.own.promised = self.own.promised.max(*term),
            Action::Found
            | Action::Start { .. }
            | Action::Follow { .. }
            | Action::Reaffirm { .. }
            | Action::Checkpoint
            | Action::Rewind { .. }
            | Action::Quarantine { .. }
            | Action::Fence => {}
        }
        if let (Action::Promote { .. }, Some(until)) = (&action, lease) {
            self.lease = until;
        }
        self.publish();
        let cancel = CancellationToken::new();
        let task = {
            let context = self.context.clone();
            let (action, cancel, own) = (action.clone(), cancel.clone(), self.own.clone());
            let fence_wait = self.fence_wait(spec);
            let sender = self.finished.0.clone();
            async move {
                let given = Given { own, lease, fence_wait, cancel: cancel.clone() };
                let work = context.execute(action.clone(), given);
                let result = tokio::select! {
                    biased;
                    () = cancel.cancelled() => return,
                    result = work => result,
                };
                // The driver ended first: there is nobody left to tell.
                let _ = sender.send(Finished { action, result }).await;
            }
        };
        self.supervisor.spawn("instance action", TaskKind::Session, task);
        self.running = Some(Running { action, cancel });
    }

    /// In `Async` mode a ballot counts only after the lease that this node took part in has passed.
    fn fence_wait(&self, spec: &ServiceSpec) -> Option<Timestamp> {
        let tandem_core::spec::Durability::Async { .. } = spec.durability else { return None };
        let agreed = self.agreed.borrow();
        let primary = &agreed.state.services.get(self.service())?.appointment.as_ref()?.primary;
        // What an earlier daemon of this node answered is not known any more.
        let answered = self.hub.answered_at(primary).max(Some(self.started))?;
        Some(answered.plus(spec.timing.lease).plus(spec.timing.drift_margin))
    }
}
