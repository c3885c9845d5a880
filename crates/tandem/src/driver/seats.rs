//! Keeps what this node's copy may know of its partitions true, and tells what was released.
//! In: agreed state, the copy's facts, its process's words. Out: `Own` for the API and the file,
//! facts.
//! Keeps: INV-13 in the order of `active_active/holder.rs`: the floor is durable before anybody is
//! told that a partition is being released; what the process may see is put into its file, then
//! answered, before the copy is looked at and a release is told; a copy that had its time is ended.
//! Not here: the decisions (`tandem_core::clustering::active_active`), the copy (`singleton`).
//! Tested by: `seats/tests.rs`, `tests/partitions`, and the model of it in the simulator
//! (`sim/src/singleton`).

mod files;
mod telling;

use super::hub::Hub;
use super::instance::wishes::Asked;
use super::wire::{Response, Wish};
use crate::api::partitions::{Divided, OwnPartitions};
use crate::consensus::Agreed;
use crate::runtime::clock;
use crate::runtime::supervisor::{Supervisor, TaskKind};
use crate::telemetry::event_kind::EventKind;
use crate::telemetry::events::EventLog;
pub use files::{Error, path_in};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tandem_core::cluster::ranges::ranges;
use tandem_core::clustering::active_active::holder::{
    Floor, Holder, HolderView, Holding, Refused, Release, Shown,
};
use tandem_core::facts::{Process, SeatFacts};
use tandem_core::ids::{Epoch, PartitionId, ServiceId, Term};
use tandem_core::time::Timestamp;
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

/// How often to look when nothing changes.
const TICK: Duration = Duration::from_millis(200);
/// A disk that takes nothing is tried again after this.
const WRITE_AGAIN: Duration = Duration::from_secs(1);
/// A copy that had its time is asked to end again after this, if it is still there.
const END_AGAIN: Duration = Duration::from_secs(2);
/// So many ranges of partitions are named in an event.
const NAMED_MAX: usize = 20;

/// What the holder of a seat is connected to.
#[derive(Debug)]
pub struct Wiring {
    /// The service whose work is divided.
    pub work: ServiceId,
    /// The own seat of it.
    pub seat: ServiceId,
    /// Where Tandem keeps what belongs to the seat.
    pub dir: PathBuf,
    /// For a copy to end its work on what it shall release, until that is changed.
    pub release_max: Duration,
    /// What this node knows.
    pub hub: Arc<Hub>,
    /// What is agreed.
    pub agreed: watch::Receiver<Agreed>,
    /// Where the copy's driver takes wishes.
    pub wishes: mpsc::Sender<Asked>,
    /// What happened, for operators.
    pub events: EventLog,
}

/// What the own copy may know, now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Own {
    /// Grows with each change, over restarts of the daemon too.
    pub version: u64,
    /// The term that the copy runs for.
    pub term: Term,
    /// The first term of its sitting.
    pub since: Term,
    /// Until when it may run on what is proven now.
    pub lease: Timestamp,
    /// Epochs up to that one were of work that was divided otherwise.
    pub before: Epoch,
    /// What it owns.
    pub partitions: Vec<Holding>,
    /// To be made durable before it is told.
    pub durable: Option<Floor>,
}

/// The own seat of one service. API and task share it.
#[derive(Debug)]
pub struct Seat {
    it: Wiring,
    known: Mutex<Known>,
    changed: watch::Sender<u64>,
    told: watch::Sender<Option<Own>>,
}

/// For which term, after which epoch, and what.
type Told = (Term, Epoch, Vec<Holding>);

#[derive(Debug)]
struct Known {
    holder: Holder,
    version: u64,
    shown: Option<Told>,
    /// What was put out last.
    told: Option<Own>,
    /// What the others were told last.
    said: SeatFacts,
    /// Since when the disk has taken nothing.
    stuck_since: Option<Timestamp>,
    release_max: Duration,
    ended_at: Timestamp,
    /// How many copies had ended when one was last told to be overdue.
    overdue: Option<u64>,
    overdue_total: u64,
}

/// What one look at the copy has shown.
struct Looked {
    release: Release,
    unwell: Duration,
    process: Process,
    /// Copies that had ended then.
    ends: u64,
}

/// Keeps a seat from now on, until the node stops.
///
/// # Errors
/// The durable part cannot be read, or the folder not be made.
pub fn start(wiring: Wiring, supervisor: &Supervisor) -> Result<Arc<Seat>, Error> {
    let seat = Seat::open(wiring)?;
    let run = seat.clone().run(supervisor.stopping());
    supervisor.spawn("seat of a command", TaskKind::Essential, run);
    Ok(seat)
}

