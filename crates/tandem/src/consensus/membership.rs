//! Talks to Raft about who takes part: adds, removes, hands the leadership on.
//! In: `Change`, run by the leader. Out: done, or `Refusal` with its numbers.
//! A new voter is a learner first, until it holds everything; then both majorities count until the
//! change is complete (joint consensus). A change that its leader did not complete is completed by
//! the next one (H36).
//! Keeps: H48, one change at a time, none that costs the majority, the removed node is told.
//! Tested by: `tests/membership.rs`.

use super::refusal::Refusal;
use super::types::{LogId, Member, TypeConfig};
use super::wire::{Outcome, Request, Task};
use super::{Consensus, Error};
use crate::runtime::supervisor::TaskKind;
use openraft::async_runtime::WatchReceiver;
use openraft::{ChangeMembers, Instant as _, LogIdOptionExt, RaftMetrics};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use tandem_core::ids::NodeId;
use tokio::time::{Instant, timeout, timeout_at};

/// How long a transfer may take, in leases: the target flushes, stands, is elected.
const TRANSFER_LEASES: u32 = 10;

/// How long to wait for members to be heard of before they count as dead, in leases.
const LIVE_LEASES: u32 = 2;
/// How long to wait for a majority of members to be heard of, in leases. Who is alive is heard of
/// within one, unless the machine is busy; and a refusal costs a node that joins its membership.
const MAJORITY_LEASES: u32 = 10;

/// Pause between attempts at a change.
const CHANGE_PAUSE: Duration = Duration::from_millis(20);

/// How long completing a predecessor's change may take.
const FINISH_MAX: Duration = Duration::from_secs(30);

/// A change that only the leader can make.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Change {
    Add { node: NodeId, address: String, voter: bool },
    Remove { node: NodeId },
    Transfer { to: NodeId },
}

type Metrics = RaftMetrics<TypeConfig>;
type Members = ChangeMembers<NodeId, Member>;

impl Consensus {
    /// Adds a node: as a learner, and, once it holds everything, as a voter. Done already is done.
    ///
    /// # Errors
    /// `Refused` with the reason; a node that did not catch up in time stays a learner.
    pub async fn add_member(
        &self,
        node: NodeId,
        address: String,
        voter: bool,
        deadline: Duration,
    ) -> Result<(), Error> {
        self.ask_for(Change::Add { node, address, voter }, deadline).await
    }

    /// Removes a node, and tells it. A leader hands its role on first. Done already is done.
    ///
    /// # Errors
    /// `Refused` with the reason.
    pub async fn remove_member(&self, node: &NodeId, deadline: Duration) -> Result<(), Error> {
        self.ask_for(Change::Remove { node: node.clone() }, deadline).await
    }

    /// Hands the leadership to a voter.
    ///
    /// # Errors
    /// `Refused` with the reason.
    pub async fn transfer_leadership(&self, to: &NodeId) -> Result<(), Error> {
        let deadline = self.inner.timing.election_max * TRANSFER_LEASES * 2;
        self.ask_for(Change::Transfer { to: to.clone() }, deadline).await
    }

    async fn ask_for(&self, change: Change, deadline: Duration) -> Result<(), Error> {
        match self.through_leader(Task::Change(change), deadline).await? {
            Outcome::Done => Ok(()),
            other => Err(self.error_of(other, deadline)),
        }
    }

    /// Makes a change, if this node leads.
    pub(super) async fn change(&self, change: Change, until: Instant) -> Outcome {
        let work = async {
            if !self.metrics().state.is_leader() {
                return Err(Outcome::Elsewhere(self.known_leader()));
            }
            let permit = self.inner.changes.acquire();
            let Ok(Ok(_permit)) = timeout_at(until, permit).await else {
                return Err(Outcome::Refused(Refusal::ChangeUnderWay));
            };
            match change {
                Change::Add { node, address, voter } => {
                    self.finish_joint(until).await?;
                    let role = if voter { Role::Voter } else { Role::Learner };
                    self.add(node, Member { address }, role, until).await
                }
                Change::Remove { node } => {
                    self.finish_joint(until).await?;
                    self.remove(node, until).await
                }
                Change::Transfer { to } => self.transfer(to).await,
            }
        };
        match timeout_at(until, work).await {
            Ok(Ok(())) => Outcome::Done,
            Ok(Err(outcome)) => outcome,
            Err(_) => Outcome::Unknown,
        }
    }

