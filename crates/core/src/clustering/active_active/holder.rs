//! Decides what a node tells its copy of its partitions, and what it says to be released.
//! In: agreed state, the own copy's facts, what its process confirmed. Out: `Shown`, `Release`.
//! States of one: owned → (agreed) releasing → (confirmed, or that copy is gone) released → another
//! node's.
//! Keeps: INV-13 "releasing" is no leave to begin: only "owned" is; nothing is said to be released
//! before no process can work on it, whatever state a restarted daemon begins from: the revision
//! that it was asked back on is durable before anybody is told, and nothing older is shown again.
//! So what was told to be releasing is never told to be owned again under the same epoch, and a
//! process that confirms again speaks of work that is over. INV-15 a copy knows up to which epoch
//! its work was divided otherwise, whatever a door that has not heard of it goes by.
//! The order of a caller: `show`, make durable, put out, look at the copy again and say so
//! (`put_out`), tell the copy, `release`, tell.
//! Not here: who owns what (`controller.rs`), the file and the requests (the shell).
//! Tested by: `tests.rs`, and the simulator (`sim/src/singleton`).

use crate::cluster::partitions::Partitions;
use crate::cluster::state::ServiceState;
use crate::facts::{InstanceFacts, Process};
use crate::ids::{ConfigVersion, Epoch, NodeId, PartitionId, Revision, Term};
use crate::time::Timestamp;
use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::time::Duration;

/// Nothing older than this is shown: a table, and a revision of its service. Durable.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Floor {
    /// The table.
    pub table: ConfigVersion,
    /// The revision.
    pub revision: Revision,
}

/// What a node knows when it looks.
#[derive(Clone, Copy, Debug)]
pub struct HolderView<'a> {
    /// This node.
    pub me: &'a NodeId,
    /// The service, as agreed.
    pub work: &'a ServiceState,
    /// This node's seat, of the same agreed state.
    pub seat: &'a ServiceState,
    /// The own copy.
    pub own: &'a InstanceFacts,
    /// Counts the copies of which nothing is left since the daemon started.
    pub ends: u64,
    /// For a copy to end its work on what it shall release.
    pub release_max: Duration,
}

/// What the copy may know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Shown {
    /// What is agreed here is older than what was shown before: what was told stands.
    NotYet,
    /// These are its partitions.
    These {
        /// For copies that were started for this term, or go on in it.
        term: Term,
        /// The greatest epoch that there was before the work was divided as it is: what was sent
        /// under that one, or a smaller one, was counted by what is over.
        before: Epoch,
        /// In order.
        partitions: Vec<Holding>,
        /// To be made durable before anybody is told.
        durable: Option<Floor>,
    },
}

/// One partition of the own copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Holding {
    /// Which.
    pub partition: PartitionId,
    /// Under which epoch.
    pub epoch: Epoch,
    /// Until when its work on it must end; none while it is simply its own.
    pub releasing: Option<Timestamp>,
}

/// What follows from what was shown.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Release {
    /// The table that this is about.
    pub table: ConfigVersion,
    /// To be told.
    pub released: BTreeMap<PartitionId, Epoch>,
    /// The copy had its time: only its end proves that it stopped.
    pub overdue: Vec<PartitionId>,
    /// Look again then, if nothing changes before.
    pub again: Option<Timestamp>,
}

/// A word of the process that means nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// This node does not own it, or not under that epoch.
    NotItsOwn,
    /// Nobody asked for it.
    NotAsked,
    /// That it is asked back is not where every copy sees it yet: to be said again.
    NotYet,
}

#[derive(Clone, Copy, Debug)]
struct Asked {
    epoch: Epoch,
    since: Timestamp,
    revision: Revision,
    /// Copies that had ended when every later one was sure to see it; none: that is not so yet.
    ends: Option<u64>,
    done: bool,
}

/// What a node remembers; all but the floor is lost with its daemon.
#[derive(Clone, Debug, Default)]
pub struct Holder {
    floor: Floor,
    /// What `asked` and `owned` are about: epochs of another table begin anew.
    table: ConfigVersion,
    asked: BTreeMap<PartitionId, Asked>,
    owned: BTreeMap<PartitionId, Epoch>,
    unwell_since: Option<Timestamp>,
}

impl Holder {
    /// With what is durable.
    pub fn new(floor: Floor) -> Self {
        Self { floor, ..Self::default() }
    }