impl Seat {
    /// With what is durable.
    ///
    /// # Errors
    /// The durable part cannot be read, or the folder not be made.
    pub fn open(it: Wiring) -> Result<Arc<Self>, Error> {
        files::prepare(&it.dir)?;
        let known = Known {
            holder: Holder::new(files::load_floor(&it.dir)?),
            // Greater than what an earlier daemon told: the clock may have been set back since.
            version: clock::unix_ms().max(files::newest(&it.dir)?),
            shown: None,
            told: None,
            said: SeatFacts::default(),
            stuck_since: None,
            release_max: it.release_max,
            ended_at: Timestamp(0),
            overdue: None,
            overdue_total: 0,
        };
        let (changed, told) = (watch::Sender::new(0), watch::Sender::new(None));
        Ok(Arc::new(Self { it, known: Mutex::new(known), changed, told }))
    }

    /// This node's name.
    pub fn node(&self) -> &tandem_core::ids::NodeId {
        self.it.hub.me()
    }

    /// Wakes when the copy may know something else.
    pub fn changed(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// What the copy's file says; nothing once there is no such seat any more.
    pub fn told(&self) -> watch::Receiver<Option<Own>> {
        self.told.subscribe()
    }

    /// What the copy may know; none while that is not known itself.
    pub fn own(&self) -> Option<Own> {
        let shown = self.look(|known, view, now| {
            let (told, durable) = known.show(view, now)?;
            Some((told, durable, known.version))
        });
        let (((term, before, partitions), durable, version), since) = shown?;
        self.changed.send_if_modified(|told| std::mem::replace(told, version) != version);
        let lease = self.it.hub.leased(&self.it.seat);
        Some(Own { version, term, since, lease, before, partitions, durable })
    }

    /// The process works on it no more.
    ///
    /// # Errors
    /// It was not asked to release that.
    pub fn confirm(&self, partition: PartitionId, epoch: Epoch) -> Result<(), Refused> {
        // Looked at first: what it speaks of may have been agreed since.
        let _ = self.own();
        self.known().holder.confirm(partition, epoch)?;
        self.changed.send_modify(|_| {});
        Ok(())
    }

    /// For a copy to end its work from now on; also on what it was asked to release before.
    pub fn allow(&self, release_max: Duration) {
        self.known().release_max = release_max;
        self.changed.send_modify(|_| {});
    }

    /// How many copies here were ended since they did not release in time.
    pub fn overdue(&self) -> u64 {
        self.known().overdue_total
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        // Nothing panics while it holds the lock; a poisoned one still holds whole values.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// With the first term of the sitting.
    fn look<T>(
        &self,
        look: impl FnOnce(&mut Known, &HolderView<'_>, Timestamp) -> Option<T>,
    ) -> Option<(T, Term)> {
        let mut known = self.known();
        let agreed = self.it.agreed.borrow().clone();
        let services = &agreed.state.services;
        let (work, seat) = (services.get(&self.it.work)?, services.get(&self.it.seat)?);
        let (own, ends) = self.it.hub.own_instance(&self.it.seat)?;
        let release_max = known.release_max;
        let view = HolderView { me: self.node(), work, seat, own: &own, ends, release_max };
        Some((look(&mut known, &view, clock::now())?, seat.sitting))
    }

    /// Keeps everything true until `stop`.
    pub async fn run(self: Arc<Self>, stop: CancellationToken) {
        let (mut agreed, mut hub) = (self.it.agreed.clone(), self.it.hub.changed());
        let mut changed = self.changed();
        let mut written = 0;
        loop {
            let again = self.go_on(&mut written).await;
            let pause = again.map_or(TICK, |at| at.since(clock::now()).min(TICK));
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                result = agreed.changed() => if result.is_err() { return },
                result = hub.changed() => if result.is_err() { return },
                result = changed.changed() => if result.is_err() { return },
                () = tokio::time::sleep(pause.max(Duration::from_millis(2))) => {}
            }
        }
    }

    async fn go_on(&self, written: &mut u64) -> Option<Timestamp> {
        let Some(own) = self.own() else {
            self.it.hub.seated(&self.it.seat, SeatFacts::default());
            self.end_with_its_seat();
            return None;
        };
        if let Some(floor) = own.durable
            && let Err(error) = self.make_durable(floor).await
        {
            return self.cannot_tell(&error).await;
        }
        if own.version != *written {
            if let Err(error) = self.put_out(&own).await {
                // Its reader may go by what it read before: nothing more is released.
                return self.cannot_tell(&error).await;
            }
            // Before anybody is told, who may answer at once.
            if !self.is_put_out(&own) {
                return Some(clock::now());
            }
            *written = own.version;
            self.told.send_replace(Some(own.clone()));
            self.known().told = Some(own);
            self.changed.send_modify(|_| {});
        }
        let put_out = *written;
        // A look at the copy that is newer than what every copy from now on sees.
        let looked = self.look(|known, view, now| {
            // Somebody asked meanwhile, and was told what no file says yet.
            if known.version != put_out || known.shown.is_none() {
                return None;
            }
            Some(Looked {
                release: known.holder.release(view, now),
                unwell: known.holder.unwell(now),
                process: view.own.process,
                ends: view.ends,
            })
        });
        let Some((Looked { release, unwell, process, ends }, _)) = looked else {
            return Some(clock::now());
        };
        if !release.overdue.is_empty() && process == Process::Primary {
            self.end_copy(&release, ends);
        }
        let (table, released) = (release.table, release.released);
        self.tell(SeatFacts { table, released, unwell, mute: false });
        release.again
    }

    /// Where a service is taken out, or its node is removed, whoever goes by what was owned here
    /// hears that nothing is. A seat that only cannot be proven says nothing of that: its copy may
    /// go on with what it has.
    fn end_with_its_seat(&self) {
        let is_over = {
            let agreed = self.it.agreed.borrow();
            let services = &agreed.state.services;
            agreed.state.cluster.is_some() && !services.contains_key(&self.it.seat)
        };
        if !is_over {
            return;
        }
        let mut known = self.known();
        let Some(last) = known.told.take() else { return };
        known.version += 1;
        known.shown = None;
        let nothing = Own { version: known.version, partitions: Vec::new(), durable: None, ..last };
        drop(known);
        self.told.send_replace(Some(nothing));
    }

    fn tell(&self, facts: SeatFacts) {
        let was_stuck = {
            let mut known = self.known();
            known.said = facts.clone();
            known.stuck_since.take().is_some()
        };
        if was_stuck {
            self.record(EventKind::DiskRecovered, "its copy is told what it owns again");
        }
        self.it.hub.seated(&self.it.seat, facts);
    }

    /// Only its end proves that it stopped; its node starts another one, which begins nothing that
    /// is being released.
    fn end_copy(&self, release: &Release, ends: u64) {
        let now = clock::now();
        let (release_max, is_told) = {
            let mut known = self.known();
            if now.since(known.ended_at) < END_AGAIN {
                return;
            }
            known.ended_at = now;
            let is_told = known.overdue.replace(ends) == Some(ends);
            known.overdue_total += u64::from(!is_told);
            (known.release_max, is_told)
        };
        let (count, max) = (release.overdue.len(), release_max.as_millis());
        let ids = ranges(release.overdue.iter().copied(), NAMED_MAX);
        let message = format!(
            "it did not release {count} of its partitions in {max} ms, so the copy is ended: {ids}"
        );
        tracing::warn!(service = %self.it.work, "{message}");
        // One that takes its time to end is asked again, and told once.
        if !is_told {
            self.record(EventKind::PartitionsOverdue, &message);
        }
        let (answer, _answered) = oneshot::channel::<Response>();
        // Full: asked again.
        let _ = self.it.wishes.try_send(Asked { wish: Wish::Restart, answer });
    }
}

impl Divided for Seat {
    fn own(&self) -> Option<OwnPartitions> {
        // What the file says, and nothing newer: a copy that confirmed what only it was told may be
        // followed by one that reads the file as it was.
        let now = Self::own(self)?;
        let is_of_now = |told: &Own| told.term == now.term && told.since == now.since;
        let told = self.known().told.clone().filter(is_of_now)?;
        let left = now.lease.since(clock::now()).as_millis();
        let lease_ms = Some(u64::try_from(left).unwrap_or(u64::MAX));
        Some(OwnPartitions { lease_ms, ..self.words(&told) })
    }

    fn changed(&self) -> watch::Receiver<u64> {
        Self::changed(self)
    }

    fn confirm(&self, partition: PartitionId, epoch: Epoch) -> Result<(), Refused> {
        Self::confirm(self, partition, epoch)
    }
}

impl Known {
    /// What is shown now.
    fn show(&mut self, view: &HolderView<'_>, now: Timestamp) -> Option<(Told, Option<Floor>)> {
        let Shown::These { term, before, partitions, durable } = self.holder.show(view, now) else {
            self.shown = None;
            return None;
        };
        let shown = (term, before, partitions);
        if self.shown.as_ref() != Some(&shown) {
            self.version += 1;
            self.shown = Some(shown.clone());
        }
        Some((shown, durable))
    }
}

#[cfg(test)]
mod tests;