    async fn add(
        &self,
        node: NodeId,
        member: Member,
        role: Role,
        until: Instant,
    ) -> Result<(), Outcome> {
        let metrics = self.metrics();
        let voters: BTreeSet<NodeId> = metrics.membership_config.voter_ids().collect();
        match metrics.membership_config.get_node(&node) {
            Some(known) if *known != member => {
                let (known, given) = (known.address.clone(), member.address);
                return refuse(Refusal::OtherAddress { node, known, given });
            }
            Some(_) if voters.contains(&node) => {
                return match role {
                    Role::Voter => Ok(()),
                    Role::Learner => refuse(Refusal::Votes { node }),
                };
            }
            Some(_) => {}
            None => {
                let learner = BTreeMap::from([(node.clone(), member)]);
                self.change_members(ChangeMembers::AddNodes(learner), until).await?;
            }
        }
        if role == Role::Learner {
            return Ok(());
        }
        // openraft's own wait is over while the learner is empty, if the log is short.
        self.wait_for_log(&node, until).await?;
        let mut after = voters;
        after.insert(node.clone());
        self.check_majority(after, until).await?;
        let change = ChangeMembers::AddVoterIds(BTreeSet::from([node]));
        self.change_members(change, until).await?;
        Ok(())
    }

    async fn remove(&self, node: NodeId, until: Instant) -> Result<(), Outcome> {
        let metrics = self.metrics();
        let mut after: BTreeSet<NodeId> = metrics.membership_config.voter_ids().collect();
        if metrics.membership_config.get_node(&node).is_none() {
            return Ok(());
        }
        let change = if after.remove(&node) {
            if after.is_empty() {
                return refuse(Refusal::LastVoter { node });
            }
            self.check_majority(after.clone(), until).await?;
            if node == self.inner.me {
                return self.pass_leadership_on(&after).await;
            }
            ChangeMembers::RemoveVoters(BTreeSet::from([node.clone()]))
        } else {
            ChangeMembers::RemoveNodes(BTreeSet::from([node.clone()]))
        };
        let since = self.change_members(change, until).await?;
        self.tell_removed(node, since);
        Ok(())
    }

    /// A leader does not remove itself: the next one does.
    async fn pass_leadership_on(&self, candidates: &BTreeSet<NodeId>) -> Result<(), Outcome> {
        let metrics = self.metrics();
        let live = self.heard_within(&metrics, self.inner.timing.election_max * LIVE_LEASES);
        let matched = |node: &&NodeId| replicated(&metrics, node);
        let best = candidates.iter().filter(|node| live.contains(*node)).max_by_key(matched);
        let Some(to) = best.cloned() else {
            return refuse(Refusal::NoMajority { live: 0, needed: candidates.len() / 2 + 1 });
        };
        self.transfer(to.clone()).await?;
        Err(Outcome::Elsewhere(Some(to)))
    }

    async fn transfer(&self, to: NodeId) -> Result<(), Outcome> {
        if to == self.inner.me {
            return Ok(());
        }
        if !self.metrics().membership_config.voter_ids().any(|voter| voter == to) {
            return refuse(Refusal::NotAVoter { node: to });
        }
        let lease = self.inner.timing.election_max;
        // Until another is elected, the leader takes no work: not for a target that cannot win.
        self.wait_for_log(&to, Instant::now() + lease * LIVE_LEASES).await?;
        let trigger = self.inner.raft.trigger();
        trigger.transfer_leader(to.clone()).await.map_err(|_| Outcome::Stopped)?;
        let elected = |leadership: &super::Leadership| {
            leadership.leader.as_ref().is_some_and(|leader| *leader != self.inner.me)
        };
        let mut leadership = self.leadership();
        let waited = timeout(lease * TRANSFER_LEASES, leadership.wait_for(elected)).await;
        if matches!(waited, Ok(Err(_))) {
            return Err(Outcome::Stopped);
        }
        drop(waited);
        match self.known_leader() {
            Some(leader) if leader == to => Ok(()),
            leader => refuse(Refusal::NotTransferred { to, leader }),
        }
    }

    /// Completes a change that was left half-way: both majorities count until then.
    async fn finish_joint(&self, until: Instant) -> Result<(), Outcome> {
        if self.metrics().membership_config.get_joint_config().len() <= 1 {
            return Ok(());
        }
        let nothing = ChangeMembers::AddVoterIds(BTreeSet::new());
        self.change_members(nothing, until).await?;
        Ok(())
    }

