//! Simulates a cluster: three names, one real PostgreSQL as the primary's instance and door.

use super::super::cluster::Cluster;
use super::super::evidence::workload::Load;
use super::super::stage::Bounds;
use super::super::testing::{Postgres, version_prefix};
use super::*;
use crate::dev::status::Status;
use crate::runtime::supervisor::Supervisor;
use futures::future::BoxFuture;
use std::sync::Arc;
use std::sync::{Mutex, PoisonError};

struct StandIn {
    postgres: Mutex<Postgres>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    primary: usize,
    done: Vec<Action>,
    silent: Vec<NodeId>,
    /// Forget one acknowledged write when the next fault is healed.
    betray: bool,
}

const NODES: [&str; 3] = ["a", "b", "c"];

impl StandIn {
    fn new() -> Arc<Self> {
        let postgres = Mutex::new(Postgres::start());
        Arc::new(Self { postgres, state: Mutex::default() })
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn postgres(&self) -> std::sync::MutexGuard<'_, Postgres> {
        self.postgres.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn carry_out(&self, action: &Action) {
        let mut state = self.state();
        state.done.push(action.clone());
        match action {
            Action::KillNode(node) => {
                state.silent.push(node.clone());
                if state.silent.len() >= 2 {
                    self.postgres().kill();
                } else if node.as_str() == NODES[state.primary] {
                    // The fail-over: the same data, under another name.
                    self.postgres().kill();
                    state.primary = (state.primary + 1) % NODES.len();
                    self.postgres().run();
                }
            }
            Action::RestoreNode(node) => {
                if state.silent.len() >= 2 {
                    self.postgres().run();
                }
                state.silent.retain(|other| other != node);
                if std::mem::take(&mut state.betray) {
                    self.postgres().sql("DELETE FROM drill_ledger WHERE writer = 0 AND seq = 3");
                }
            }
            Action::SwitchOver { to: Some(to), .. } => {
                state.primary = NODES.iter().position(|node| *node == to.as_str()).unwrap();
            }
            _ => {}
        }
    }
}

impl Cluster for StandIn {
    fn service(&self) -> &str {
        "orders"
    }

    fn addresses(&self) -> Vec<Address> {
        let door = self.postgres().address();
        let primary = self.state().primary;
        let nowhere = "127.0.0.1:1".parse().unwrap();
        NODES
            .iter()
            .enumerate()
            .map(|(index, node)| Address {
                node: NodeId::new(*node),
                door,
                instance: Some(if index == primary { door } else { nowhere }),
            })
            .collect()
    }

    /// There is one server behind all names.
    fn copies(&self) -> Vec<(NodeId, SocketAddr)> {
        let (door, primary) = (self.postgres().address(), self.state().primary);
        vec![(NodeId::new(NODES[primary]), door)]
    }

    fn password(&self) -> Result<String, Error> {
        Ok(Postgres::PASSWORD.into())
    }

    fn status<'a>(&'a self, node: &'a NodeId) -> BoxFuture<'a, Result<Status, Error>> {
        Box::pin(async move {
            let state = self.state();
            if state.silent.contains(node) {
                return Err(Error::TooFewNodes { needed: 0, data_nodes: 0 });
            }
            let instances = NODES.map(|node| {
                let state = "streaming";
                serde_json::json!({"node": node, "state": state, "in_commit_quorum": true})
            });
            let json = serde_json::json!({"leader": "a", "services": [{
                "name": "orders", "term": state.done.len(), "phase": "active",
                "durability": "quorum", "primary": NODES[state.primary], "instances": instances,
            }]});
            Ok(serde_json::from_value(json).unwrap())
        })
    }

    fn act<'a>(&'a self, action: &'a Action) -> BoxFuture<'a, Result<(), Error>> {
        Box::pin(async move {
            tokio::task::block_in_place(|| self.carry_out(action));
            Ok(())
        })
    }
}

fn stage(cluster: &Arc<StandIn>, tasks: &Supervisor) -> Stage {
    let bounds = Bounds {
        whole_max: Duration::from_secs(20),
        warming: Duration::from_millis(100),
        whole_for: Duration::from_millis(200),
        ..Bounds::default()
    };
    let load = Load { writers: 2, ..Load::default() };
    Stage::new(Arc::clone(cluster) as Arc<dyn Cluster>, load, bounds, tasks).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fail_over_is_measured_and_a_betrayal_is_found() {
    let cluster = StandIn::new();
    let tasks = Supervisor::new();
    let stage = stage(&cluster, &tasks);
    assert!(stage.prepare().await.unwrap().starts_with(&version_prefix()));

    let run = stage.run(Fault::NodeKill, 1, 7).await.unwrap();
    assert_eq!((run.lost, run.duplicated, run.dual_primary_instants, run.phantoms), (0, 0, 0, 0));
    assert_eq!(run.problems, Vec::<String>::new());
    assert_eq!(run.node, NodeId::new("a"));
    assert_eq!(run.primary_after, Some(NodeId::new("b")));
    assert!(run.outage_s > 0.0 && run.outage_s < 5.0, "{}", run.outage_s);
    assert!(run.acked > 100 && run.redundant_again_s.unwrap() < 5.0);
    assert!(run.canary_acked > 0 && run.canary_lost == 0);
    assert_eq!(run.verdict("quorum"), super::super::Verdict::Pass);

    cluster.state().betray = true;
    let run = stage.run(Fault::NodeKill, 2, 7).await.unwrap();
    assert_eq!(run.lost, 1, "the write that was taken away");
    assert_eq!(run.verdict("quorum"), super::super::Verdict::Fail);
    assert!(tasks.stop(Duration::from_secs(10)).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rules_of_a_fault_are_judged() {
    let cluster = StandIn::new();
    let tasks = Supervisor::new();
    let stage = stage(&cluster, &tasks);
    stage.prepare().await.unwrap();

    let run = stage.run(Fault::TwoKill, 1, 3).await.unwrap();
    assert_eq!(run.problems, Vec::<String>::new(), "writes stopped, and nothing is lost");
    assert_eq!(run.lost, 0);
    assert!(run.outage_s >= 3.5, "{}", run.outage_s);

    // The leader is the primary here, so the primary is moved away first.
    let run = stage.run(Fault::LeaderKill, 1, 3).await.unwrap();
    assert_eq!(run.node, NodeId::new("a"));
    assert_ne!(run.primary_after, Some(NodeId::new("a")));
    assert_eq!(run.problems, Vec::<String>::new());
    assert!(tasks.stop(Duration::from_secs(10)).await);
}
