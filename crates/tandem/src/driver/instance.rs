//! Carries out the plans for this node's own copy of one service.
//! In: agreed state, facts, observations, the keeper's events, requests. Out: facts, one action at
//! a time, the lease.
//! Keeps: INV-3 the lease is pushed only while it is proven, and before a promotion (H42); INV-8 an
//! observation that began before the last change is thrown away; a fence waits for nothing.
//! Not here: the decisions (`tandem_core::clustering::active_passive::instance`), the actions'
//! steps (`actions.rs`), the SQL (`service/postgres`).

mod acting;
mod foreign;
mod keeper;
mod lease;
pub mod leaving;
mod sweep;
mod told;
pub mod wishes;

use super::actions::{Change, Context, Failure};
use super::explain::Explanations;
use super::hub::Hub;
use super::observer::{Observed, Observer};
use super::upkeep::Upkeep;
use crate::consensus::Agreed;
use crate::fence::client::KeeperEvent;
use crate::runtime::clock;
use crate::runtime::supervisor::{Supervisor, TaskKind};
use crate::service::postgres::Postgres;
use crate::telemetry::events::EventLog;
use std::sync::Arc;
use std::time::Duration;
use tandem_core::cluster::lease::outlives;
use tandem_core::cluster::memory::Memory;
use tandem_core::clustering::active_passive::Action;
use tandem_core::facts::{Commits, Data, InstanceFacts, Process, Stream};
use tandem_core::ids::{ServiceId, Term};
use tandem_core::time::Timestamp;
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

/// To find out what is there after a start; then the others are told whatever is known. Below the
/// time for which they believe what an earlier daemon said.
pub const SETTLE: Duration = Duration::from_millis(700);
/// How often to plan when nothing changes.
const TICK: Duration = Duration::from_millis(200);

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
    configs: mpsc::Receiver<leaving::Reconfigured>,
    /// The adapter as others shall use it.
    shared: watch::Sender<Postgres>,
    events: EventLog,
    keeper_events: mpsc::Receiver<KeeperEvent>,
    observer: Observer,
    upkeep_due: Arc<Notify>,
    own: InstanceFacts,
    observed_at: Timestamp,
    /// Observations that began before this are stale.
    changed_at: Timestamp,
    started: Timestamp,
    memory: Memory,
    adopting: bool,
    stalled_since: Option<Timestamp>,
    running: Option<Running>,
    finished: (mpsc::Sender<Finished>, mpsc::Receiver<Finished>),
    lease: Timestamp,
    failures: u32,
    retry_at: Timestamp,
    /// Until then the copy stays stopped: its node is being removed.
    away_until: Timestamp,
    /// The action that failed last, until another succeeds.
    failed: Option<Action>,
    /// Counts the ends of the instance: what an action found out about an earlier life is no news.
    life: u64,
    keeper_lost: bool,
    /// It is known what the keeper holds, and if that runs, what it is.
    settled: bool,
}

#[derive(Debug)]
struct Running {
    action: Action,
    cancel: CancellationToken,
}

/// What an action tells the driver.
struct Finished {
    action: Action,
    /// The life of the instance in which it began.
    life: u64,
    end: End,
}

