//! A copy whose work is divided, that owns what a test says.

use crate::api::partitions::{Divided, Holds, OwnPartition, OwnPartitions};
use std::sync::Mutex;
use tandem_core::clustering::active_active::holder::Refused;
use tandem_core::ids::{Epoch, PartitionId, Term};
use tokio::sync::watch;

/// Partition 4 under epoch 7 is to be released, partition 5 is not.
#[derive(Debug)]
pub(crate) struct Seat {
    own: Mutex<Option<OwnPartitions>>,
    news: watch::Sender<u64>,
    /// How often somebody looked.
    looks: watch::Sender<u64>,
}

impl Seat {
    pub(crate) fn new(version: Option<u64>) -> Self {
        let (news, looks) = (watch::Sender::new(0), watch::Sender::new(0));
        Self { own: Mutex::new(version.map(own)), news, looks }
    }

    /// Wakes whoever waits, with another version or the same.
    pub(crate) fn tells(&self, version: u64) {
        *self.own.lock().unwrap() = Some(own(version));
        self.news.send_modify(|news| *news += 1);
    }

    /// Until it was looked at that often.
    pub(crate) async fn looked_at(&self, times: u64) {
        self.looks.subscribe().wait_for(|looks| *looks >= times).await.unwrap();
    }
}

/// What it says it owns.
pub(crate) fn own(version: u64) -> OwnPartitions {
    let one = |id, epoch, state, deadline_ms| OwnPartition {
        id: PartitionId(id),
        epoch: Epoch(epoch),
        state,
        deadline_ms,
    };
    OwnPartitions {
        service: "work".into(),
        node: "a".into(),
        term: Term(4),
        version,
        lease_ms: Some(1400),
        before: Epoch(1),
        partitions: vec![one(4, 7, Holds::Releasing, Some(900)), one(5, 2, Holds::Owned, None)],
    }
}

impl Divided for Seat {
    fn own(&self) -> Option<OwnPartitions> {
        let own = self.own.lock().unwrap().clone();
        self.looks.send_modify(|looks| *looks += 1);
        own
    }

    fn changed(&self) -> watch::Receiver<u64> {
        self.news.subscribe()
    }

    fn confirm(&self, partition: PartitionId, epoch: Epoch) -> Result<(), Refused> {
        match (partition.0, epoch.0) {
            (4, 7) => Ok(()),
            (5, 2) => Err(Refused::NotAsked),
            _ => Err(Refused::NotItsOwn),
        }
    }
}
