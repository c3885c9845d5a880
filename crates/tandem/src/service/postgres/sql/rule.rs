//! Talks to the primary about `synchronous_standby_names`: writes a rule, and proves that it is the
//! only one in effect.
//! In: `CommitRule`. Out: `RuleState`.
//! Keeps: H8 and S07 the names are in effect before a promotion; H9 listed is not caught up; H10 no
//! two standbys of one name.
//!
//! Where PostgreSQL keeps the rule (syncrep.c, walsender.c, checkpointer.c):
//! 1. Whether a commit waits at all is a flag in shared memory, set by the *checkpointer* when it
//!    handles the reload. Until then commits pass, whatever `SHOW` says. Proof: it slept in its
//!    main wait after the signal (`asleep`).
//! 2. Which standbys count is known to each *walsender* by its own copy of the names, and a
//!    walsender releases commits whenever its standby confirms. One with the old copy still
//!    releases by the old rule. It reads the names again at the top of its loop, before it reads a
//!    confirmation. So a confirmation of a record that was *written after* the signal was read by
//!    a walsender that had handled the signal: the barrier record is that, and every listed
//!    walsender must have confirmed it, be gone, or still be catching up (such a one releases
//!    nothing, and goes through the top of its loop before it does).
//! 3. A walsender that is not listed, by its own copy, has priority 0 and releases nothing. One
//!    that was listed shows 0 only after it has read the new names.
//!
//! Commits that were acknowledged under the old rule lie before the barrier, so `acks`
//! confirmations of the barrier by standbys of the new rule make the new rule hold for them too.
//! Not here: when a rule changes (core).
//! Tested by: below, and `tests/postgres_adapter.rs`.

use super::{Error, POLL, Session, lsn};
use crate::service::postgres::{Postgres, names};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;
use tandem_core::ids::NodeId;
use tandem_core::lsn::Lsn;
use tandem_core::replication::primary_replica::sync_quorum::CommitRule;
use tokio::time::{Instant, sleep, timeout_at};

/// Waits of the checkpointer whose latch the reload sets; it handles reloads before each.
const CHECKPOINTER_IDLE: &[&str] = &["CheckpointerMain", "CheckpointWriteDelay"];
const CHECKPOINTER: &str =
    "SELECT pid, wait_event FROM pg_stat_activity WHERE backend_type = 'checkpointer'";
const WALSENDERS: &str = "SELECT application_name, coalesce(state, ''), flush_lsn::text, \
    coalesce(sync_priority, 0) FROM pg_stat_replication";

/// Whether a rule is in effect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RuleState {
    /// It is, and no other.
    Proven,
    /// Not yet; the same call again goes on.
    Pending {
        /// What is missing.
        why: Why,
    },
}

/// What is missing for the proof.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Why {
    /// The server does not show the new names yet.
    NotReloaded,
    /// The checkpointer has not been seen idle since the reload.
    CheckpointerBusy,
    /// The barrier record could not be written in time.
    NoBarrier,
    /// The walsender of a listed standby has not confirmed the barrier.
    NotConfirmed {
        /// The standby.
        node: NodeId,
        /// What it confirmed.
        flushed: Lsn,
        /// What it should.
        barrier: Lsn,
    },
    /// A walsender works by names of which we know that they are not the new ones.
    OldNames {
        /// Its application name.
        application: String,
    },
    /// Two standbys are connected under one name (H10).
    Duplicate {
        /// Whose.
        node: NodeId,
    },
    /// Fewer standbys than the rule demands have confirmed.
    TooFew {
        /// How many have.
        confirmed: usize,
        /// How many must.
        acks: usize,
    },
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotReloaded => f.write_str("the server has not reloaded yet"),
            Self::CheckpointerBusy => f.write_str("the checkpointer is busy"),
            Self::NoBarrier => f.write_str("no barrier could be written"),
            Self::NotConfirmed { node, flushed, barrier } => {
                write!(f, "{node} confirmed {flushed}, the barrier is {barrier}")
            }
            Self::OldNames { application } => {
                write!(f, "the sender to {application} still uses the old names")
            }
            Self::Duplicate { node } => write!(f, "two standbys are connected as {node}"),
            Self::TooFew { confirmed, acks } => {
                write!(f, "{confirmed} of {acks} standbys confirmed")
            }
        }
    }
}

/// One row of pg_stat_replication.
#[derive(Clone, Debug)]
struct Walsender {
    application: String,
    streaming: bool,
    flushed: Lsn,
    listed: bool,
}

impl Postgres {
    /// Writes a rule and proves that commits will obey it, on a standby that is about to be
    /// promoted.
    ///
    /// # Errors
    /// Those of files and connections. Running out of time is `Pending`.
    pub async fn write_rule(
        &self,
        rule: &CommitRule,
        deadline: Duration,
    ) -> Result<RuleState, Error> {
        let until = Instant::now() + deadline;
        Ok(match self.load_rule(rule, until).await? {
            Ok(_session) => RuleState::Proven,
            Err(why) => RuleState::Pending { why },
        })
    }

