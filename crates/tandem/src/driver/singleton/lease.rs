//! Decides until when the own copy may run by what is proven now, and tells its keeper.
//! In: agreed state, acknowledged heartbeats. Out: the proven end of the lease; the keeper's lease.
//! Keeps: INV-3, INV-12 the lease is pushed only while it is proven, for the term that the copy was
//! started for, and by a node that has promised no later one; what outlives it is ended here where
//! its keeper does not.
//! Not here: what proves it (`tandem_core::cluster::lease`).

use super::acting::Finished;
use super::progress::KILL_AGAIN;
use super::{Life, SingletonDriver, Why};
use crate::fence::stub::Session;
use crate::runtime::clock;
use crate::runtime::supervisor::TaskKind;
use crate::telemetry::event_kind::EventKind;
use std::collections::BTreeSet;
use std::time::Duration;
use tandem_core::cluster::lease::{Proof, valid_until};
use tandem_core::cluster::state::ServiceState;
use tandem_core::facts::{InstanceFacts, Process};
use tandem_core::ids::NodeId;
use tandem_core::spec::ServiceSpec;
use tandem_core::time::Timestamp;
use tokio::time::timeout;

/// The keeper is told when the lease grew by this much.
const LEASE_STEP: Duration = Duration::from_millis(50);

/// A keeper gets at least so long to answer.
const ANSWER_MIN: Duration = Duration::from_millis(20);
/// A keeper has ended everything so long after a lease, unless it is frozen.
const KEEPER_LATE: Duration = Duration::from_millis(50);

impl SingletonDriver {
    /// When what runs, or may run, outlives its lease.
    pub(super) fn outlives_at(&self) -> Option<Timestamp> {
        let passes = self.passes_at()?;
        Some(passes.plus(KEEPER_LATE).max(self.swept_at.plus(KILL_AGAIN)))
    }

    /// Until when it may run, as its keeper knows. What an earlier daemon left has had its lease
    /// pushed by nobody since, so that it ends with what was proven until then.
    fn passes_at(&self) -> Option<Timestamp> {
        match self.unheard {
            Some(since) => Some(since.plus(self.lease_max)),
            None => Some(self.lease).filter(|at| self.life != Life::Nothing && *at > Timestamp(0)),
        }
    }

    /// The own copy as plans see it: what no keeper has spoken of yet is taken to run.
    pub(super) fn judged(&self) -> InstanceFacts {
        match self.unheard {
            Some(_) => InstanceFacts { process: Process::Primary, ..self.own.clone() },
            None => self.own.clone(),
        }
    }

    /// INV-12, where the keeper alone is frozen or gone: ends what is left of the copy's session.
    pub(super) fn fence_beside_keeper(&mut self, now: Timestamp) {
        if self.outlives_at().is_none_or(|at| at > now) {
            return;
        }
        if self.life == Life::Runs {
            self.life = Life::Ending { kill_at: now.plus(KILL_AGAIN), why: Why::Fenced };
            self.own.process = Process::Stopping;
            self.own.serving = None;
        }
        self.sweep(now, self.passes_at().unwrap_or(now));
    }

    /// What an earlier daemon left may not run here any more, whatever its lease was.
    pub(super) fn fence_unheard(&mut self, now: Timestamp) {
        if self.unheard.is_some() && self.swept_at.plus(KILL_AGAIN) <= now {
            self.sweep(now, now);
        }
    }

    /// Ends what is left of the session that began before that moment.
    fn sweep(&mut self, now: Timestamp, before: Timestamp) {
        self.swept_at = now;
        let (run_dir, sender) = (self.it.config.run_dir(), self.finished.0.clone());
        let life = self.lives;
        self.it.supervisor.spawn("fence of a command", TaskKind::Session, async move {
            // What began later has a lease of its own: this task may come late.
            let outlived = move || Session::noted_before(&run_dir, before);
            let kill = move || outlived().map(Session::kill).unwrap_or_default();
            let killed = tokio::task::spawn_blocking(kill).await.unwrap_or_default();
            let pids = killed.iter().map(|process| process.pid).collect();
            let _ = sender.send(Finished::Swept { life, pids }).await;
        });
    }

    pub(super) fn on_swept(&mut self, life: u64, pids: &[i32]) {
        if pids.is_empty() || self.told_swept == Some(life) {
            return;
        }
        self.told_swept = Some(life);
        let why = match self.unheard {
            Some(_) => "an earlier daemon left it, it may run no more, and its keeper is not heard",
            None => "its lease has passed and its keeper has not ended it",
        };
        let message = format!("{why}, so the daemon killed {pids:?}");
        self.tell(EventKind::InstanceFenced, message);
    }

    /// Until when the lease is proven; pushes what runs as far.
    pub(super) async fn hold_lease(
        &mut self,
        spec: &ServiceSpec,
        state: &ServiceState,
        voters: &BTreeSet<NodeId>,
    ) -> Option<Timestamp> {
        let until = self.proven_until(spec, state, voters)?;
        let is_its_own = self.own.promoted == state.term() && self.life != Life::Nothing;
        if is_its_own && until >= self.lease.plus(LEASE_STEP) {
            // What a keeper has not confirmed it may not know: only what it has counts, and nothing
            // is waited for longer than that.
            let left = self.lease.since(clock::now()).max(ANSWER_MIN);
            match timeout(left, self.keeper.renew(until)).await {
                Ok(Ok(())) => {
                    self.lease = until;
                    self.it.hub.lease(self.service(), until);
                }
                Ok(Err(error)) => {
                    tracing::debug!(service = %self.service(), %error, "the lease was not renewed");
                }
                Err(_elapsed) => {
                    tracing::warn!(service = %self.service(), "its keeper does not answer");
                }
            }
        }
        Some(until)
    }

    fn proven_until(
        &self,
        spec: &ServiceSpec,
        state: &ServiceState,
        voters: &BTreeSet<NodeId>,
    ) -> Option<Timestamp> {
        let me = self.it.hub.me();
        let appointment = state.appointment.as_ref().filter(|it| it.primary == *me)?;
        let promised = self.own.promised.max(self.durable.promised);
        if promised > appointment.term {
            return None;
        }
        let proof = Proof {
            me,
            voters,
            rules: &appointment.rules,
            now: clock::now(),
            acknowledged: &self.it.hub.proof(self.service(), spec, appointment.term),
        };
        valid_until(&proof, spec.timing.lease)
    }

    /// The same, by what is agreed now.
    pub(super) fn proven_now(&self) -> Option<Timestamp> {
        let agreed = self.it.agreed.borrow().clone();
        let spec = agreed.state.spec.services.get(self.service());
        let standing = spec.zip(agreed.state.services.get(self.service()));
        let (spec, state) = standing.or_else(|| self.memory.leaving())?;
        let voters = agreed.state.spec.nodes.keys().cloned().collect();
        let is_its_own = self.own.promoted == state.term();
        self.proven_until(spec, state, &voters).filter(|_| is_its_own)
    }
}
