//! Talks to openraft's metrics: who leads and takes part, as others in this process see it.
//! In: openraft's metrics, what peers told. Out: `Leadership`; the end of the node when Raft ends.
//! Keeps: H48, a removed node knows it; no vote is granted while an earlier promise may hold.

use super::types::{LogId, Membership};
use super::{Consensus, Leadership};
use openraft::ServerState;
use openraft::async_runtime::WatchReceiver;
use tandem_core::ids::NodeId;
use tokio::sync::watch;

impl Consensus {
    /// A node that starts again may have promised a lease just before, and not know it: for one
    /// lease it neither votes nor stands, or two leaders could hold leases at once.
    pub(super) async fn allow_elections(self) {
        if let Some(votes_from) = self.inner.votes_from {
            tokio::select! {
                () = self.inner.closing.cancelled() => return,
                () = tokio::time::sleep_until(votes_from) => {}
            }
        }
        self.inner.raft.runtime_config().elect(true);
    }

    /// Turns openraft's metrics into `Leadership`; ends when Raft does, and the node with it.
    pub(super) async fn watch_leadership(
        self,
        leadership: watch::Sender<Leadership>,
        mut gone: watch::Receiver<Option<LogId>>,
    ) {
        let mut metrics = self.inner.raft.server_metrics();
        loop {
            let now = {
                let metrics = metrics.borrow_watched();
                let since = gone.borrow_and_update();
                let membership = &metrics.membership_config;
                let leads = metrics.state == ServerState::Leader;
                Leadership {
                    leader: metrics.current_leader.clone(),
                    raft_term: metrics.vote.leader_id.term,
                    me_leads: leads && metrics.current_leader.as_ref() == Some(&self.inner.me),
                    voters: membership.voter_ids().collect(),
                    learners: membership.membership().learner_ids().collect(),
                    addresses: membership
                        .nodes()
                        .map(|(node, member)| (node.clone(), member.address.clone()))
                        .collect(),
                    removed: is_removed(membership, &self.inner.me, since.as_ref()),
                }
            };
            self.log_change(&leadership.borrow(), &now);
            let begins = now.me_leads && !leadership.borrow().me_leads;
            leadership.send_if_modified(|last| {
                let changed = *last != now;
                *last = now;
                changed
            });
            if begins {
                self.finish_change_of_predecessor();
            }
            let ended = tokio::select! {
                changed = metrics.changed() => changed.is_err(),
                changed = gone.changed() => changed.is_err(),
                () = self.inner.closing.cancelled() => break,
            };
            if ended {
                let state = self.inner.raft.metrics().borrow_watched().running_state.clone();
                tracing::error!(state = ?state, "Raft has stopped on this node");
                return;
            }
        }
        // Shut down on purpose: the end of this task would mean that the node must stop.
        self.inner.supervisor.stopping().cancelled().await;
    }

    fn log_change(&self, last: &Leadership, now: &Leadership) {
        if last.leader != now.leader || last.raft_term != now.raft_term {
            let leader = now.leader.as_ref().map_or("nobody", NodeId::as_str);
            tracing::info!(leader, raft_term = now.raft_term, "Raft leadership");
        }
        if last.voters != now.voters || last.learners != now.learners {
            tracing::info!(voters = ?now.voters, learners = ?now.learners, "Raft membership");
        }
        if now.removed && !last.removed {
            tracing::warn!("this node was removed from the cluster");
        }
    }
}

/// H48: known from the own log, or told by a member that knows a later change.
fn is_removed(membership: &Membership, me: &NodeId, told: Option<&LogId>) -> bool {
    let founded = membership.nodes().next().is_some();
    let listed = membership.get_node(me).is_some();
    let told_later = told.is_some_and(|told| Some(told) > membership.log_id().as_ref());
    (founded && !listed) || told_later
}
