//! Talks to the consensus of a new cluster: founds it, together with its other nodes.
//! In: the node's own file. Out: the first agreed configuration.
//! Keeps: a node that another one let in never founds: its cluster is there, and an empty store
//! that took itself for the beginning could only split it (H30).
//! Not here: why it is safe that several nodes do it (`consensus/mod.rs`).

use super::{Error, Ground};
use crate::consensus::Consensus;
use crate::runtime::supervisor::TaskKind;
use std::time::Duration;
use tandem_core::cluster::command::{self, Command};
use tandem_core::ids::ClusterId;

/// How long one attempt to write the first configuration may take.
const FOUNDING: Duration = Duration::from_secs(2);
const AGAIN: Duration = Duration::from_millis(200);

/// Every founding node of a new cluster does the same; the leader writes the first configuration.
pub(super) async fn found(ground: &Ground, consensus: &Consensus) -> Result<(), Error> {
    if !consensus.is_founded() && !ground.identity.joined() {
        let members =
            ground.config.nodes.iter().map(|(node, it)| (node.clone(), it.address.to_string()));
        consensus.found(members.collect()).await?;
    }
    let cluster: ClusterId = ground.identity.cluster().clone();
    let config = command::Config { text: ground.config.text.clone(), spec: ground.config.spec() };
    let consensus = consensus.clone();
    let stop = ground.supervisor.stopping();
    ground.supervisor.spawn("founding", TaskKind::Session, async move {
        let (mut leadership, mut agreed) = (consensus.leadership(), consensus.state());
        loop {
            if agreed.borrow_and_update().state.cluster.is_some() {
                return;
            }
            if leadership.borrow_and_update().me_leads {
                let command =
                    Command::Found { cluster: cluster.clone(), config: Box::new(config.clone()) };
                if let Err(error) = consensus.propose(command, FOUNDING).await {
                    tracing::warn!(%error, "the first configuration could not be agreed yet");
                }
            }
            tokio::select! {
                () = stop.cancelled() => return,
                result = leadership.changed() => if result.is_err() { return },
                result = agreed.changed() => if result.is_err() { return },
                () = tokio::time::sleep(AGAIN) => {}
            }
        }
    });
    Ok(())
}