    /// What the copy may know now.
    pub fn show(&mut self, view: &HolderView<'_>, now: Timestamp) -> Shown {
        self.note_health(view, now);
        let Some(table) = self.current(view) else { return Shown::NotYet };
        if core::mem::replace(&mut self.table, table.since) != table.since {
            self.asked.clear();
        }
        let own = |owner: &crate::cluster::partitions::Owner| {
            owner.node == *view.me && owner.sitting == view.seat.sitting
        };
        let (mut asked, mut owned) = (BTreeMap::new(), BTreeMap::new());
        let mut partitions = Vec::new();
        for (partition, it) in table.iter().filter(|(_, it)| it.owner.as_ref().is_some_and(own)) {
            owned.insert(partition, it.epoch);
            let mut releasing = None;
            if it.releasing.is_some() {
                let new = Asked {
                    epoch: it.epoch,
                    since: now,
                    revision: view.work.revision,
                    ends: None,
                    done: false,
                };
                let known = self.asked.get(&partition).filter(|known| known.epoch == it.epoch);
                let known = known.copied().unwrap_or(new);
                releasing = Some(known.since.plus(view.release_max));
                asked.insert(partition, known);
            }
            partitions.push(Holding { partition, epoch: it.epoch, releasing });
        }
        (self.asked, self.owned) = (asked, owned);
        // A copy of an earlier sitting owns nothing any more, and is about to be ended.
        if view.own.promoted < view.seat.sitting {
            partitions.clear();
        }
        let (term, before) = (view.own.promoted, view.work.before.epoch);
        Shown::These { term, before, partitions, durable: self.needed() }
    }

    /// What must be durable before what is being released is told.
    fn needed(&self) -> Option<Floor> {
        let revision = self.asked.values().map(|asked| asked.revision).max()?;
        let needed = Floor { table: self.table, revision };
        (self.floor < needed).then_some(needed)
    }

    /// The table, unless what is agreed here is older than what this node acted on before.
    fn current<'a>(&self, view: &HolderView<'a>) -> Option<&'a Partitions> {
        let table = view.work.partitions.as_ref()?;
        let at = Floor { table: table.since, revision: view.work.revision };
        (at >= self.floor && view.seat.term() >= view.own.promoted).then_some(table)
    }

    /// The process says that it works on it no more.
    ///
    /// # Errors
    /// The word is not about something that it was asked to release.
    pub fn confirm(&mut self, partition: PartitionId, epoch: Epoch) -> Result<(), Refused> {
        if self.owned.get(&partition) != Some(&epoch) {
            return Err(Refused::NotItsOwn);
        }
        let asked = self.asked.get_mut(&partition).filter(|asked| asked.epoch == epoch);
        let asked = asked.ok_or(Refused::NotAsked)?;
        // Before it is put out nobody was told: a word now is not about what is told then.
        asked.ends.ok_or(Refused::NotYet)?;
        asked.done = true;
        Ok(())
    }

    /// What was shown is where every copy sees it that starts from now on, by a look at the copy
    /// that was taken after that; whoever goes by it is told only then, so that no word of it comes
    /// too early, whatever was shown meanwhile.
    pub fn put_out(&mut self, shown: &[Holding], view: &HolderView<'_>) {
        for it in shown.iter().filter(|it| it.releasing.is_some()) {
            let asked = self.asked.get_mut(&it.partition).filter(|asked| asked.epoch == it.epoch);
            asked.into_iter().for_each(|asked| _ = asked.ends.get_or_insert(view.ends));
        }
    }

    /// What follows, once what was shown last is where every copy that starts from now on sees it,
    /// by a look at the copy that was taken after that.
    pub fn release(&mut self, view: &HolderView<'_>, now: Timestamp) -> Release {
        let mut release = Release { table: self.table, ..Release::default() };
        // Looked at another table than what was shown: shown anew first.
        if view.work.partitions.as_ref().is_none_or(|table| table.since != self.table) {
            release.again = Some(now);
            return release;
        }
        for (partition, asked) in &mut self.asked {
            // Copies that started since see that it is being released, and begin nothing.
            let ends = *asked.ends.get_or_insert(view.ends);
            asked.done |= view.own.process == Process::Stopped || view.ends > ends;
            if asked.done {
                release.released.insert(*partition, asked.epoch);
                continue;
            }
            let until = asked.since.plus(view.release_max);
            if until <= now {
                release.overdue.push(*partition);
            } else {
                release.again = Some(release.again.map_or(until, |again| again.min(until)));
            }
        }
        release
    }

    /// That is durable now.
    pub fn is_durable(&mut self, floor: Floor) {
        self.floor = self.floor.max(floor);
    }

    /// For how long there has been no copy that is well.
    pub fn unwell(&self, now: Timestamp) -> Duration {
        self.unwell_since.map_or(Duration::ZERO, |since| now.since(since))
    }

    fn note_health(&mut self, view: &HolderView<'_>, now: Timestamp) {
        if view.own.process == Process::Primary && view.own.serving.is_some() {
            self.unwell_since = None;
        } else {
            self.unwell_since.get_or_insert(now);
        }
    }
}
