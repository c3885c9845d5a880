//! Decides where a door sends what belongs to a partition, and who waits.
//! In: routes, keys, what copies answered. Out: `Choice`, and whether those who wait have to look.
//! States of a partition: unrouted → (a route) open ⇄ closed (`owners/gate.rs`) → unrouted.
//! Keeps: INV-15 what belongs to a partition goes to whoever is known to own it: no other endpoint
//! will do. Routes of another number of partitions than the door counts with are
//! none, or two owners would work for a key.
//! Not here: who owns what (`active_active/routing.rs`), who of those that wait goes first
//! (`line.rs`), what becomes of a request that failed (`attempts.rs`).
//! Tested by: below, and the simulator (`sim/src/singleton/keyed`).

pub mod gate;

use super::key;
use crate::ids::{Epoch, PartitionId};
use crate::time::Timestamp;
use alloc::vec::Vec;
use gate::Gates;

/// Where the requests of a partition go, and under which epoch its owner has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owned<E> {
    /// The owner's copy.
    pub address: E,
    /// Grows with each change of the owner.
    pub epoch: Epoch,
}

/// As what a request or connection was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Routed {
    /// What it belongs to.
    pub partition: PartitionId,
    /// Under which its owner had it.
    pub epoch: Epoch,
    /// When.
    pub at: Timestamp,
}

/// How an owner's endpoint stands with somebody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Room {
    /// It takes one more.
    Free,
    /// It has as many as it may, or is not there yet.
    Full,
    /// It failed this one already.
    Tried,
}

/// What a wish for an owner comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Choice<E> {
    /// It goes there.
    To(E, Routed),
    /// Its owner failed it: it asks again after a pause.
    Tried,
    /// Nobody is known to own it, or its owner is full or turned somebody away.
    Wait,
}

/// The owners of a door's partitions, as far as it knows.
#[derive(Clone, Debug)]
pub struct Owners<E> {
    count: u32,
    routes: Vec<Option<Owned<E>>>,
    gates: Gates,
}

impl<E: Copy + PartialEq> Owners<E> {
    /// So many partitions; nobody is known to own any.
    pub fn new(count: u32) -> Self {
        Self { count, routes: Vec::new(), gates: Gates::default() }
    }

    /// How many partitions the door counts with.
    pub const fn count(&self) -> u32 {
        self.count
    }

    /// How many of them lead to an owner.
    pub fn routed(&self) -> u32 {
        u32::try_from(self.routes.iter().flatten().count()).unwrap_or(u32::MAX)
    }

    /// What a key belongs to, by its hash.
    pub fn partition(&self, key: u64) -> PartitionId {
        PartitionId(key::part_of(key, self.count))
    }

    /// Who is known to own it.
    pub fn owner(&self, partition: PartitionId) -> Option<Owned<E>> {
        self.routes.get(usize::try_from(partition.0).ok()?).copied().flatten()
    }

    /// Goes on with these, in the order of partitions. True if something is new: whoever waits may
    /// have somewhere to go.
    pub fn replace(&mut self, mut routes: Vec<Option<Owned<E>>>) -> bool {
        if u32::try_from(routes.len()) != Ok(self.count) {
            routes.clear();
        }
        if self.routes == routes {
            return false;
        }
        self.routes = routes;
        let Self { routes, gates, .. } = self;
        gates.keep(|partition| {
            let at = usize::try_from(partition.0).ok()?;
            routes.get(at).copied().flatten().map(|owned| owned.epoch)
        });
        true
    }

    /// Where somebody goes now; `room` is asked of the owner's endpoint.
    pub fn choose(
        &mut self,
        partition: PartitionId,
        room: impl FnOnce(&E) -> Room,
        now: Timestamp,
    ) -> Choice<E> {
        let Some(Owned { address, epoch }) = self.owner(partition) else { return Choice::Wait };
        match room(&address) {
            Room::Tried => Choice::Tried,
            Room::Full => Choice::Wait,
            Room::Free if !self.gates.is_open(partition, epoch, now) => Choice::Wait,
            Room::Free => {
                self.gates.sent(partition, epoch, now);
                Choice::To(address, Routed { partition, epoch, at: now })
            }
        }
    }

    /// It was turned away. True if only one in each `PACE` may go there from now on: until when
    /// those who wait have to look again is another question then.
    pub fn turned_away(&mut self, it: Routed, now: Timestamp) -> bool {
        // Somebody else has it by now: that one has turned nothing away. Where nobody is known to
        // own it, the same one may be well again in a moment, and has still taken nothing.
        let is_it = self.owner(it.partition).is_none_or(|owned| owned.epoch == it.epoch);
        is_it && self.gates.turned_away(it, now)
    }

