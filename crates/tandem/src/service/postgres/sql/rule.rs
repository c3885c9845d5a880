//! Talks to the primary about `synchronous_standby_names`: writes a rule, and proves that it is the
//! only one in effect.
//! In: `CommitRule`. Out: `RuleState`.
//! Keeps: H7 and S07 before a promotion commits wait for somebody who is not there; H8 one rule
//! after the other; H9 listed is not caught up; H10 no
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
//!
//! From the rule of nobody to a first rule (`let_confirm`) nothing is to be proven: the flag of 1
//! is set before and, unless nobody has to confirm, after; a walsender of 2 with the old names has
//! nobody listed and releases nothing, one with the new names counts only those that list
//! themselves by them. At any moment commits are released by the new rule or not at all.
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
const NAMES: &str = "synchronous_standby_names";
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
    /// Has the commits of a standby that is about to be promoted wait for somebody who is not
    /// there, and proves that they will. It was started so; what a superuser made of that is
    /// undone.
    ///
    /// # Errors
    /// Those of files and connections. Running out of time is `Pending`.
    pub async fn hold_commits(&self, deadline: Duration) -> Result<RuleState, Error> {
        let until = Instant::now() + deadline;
        let nobody = self.rule_of_nobody();
        let started_so = async {
            let mut new = self.connect().await?;
            let is_so = new.show(NAMES).await? == self.sync_names(&nobody);
            Ok::<_, Error>(is_so.then_some(new))
        };
        // A new connection that shows them proves what a reload would (`reload_until`).
        let loaded = match timeout_at(until, started_so).await {
            Ok(Ok(Some(session))) => Ok(session),
            Ok(Ok(None)) => self.load_names(&nobody, until).await?,
            Ok(Err(error)) => return Err(error),
            Err(_elapsed) => Err(Why::NotReloaded),
        };
        let session = match loaded {
            Ok(session) => session,
            Err(why) => return Ok(RuleState::Pending { why }),
        };
        Ok(match checkpointer_heard(session, until).await? {
            Ok(_session) => RuleState::Proven,
            Err(why) => RuleState::Pending { why },
        })
    }

    /// Lets a first rule decide on commits that waited for somebody who is not there. They are
    /// looked at when a standby confirms anything, so it is given something to confirm.
    ///
    /// # Errors
    /// As `hold_commits`.
    pub async fn let_confirm(
        &self,
        rule: &CommitRule,
        deadline: Duration,
    ) -> Result<RuleState, Error> {
        let until = Instant::now() + deadline;
        let mut session = match self.load_names(rule, until).await? {
            Ok(session) => session,
            Err(why) => return Ok(RuleState::Pending { why }),
        };
        Ok(match timeout_at(until, session.barrier()).await {
            Ok(barrier) => barrier.map(|_| RuleState::Proven)?,
            Err(_elapsed) => RuleState::Pending { why: Why::NoBarrier },
        })
    }

    /// Writes a rule on a running primary and proves that it alone is in effect.
    ///
    /// # Errors
    /// As `hold_commits`; `Role` on a standby.
    pub async fn apply_rule(
        &self,
        rule: &CommitRule,
        deadline: Duration,
    ) -> Result<RuleState, Error> {
        let until = Instant::now() + deadline;
        let mut loaded = self.load_names(rule, until).await?;
        // Without names nothing has to wait, and nothing is to be proven.
        if rule.acks > 0
            && let Ok(session) = loaded
        {
            loaded = checkpointer_heard(session, until).await?;
        }
        let mut session = match loaded {
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

    /// Steps common to all: the names are written, and every process is signalled.
    async fn load_names(
        &self,
        rule: &CommitRule,
        until: Instant,
    ) -> Result<Result<Session, Why>, Error> {
        let names = self.sync_names(rule);
        let shown = async {
            self.write_sync_names(rule).await?;
            self.reload_until(NAMES, &names).await
        };
        match timeout_at(until, shown).await {
            Ok(session) => session.map(Ok),
            Err(_elapsed) => Ok(Err(Why::NotReloaded)),
        }
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

/// Waits until the checkpointer has handled every reload that was signalled so far.
async fn checkpointer_heard(
    mut session: Session,
    until: Instant,
) -> Result<Result<Session, Why>, Error> {
    let idle = async {
        let mut pid = None;
        while session.while_asleep(CHECKPOINTER, CHECKPOINTER_IDLE, &mut pid).await?.is_none() {
            sleep(POLL).await;
        }
        Ok::<(), Error>(())
    };
    match timeout_at(until, idle).await {
        Ok(idle) => idle.map(|()| Ok(session)),
        Err(_elapsed) => Ok(Err(Why::CheckpointerBusy)),
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
