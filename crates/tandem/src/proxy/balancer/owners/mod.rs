//! Keeps who owns each part of the work behind a door, and sends what belongs to it there.
//! In: routes, keys, what copies answered. Out: an endpoint and an epoch, or a wait.
//! Keeps: INV-15 by the core's decision: what belongs to a partition goes to its owner, or waits.
//! Costs: what `group.rs` does, under its lock; a look at one entry instead of all endpoints.
//! Not here: who owns what (`active_active/routing.rs` of the core), what is open and who waits
//! (`load_balanced/owners.rs` there), the wait itself (`waiting.rs`).
//! Tested by: `http/tests/owners/mod.rs`, `tests/keys`.

use super::group::{Group, Picked, State, Wish, lock};
use super::member::Claim;
use crate::runtime::clock;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use tandem_core::clustering::load_balanced::owners::{self, Choice, Room};
use tandem_core::ids::PartitionId;
use tandem_core::time::Timestamp;

pub(in crate::proxy) use tandem_core::clustering::load_balanced::owners::Routed;

/// Where the requests of a partition go, and under which epoch its owner has it.
pub type Owned = owners::Owned<SocketAddr>;

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
    known: owners::Owners<SocketAddr>,
    misdirected: u64,
}

impl Owners {
    /// Nobody is known to own anything.
    pub(super) fn new(count: u32) -> Self {
        Self { known: owners::Owners::new(count), misdirected: 0 }
    }

    fn misdirected(&mut self, it: Routed) -> bool {
        self.misdirected += 1;
        self.known.turned_away(it, clock::now())
    }

    /// When somebody may go who waits for one of these.
    pub(super) fn deadline(&self, waits_at: impl Fn(u64) -> bool) -> Option<Timestamp> {
        self.known.deadline(|partition| waits_at(u64::from(partition.0)))
    }

    fn snapshot(&self, held: BTreeMap<PartitionId, u64>) -> OwnersSnapshot {
        let Self { known, misdirected } = self;
        let (count, routed) = (known.count(), known.routed());
        OwnersSnapshot { count, routed, held, misdirected: *misdirected }
    }
}

impl Group {
    /// Work goes to these owners from now on, in the order of partitions. What went to copies that
    /// are gone from these places is cut: all that went there before, and nothing that goes now.
    pub(in crate::proxy) fn route(&self, routes: Vec<Option<Owned>>, gone: &[SocketAddr]) {
        let mut state = lock(&self.state);
        state.cut_gone(|member| gone.contains(&member.address));
        if state.owners.as_mut().is_some_and(|owners| owners.known.replace(routes)) {
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
        let was_closed =
            lock(&self.state).owners.as_mut().is_some_and(|owners| owners.known.taken(it));
        if was_closed {
            self.serve_line();
        }
    }

    /// Who owns now what somebody was sent to.
    pub(in crate::proxy) fn owner(&self, it: Routed) -> Option<Owned> {
        lock(&self.state).owners.as_ref()?.known.owner(it.partition)
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
            Some(owners) => Some(u64::from(owners.known.partition(wish.key?).0)),
            None => {
                let at = self.place_of(wish.token).map(|at| &self.members[at]);
                // Whoever was there already goes to any other.
                at.filter(|it| wish.attempts.may_ask(&it.address)).map(|it| it.token())
            }
        }
    }

    /// A place at the owner; none if nobody is known to be, it turned somebody away, or is full.
    pub(super) fn pick_owner(&mut self, wish: Wish<'_>) -> Option<Picked> {
        let (now, members) = (clock::now(), &self.members);
        let known = &mut self.owners.as_mut()?.known;
        let member = |address: &SocketAddr| members.iter().find(|it| it.address == *address);
        let room = |address: &SocketAddr| match member(address) {
            Some(_) if !wish.attempts.may_ask(address) => Room::Tried,
            Some(it) if !it.is_full(wish.in_flight_max) => Room::Free,
            Some(_) | None => Room::Full,
        };
        match known.choose(known.partition(wish.key?), room, now) {
            Choice::To(address, it) => Some(Picked::Place(Claim::new(member(&address)?, Some(it)))),
            Choice::Tried => Some(Picked::Tried),
            Choice::Wait => None,
        }
    }
}
