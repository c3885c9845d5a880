//! Keeps what of a running node must end in order: doors first, then the rest.
//! Instances stay with their keepers.
//! Not here: how it begins (`node/mod.rs`).

use super::services::balancers::Balancers;
use super::services::copies::CopyServices;
use super::services::leased::{Graces, LeasedDoors};
use super::{Error, live};
use crate::consensus::Consensus;
use crate::peers::{LinkState, Mesh};
use crate::proxy::Door;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tandem_core::ids::{NodeId, ServiceId};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// For connections to the one instance or copy, whose clients find it at another node's door.
const LEASED_GRACE: Duration = Duration::from_millis(200);
/// For connections through a balancer to end by themselves: a short request does.
const BALANCED_GRACE: Duration = Duration::from_secs(3);
/// For another node to lead; less than a primary's lease, which the next start shall find.
const HAND_ON: Duration = Duration::from_millis(800);

pub(super) struct Running {
    pub me: NodeId,
    pub dir: PathBuf,
    pub applied: watch::Receiver<live::Applied>,
    /// Cancelled when the node was removed and nothing of it works any more.
    pub gone: CancellationToken,
    pub doors: Arc<Vec<(ServiceId, Door)>>,
    pub balanced: (Arc<Balancers>, Arc<CopyServices>, Arc<LeasedDoors>),
    pub consensus: Consensus,
    pub mesh: Mesh,
}

impl Running {
    pub(super) async fn close(&self) {
        let own = async {
            for (_, door) in self.doors.iter() {
                door.close(LEASED_GRACE).await;
            }
            self.hand_on().await;
            self.consensus.shutdown().await;
        };
        let (balancers, copies, leased) = &self.balanced;
        let graces = Graces { alone: LEASED_GRACE, by_key: BALANCED_GRACE };
        // Nobody waits for the connections of a balancer but their clients.
        let balanced = async {
            tokio::join!(balancers.close(BALANCED_GRACE), copies.close(BALANCED_GRACE));
        };
        tokio::join!(balanced, leased.close(graces), own);
    }

    pub(super) fn outcome(self) -> Result<(), Error> {
        let Self { me: node, dir, applied, gone, .. } = self;
        let version = applied.borrow().version;
        if gone.is_cancelled() { Err(Error::Removed { node, version, dir }) } else { Ok(()) }
    }

    /// Without it the others would wait for the end of this leader's lease.
    async fn hand_on(&self) {
        let leadership = self.consensus.leadership().borrow().clone();
        if !leadership.me_leads {
            return;
        }
        let is_there =
            |node: &&NodeId| **node != self.me && self.mesh.link(node) == LinkState::Connected;
        let transfer = async {
            for to in leadership.voters.iter().filter(is_there) {
                match self.consensus.transfer_leadership(to).await {
                    Ok(()) => return tracing::info!(%to, "handed the leadership on"),
                    Err(error) => tracing::info!(%to, %error, "could not hand the leadership on"),
                }
            }
        };
        let _ = tokio::time::timeout(HAND_ON, transfer).await;
    }
}