    /// Has openraft make a change. Until a new leader's first entry is committed, openraft takes
    /// every change for one that is under way: that passes within milliseconds.
    async fn change_members(&self, change: Members, until: Instant) -> Result<LogId, Outcome> {
        loop {
            let changed = self.inner.raft.change_membership(change.clone(), false).await;
            let refused = match self.written(changed) {
                Ok((_, since)) => return Ok(since),
                Err(refused) => refused,
            };
            let may_pass = match &refused {
                Outcome::Refused(Refusal::ChangeUnderWay) => true,
                Outcome::Elsewhere(None) => self.metrics().state.is_leader(),
                _ => false,
            };
            if !may_pass || Instant::now() + CHANGE_PAUSE * 2 >= until {
                return Err(refused);
            }
            tokio::time::sleep(CHANGE_PAUSE).await;
        }
    }

    /// Called when this node begins to lead.
    pub(super) fn finish_change_of_predecessor(&self) {
        let consensus = self.clone();
        let finish = async move {
            let Ok(_permit) = consensus.inner.changes.acquire().await else { return };
            // What stops it otherwise is the loss of the leadership: the next leader goes on.
            if let Err(outcome) = consensus.finish_joint(Instant::now() + FINISH_MAX).await {
                tracing::warn!(?outcome, "a change of members is half-way");
            }
        };
        self.inner.supervisor.spawn("raft unfinished change", TaskKind::Session, finish);
    }

    /// H48. If it does not arrive: the node hears it when it asks for a vote.
    fn tell_removed(&self, node: NodeId, since: LogId) {
        let consensus = self.clone();
        let tell = async move {
            let within = consensus.inner.timing.election_max * LIVE_LEASES;
            if let Err(error) =
                consensus.inner.caller.call(&node, Request::Removed(since), within).await
            {
                tracing::info!(%node, error = %error, "the removed node could not be told");
            }
        };
        self.inner.supervisor.spawn("raft farewell", TaskKind::Session, tell);
    }

    /// Waits until a node holds everything that is in this leader's log now.
    async fn wait_for_log(&self, node: &NodeId, until: Instant) -> Result<(), Outcome> {
        let needed = self.metrics().last_log_index.unwrap_or(0);
        let reached = |metrics: &Metrics| {
            replicated(metrics, node) >= Some(needed) || !metrics.state.is_leader()
        };
        let left = until.saturating_duration_since(Instant::now());
        // A little earlier than the caller gives up, so that the reason is told.
        let waiting = self.inner.raft.wait(Some(left.mul_f32(0.9)));
        let waited = waiting.metrics(reached, "the node holds the log").await;
        let metrics = waited.unwrap_or_else(|_| self.metrics());
        if !metrics.state.is_leader() {
            return Err(Outcome::Elsewhere(self.known_leader()));
        }
        match replicated(&metrics, node) {
            matched if matched >= Some(needed) => Ok(()),
            matched => refuse(Refusal::Behind { node: node.clone(), matched, needed }),
        }
    }

    /// H48: refuses what would leave fewer live voters than a majority needs.
    async fn check_majority(
        &self,
        voters: BTreeSet<NodeId>,
        until: Instant,
    ) -> Result<(), Outcome> {
        let needed = voters.len() / 2 + 1;
        // Only who answers from now on counts: a voter that has just died was heard of just before.
        let asked = Instant::now();
        let live = |metrics: &Metrics| {
            self.heard_within(metrics, asked.elapsed()).intersection(&voters).count()
        };
        let patience = self.inner.timing.election_max * MAJORITY_LEASES;
        let patience = patience.min(until.saturating_duration_since(asked));
        let waiting = self.inner.raft.wait(Some(patience));
        let waited = waiting.metrics(|metrics| live(metrics) >= needed, "a live majority").await;
        match waited {
            Ok(_) => Ok(()),
            Err(_) => refuse(Refusal::NoMajority { live: live(&self.metrics()), needed }),
        }
    }

    fn heard_within(&self, metrics: &Metrics, age_max: Duration) -> BTreeSet<NodeId> {
        let empty = BTreeMap::new();
        let heard = metrics.heartbeat.as_ref().unwrap_or(&empty);
        let recent = heard.iter().filter(|(_, at)| at.is_some_and(|at| at.elapsed() <= age_max));
        let mut live: BTreeSet<NodeId> = recent.map(|(node, _)| node.clone()).collect();
        live.insert(self.inner.me.clone());
        live
    }

    pub(super) fn metrics(&self) -> Metrics {
        self.inner.raft.metrics().borrow_watched().clone()
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Role {
    Voter,
    Learner,
}

fn refuse<T>(refusal: Refusal) -> Result<T, Outcome> {
    Err(Outcome::Refused(refusal))
}

/// Up to where a node's log is known to be the leader's.
fn replicated(metrics: &Metrics, node: &NodeId) -> Option<u64> {
    metrics.replication.as_ref().and_then(|replication| replication.get(node)?.index())
}
