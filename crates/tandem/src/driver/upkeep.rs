//! Keeps what a later failover will need: replication slots on every node, a checkpoint after a
//! promotion. Beside the actions, since neither may delay them.
//! In: facts. Out: slots for every member, `checkpointed` in the next observation.
//! Keeps: H18 others can rewind to the new timeline; H24, H25 a slot for each member on each node,
//! advanced with what that member has, so that none is missing and none retains for ever; H27 a
//! ballast beside the data, made again once there is room.
//! Not here: the slot that a copy needs (`service/postgres/copy`).

use super::hub::Hub;
use crate::service::postgres::{Ballast, Postgres, SlotReport};
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
        let mut ballast = None;
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
                () = self.round(&mut ballast) => {}
            }
        }
    }

    async fn round(&self, ballast: &mut Option<Ballast>) {
        let own = self.hub.own();
        let Some(instance) = own.instances.get(&self.service) else { return };
        if !matches!(instance.process, Process::Primary | Process::Standby) {
            return;
        }
        let postgres = self.postgres.borrow().clone();
        match postgres.keep_ballast().await {
            Ok(is) => self.tell_ballast(&postgres.config().me, ballast.replace(is), is),
            Err(error) => tracing::warn!(service = %self.service, %error, "no ballast is kept"),
        }
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

    /// What was given up by this daemon or by the one before it (H27).
    fn tell_ballast(&self, me: &NodeId, was: Option<Ballast>, is: Ballast) {
        let (kind, message) = match (was, is) {
            (before, after) if before == Some(after) => return,
            (_, Ballast::Released) => {
                let what = "the disk is full, and its ballast is given up: make room";
                (EventKind::BallastReleased, format!("{me}: {what}"))
            }
            (Some(Ballast::Released), Ballast::Whole) => {
                (EventKind::BallastRestored, format!("{me} has room and its ballast again"))
            }
            (_, Ballast::Missing) => {
                tracing::warn!(service = %self.service, "no room for a ballast, or not possible");
                return;
            }
            (_, Ballast::Whole | Ballast::Unwanted) => return,
        };
        let draft = Draft::new(kind, message).service(&self.service);
        self.events.record(draft.field("instance", me.as_str()));
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
    fn h27_a_ballast_that_was_given_up_is_told_once_also_by_the_next_daemon() {
        use Ballast::{Missing, Released, Unwanted, Whole};
        let upkeep = upkeep();
        let mut was = None;
        for is in [Released, Released, Whole, Whole, Released, Missing, Whole, Unwanted] {
            upkeep.tell_ballast(&"a".into(), was.replace(is), is);
        }
        let told: Vec<_> = upkeep.events.since(0).iter().map(|event| event.kind).collect();
        let (released, restored) = (EventKind::BallastReleased, EventKind::BallastRestored);
        assert_eq!(told, [released, restored, released]);
    }

    fn upkeep() -> Upkeep {
        Upkeep {
            service: "orders".into(),
            hub: Arc::new(Hub::new("a".into())),
            postgres: watch::channel(Postgres::for_test()).1,
            events: EventLog::new("a".into()),
            due: Arc::default(),
        }
    }

    #[test]
    fn h24_a_lost_slot_is_an_event() {
        let upkeep = upkeep();
        let lost = BTreeSet::from([NodeId::from("b")]);
        upkeep.tell(
            &"a".into(),
            &SlotReport { lost, created: ["c".into()].into(), ..SlotReport::default() },
        );
        let all = upkeep.events.since(0);
        assert_eq!(all.len(), 1, "{all:?}");
        assert_eq!(all[0].kind, EventKind::SlotLost);
        assert!(all[0].message.contains("for b"), "{}", all[0].message);
    }
}
