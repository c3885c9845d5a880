//! Keeps who owns each part of the work behind a door, and sends what belongs to it there.
//! In: routes, keys, what copies answered. Out: an endpoint and an epoch, or a wait.
//! Keeps: a request waits while nobody is known to own its partition: no other endpoint will do.
//! Nor will routes of another number of partitions than its own: two owners would work for a key.
//! Costs: what `group.rs` does, under its lock; a look at one entry instead of all endpoints.
//! Not here: who owns what (`tandem_core::clustering::active_active::routing`), the wait itself
//! (`waiting.rs`).
//! Tested by: `http/tests/owners/mod.rs`, `tests/keys`.

use super::group::{Group, Picked, State, Wish, lock};
use super::member::Claim;
use crate::runtime::clock;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use tandem_core::clustering::load_balanced::gate::Gates;
use tandem_core::clustering::load_balanced::key;
use tandem_core::ids::{Epoch, PartitionId};
use tandem_core::time::Timestamp;

/// Where the requests of a partition go, and under which epoch its owner has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owned {
    /// The owner's copy.
    pub address: SocketAddr,
    /// Grows with each change of the owner.
    pub epoch: Epoch,
}

/// As what a request or connection was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::proxy) struct Routed {
    pub(in crate::proxy) partition: PartitionId,
    pub(in crate::proxy) epoch: Epoch,
}

/// What an operator sees of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OwnersSnapshot {
    /// Partitions there are.
    pub count: u32,
    /// Of which so many lead to an owner.
    pub routed: u32,
    /// Requests and connections that wait, by partition.
    pub held: BTreeMap<PartitionId, u64>,
    /// Requests that an owner turned away as not its own.
    pub misdirected: u64,
}

/// The owners of a door's partitions.
#[derive(Debug)]
pub(super) struct Owners {
    count: u32,
    routes: Vec<Option<Owned>>,
    gates: Gates,
    misdirected: u64,
}

impl Owners {
    /// Nobody is known to own anything.
    pub(super) fn new(count: u32) -> Self {
        Self { count, routes: Vec::new(), gates: Gates::default(), misdirected: 0 }
    }

    fn partition(&self, key: u64) -> PartitionId {
        PartitionId(key::part_of(key, self.count))
    }

    /// Who has it; none: nobody is known to.
    fn owner(&self, partition: PartitionId) -> Option<Owned> {
        self.routes.get(usize::try_from(partition.0).ok()?).copied().flatten()
    }

    /// Whether it goes there now, or has to wait until somebody else was taken.
    fn is_open(&self, partition: PartitionId, owned: Owned, now: Timestamp) -> bool {
        self.gates.is_open(partition, owned.epoch, now)
    }

    fn sent(&mut self, to: Routed, now: Timestamp) {
        self.gates.sent(to.partition, to.epoch, now);
    }

    /// True if something is new. Routes of another number of partitions are none: a key belongs to
    /// another one by them than by the number that this door counts with.
    fn replace(&mut self, mut routes: Vec<Option<Owned>>) -> bool {
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

    /// True if nobody but one at a time may go there from now on.
    fn misdirected(&mut self, it: Routed) -> bool {
        self.misdirected += 1;
        // Somebody else has it by now: that one has turned nothing away.
        let is_it = self.owner(it.partition).is_some_and(|owned| owned.epoch == it.epoch);
        is_it && self.gates.turned_away(it.partition, it.epoch, clock::now())
    }

    /// True if others waited for that.
    fn taken(&mut self, it: Routed) -> bool {
        self.gates.taken(it.partition, it.epoch)
    }

    /// When somebody may go who waits for one of these.
    pub(super) fn deadline(&self, waits_at: impl Fn(u64) -> bool) -> Option<Timestamp> {
        self.gates.deadline(|partition| waits_at(u64::from(partition.0)))
    }

    fn snapshot(&self, held: BTreeMap<PartitionId, u64>) -> OwnersSnapshot {
        let routed = self.routes.iter().flatten().count();
        let routed = u32::try_from(routed).unwrap_or(u32::MAX);
        OwnersSnapshot { count: self.count, routed, held, misdirected: self.misdirected }
    }
}

impl Group {
    /// Work goes to these owners from now on, in the order of partitions.
    pub(in crate::proxy) fn route(&self, routes: Vec<Option<Owned>>) {
        let mut state = lock(&self.state);
        if state.owners.as_mut().is_some_and(|owners| owners.replace(routes)) {
            drop(state);
            self.changed.send_replace(());
        }
    }

    /// The owner answered that it is not: whoever asks next asks for all.
    pub(in crate::proxy) fn misdirected(&self, it: Routed) {
        let closes = lock(&self.state).owners.as_mut().is_some_and(|owners| owners.misdirected(it));
        if closes {
            // Until when whoever waits has to look again is another question now.
            self.changed.send_replace(());
        }
    }

    /// The owner took it: whoever waited for that may go.
    pub(in crate::proxy) fn taken(&self, it: Routed) {
        let was_closed = lock(&self.state).owners.as_mut().is_some_and(|owners| owners.taken(it));
        if was_closed {
            self.serve_line();
        }
    }

    /// Who owns now what somebody was sent to.
    pub(in crate::proxy) fn owner(&self, it: Routed) -> Option<Owned> {
        lock(&self.state).owners.as_ref()?.owner(it.partition)
    }

    pub(in crate::proxy) fn owners(&self) -> Option<OwnersSnapshot> {
        let state = lock(&self.state);
        let held = state.line.waiting_at().into_iter();
        let partition = |at| PartitionId(u32::try_from(at).unwrap_or(u32::MAX));
        let held = held.map(|(at, count)| (partition(at), count)).collect();
        state.owners.as_ref().map(|owners| owners.snapshot(held))
    }
}

impl State {
    /// The one place that will do for a wish: all who wait for it wait in one line.
    pub(super) fn only_place(&self, wish: Wish<'_>) -> Option<u64> {
        match &self.owners {
            Some(owners) => Some(u64::from(owners.partition(wish.key?).0)),
            None => {
                let at = self.place_of(wish.token).map(|at| &self.members[at]);
                // Whoever was there already goes to any other.
                at.filter(|it| wish.attempts.may_ask(&it.address)).map(|it| it.token())
            }
        }
    }

    /// A place at the owner; none if nobody is known to be, it turned somebody away, or is full.
    pub(super) fn pick_owner(&mut self, wish: Wish<'_>) -> Option<Picked> {
        let (now, owners) = (clock::now(), self.owners.as_mut()?);
        let partition = owners.partition(wish.key?);
        let owned = owners.owner(partition)?;
        let member = self.members.iter().find(|member| member.address == owned.address)?;
        if !wish.attempts.may_ask(&owned.address) {
            return Some(Picked::Tried);
        }
        if member.is_full(wish.in_flight_max) || !owners.is_open(partition, owned, now) {
            return None;
        }
        let routed = Routed { partition, epoch: owned.epoch };
        owners.sent(routed, now);
        Some(Picked::Place(Claim::new(member, Some(routed))))
    }
}
