//! Stories of whole clusters in one process, over a network with switches.

mod membership;
mod recovery;
mod refusals;
mod stories;

use super::*;
use std::collections::BTreeMap;
use std::future::Future;
use std::sync::PoisonError;
use tandem_core::cluster::command::{Command, Config as ClusterConfig};
use tandem_core::cluster::state::Applied;
use tandem_core::spec::ClusterSpec;
use tempfile::TempDir;
use tokio::sync::oneshot;

/// Far more than anything takes, even on a busy machine.
const LIMIT: Duration = Duration::from_secs(30);
const SOON: Duration = Duration::from_secs(10);

#[derive(Default)]
struct Switches {
    nodes: BTreeMap<NodeId, Consensus>,
    /// Directions in which nothing arrives.
    cuts: BTreeSet<(NodeId, NodeId)>,
    delay: Duration,
}

/// The network.
#[derive(Clone, Default)]
struct Net {
    switches: Arc<Mutex<Switches>>,
    tasks: Supervisor,
}

impl Net {
    fn with<T>(&self, change: impl FnOnce(&mut Switches) -> T) -> T {
        change(&mut self.switches.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn is_cut(&self, from: &NodeId, to: &NodeId) -> bool {
        self.with(|switches| switches.cuts.contains(&(from.clone(), to.clone())))
    }

    fn isolate(&self, node: &NodeId, others: &[NodeId]) {
        self.with(|switches| {
            for other in others.iter().filter(|other| *other != node) {
                switches.cuts.insert((node.clone(), other.clone()));
                switches.cuts.insert((other.clone(), node.clone()));
            }
        });
    }

    fn heal(&self) {
        self.with(|switches| switches.cuts.clear());
    }
}

struct Port {
    me: NodeId,
    net: Net,
}

impl RaftTransport for Port {
    fn call(
        &self,
        to: NodeId,
        body: Bytes,
        deadline: Duration,
    ) -> BoxFuture<'static, Result<Bytes, TransportError>> {
        let (me, net) = (self.me.clone(), self.net.clone());
        let work = async move {
            let Some(peer) = net.with(|switches| switches.nodes.get(&to).cloned()) else {
                return Err(TransportError::Unreachable);
            };
            if net.is_cut(&me, &to) {
                std::future::pending::<()>().await;
            }
            let delay = net.with(|switches| switches.delay);
            tokio::time::sleep(delay).await;
            // A real peer goes on although the caller gave up.
            let (done, answer) = oneshot::channel();
            let from = me.clone();
            net.tasks.spawn("peer", TaskKind::Session, async move {
                let _ = done.send(peer.handle(from, body).await);
            });
            let answer = answer.await.map_err(|_| TransportError::Timeout)?;
            if net.is_cut(&to, &me) {
                std::future::pending::<()>().await;
            }
            answer.map_err(TransportError::Refused)
        };
        Box::pin(async move {
            tokio::time::timeout(deadline, work).await.unwrap_or(Err(TransportError::Timeout))
        })
    }
}

/// The nodes and their files.
struct Cluster {
    net: Net,
    dir: TempDir,
}

impl Cluster {
    fn empty() -> Self {
        Self { net: Net::default(), dir: tempfile::tempdir().unwrap() }
    }

    /// Started and founded, with a leader.
    async fn founded(names: &[&str]) -> Self {
        let cluster = Self::empty();
        for name in names {
            cluster.start(name).await;
        }
        let nodes = cluster.nodes();
        futures::future::join_all(nodes.iter().map(|node| node.found(members(names))))
            .await
            .into_iter()
            .collect::<Result<Vec<()>, Error>>()
            .unwrap();
        cluster.leader().await;
        cluster
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(format!("{name}.redb"))
    }

    fn config(&self, name: &str) -> ConsensusConfig {
        ConsensusConfig {
            me: name.into(),
            cluster: "0123".into(),
            path: self.path(name),
            timing: RaftTiming::default(),
        }
    }

    async fn try_start(&self, config: ConsensusConfig) -> Result<Consensus, Error> {
        let me = config.me.clone();
        let port = Port { me: me.clone(), net: self.net.clone() };
        let node = Consensus::start(config, Arc::new(port), self.net.tasks.clone()).await?;
        self.net.with(|switches| switches.nodes.insert(me, node.clone()));
        Ok(node)
    }

    async fn start(&self, name: &str) -> Consensus {
        self.try_start(self.config(name)).await.unwrap()
    }

    async fn stop(&self, name: &NodeId) {
        let node = self.net.with(|switches| switches.nodes.remove(name)).unwrap();
        node.shutdown().await;
    }

    fn nodes(&self) -> Vec<Consensus> {
        self.net.with(|switches| switches.nodes.values().cloned().collect())
    }

    fn names(&self) -> Vec<NodeId> {
        self.net.with(|switches| switches.nodes.keys().cloned().collect())
    }

    fn node(&self, name: &NodeId) -> Consensus {
        self.net.with(|switches| switches.nodes.get(name).cloned()).unwrap()
    }

    /// The node that can prove it, and its name.
    async fn leader_of(&self, nodes: &[Consensus]) -> Consensus {
        until("a leader", || async {
            for node in nodes {
                if node.confirm_leadership().await.is_ok() {
                    return Some(node.clone());
                }
            }
            None
        })
        .await
    }

    async fn leader(&self) -> Consensus {
        self.leader_of(&self.nodes()).await
    }

    async fn others(&self) -> Vec<Consensus> {
        let leader = self.leader().await.inner.me.clone();
        self.nodes().into_iter().filter(|node| node.inner.me != leader).collect()
    }

    async fn all_have(&self, drained: &str) {
        for node in self.nodes() {
            has_drained(&node, drained).await;
        }
    }
}

/// Waits for a condition, with a limit.
async fn until<T, F: Future<Output = Option<T>>>(what: &str, condition: impl Fn() -> F) -> T {
    let poll = async {
        let mut tick = tokio::time::interval(Duration::from_millis(2));
        loop {
            tick.tick().await;
            if let Some(value) = condition().await {
                return value;
            }
        }
    };
    tokio::time::timeout(LIMIT, poll).await.unwrap_or_else(|_| panic!("not in time: {what}"))
}

async fn has_drained(node: &Consensus, drained: &str) {
    let drained = NodeId::new(drained);
    let mut state = node.state();
    let has = state.wait_for(|agreed| agreed.state.draining.contains(&drained));
    tokio::time::timeout(LIMIT, has).await.expect("the state in time").expect("a running node");
}

fn members(names: &[&str]) -> BTreeMap<NodeId, String> {
    names.iter().map(|name| (NodeId::new(*name), format!("{name}:7400"))).collect()
}

/// A command whose effect is easy to see.
fn drain(node: &str) -> Command {
    Command::Drain { node: node.into(), draining: true }
}

fn found() -> Command {
    let config = ClusterConfig { text: "cluster = \"t\"".into(), spec: ClusterSpec::default() };
    Command::Found { cluster: "0123".into(), config: Box::new(config) }
}

async fn propose(node: &Consensus, command: Command) -> Applied {
    node.propose(command, SOON).await.expect("agreed")
}
