//! Meshes in one process, on loopback.

mod copies;
mod links;
mod requests;
mod strangers;

use super::*;
use crate::identity::create_many;
use crate::runtime::clock;
use futures::FutureExt as _;
use std::path::PathBuf;
use std::time::Instant;
use tempfile::TempDir;

pub const LIMIT: Duration = Duration::from_secs(10);
pub const SOON: Duration = Duration::from_secs(3);

/// Answers with its own name and what it was asked, and remembers its links.
struct Echo {
    node: NodeId,
    links: watch::Sender<BTreeMap<NodeId, Vec<LinkState>>>,
    refusals: Arc<Mutex<Vec<String>>>,
}

impl Respond for Echo {
    fn request(
        &self,
        from: NodeId,
        channel: Channel,
        body: Bytes,
    ) -> BoxFuture<'static, Result<Bytes, String>> {
        let me = self.node.clone();
        async move {
            match &body[..] {
                b"hang" => futures::future::pending().await,
                b"fail" => Err("as you wish".into()),
                b"too much" => Ok(Bytes::from(vec![0; BODY_BYTES_MAX + 1])),
                body if body.len() > 1000 => Ok(Bytes::from(body.len().to_string())),
                body => {
                    let text = String::from_utf8_lossy(body);
                    Ok(format!("{me} to {from} {channel:?} {text}").into())
                }
            }
        }
        .boxed()
    }

    fn link_changed(&self, peer: &NodeId, link: LinkState) {
        self.links.send_modify(|links| links.entry(peer.clone()).or_default().push(link));
    }

    fn refused(&self, _: SocketAddr, why: &str) {
        self.refusals.lock().unwrap().push(why.to_owned());
    }
}

pub struct Node {
    pub mesh: Mesh,
    pub supervisor: Supervisor,
    links: watch::Receiver<BTreeMap<NodeId, Vec<LinkState>>>,
    refusals: Arc<Mutex<Vec<String>>>,
}

impl Node {
    pub async fn start(identity: Arc<Identity>, listen: SocketAddr) -> Self {
        Self::start_with(identity, listen, None).await
    }

    pub async fn start_with(
        identity: Arc<Identity>,
        listen: SocketAddr,
        join: Option<Arc<JoinDesk>>,
    ) -> Self {
        let supervisor = Supervisor::new();
        let (links_in, links) = watch::channel(BTreeMap::new());
        let refusals = Arc::<Mutex<Vec<String>>>::default();
        let node = identity.node().clone();
        let handler = Arc::new(Echo { node, links: links_in, refusals: refusals.clone() });
        let config = MeshConfig { identity, listen, peers: BTreeMap::new(), join };
        let mesh = Mesh::start(config, handler, supervisor.clone()).await.unwrap();
        Self { mesh, supervisor, links, refusals }
    }

    /// Why connections were not let in, oldest first.
    pub fn refusals(&self) -> Vec<String> {
        self.refusals.lock().unwrap().clone()
    }

    /// Waits until the states of the link to `peer`, oldest first, are as wanted.
    pub async fn links_to(&self, peer: &str, wanted: impl Fn(&[LinkState]) -> bool) {
        let mut links = self.links.clone();
        let peer = NodeId::from(peer);
        let seen = links.wait_for(|links| wanted(links.get(&peer).map_or(&[], Vec::as_slice)));
        if tokio::time::timeout(LIMIT, seen).await.is_err() {
            panic!("links: {:?}, {:?}", *self.links.borrow(), self.mesh.trouble(&peer));
        }
    }

    pub async fn is(&self, peer: &str, state: LinkState) {
        self.links_to(peer, |links| links.last() == Some(&state)).await;
    }

    pub async fn ask(&self, peer: &str, body: &'static str) -> Result<String, Error> {
        let answer =
            self.mesh.request(&peer.into(), Channel::Operate, Bytes::from(body), SOON).await?;
        Ok(String::from_utf8(answer.to_vec()).unwrap())
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.supervisor.stopping().cancel();
    }
}

pub struct Cluster {
    pub root: TempDir,
    pub identities: BTreeMap<String, Arc<Identity>>,
    pub nodes: BTreeMap<String, Node>,
}

impl Cluster {
    /// Nodes that do not know each other yet.
    pub async fn apart<const N: usize>(names: [&str; N]) -> Self {
        let root = TempDir::new().unwrap();
        let identities = create_many(root.path(), "shop", &names.map(NodeId::from)).unwrap();
        let mut cluster = Self { root, identities: BTreeMap::new(), nodes: BTreeMap::new() };
        for identity in identities {
            let (name, identity) = (identity.node().to_string(), Arc::new(identity));
            cluster.identities.insert(name.clone(), identity.clone());
            cluster.nodes.insert(name, Node::start(identity, free()).await);
        }
        cluster
    }

    /// Nodes that are connected, each to each.
    pub async fn connected<const N: usize>(names: [&str; N]) -> Self {
        let cluster = Self::apart(names).await;
        for node in cluster.nodes.values() {
            node.mesh.set_peers(cluster.addresses());
        }
        for from in names {
            for to in names.iter().filter(|to| **to != from) {
                cluster[from].is(to, LinkState::Connected).await;
            }
        }
        cluster
    }

    pub fn addresses(&self) -> BTreeMap<NodeId, String> {
        self.nodes
            .iter()
            .map(|(name, node)| (name.as_str().into(), node.mesh.address().to_string()))
            .collect()
    }

    pub fn dir(&self, node: &str) -> PathBuf {
        self.root.path().join(node)
    }
}

impl std::ops::Index<&str> for Cluster {
    type Output = Node;

    fn index(&self, name: &str) -> &Node {
        &self.nodes[name]
    }
}

pub fn free() -> SocketAddr {
    "127.0.0.1:0".parse().unwrap()
}