    /// It was taken. True if others waited for that: they may go.
    pub fn taken(&mut self, it: Routed) -> bool {
        self.gates.taken(it)
    }

    /// When somebody may go who waits for one of these partitions, with nothing but time.
    pub fn deadline(&self, is_waited_for: impl Fn(PartitionId) -> bool) -> Option<Timestamp> {
        self.gates.deadline(|partition| self.owner(partition).is_some() && is_waited_for(partition))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clustering::load_balanced::attempts::PACE;
    use alloc::vec;

    const NOW: Timestamp = Timestamp(1_000_000);
    const IT: PartitionId = PartitionId(1);

    fn owned(address: char, epoch: u64) -> Option<Owned<char>> {
        Some(Owned { address, epoch: Epoch(epoch) })
    }

    fn asks(owners: &mut Owners<char>, now: Timestamp) -> Choice<char> {
        owners.choose(IT, |_| Room::Free, now)
    }

    #[test]
    fn it_goes_to_its_owner_and_nowhere_else() {
        let mut owners = Owners::new(2);
        assert_eq!(asks(&mut owners, NOW), Choice::Wait, "nobody is known to own it");
        assert!(owners.replace(vec![owned('a', 1), None]));
        assert!(!owners.replace(vec![owned('a', 1), None]), "nothing new");
        assert_eq!((asks(&mut owners, NOW), owners.routed()), (Choice::Wait, 1));
        assert!(owners.replace(vec![owned('a', 1), owned('b', 4)]));
        let routed = Routed { partition: IT, epoch: Epoch(4), at: NOW };
        assert_eq!(asks(&mut owners, NOW), Choice::To('b', routed));
        assert_eq!(owners.choose(IT, |_| Room::Full, NOW), Choice::Wait);
        assert_eq!(owners.choose(IT, |_| Room::Tried, NOW), Choice::Tried);
        assert!(owners.replace(vec![owned('a', 1); 4]), "divided otherwise");
        assert_eq!((asks(&mut owners, NOW), owners.routed()), (Choice::Wait, 0));
    }

    #[test]
    fn who_turned_somebody_away_is_asked_by_one_in_each_pace_until_another_owns_it() {
        let mut owners = Owners::new(2);
        owners.replace(vec![None, owned('a', 1)]);
        let routed = Routed { partition: IT, epoch: Epoch(1), at: NOW };
        assert!(owners.turned_away(routed, NOW) && !owners.turned_away(routed, NOW));
        assert_eq!(asks(&mut owners, NOW), Choice::Wait);
        let later = NOW.plus(PACE);
        assert_eq!(owners.deadline(|_| true), Some(later));
        assert_eq!(asks(&mut owners, later), Choice::To('a', Routed { at: later, ..routed }));
        assert_eq!(asks(&mut owners, later), Choice::Wait);
        owners.replace(vec![None, None]);
        assert_eq!(owners.deadline(|_| true), None, "not with nothing but time");
        owners.replace(vec![None, owned('a', 1)]);
        assert_eq!(asks(&mut owners, later), Choice::Wait, "it has taken nothing since");
        owners.replace(vec![None, owned('b', 2)]);
        let next = Routed { partition: IT, epoch: Epoch(2), at: later };
        assert_eq!(asks(&mut owners, later), Choice::To('b', next));
        assert!(!owners.turned_away(routed, later), "an old word closes nothing");
        assert_eq!(asks(&mut owners, later), Choice::To('b', next));
    }

    #[test]
    fn who_turned_somebody_away_while_it_was_not_led_to_is_not_asked_by_all_once_it_is() {
        let mut owners = Owners::new(2);
        owners.replace(vec![None, owned('a', 4)]);
        let routed = Routed { partition: IT, epoch: Epoch(4), at: NOW };
        assert_eq!(asks(&mut owners, NOW), Choice::To('a', routed));
        // Its copy is not well for a moment, and what was under way is turned away in it.
        owners.replace(vec![None, None]);
        assert!(owners.turned_away(routed, NOW));
        owners.replace(vec![None, owned('a', 4)]);
        assert_eq!(asks(&mut owners, NOW), Choice::Wait);
        // Under another epoch it has turned nothing away.
        owners.replace(vec![None, None]);
        owners.replace(vec![None, owned('a', 5)]);
        let next = Routed { epoch: Epoch(5), ..routed };
        assert_eq!(asks(&mut owners, NOW), Choice::To('a', next));
        assert_eq!(asks(&mut owners, NOW), Choice::To('a', next));
    }
}
