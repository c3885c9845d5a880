//! Talks to every node again and again, and decides whether the cluster is whole.
//! In: statuses. Out: `View`, with the moment since which it is fully redundant.
//! A cluster is whole only when every node answers, all agree on term and primary, and each of them
//! sees every standby streaming and counted: one view alone may be stale.
//! Tested by: below; `steps.rs` with a stand-in.

use super::Error;
use super::cluster::Cluster;
use crate::dev::status::{ServiceStatus, Status};
use crate::runtime::clock;
use crate::runtime::supervisor::{Supervisor, TaskKind};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use tandem_core::ids::NodeId;
use tandem_core::time::Timestamp;
use tokio::sync::watch;

/// As often as nodes tell each other what changed.
const BEAT: Duration = Duration::from_millis(100);

/// The cluster, as all nodes together see it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct View {
    /// Takes writes, by the newest term.
    pub primary: Option<NodeId>,
    /// Leads Raft.
    pub leader: Option<NodeId>,
    /// What an acknowledged commit is worth.
    pub durability: Option<String>,
    /// Why it is not fully redundant.
    pub shortcoming: Option<String>,
    /// Whom something is said of, where that is told apart.
    pub blamed: BTreeSet<About>,
    /// Since when it is, without a break.
    pub redundant_since: Option<Timestamp>,
    /// When the nodes were asked for it, where that counts: what happened later is not in it.
    pub asked_at: Timestamp,
    /// How many were asked, where those that joined are asked too.
    pub asked: usize,
}

impl View {
    /// Whether it was fully redundant for so long.
    pub fn is_redundant_for(&self, time: Duration, now: Timestamp) -> bool {
        self.redundant_since.is_some_and(|since| now.since(since) >= time)
    }
}

/// Whom something is said of.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum About {
    /// A node, by another one.
    Node(NodeId),
    /// A node that does not answer whoever drills it: no other node has said a thing.
    NoAnswer(NodeId),
    /// An endpoint, by its address.
    Endpoint(String),
    /// The service as a whole.
    Service,
}

/// Watches a cluster.
#[derive(Debug)]
pub struct Observer {
    view: watch::Receiver<View>,
}

impl Observer {
    /// Starts watching, as long as `tasks` run.
    pub fn start(tasks: &Supervisor, cluster: Arc<dyn Cluster>) -> Self {
        let unseen = View { shortcoming: Some("nobody was asked yet".into()), ..View::default() };
        let (sender, view) = watch::channel(unseen);
        let stop = tasks.stopping();
        tasks.spawn("drill observer", TaskKind::Session, async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = observe(&*cluster, &sender) => {}
            }
        });
        Self { view }
    }

    /// What was seen last.
    pub fn view(&self) -> View {
        self.view.borrow().clone()
    }
}

async fn observe(cluster: &dyn Cluster, sender: &watch::Sender<View>) {
    let addresses = cluster.addresses();
    let nodes: Vec<NodeId> = addresses.iter().map(|address| address.node.clone()).collect();
    let data_nodes: Vec<NodeId> = addresses
        .iter()
        .filter(|address| address.instance.is_some())
        .map(|address| address.node.clone())
        .collect();
    let mut beat = tokio::time::interval(BEAT);
    beat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        beat.tick().await;
        let answers =
            futures::future::join_all(nodes.iter().map(|node| cluster.status(node))).await;
        let mut view = merge(&nodes, &answers, cluster.service(), &data_nodes);
        if view.shortcoming.is_none() {
            let since = sender.borrow().redundant_since;
            view.redundant_since = since.or_else(|| Some(clock::now()));
        }
        sender.send_replace(view);
    }
}

fn merge(
    nodes: &[NodeId],
    answers: &[Result<Status, Error>],
    service: &str,
    data_nodes: &[NodeId],
) -> View {
    let seen: Vec<(&NodeId, Option<(&Status, &ServiceStatus)>)> = nodes
        .iter()
        .zip(answers)
        .map(|(node, answer)| {
            let status = answer.as_ref().ok();
            (node, status.and_then(|status| Some((status, status.service(service)?))))
        })
        .collect();
    let newest = seen.iter().filter_map(|(_, seen)| *seen).max_by_key(|(_, s)| s.term);
    let Some((newest, newest_service)) = newest else {
        return View { shortcoming: Some("no node answers".into()), ..View::default() };
    };
    let shortcoming = seen.iter().find_map(|(node, seen)| {
        let Some((_, seen)) = seen else { return Some(format!("{node} does not answer")) };
        if seen.term != newest_service.term || seen.primary != newest_service.primary {
            return Some(format!("{node} does not know the newest term yet"));
        }
        seen.shortcoming(data_nodes)
    });
    View {
        primary: newest_service.primary.clone(),
        leader: newest.leader.clone(),
        durability: newest_service.durability.clone(),
        shortcoming,
        ..View::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(term: u64, primary: &str, c: &str) -> Result<Status, Error> {
        let instance = |node: &str, state: &str| {
            let quorum = true;
            serde_json::json!({"node": node, "state": state, "in_commit_quorum": quorum})
        };
        let json = serde_json::json!({"leader": "c", "services": [{
            "name": "orders", "term": term, "phase": "active", "primary": primary,
            "instances": [instance("a", "streaming"), instance("b", "streaming"), instance("c", c)],
        }]});
        Ok(serde_json::from_value(json).unwrap())
    }

    #[test]
    fn whole_only_when_all_agree() {
        let nodes = ["a", "b", "c"].map(NodeId::new);
        let view = |answers: [Result<Status, Error>; 3]| merge(&nodes, &answers, "orders", &nodes);
        let silent = || Err(Error::TooFewNodes { needed: 0, data_nodes: 0 });
        let good = || status(3, "a", "streaming");
        let whole = view([good(), good(), good()]);
        assert_eq!(whole.shortcoming, None);
        assert_eq!(whole.leader, Some(NodeId::new("c")));

        let stale = view([status(2, "b", "streaming"), good(), good()]);
        assert_eq!(stale.primary, Some(NodeId::new("a")), "by the newest term");
        assert_eq!(stale.shortcoming.as_deref(), Some("a does not know the newest term yet"));
        let lagging = view([good(), good(), status(3, "a", "rewinding")]);
        assert_eq!(lagging.shortcoming.as_deref(), Some("c is rewinding"));
        assert_eq!(
            view([good(), silent(), good()]).shortcoming.as_deref(),
            Some("b does not answer")
        );
        assert_eq!(view([silent(), silent(), silent()]).primary, None);
    }
}
