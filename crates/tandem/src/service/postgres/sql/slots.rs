//! Talks to the instance about physical slots: on every node, one for each other member, so that
//! whoever becomes primary has the WAL that the others still need.
//! Keeps: H24 slots are there before a failover; H25 a slot on a standby is moved along, or it
//! would retain WAL for ever; slots of nodes that left are dropped.
//! Tested by: `tests/postgres_adapter.rs`.

use super::{Error, Session, within};
use crate::service::postgres::{Postgres, names};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use tandem_core::ids::NodeId;
use tandem_core::lsn::Lsn;

const SLOTS: &str = "SELECT slot_name::text, active, coalesce(wal_status, ''), restart_lsn::text, \
    pg_is_in_recovery() FROM pg_replication_slots WHERE slot_type = 'physical' \
    AND slot_name LIKE 'tandem\\_%' AND NOT temporary";

/// What was done to the slots.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SlotReport {
    /// Made.
    pub created: BTreeSet<NodeId>,
    /// Made anew, as the server had given up the WAL they stood for: those members need a clone.
    pub lost: BTreeSet<NodeId>,
    /// Dropped, by name.
    pub dropped: BTreeSet<String>,
}

impl Postgres {
    /// Makes the slots of `replayed`'s nodes, moves idle ones along to what their node has
    /// replayed, and drops those of nodes that are no members.
    ///
    /// # Errors
    /// `Timeout`, `Sql`.
    pub async fn ensure_slots(
        &self,
        replayed: &BTreeMap<NodeId, Option<Lsn>>,
        deadline: Duration,
    ) -> Result<SlotReport, Error> {
        within("keeping slots", deadline, async {
            let mut session = self.connect().await?;
            let rows = session.all("reading slots", SLOTS).await?;
            let mut report = SlotReport::default();
            let mut present = BTreeMap::new();
            for row in &rows {
                let slot = Slot {
                    active: row.get(1),
                    lost: row.get::<_, &str>(2) == "lost",
                    restart: super::lsn(row, 3)?,
                    on_standby: row.get(4),
                };
                present.insert(row.get::<_, String>(0), slot);
            }
            let others: BTreeMap<String, &NodeId> = replayed
                .keys()
                .filter(|node| **node != self.config().me)
                .map(|node| (names::slot(node), node))
                .collect();
            for (name, slot) in &present {
                if !others.contains_key(name) && !slot.active {
                    drop_slot(&mut session, name).await?;
                    report.dropped.insert(name.clone());
                }
            }
            for (name, node) in others {
                match present.get(&name) {
                    None => {
                        create_slot(&mut session, &name).await?;
                        report.created.insert(node.clone());
                    }
                    Some(slot) if slot.lost && !slot.active => {
                        drop_slot(&mut session, &name).await?;
                        create_slot(&mut session, &name).await?;
                        report.lost.insert(node.clone());
                    }
                    Some(slot) => {
                        let position = replayed.get(node).copied().flatten();
                        slot.advance(&mut session, &name, position).await?;
                    }
                }
            }
            Ok(report)
        })
        .await
    }

    /// Makes this node's slot on another member, before a base backup from there.
    pub(in crate::service::postgres) async fn make_slot_on(
        &self,
        source: &NodeId,
        deadline: Duration,
    ) -> Result<(), Error> {
        let unavailable =
            |output: String| Error::SourceUnavailable { source_node: source.clone(), output };
        let made = within("making a slot on the source", deadline, async {
            let mut session = self.connect_peer(source).await?;
            let name = names::slot(&self.config().me);
            let sql = format!(
                "SELECT coalesce(wal_status, ''), active FROM pg_replication_slots \
                 WHERE slot_name = '{name}'"
            );
            let rows = session.all("reading slots", &sql).await?;
            match rows.first() {
                None => create_slot(&mut session, &name).await,
                Some(row) if row.get::<_, &str>(0) == "lost" => {
                    drop_slot(&mut session, &name).await?;
                    create_slot(&mut session, &name).await
                }
                Some(_) => Ok(()),
            }
        });
        made.await.map_err(|error| match error {
            Error::NotRunning
            | Error::Starting { .. }
            | Error::ConnectionsUsedUp
            | Error::Timeout { .. } => unavailable(error.to_string()),
            other => other,
        })
    }
}

struct Slot {
    active: bool,
    lost: bool,
    restart: Lsn,
    on_standby: bool,
}

impl Slot {
    /// On a primary a slot is moved by its own standby; on a standby nobody else does it.
    async fn advance(
        &self,
        session: &mut Session,
        name: &str,
        position: Option<Lsn>,
    ) -> Result<(), Error> {
        let Some(position) = position else { return Ok(()) };
        if self.active || !self.on_standby || self.restart == Lsn::ZERO || position <= self.restart
        {
            return Ok(());
        }
        let sql = format!(
            "SELECT pg_replication_slot_advance('{name}', \
             least('{position}'::pg_lsn, pg_last_wal_replay_lsn()))"
        );
        session.run("moving a slot along", &sql).await
    }
}

async fn create_slot(session: &mut Session, name: &str) -> Result<(), Error> {
    let sql = format!("SELECT pg_create_physical_replication_slot('{name}', true)");
    session.run("making a slot", &sql).await
}

async fn drop_slot(session: &mut Session, name: &str) -> Result<(), Error> {
    session.run("dropping a slot", &format!("SELECT pg_drop_replication_slot('{name}')")).await
}
