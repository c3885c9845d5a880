//! Decides every placement of two faults in a small world, instead of drawing some.
//! Steps are the boundaries of effects: between any two steps of any action on any node, and after
//! each agreed command. The first fault is placed at every one of them; the second at every one of
//! those that follow, up to a depth; then everything heals and must serve.
//! The bound: three nodes, one standby per commit, one order of delays (a seed); the first fault in
//! the first `Bounds::first` steps, the second at most `Bounds::second` steps later; each is a loss
//! of power or a cut of any node, or the end of a daemon or a postmaster. Other orders of messages,
//! more faults and other clusters are the seeds' part (`faults.rs`).

use crate::event::{Event, Micros};
use crate::faults::Fault;
use crate::options::{Options, Shape};
use crate::world::World;
use tandem_core::spec::Durability;

/// Healing comes this long after the last fault.
const HEAL_AFTER: Micros = 2_500_000;
/// And at this time in any case.
const HEAL_AT: Micros = 7_000_000;

/// What goes wrong at a boundary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// The node that acts loses power.
    NodeDies,
    /// The daemon that acts ends; its server and keeper go on.
    DaemonDies,
    /// Something else.
    Fault(Fault),
}

/// A fault at a boundary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placed {
    /// Before this step.
    pub step: u64,
    /// What goes wrong.
    pub what: What,
}

/// What an exploration found.
#[derive(Clone, Debug, Default)]
pub struct Explored {
    /// Runs that were made.
    pub runs: usize,
    /// The placements that broke something, and what.
    pub failures: Vec<(Vec<Placed>, String)>,
}

/// How much is explored.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Steps of the undisturbed story before which the first fault may come.
    pub first: u64,
    /// Steps after the first before which the second may come.
    pub second: u64,
}

/// The world that is explored: three nodes, one standby per commit, nothing drawn but delays.
pub fn small_world(durability: Durability) -> World {
    let options = Options {
        shape: Some(Shape::Three),
        durability: Some(durability),
        calm: true,
        ..Options::default()
    };
    let mut world = World::new(1, options);
    world.queue.push(HEAL_AT, Event::Heal);
    world
}

/// What may happen to the primary or founder, and to each standby.
const FAULTS: [Fault; 9] = [
    Fault::PowerOff { n: 0, back: 400_000 },
    Fault::CutOff { n: 0, mend: 2_000_000 },
    Fault::DaemonDies { n: 0, back: 300_000 },
    Fault::PostmasterDies { n: 0 },
    Fault::PowerOff { n: 1, back: 400_000 },
    Fault::CutOff { n: 1, mend: 2_000_000 },
    Fault::PostmasterDies { n: 1 },
    Fault::PowerOff { n: 2, back: 400_000 },
    Fault::CutOff { n: 2, mend: 2_000_000 },
];

/// Runs every placement whose first step leaves `share` when divided by `of`.
pub fn explore(bounds: Bounds, (share, of): (u64, u64)) -> Explored {
    let mut explored = Explored::default();
    for step in (1..=bounds.first).filter(|step| step % of == share) {
        for first in FAULTS {
            for second_step in step + 1..=step + bounds.second {
                for second in FAULTS {
                    let placed = vec![
                        Placed { step, what: What::Fault(first) },
                        Placed { step: second_step, what: What::Fault(second) },
                    ];
                    explored.runs += 1;
                    if let Some(violation) = run_placed(&placed, &[]) {
                        explored.failures.push((placed, violation));
                    }
                }
            }
        }
    }
    explored
}

/// Runs the small world with faults at steps; what was violated.
pub fn run_placed(placed: &[Placed], timed: &[(Micros, Fault)]) -> Option<String> {
    end_of(placed, timed).violation
}

/// Runs the small world with faults at steps, and others at times.
pub fn end_of(placed: &[Placed], timed: &[(Micros, Fault)]) -> World {
    let mut world = small_world(Durability::Quorum { acks: 1 });
    world.placed = placed.iter().rev().copied().collect();
    for (at, fault) in timed {
        world.queue.push(*at, Event::Fault(*fault));
    }
    world.run();
    world
}

impl World {
    /// Between two effects: the moment at which a placed fault comes.
    pub fn pass_boundary(&mut self, n: usize) {
        self.steps += 1;
        let Some(placed) = self.placed.pop_if(|placed| placed.step == self.steps) else { return };
        let fault = match placed.what {
            What::NodeDies => Fault::PowerOff { n, back: 400_000 },
            What::DaemonDies => Fault::DaemonDies { n, back: 300_000 },
            What::Fault(fault) => fault,
        };
        self.on_fault(fault);
        if self.placed.is_empty() {
            self.queue.push(self.now + HEAL_AFTER, Event::Heal);
        }
    }
}
