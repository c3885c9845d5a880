//! Drives doors by key: on each node one that leads requests to whoever owns their partition, with
//! clients, and copies that answer what they own and turn away what they do not, as the shell and
//! a worker do.
//! Keeps: INV-15, checked with each request and every 40 ms (`judging.rs`).
//! Not here: what is decided (`tandem_core::clustering::load_balanced::owners`), who owns what
//! (`divided`).

mod clients;
mod door;
mod judging;
mod worker;

use super::World;
use crate::event::Micros;
use crate::rng::Rng;
pub(super) use door::Door;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;
use tandem_core::clustering::load_balanced::owners::Routed;

/// A connect, or an answer, is waited for so long.
const CONNECT_MAX: Micros = 1_000_000;
const ANSWER_MAX: Micros = 12_000_000;

/// One thing that happens. `n` is a node, `inc` its daemon's incarnation, `id` a request, of which
/// `no` counts how often it was sent.
#[derive(Clone, Debug)]
pub(super) enum Event {
    /// The door looks who owns what.
    Guide { n: usize, inc: u32 },
    /// A client comes to the door.
    Client { n: usize, inc: u32 },
    /// A pause is over.
    Asks { n: usize, inc: u32, id: u64 },
    /// Somebody in line may have a turn, with nothing but time.
    Wakes { n: usize, inc: u32, at: Micros },
    /// Nobody took it in time.
    Expires { n: usize, inc: u32, id: u64 },
    /// It reaches a copy, or not.
    Arrives { n: usize, it: Rc<Sent> },
    /// The copy is done with it.
    Ends { n: usize, it: Rc<Sent> },
    /// An answer is on its way back.
    Replies { n: usize, it: Rc<Sent>, how: How },
    /// The door hears of it.
    Answered { it: Rc<Sent>, how: How },
    /// The client has read its answer to the end.
    Read { it: Sent },
    /// It is looked whether all is as it shall be.
    Judge,
}

impl Event {
    /// As `super::Event::node`.
    pub(super) fn node(&self) -> Option<(usize, bool)> {
        match self {
            Self::Guide { n, .. }
            | Self::Client { n, .. }
            | Self::Asks { n, .. }
            | Self::Wakes { n, .. }
            | Self::Expires { n, .. } => Some((*n, true)),
            Self::Answered { it, .. } => Some((it.door, true)),
            Self::Read { it } => Some((it.door, true)),
            Self::Arrives { n, .. } | Self::Ends { n, .. } | Self::Replies { n, .. } => {
                Some((*n, false))
            }
            Self::Judge => None,
        }
    }
}

/// A request on its way to a copy.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sent {
    id: u64,
    no: u32,
    /// From whose door, of which daemon.
    door: usize,
    inc: u32,
    to: usize,
    routed: Routed,
    at: Micros,
    /// How long a copy works on it.
    lasts: Micros,
    /// On a connection that has to be made first.
    connects: bool,
}

/// What became of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum How {
    /// It is answered.
    Done,
    /// It is somebody else's.
    Misdirected,
    /// There was no connection.
    Refused,
    /// The connection broke.
    Broke,
    /// No answer in time.
    Late,
}

/// What there is of clients and what they asked for, as it is seen from outside.
#[derive(Debug)]
pub(super) struct Side {
    requests: BTreeMap<u64, clients::Request>,
    /// Answers that clients still read, by request: each has its place at the copy until then.
    reads: BTreeMap<u64, Sent>,
    /// What copies work on.
    works: BTreeMap<(u64, u32), worker::Work>,
    limits: Limits,
    judged: judging::Judged,
    answered: u64,
    turned_away: u64,
}

/// What the owner wrote, and how many come.
#[derive(Clone, Copy, Debug)]
struct Limits {
    hold_max: Duration,
    held_max: usize,
    /// At each copy, of each door.
    in_flight_max: usize,
    /// Between two clients of a door.
    clients: (Micros, Micros),
}

impl Side {
    pub(super) fn new(seed: u64) -> Self {
        let mut rng = Rng::new(seed ^ 0x6b65_7973);
        let limits = Limits {
            hold_max: Duration::from_millis([10_000, 3_000, 1_000][rng.below(3)]),
            held_max: [1_000, 100, 6][rng.below(3)],
            in_flight_max: [usize::MAX, 20, 3][rng.below(3)],
            clients: [(5_000, 60_000), (50_000, 300_000), (200_000, 2_000_000)][rng.below(3)],
        };
        Self {
            requests: BTreeMap::new(),
            reads: BTreeMap::new(),
            works: BTreeMap::new(),
            limits,
            judged: judging::Judged::default(),
            answered: 0,
            turned_away: 0,
        }
    }
}

impl World {
    pub(super) fn begin_keyed(&mut self, n: usize, inc: u32) {
        if self.options.keyed {
            self.after(0, 100_000, super::Event::Keyed(Event::Client { n, inc }));
            self.plan_routes(n);
        }
    }

    pub(super) fn handle_keyed(&mut self, event: Event) {
        match event {
            Event::Guide { n, inc } => self.on_routes(n, inc),
            Event::Client { n, inc } => self.on_keyed_client(n, inc),
            Event::Asks { n, inc, id } => self.on_pause_over(n, inc, id),
            Event::Wakes { n, inc, at } => self.on_wakes((n, inc), at),
            Event::Expires { n, inc, id } => self.on_expires(n, inc, id),
            Event::Arrives { n, it } => self.on_keyed_arrives(n, &it),
            Event::Ends { n, it } => self.on_keyed_ends(n, &it),
            Event::Replies { n, it, how } => self.on_replies(n, it, how),
            Event::Answered { it, how } => self.on_keyed_answered(&it, how),
            Event::Read { it } => self.on_read(&it),
            Event::Judge => self.judge_keyed(),
        }
    }

    fn push_keyed(&mut self, at: Micros, event: Event) {
        self.push(at, super::Event::Keyed(event));
    }

    /// Requests that were answered by an owner, and such as were turned away.
    pub const fn answers(&self) -> (u64, u64) {
        (self.keyed.answered, self.keyed.turned_away)
    }
}
