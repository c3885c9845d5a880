//! Tells a copy what it owns, and says so where its disk takes nothing.
//! In: `Own`. Out: the files, events; what the others were told stands meanwhile.
//! Keeps: INV-13: what could not be written is told to nobody.
//! Not here: the order of it all (`seats.rs`), the files themselves (`files.rs`).
//! Tested by: `tests.rs`.

use super::files::{self, Error};
use super::{Own, Seat, WRITE_AGAIN};
use crate::api::partitions::{Holds, OwnPartition, OwnPartitions};
use crate::runtime::clock;
use crate::telemetry::event_kind::EventKind;
use crate::telemetry::events::Draft;
use tandem_core::clustering::active_active::holder::{Floor, Holding};
use tandem_core::facts::SeatFacts;
use tandem_core::time::Timestamp;

impl Seat {
    /// In the words of the API and the file.
    pub(super) fn words(&self, own: &Own) -> OwnPartitions {
        let now = clock::now();
        let partition = |it: &Holding| OwnPartition {
            id: it.partition,
            epoch: it.epoch,
            state: if it.releasing.is_some() { Holds::Releasing } else { Holds::Owned },
            deadline_ms: it
                .releasing
                .map(|until| u64::try_from(until.since(now).as_millis()).unwrap_or(u64::MAX)),
        };
        OwnPartitions {
            service: self.it.work.clone(),
            node: self.node().clone(),
            term: own.term,
            version: own.version,
            lease_ms: None,
            before: own.before,
            partitions: own.partitions.iter().map(partition).collect(),
        }
    }

    pub(super) async fn put_out(&self, own: &Own) -> Result<(), Error> {
        let (dir, told, since) = (self.it.dir.clone(), self.words(own), own.since);
        let write = move || files::write(&dir, &told, since);
        let done = tokio::task::spawn_blocking(write).await;
        done.unwrap_or_else(|error| Err(Error::task(error)))
    }

    /// Every copy that starts from now on sees that. False where there is no such seat any more.
    pub(super) fn is_put_out(&self, own: &Own) -> bool {
        let put_out = self.look(|known, view, _| {
            known.holder.put_out(&own.partitions, view);
            Some(())
        });
        put_out.is_some()
    }

    pub(super) async fn make_durable(&self, floor: Floor) -> Result<(), Error> {
        let dir = self.it.dir.clone();
        let write = move || files::store_floor(&dir, floor);
        let done = tokio::task::spawn_blocking(write).await;
        done.unwrap_or_else(|error| Err(Error::task(error)))?;
        self.known().holder.is_durable(floor);
        Ok(())
    }

    pub(super) fn record(&self, kind: EventKind, message: &str) {
        let me = self.node();
        let draft = Draft::new(kind, format!("{me}: {message}")).service(&self.it.work);
        self.it.events.record(draft.field("instance", me.as_str()));
    }

    /// A disk that takes nothing: the copy goes on with what it has, and is not well, so that it is
    /// given nothing more. What was released before stays released.
    pub(super) async fn cannot_tell(&self, error: &Error) -> Option<Timestamp> {
        let now = clock::now();
        let (facts, is_new) = {
            let mut known = self.known();
            let is_new = known.stuck_since.is_none();
            let since = *known.stuck_since.get_or_insert(now);
            let unwell = known.holder.unwell(now).max(now.since(since));
            (SeatFacts { unwell, mute: true, ..known.said.clone() }, is_new)
        };
        if is_new {
            let message = format!("its copy is not told what it owns: {error}");
            tracing::error!(service = %self.it.work, "{message}");
            self.record(EventKind::DiskFull, &message);
        }
        self.it.hub.seated(&self.it.seat, facts);
        tokio::time::sleep(WRITE_AGAIN).await;
        None
    }
}
