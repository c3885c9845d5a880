//! Carries out what an operator wants of this node's own copy: restart, reload, copy again.
//! In: `Asked`. Out: an answer, once it is done or refused; what follows from it is planned as
//! ever.
//! Keeps: INV-2 what was promised stays promised; H19 a copy that shall go is marked as a mixture
//! before it is stopped, so that nothing can start it again in between; a primary is never touched.
//! Not here: whether the cluster can spare the copy (`node/operations/wishes.rs`).

use super::InstanceDriver;
use crate::driver::wire::{Response, Wish};
use crate::runtime::supervisor::TaskKind;
use crate::service::postgres::{self, Postgres, Sentinel};
use std::time::Duration;
use tandem_core::facts::{Data, Process};
use tandem_core::ids::Term;
use tokio::sync::oneshot;

const RELOAD: Duration = Duration::from_secs(5);
/// The server goes on with a checkpoint that nobody waits for any more.
pub const CHECKPOINT: Duration = Duration::from_secs(30);

/// A wish, and where the answer goes.
#[derive(Debug)]
pub struct Asked {
    /// What.
    pub wish: Wish,
    /// Taken, or why not.
    pub answer: oneshot::Sender<Response>,
}

impl InstanceDriver {
    pub(super) async fn on_wish(&mut self, Asked { wish, answer }: Asked) {
        if let Some(refusal) = self.objection(wish) {
            let _ = answer.send(Response::Refused(refusal));
            return;
        }
        tracing::info!(service = %self.service(), ?wish, "an operator's wish");
        match wish {
            Wish::Reload => self.reload(answer),
            Wish::Checkpoint => self.checkpoint(answer),
            Wish::Restart if self.is_suspect() => self.trust(answer).await,
            Wish::Restart => self.stop_for(answer, false),
            Wish::Leave => {
                self.step_aside();
                let _ = answer.send(Response::Taken);
            }
            Wish::Reinit if self.own.process == Process::Stopped => self.wipe(answer).await,
            Wish::Reinit => {
                self.own.rejoin_failures = 0;
                self.stop_for(answer, true);
            }
        }
    }

    fn objection(&self, wish: Wish) -> Option<String> {
        let own = &self.own;
        let runs = matches!(own.process, Process::Standby | Process::Primary);
        match wish {
            Wish::Reload | Wish::Checkpoint if runs => None,
            Wish::Checkpoint => Some("it does not run".into()),
            Wish::Reload => Some("it does not run: the settings count at its next start".into()),
            Wish::Restart | Wish::Reinit | Wish::Leave if own.process == Process::Primary => {
                Some("it is a primary, which only a switchover stops".into())
            }
            Wish::Restart if self.is_suspect() && own.process == Process::Stopped => None,
            Wish::Restart | Wish::Reinit if own.ballot.is_some() || own.promised > self.term() => {
                Some("it takes part in an election".into())
            }
            Wish::Leave => None,
            Wish::Restart if own.process == Process::Standby => None,
            Wish::Restart => Some(format!("it is {} already", own.process)),
            Wish::Reinit if own.data == Data::Witness => Some("it holds no data".into()),
            Wish::Reinit if self.running.is_some() => Some("another action is under way".into()),
            Wish::Reinit => matches!(own.process, Process::Starting | Process::Stopping)
                .then(|| format!("it is {}", own.process)),
        }
    }

    fn is_suspect(&self) -> bool {
        matches!(self.own.data, Data::Suspect { .. })
    }

    /// The operator looked at the disk, and wants this copy as it is (H26).
    async fn trust(&mut self, answer: oneshot::Sender<Response>) {
        let response = match self.context.postgres.trust_disk().await {
            Ok(()) => {
                self.retry_at = crate::runtime::clock::now();
                // What it voted with was no data: it may vote with what it has.
                self.own.ballot = None;
                self.context.inspect(&mut self.own).await;
                Response::Taken
            }
            Err(error) => refused(&error),
        };
        let _ = answer.send(response);
    }

    fn term(&self) -> Term {
        let agreed = self.agreed.borrow();
        agreed.state.services.get(self.service()).map(|state| state.term()).unwrap_or_default()
    }

    fn reload(&self, answer: oneshot::Sender<Response>) {
        let postgres = self.context.postgres.clone();
        self.supervisor.spawn("reload", TaskKind::Session, async move {
            let done = postgres.reload(RELOAD).await;
            let _ = answer.send(done.map_or_else(|error| refused(&error), |()| Response::Taken));
        });
    }

    fn checkpoint(&self, answer: oneshot::Sender<Response>) {
        let postgres = self.context.postgres.clone();
        self.supervisor.spawn("checkpoint", TaskKind::Session, async move {
            let done = postgres.checkpoint(CHECKPOINT).await;
            let _ = answer.send(done.map_or_else(|error| refused(&error), |()| Response::Taken));
        });
    }

    /// Stops a standby; the plan starts it again, or copies it anew if it is marked.
    fn stop_for(&mut self, answer: oneshot::Sender<Response>, wipe: bool) {
        // From here on nothing that is running or planned may use it.
        self.own.process = Process::Stopping;
        self.context.stopped.send_replace(false);
        self.publish();
        let (context, term) = (self.context.clone(), self.term());
        self.supervisor.spawn("stop for an operator", TaskKind::Session, async move {
            let marked = if wipe { mark(&context.postgres, term).await } else { Ok(()) };
            // Not marked it is stopped and started all the same, since nothing else may use it now.
            let response = match (context.stop().await, marked) {
                (Err(error), _) => refused(&error),
                (Ok(()), Err(error)) => refused(&error),
                (Ok(()), Ok(())) => Response::Taken,
            };
            let _ = answer.send(response);
        });
    }

    /// Marks a stopped copy as one to be made anew, quarantined or not.
    async fn wipe(&mut self, answer: oneshot::Sender<Response>) {
        let response = match mark(&self.context.postgres, self.term()).await {
            Ok(()) => {
                self.own.rejoin_failures = 0;
                self.retry_at = crate::runtime::clock::now();
                self.context.inspect(&mut self.own).await;
                Response::Taken
            }
            Err(error) => refused(&error),
        };
        let _ = answer.send(response);
    }
}

/// Marks a copy as one to be made anew. Where promises were lost with the state, it follows at
/// least no primary that is of the past already.
async fn mark(postgres: &Postgres, term: Term) -> Result<(), postgres::Error> {
    postgres
        .begin_state(move |state| {
            state.promised = state.promised.max(term);
            state.sentinel = Some(Sentinel::Cloning);
            state.quarantined = None;
        })
        .await?;
    postgres.trust_disk().await
}

fn refused(error: &(dyn std::error::Error + 'static)) -> Response {
    Response::Refused(crate::telemetry::problem::chain(error))
}