    /// Writes a rule on a running primary and proves that it alone is in effect.
    ///
    /// # Errors
    /// As `write_rule`; `Role` on a standby.
    pub async fn apply_rule(
        &self,
        rule: &CommitRule,
        deadline: Duration,
    ) -> Result<RuleState, Error> {
        let until = Instant::now() + deadline;
        let mut session = match self.load_rule(rule, until).await? {
            Ok(session) => session,
            Err(why) => return Ok(RuleState::Pending { why }),
        };
        let barrier = match timeout_at(until, session.barrier()).await {
            Ok(barrier) => barrier?,
            Err(_) => return Ok(RuleState::Pending { why: Why::NoBarrier }),
        };
        let mut why = Why::NoBarrier;
        loop {
            let Ok(rows) = timeout_at(until, session.walsenders()).await else {
                return Ok(RuleState::Pending { why });
            };
            match self.missing(rule, barrier, &rows?) {
                None => return Ok(RuleState::Proven),
                Some(missing) => why = missing,
            }
            if timeout_at(until, sleep(POLL)).await.is_err() {
                return Ok(RuleState::Pending { why });
            }
        }
    }

    /// Steps common to both: the names are written, every process is signalled, and the
    /// checkpointer has handled it.
    async fn load_rule(
        &self,
        rule: &CommitRule,
        until: Instant,
    ) -> Result<Result<Session, Why>, Error> {
        let names = names::sync_names(&self.config().cluster, Some(rule));
        let shown = async {
            self.write_sync_names(Some(rule)).await?;
            self.reload_until("synchronous_standby_names", &names).await
        };
        let Ok(session) = timeout_at(until, shown).await else {
            return Ok(Err(Why::NotReloaded));
        };
        let mut session = session?;
        // Without names nothing has to wait, and nothing is to be proven.
        if rule.acks > 0 {
            let idle = async {
                let mut pid = None;
                while session
                    .while_asleep(CHECKPOINTER, CHECKPOINTER_IDLE, &mut pid)
                    .await?
                    .is_none()
                {
                    sleep(POLL).await;
                }
                Ok::<(), Error>(())
            };
            match timeout_at(until, idle).await {
                Ok(idle) => idle?,
                Err(_) => return Ok(Err(Why::CheckpointerBusy)),
            }
        }
        Ok(Ok(session))
    }

    fn missing(&self, rule: &CommitRule, barrier: Lsn, rows: &[Walsender]) -> Option<Why> {
        let cluster = &self.config().cluster;
        let wanted: BTreeMap<String, &NodeId> = rule
            .standbys
            .iter()
            .filter(|_| rule.acks > 0)
            .map(|node| (names::application(cluster, node), node))
            .collect();
        let mut confirmed = BTreeSet::new();
        let mut seen = BTreeSet::new();
        for row in rows {
            // PostgreSQL compares these names without regard to case.
            let Some(node) = wanted.get(&row.application.to_ascii_lowercase()) else {
                if row.listed {
                    return Some(Why::OldNames { application: row.application.clone() });
                }
                continue;
            };
            if !row.streaming {
                continue;
            }
            if !seen.insert(*node) {
                return Some(Why::Duplicate { node: (*node).clone() });
            }
            if !row.listed {
                return Some(Why::OldNames { application: row.application.clone() });
            }
            if row.flushed < barrier {
                let (node, flushed) = ((*node).clone(), row.flushed);
                return Some(Why::NotConfirmed { node, flushed, barrier });
            }
            confirmed.insert(*node);
        }
        let (confirmed, acks) = (confirmed.len(), rule.acks);
        (confirmed < acks).then_some(Why::TooFew { confirmed, acks })
    }

    /// Which standbys of `rule` have flushed up to `position`.
    pub(super) async fn confirmed(
        &self,
        session: &mut Session,
        rule: &CommitRule,
        position: Lsn,
    ) -> Result<BTreeSet<NodeId>, Error> {
        let rows = session.walsenders().await?;
        let cluster = &self.config().cluster;
        let has = |node: &&NodeId| {
            let name = names::application(cluster, node);
            rows.iter()
                .any(|row| row.application.eq_ignore_ascii_case(&name) && row.flushed >= position)
        };
        Ok(rule.standbys.iter().filter(has).cloned().collect())
    }
}

impl Session {
    /// Writes a record that waits for nobody, and says where the log ends after it.
    async fn barrier(&mut self) -> Result<Lsn, Error> {
        if self.in_recovery().await? {
            return Err(Error::Role { expected: "primary" });
        }
        self.run(
            "writing a barrier",
            "SET synchronous_commit = local; SELECT pg_logical_emit_message(true, 'tandem', '')",
        )
        .await?;
        let row =
            self.one("reading the barrier", "SELECT pg_current_wal_flush_lsn()::text").await?;
        lsn(&row, 0)
    }

    async fn walsenders(&mut self) -> Result<Vec<Walsender>, Error> {
        let rows = self.all("reading pg_stat_replication", WALSENDERS).await?;
        rows.iter()
            .map(|row| {
                Ok(Walsender {
                    application: row.get(0),
                    streaming: row.get::<_, &str>(1) == "streaming",
                    flushed: lsn(row, 2)?,
                    listed: row.get::<_, i32>(3) > 0,
                })
            })
            .collect()
    }
}

#[cfg(test)]
mod tests;
