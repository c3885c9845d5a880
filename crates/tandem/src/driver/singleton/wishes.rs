//! Carries out what an operator wants of this node's own copy of a command.
//! In: `Asked`. Out: an answer, once it is taken or refused; what follows is planned as ever.
//! Not here: whether the cluster can spare it (`node/operations/wishes.rs`).

use super::{Life, SingletonDriver, Why};
use crate::driver::instance::wishes::Asked;
use crate::driver::wire::{Response, Wish};
use crate::fence::protocol::Signal;
use crate::runtime::clock;
use std::time::Duration;
use tandem_core::facts::{Process, withdrawal};

/// A node that is being removed and then is not takes its place again after this.
const AWAY_MAX: Duration = Duration::from_secs(60);

impl SingletonDriver {
    pub(super) async fn on_wish(&mut self, Asked { wish, answer }: Asked) {
        tracing::info!(service = %self.service(), ?wish, "an operator's wish");
        let response = match wish {
            Wish::Restart => self.restart(),
            Wish::Reload if self.life == Life::Runs => {
                match self.keeper.signal(Signal::Reload).await {
                    Ok(()) => Response::Taken,
                    Err(error) => Response::Refused(error.to_string()),
                }
            }
            Wish::Reload => Response::Refused("it does not run here".into()),
            Wish::Leave => {
                self.away_until = clock::now().plus(AWAY_MAX);
                Response::Taken
            }
            Wish::Reinit | Wish::Checkpoint => {
                Response::Refused("a command keeps no data that Tandem knows of".into())
            }
        };
        let _ = answer.send(response);
    }

    /// What failed is tried again at once; what runs is ended in order, and started by the plan.
    fn restart(&mut self) -> Response {
        self.own.starts_failed = 0;
        self.retry_at = clock::now();
        match self.life {
            Life::Runs => self.wish = withdrawal::Wish::Restart,
            Life::Nothing
            | Life::Opening(_)
            | Life::Launching(_)
            | Life::Ending { .. }
            | Life::Closing(_) => {}
        }
        Response::Taken
    }

    /// It has no place here any more, and is ended in order: where its service is taken out, its
    /// lease is proven as ever until then; where its node is, the lease is renewed no longer.
    pub(super) async fn leave(&mut self, is_member: bool) {
        self.stop(Why::Planned).await;
        if self.life == Life::Nothing && self.own.process == Process::Starting {
            // What is about to begin does not.
            self.fence().await;
        }
        let left = self.memory.leaving().filter(|_| is_member && self.life != Life::Nothing);
        if let Some((spec, state)) = left.map(|(spec, state)| (spec.clone(), state.clone())) {
            let voters = self.memory.voters().clone();
            self.hold_lease(&spec, &state, &voters).await;
        }
    }
}