enum End {
    /// It ended.
    Over(Result<Change, Failure>),
    /// It wants to stop the server; goes on once the driver knows, or ends if it is not answered.
    Stops(oneshot::Sender<()>),
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
    /// Other configurations of the own copy.
    pub configs: mpsc::Receiver<leaving::Reconfigured>,
    /// Where others find the adapter as it is configured now.
    pub shared: watch::Sender<Postgres>,
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
        let observer = Observer::start(wiring.shared.subscribe(), &wiring.supervisor);
        let upkeep_due = Arc::new(Notify::new());
        let upkeep = Upkeep {
            service: wiring.context.service.clone(),
            hub: wiring.hub.clone(),
            postgres: wiring.shared.subscribe(),
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
            configs: wiring.configs,
            shared: wiring.shared,
            events: wiring.events,
            keeper_events: wiring.keeper_events,
            observer,
            upkeep_due,
            own: wiring.own,
            observed_at: clock::now(),
            changed_at: Timestamp(0),
            started: clock::now(),
            memory: Memory::new(clock::now()),
            adopting: true,
            stalled_since: None,
            running: None,
            finished: mpsc::channel(4),
            lease: Timestamp(0),
            failures: 0,
            retry_at: Timestamp(0),
            away_until: Timestamp(0),
            failed: None,
            life: 0,
            keeper_lost: false,
            settled: false,
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
        self.publish();
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                event = self.keeper_events.recv(), if !self.keeper_lost => {
                    // The end of what it says is its end: the last word may have found no room.
                    self.on_keeper(event.unwrap_or(KeeperEvent::KeeperGone)).await;
                }
                Some(finished) = self.finished.1.recv() => self.on_finished(finished).await,
                Some(term) = self.asks.recv() => self.asked = self.asked.max(Some(term)),
                Some(asked) = self.wishes.recv() => self.on_wish(asked).await,
                Some(new) = self.configs.recv() => self.reconfigure(new),
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
            if self.keeper_lost && clock::now() >= self.retry_at {
                self.reattach().await;
            }
            self.note_stall();
            let agreed = self.agreed.borrow_and_update().clone();
            self.memory.learn(&agreed.state, &self.context.service, clock::now());
            let known = agreed.state.services.get(self.service());
            let spec = agreed.state.spec.services.get(self.service());
            self.own.outlives = spec.zip(known).and_then(|(spec, s)| outlives(spec, s));
            self.publish();
            if !self.has_a_place(&agreed) {
                self.leave(&agreed).await;
                continue;
            }
            let Some(state) = agreed.state.services.get(self.service()).cloned() else { continue };
            let Some(spec) = agreed.state.spec.services.get(self.service()).cloned() else {
                continue;
            };
            let voters = self.memory.voters().clone();
            self.hold_lease(&state, &spec, &voters).await;
            self.decide(&state, &spec, voters).await;
        }
    }

    fn publish(&mut self) {
        // A daemon that was restarted beside its running primary must not say "stopped" first:
        // every door would cut its sessions.
        if !self.settled && clock::now().since(self.started) < SETTLE {
            return;
        }
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

    /// A copy has come this far.
    fn on_copied(&mut self, percent: Option<u8>) {
        if let Data::Copying { percent: known } = &mut self.own.data {
            *known = percent;
        }
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
        if matches!(self.own.process, Process::Primary | Process::Standby) {
            self.own.starts_failed = 0;
        }
        self.compare_rule(&observed);
        if self.own.process != before {
            self.upkeep_due.notify_one();
        }
        self.context.history(&mut self.own).await;
        self.observed_at = observed.began;
        if self.adopting && matches!(self.own.process, Process::Primary | Process::Standby) {
            // Found running after the daemon's restart.
            self.adopting = false;
            self.settled = true;
            let postgres = &self.context.postgres;
            let nobody = postgres.sync_names(&postgres.rule_of_nobody());
            let is_held = observed.sync_names().is_none_or(|names| names == nobody);
            self.own.found_running(if is_held { Commits::Held } else { Commits::Acknowledged });
        }
    }

    /// A superuser may have changed whom commits wait for: then nothing is proven (H9).
    fn compare_rule(&mut self, observed: &Observed) {
        let Some(names) = observed.sync_names() else { return };
        let postgres = &self.context.postgres;
        let differs = self.own.rule.as_ref().is_some_and(|rule| postgres.sync_names(rule) != names);
        if self.own.process == Process::Primary && differs {
            tracing::warn!(service = %self.service(), names, "somebody changed the commit rule");
            self.own.rule = None;
        }
    }
}
