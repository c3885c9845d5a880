//! Drives copies of a command that run side by side: on each node a copy that withdraws before it
//! is stopped, and a door with clients, as the shell does.
//! Keeps: INV-14, checked at every stop that is planned (`judging.rs`): no door that its node hears
//! leads there or has anything there, and another copy serves.
//! Not here: what is decided (`tandem_core::clustering::copies`).

mod clients;
mod doors;
mod driving;
mod faults;
mod judging;

use super::World;
use crate::event::Micros;
use clients::Request;
pub(super) use doors::Door;
pub(super) use driving::Own;
pub(super) use judging::DRAIN_MAX;
use std::collections::{BTreeMap, BTreeSet};

/// One thing that happens. `n` is a node, `inc` its daemon's incarnation, `life` a copy.
#[derive(Clone, Debug)]
pub(super) enum Event {
    /// What a start needs is on the disk.
    Begun { n: usize, inc: u32, id: u64 },
    /// The copy is asked how it is.
    Check { n: usize, inc: u32, life: u64 },
    /// The door looks where it leads.
    Guide { n: usize, inc: u32 },
    /// A client comes to the door.
    Client { n: usize, inc: u32 },
    /// A request looks for a copy.
    Asks { n: usize, inc: u32, id: u64 },
    /// It reaches one, or not.
    Arrives { n: usize, id: u64 },
    /// The copy is done with it.
    Ends { n: usize, id: u64 },
    /// The door hears of that.
    Answered { n: usize, inc: u32, id: u64 },
    /// An operator has it emptied, or filled, and thinks better of it so often.
    Drains { n: usize, left: usize },
    /// The node's file has another recipe.
    Recipe { n: usize, recipe: u64 },
}

impl Event {
    /// As `super::Event::node`.
    pub(super) const fn node(&self) -> Option<(usize, bool)> {
        match self {
            Self::Begun { n, .. }
            | Self::Check { n, .. }
            | Self::Guide { n, .. }
            | Self::Client { n, .. }
            | Self::Asks { n, .. }
            | Self::Answered { n, .. } => Some((*n, true)),
            Self::Arrives { n, .. } | Self::Ends { n, .. } => Some((*n, false)),
            Self::Recipe { .. } | Self::Drains { .. } => None,
        }
    }
}

/// What there is of one service whose copies run side by side, as it is seen from outside.
#[derive(Debug, Default)]
pub(super) struct Side {
    requests: BTreeMap<u64, Request>,
    /// How it is run, by the newest file.
    recipe: u64,
    /// When two nodes last did not hear each other as they should.
    apart: BTreeMap<(usize, usize), Micros>,
    /// When a copy that was well last was so no more, by a fault.
    failed: BTreeMap<usize, Micros>,
    /// Where one is well.
    well: BTreeSet<usize>,
    /// Copies that were stopped to start anew in their turn, and are not back.
    away: BTreeSet<usize>,
    /// When each door was served last, and how many requests were.
    served: BTreeMap<usize, Micros>,
    /// Requests that were answered.
    answered: u64,
    /// Copies that were stopped by a plan.
    stopped: u64,
}

impl World {
    /// Whether copies run side by side here.
    pub(super) const fn is_beside(&self) -> bool {
        matches!(self.options.what, super::What::Beside)
    }

    pub(super) fn begin_beside(&mut self, n: usize, inc: u32) {
        self.after(0, 100_000, super::Event::Beside(Event::Client { n, inc }));
        self.plan_guide(n);
        self.find_copy(n);
    }

    pub(super) fn handle_beside(&mut self, event: Event) {
        match event {
            Event::Begun { n, inc, id } => self.on_begun(n, inc, id),
            Event::Check { n, inc, life } => self.on_check(n, inc, life),
            Event::Guide { n, inc } => self.on_guide(n, inc),
            Event::Client { n, inc } => self.on_client(n, inc),
            Event::Asks { n, inc, id } => self.on_asks(n, inc, id),
            Event::Arrives { n, id } => self.on_arrives(n, id),
            Event::Ends { n, id } => self.on_ends(n, id),
            Event::Answered { n, inc, id } => self.on_answered(n, inc, id),
            Event::Drains { n, left } => self.on_drains(n, left),
            Event::Recipe { n, recipe } => self.on_recipe(n, recipe),
        }
    }

    /// Requests that were answered, and copies that were stopped by a plan.
    pub const fn done(&self) -> (u64, u64) {
        (self.side.answered, self.side.stopped)
    }
}
