//! Talks to a cluster under test: what a drill needs of one, and `DevCluster` as one.
//! In: `Action`. Out: addresses, statuses.
//! Tested by: `steps.rs` with a stand-in; the drill itself.

use super::Error;
use crate::dev::DevCluster;
use crate::dev::status::Status;
use futures::future::BoxFuture;
use std::net::SocketAddr;
use std::time::Duration;
use tandem_core::ids::NodeId;

/// Each way: as far as the other side of the earth, and less than any silence that is doubted.
const SLOW: Duration = Duration::from_millis(150);

/// One thing to do to a cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names say it; `dev::faults` has the details")]
pub enum Action {
    KillDaemon(NodeId),
    FreezeDaemon(NodeId),
    ThawDaemon(NodeId),
    RestartDaemon(NodeId),
    KillPostmaster(NodeId),
    FreezePostmaster(NodeId),
    ThawPostmaster(NodeId),
    KillCommand(NodeId),
    FreezeCommand(NodeId),
    ThawCommand(NodeId),
    KillNode(NodeId),
    RestoreNode(NodeId),
    FreezeNode(NodeId),
    ThawNode(NodeId),
    CutNode(NodeId),
    HealNode(NodeId),
    CutLink(NodeId, NodeId),
    HealLink(NodeId, NodeId),
    SlowLink(NodeId, NodeId),
    FillDisk(NodeId),
    FreeDisk(NodeId),
    SwitchOver {
        via: NodeId,
        to: Option<NodeId>,
    },
    /// Ends every fault there is, for a run that went wrong.
    Mend,
}

/// Where a node can be reached.
#[derive(Clone, Debug)]
pub struct Address {
    /// The node.
    pub node: NodeId,
    /// Its front door.
    pub door: SocketAddr,
    /// Its instance, past all doors; none on a witness.
    pub instance: Option<SocketAddr>,
}

/// A cluster that can be broken.
pub trait Cluster: Send + Sync {
    /// The service that is written to.
    fn service(&self) -> &str;
    /// Its nodes, in the order of their names.
    fn addresses(&self) -> Vec<Address>;
    /// The instances that hold a copy each, past all doors.
    fn copies(&self) -> Vec<(NodeId, SocketAddr)> {
        let addresses = self.addresses().into_iter();
        addresses.filter_map(|address| Some((address.node, address.instance?))).collect()
    }
    /// The password of role `app`.
    ///
    /// # Errors
    /// When it cannot be derived.
    fn password(&self) -> Result<String, Error>;
    /// How one node sees the cluster.
    fn status<'a>(&'a self, node: &'a NodeId) -> BoxFuture<'a, Result<Status, Error>>;
    /// Does one thing to it.
    fn act<'a>(&'a self, action: &'a Action) -> BoxFuture<'a, Result<(), Error>>;
}

impl Cluster for DevCluster {
    fn service(&self) -> &str {
        Self::service(self)
    }

    fn addresses(&self) -> Vec<Address> {
        let layout = self.layout();
        let address = |place: &crate::dev::NodePlace| Address {
            node: place.node.clone(),
            door: layout.door(place),
            instance: (!place.witness).then(|| layout.instance(place)),
        };
        layout.nodes.iter().map(address).collect()
    }

    fn password(&self) -> Result<String, Error> {
        Ok(Self::password(self, "app")?)
    }

    fn status<'a>(&'a self, node: &'a NodeId) -> BoxFuture<'a, Result<Status, Error>> {
        Box::pin(async { Ok(Self::status(self, node).await?) })
    }

    fn act<'a>(&'a self, action: &'a Action) -> BoxFuture<'a, Result<(), Error>> {
        Box::pin(async move {
            match action {
                Action::KillDaemon(node) => self.kill_daemon(node)?,
                Action::FreezeDaemon(node) => self.freeze_daemon(node)?,
                Action::ThawDaemon(node) => self.thaw_daemon(node)?,
                Action::RestartDaemon(node) => self.restart_daemon(node).await?,
                Action::KillPostmaster(node) => self.kill_postmaster(node)?,
                Action::FreezePostmaster(node) => self.freeze_postmaster(node)?,
                Action::ThawPostmaster(node) => self.thaw_postmaster(node)?,
                Action::KillCommand(node) => self.kill_command(node)?,
                Action::FreezeCommand(node) => self.freeze_command(node)?,
                Action::ThawCommand(node) => self.thaw_command(node)?,
                Action::KillNode(node) => self.kill_node(node).await?,
                Action::RestoreNode(node) => self.restore_node(node)?,
                Action::FreezeNode(node) => self.freeze_node(node).await?,
                Action::ThawNode(node) => self.thaw_node(node).await?,
                Action::CutNode(node) => self.cut_node(node),
                Action::HealNode(node) => self.heal_node(node),
                Action::CutLink(a, b) => self.cut_link(a, b),
                Action::HealLink(a, b) => self.set_link(a, b, crate::dev::Condition::default()),
                Action::SlowLink(a, b) => {
                    let slow = crate::dev::Condition { cut: false, delay: SLOW };
                    self.set_link(a, b, slow);
                }
                Action::FillDisk(node) => self.fill_disk(node).await?,
                Action::FreeDisk(node) => self.free_disk(node)?,
                Action::SwitchOver { via, to } => self
                    .switchover(via, to.as_ref())
                    .await
                    .map_err(|source| Error::Switchover { node: via.clone(), source })?,
                Action::Mend => self.mend().await,
            }
            Ok(())
        })
    }
}
