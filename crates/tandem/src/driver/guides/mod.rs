//! Keeps front doors true that lead to one copy and no other: each looks anew whenever something
//! has changed that it rests on.
//! In: facts, what is agreed, where this node reaches each node's copy. Out: looks.
//! States: Follows → (nobody says any more where copies are: the door is gone) Ended.
//! Not here: where a door leads (`alone.rs`, `by_key.rs`), doors to any copy
//! (`driver/singleton/beside/doors.rs`).
//! Tested by: `tests/singleton`, `tests/keys`.

pub mod alone;
pub mod by_key;

use super::hub::Hub;
use crate::consensus::Agreed;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tandem_core::ids::NodeId;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// How often to look when nothing changes: a node may have become silent.
const TICK: Duration = Duration::from_millis(200);

/// Where this node reaches each node's copy.
pub type Addresses = BTreeMap<NodeId, SocketAddr>;

/// What a door follows.
#[derive(Debug)]
pub struct Sources {
    /// What this node knows.
    pub hub: Arc<Hub>,
    /// What is agreed.
    pub agreed: watch::Receiver<Agreed>,
    /// Where copies are, for as long as there is the door.
    pub addresses: watch::Receiver<Addresses>,
}

/// Why a door is followed no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ended {
    /// The node stops.
    Stopped,
    /// There is no door any more.
    Gone,
}

impl Sources {
    /// Looks now, then whenever something has changed, and after as long as the last look said.
    async fn follow(
        mut self,
        stop: CancellationToken,
        mut look: impl FnMut(&Agreed, &Addresses) -> Duration,
    ) -> Ended {
        let mut changed = self.hub.changed();
        loop {
            let agreed = self.agreed.borrow_and_update().clone();
            let addresses = self.addresses.borrow_and_update().clone();
            let pause = look(&agreed, &addresses);
            tokio::select! {
                biased;
                () = stop.cancelled() => return Ended::Stopped,
                result = self.addresses.changed() => if result.is_err() { return Ended::Gone },
                result = changed.changed() => if result.is_err() { return Ended::Stopped },
                result = self.agreed.changed() => if result.is_err() { return Ended::Stopped },
                () = tokio::time::sleep(pause) => {}
            }
        }
    }
}
