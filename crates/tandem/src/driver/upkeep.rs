//! Keeps what a later failover will need: replication slots on every node, a checkpoint after a
//! promotion. Beside the actions, since neither may delay them.
//! In: facts. Out: slots for every member, `checkpointed` in the next observation.
//! Keeps: H18 others can rewind to the new timeline; H24, H25 a slot for each member on each node,
//! advanced with what that member has, so that none is missing and none retains for ever.
//! Not here: the slot that a copy needs (`service/postgres/copy`).

use super::hub::Hub;
use crate::service::postgres::Postgres;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tandem_core::facts::Process;
use tandem_core::ids::{NodeId, ServiceId};
use tandem_core::lsn::Lsn;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

/// Between two rounds when nothing changes.
const EVERY: Duration = Duration::from_secs(10);
const SLOTS: Duration = Duration::from_secs(5);
const CHECKPOINT: Duration = Duration::from_secs(600);

/// The upkeep of one instance.
#[derive(Debug)]
pub struct Upkeep {
    /// Of which service.
    pub service: ServiceId,
    /// What this node knows.
    pub hub: Arc<Hub>,
    /// The adapter, as it is configured now.
    pub postgres: watch::Receiver<Postgres>,
    /// Nudged when the instance got another role.
    pub due: Arc<Notify>,
}

impl Upkeep {
    /// Goes round until `stop`.
    pub async fn run(self, stop: CancellationToken) {
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = self.due.notified() => {}
                () = tokio::time::sleep(EVERY) => {}
            }
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = self.round() => {}
            }
        }
    }

    async fn round(&self) {
        let own = self.hub.own();
        let Some(instance) = own.instances.get(&self.service) else { return };
        if !matches!(instance.process, Process::Primary | Process::Standby) {
            return;
        }
        let postgres = self.postgres.borrow().clone();
        let positions = self.positions(&postgres);
        if let Err(error) = postgres.ensure_slots(&positions, SLOTS).await {
            tracing::warn!(service = %self.service, %error, "slots could not be kept");
            // A standby that just started may not take it yet.
            self.due.notify_one();
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
        if instance.process == Process::Primary
            && !instance.checkpointed
            && let Err(error) = postgres.checkpoint(CHECKPOINT).await
        {
            tracing::warn!(service = %self.service, %error, "no checkpoint after the promotion");
        }
    }

    /// How far each member has come, as it last said; a member that is away keeps its slot.
    fn positions(&self, postgres: &Postgres) -> BTreeMap<NodeId, Option<Lsn>> {
        let everyone = self.hub.everyone();
        let position = |node: &NodeId| {
            let instance = everyone.get(node)?.last_known().instances.get(&self.service)?;
            (instance.replayed > Lsn::ZERO).then_some(instance.replayed)
        };
        let members = &postgres.config().members;
        members.iter().map(|node| (node.clone(), position(node))).collect()
    }
}
