//! Keeps what a later failover will need: replication slots on every node, a checkpoint after a
//! promotion. Beside the actions, since neither may delay them.
//! In: facts. Out: slots for every member, `checkpointed` in the next observation.
//! Keeps: H18 others can rewind to the new timeline; H24, H25 a slot for each member on each node,
//! advanced with what that member has, so that none is missing and none retains for ever.
//! Not here: the slot that a copy needs (`service/postgres/copy`).

use super::hub::Hub;
use crate::service::postgres::{Postgres, SlotReport};
use crate::telemetry::event_kind::EventKind;
use crate::telemetry::events::{Draft, EventLog};
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
#[derive(Clone, Debug)]
pub struct Upkeep {
    /// Of which service.
    pub service: ServiceId,
    /// What this node knows.
    pub hub: Arc<Hub>,
    /// The adapter, as it is configured now.
    pub postgres: watch::Receiver<Postgres>,
    /// What happened, for operators.
    pub events: EventLog,
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
        match postgres.ensure_slots(&positions, SLOTS).await {
            Ok(report) => self.tell(&postgres.config().me, &report),
            Err(error) => {
                tracing::warn!(service = %self.service, %error, "slots could not be kept");
                // A standby that just started may not take it yet.
                self.due.notify_one();
                tokio::time::sleep(Duration::from_millis(500)).await;
            }
        }
        if instance.process == Process::Primary
            && !instance.checkpointed
            && let Err(error) = postgres.checkpoint(CHECKPOINT).await
        {
            tracing::warn!(service = %self.service, %error, "no checkpoint after the promotion");
        }
    }

    /// A slot that was lost is made again, and never in silence: its node lacks what it kept (H24).
    fn tell(&self, me: &NodeId, report: &SlotReport) {
        for node in &report.lost {
            let message = format!(
                "{me} had to give up the WAL that it kept for {node}: unless {node} is fed by \
                 another, it copies everything anew"
            );
            let draft = Draft::new(EventKind::SlotLost, message)
                .service(&self.service)
                .field("instance", me.as_str())
                .field("member", node.as_str());
            self.events.record(draft);
        }
        for node in &report.created {
            tracing::info!(service = %self.service, %node, "a slot was made");
        }
        for slot in &report.dropped {
            tracing::info!(service = %self.service, slot, "dropped: its node is no member");
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn h24_a_lost_slot_is_an_event() {
        let events = EventLog::new("a".into());
        let upkeep = Upkeep {
            service: "orders".into(),
            hub: Arc::new(Hub::new("a".into())),
            postgres: watch::channel(Postgres::for_test()).1,
            events: events.clone(),
            due: Arc::default(),
        };
        let lost = BTreeSet::from([NodeId::from("b")]);
        upkeep.tell(
            &"a".into(),
            &SlotReport { lost, created: ["c".into()].into(), ..SlotReport::default() },
        );
        let all = events.since(0);
        assert_eq!(all.len(), 1, "{all:?}");
        assert_eq!(all[0].kind, EventKind::SlotLost);
        assert!(all[0].message.contains("for b"), "{}", all[0].message);
    }
}
