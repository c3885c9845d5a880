//! Decides every placement of two faults in a small world, instead of drawing some.
//! Steps are the boundaries of effects: between any two steps of any action on any node, and after
//! each agreed command. The first fault is placed at every one of them; the second at every one of
//! those that follow, up to a depth; then everything heals and must serve.

use crate::event::{Event, Micros};
use crate::faults::Fault;
use crate::options::{Options, Shape};
use crate::world::World;
use tandem_core::spec::Durability;

/// Healing comes this long after the last fault.
const HEAL_AFTER: Micros = 2_500_000;
/// And at this time in any case.
const HEAL_AT: Micros = 7_000_000;

/// A fault at a boundary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placed {
    /// Before this step.
    pub step: u64,
    /// What goes wrong; none is a crash of the node that acts.
    pub fault: Option<Fault>,
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

/// The founder and one of its standbys lose power, or are cut off; the other standby is the same.
const FAULTS: [Fault; 4] = [
    Fault::PowerOff { n: 0, back: 400_000 },
    Fault::CutOff { n: 0, mend: 2_000_000 },
    Fault::PowerOff { n: 1, back: 400_000 },
    Fault::CutOff { n: 1, mend: 2_000_000 },
];

/// Runs every placement whose first step leaves `share` when divided by `of`.
pub fn explore(bounds: Bounds, (share, of): (u64, u64)) -> Explored {
    let mut explored = Explored::default();
    for step in (1..=bounds.first).filter(|step| step % of == share) {
        for first in FAULTS {
            for second_step in step + 1..=step + bounds.second {
                for second in FAULTS {
                    let placed = vec![
                        Placed { step, fault: Some(first) },
                        Placed { step: second_step, fault: Some(second) },
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

/// Runs the small world with faults at steps, and others at times.
pub fn run_placed(placed: &[Placed], timed: &[(Micros, Fault)]) -> Option<String> {
    let mut world = small_world(Durability::Quorum { acks: 1 });
    world.placed = placed.iter().rev().copied().collect();
    for (at, fault) in timed {
        world.queue.push(*at, Event::Fault(*fault));
    }
    world.run();
    world.violation
}

impl World {
    /// Between two effects: the moment at which a placed fault comes.
    pub fn pass_boundary(&mut self, n: usize) {
        self.steps += 1;
        let Some(placed) = self.placed.pop_if(|placed| placed.step == self.steps) else { return };
        let fault = placed.fault.unwrap_or(Fault::PowerOff { n, back: 400_000 });
        self.on_fault(fault);
        if self.placed.is_empty() {
            self.queue.push(self.now + HEAL_AFTER, Event::Heal);
        }
    }
}
