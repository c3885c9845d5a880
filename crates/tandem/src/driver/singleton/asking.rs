//! Carries out that the own copy is asked to end; builds what is run: words, user, environment.
//! In: why it shall end. Out: a signal, a program, a kill.
//! Keeps: H50 each has a limit, and no keeper that does not answer is waited for. INV-12: what asks
//! a copy to end is gone before its end is told, since it could meet the next one.
//! Not here: when (`acting.rs`).
//! Tested by: `tests.rs`.

use super::acting::{Ended, Finished};
use super::{Life, SingletonDriver, Why};
use crate::fence::program;
use crate::fence::protocol::{self, Lease, Signal, StartSpec, WhenOrphaned};
use crate::runtime::clock;
use crate::runtime::supervisor::TaskKind;
use crate::telemetry::event_kind::EventKind;
use std::path::PathBuf;
use std::time::Duration;
use tandem_core::facts::Process;
use tandem_core::facts::withdrawal::Wish;
use tandem_core::ids::Term;
use tandem_core::reason::Reason;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

/// A keeper that lives answers at once; one that does not may be tried again.
const KEEPER_ANSWERS: Duration = Duration::from_millis(200);

/// A program that is run while the copy does.
pub(super) struct Program {
    exe: PathBuf,
    spec: Result<StartSpec, String>,
}

impl Program {
    pub(super) async fn run(
        &self,
        limit: Duration,
        cancel: &CancellationToken,
    ) -> Result<(), program::Error> {
        match &self.spec {
            Ok(spec) => program::run(&self.exe, spec, limit, cancel).await,
            Err(why) => Err(program::Error::NotStarted { why: why.clone() }),
        }
    }
}

impl SingletonDriver {
    /// What is run of the command, with its user, folder, environment, limits and log.
    pub(super) fn spec(&self, words: &[String], lease: Lease) -> StartSpec {
        let config = &self.it.config;
        let user = self.user.clone().ok().flatten();
        StartSpec {
            argv: config.filled(words),
            env: config.environment(self.own.promoted, self.sitting()),
            cwd: config.folder(),
            user: user.map(|it| protocol::User { uid: it.uid, gid: it.gid, groups: it.groups }),
            log_file: config.log_file(),
            // Nothing is known of what else it would obey.
            when_orphaned: WhenOrphaned::Kill,
            oom_score_adj: 0,
            lease,
            limits: self.it.limits.clone(),
        }
    }

    /// Of a seat: since which term what is started now is the only copy.
    fn sitting(&self) -> Term {
        let agreed = self.it.agreed.borrow();
        let state = agreed.state.services.get(self.service());
        let left = self.memory.leaving().map(|(_, state)| state);
        state.or(left).map_or(Term(0), |state| state.sitting)
    }

    /// The same for a program that needs no lease, and is told more.
    pub(super) fn program_told(
        &self,
        words: &[String],
        told: impl IntoIterator<Item = (String, String)>,
    ) -> Program {
        let mut program = self.program(words);
        if let Ok(spec) = &mut program.spec {
            spec.env.extend(told);
        }
        program
    }

    /// The same for a program that needs no lease.
    pub(super) fn program(&self, words: &[String]) -> Program {
        let spec = self.user.clone().map(|_| self.spec(words, Lease::Unlimited));
        Program { exe: self.it.exe.clone(), spec }
    }

    pub(super) async fn kill(&mut self) {
        if self.keeper_lost {
            return;
        }
        match timeout(KEEPER_ANSWERS, self.keeper.kill()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                tracing::warn!(service = %self.service(), %error, "the keeper did not kill it");
            }
            Err(_elapsed) => {
                tracing::warn!(service = %self.service(), "its keeper does not answer");
            }
        }
    }

    /// Doors send it nothing new from now on.
    pub(super) fn withdraw(&mut self, why: &str) {
        self.own.withdrawn = Some(clock::now());
        self.tell(EventKind::InstanceWithdrawn, format!("doors send nothing new: {why}"));
    }

    /// The same as `stop`, once the doors have let go of it, or sessions had their time.
    pub(super) async fn stop_by_plan(&mut self, why: &Reason) {
        if self.life == Life::Runs {
            let is_left = |name: &str| matches!(name, "in_flight" | "doors");
            if why.numbers().iter().any(|(name, count)| is_left(name) && *count > 0) {
                self.tell(EventKind::InstanceWithdrawn, why.text());
            }
            // Where it moves, another node starts it.
            if self.own.pending_restart && self.wish == Wish::Agreed && !self.moves() {
                let message = "its configuration has changed: it is started anew";
                self.tell(EventKind::ServiceReloaded, message);
            }
        }
        self.wish = Wish::Agreed;
        self.stop(Why::Planned).await;
    }

    /// Whether another node shall run it.
    fn moves(&self) -> bool {
        let agreed = self.it.agreed.borrow();
        let state = agreed.state.services.get(self.service());
        let switchover = state.and_then(|state| state.switchover.as_ref());
        switchover.is_some_and(|it| it.to != *self.it.hub.me())
    }

    /// Asks it to end, in order.
    pub(super) async fn stop(&mut self, why: Why) {
        match self.life {
            Life::Runs => {}
            Life::Opening(_) | Life::Launching(_) => return self.fence().await,
            Life::Nothing | Life::Ending { .. } | Life::Closing(_) => return,
        }
        let kill_at = clock::now().plus(self.it.config.stop_max);
        self.life = Life::Ending { kill_at, why };
        self.own.process = Process::Stopping;
        self.own.serving = None;
        if self.it.config.stop.is_empty() {
            return self.ask_by_signal().await;
        }
        let cancel = CancellationToken::new();
        self.stopper = Some(cancel.clone());
        let (limit, sender) = (self.it.config.stop_max, self.finished.0.clone());
        let program = self.program(&self.it.config.stop);
        self.it.supervisor.spawn("stop of a command", TaskKind::Session, async move {
            let answer = program.run(limit, &cancel).await;
            let _ = sender.send(Finished::AskedToStop(answer)).await;
        });
    }

    async fn ask_by_signal(&mut self) {
        let asked = timeout(KEEPER_ANSWERS, self.keeper.signal(Signal::Smart)).await;
        if !matches!(asked, Ok(Ok(()))) {
            tracing::warn!(service = %self.service(), ?asked, "it was not asked to end");
        }
    }

    /// What asked it to end is over; what the keeper said meanwhile is heard now.
    pub(super) async fn on_asked_to_stop(&mut self, answer: Result<(), program::Error>) {
        self.stopper = None;
        let ended = self.ended.take();
        if let Err(error) = answer
            && (ended.is_none() || matches!(error, program::Error::Stuck { .. }))
        {
            // It may still end; the limit counts.
            let message = format!("what asks it to end failed, so SIGTERM does: {error}");
            self.tell(EventKind::HookFailed, message);
            if ended.is_none() && matches!(self.life, Life::Ending { .. }) {
                self.ask_by_signal().await;
            }
        }
        match ended {
            Some(Ended::Exited(end)) => self.on_exited(&end).await,
            Some(Ended::Idle) => self.on_idle(),
            None => {}
        }
    }

    /// Whether what asks the copy to end still runs: then it is ended first, and its copy's end is
    /// kept until then.
    pub(super) fn ends_stopper(&mut self, ended: impl FnOnce() -> Ended) -> bool {
        let Some(stopper) = &self.stopper else { return false };
        stopper.cancel();
        self.ended = Some(ended());
        true
    }
}
