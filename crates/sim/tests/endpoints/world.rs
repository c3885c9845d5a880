//! Endpoints and doors in virtual time, and what happens to them.

use crate::door::{Door, Health, Mutation};
use crate::{BEGIN, DOORS, HEALING, STEP};
use std::time::Duration;
use tandem_core::clustering::load_balanced::balance::Policy;
use tandem_core::clustering::load_balanced::ejection::Event;
use tandem_core::clustering::load_balanced::rendezvous::hash;
use tandem_core::time::Timestamp;

/// From a seed, the same numbers everywhere.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(1);
        hash(&self.0.to_be_bytes())
    }

    pub fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}

pub struct World {
    seed: u64,
    random: Random,
    pub health: Vec<Health>,
    draining: Vec<bool>,
    pub checks: bool,
    pub doors: Vec<Door>,
    now: Timestamp,
}

impl World {
    pub fn new(seed: u64, policy: Policy, mutation: Mutation) -> Self {
        let mut random = Random(seed << 32);
        let size = 1 + usize::try_from(random.below(6)).unwrap();
        let checks = random.below(2) == 0;
        Self {
            seed,
            random,
            health: vec![Health::Good; size],
            draining: vec![false; size],
            checks,
            doors: (0..DOORS).map(|_| Door::new(size, (policy, checks), mutation)).collect(),
            now: BEGIN,
        }
    }

    /// Some stand more than others, in every second world.
    pub fn weigh(&mut self) -> Vec<u32> {
        let is_even = self.random.below(2) == 0;
        let most = if is_even { 1 } else { 4 };
        let weigh = |_: &Health| 1 + u32::try_from(self.random.below(most)).unwrap();
        let weights: Vec<u32> = self.health.iter().map(weigh).collect();
        self.doors.iter_mut().for_each(|door| door.weigh(&weights, self.checks));
        weights
    }

    /// What is far is another matter for each door.
    pub fn spread_over_zones(&mut self) {
        for door in &mut self.doors {
            door.far.fill_with(|| self.random.below(2) == 0);
        }
    }

    pub fn run(&mut self, length: Duration, storm: bool) {
        let until = self.now.plus(length);
        let mut step = 0_u64;
        while self.now < until {
            self.now = self.now.plus(STEP);
            step += 1;
            if storm && self.random.below(25) == 0 {
                self.trouble();
            }
            for door in &mut self.doors {
                door.end(self.now);
                if step.is_multiple_of(25) {
                    door.check(&self.health, self.now);
                }
                if step.is_multiple_of(50) {
                    door.judge(self.now);
                }
                door.resume(&self.health, &mut self.random, self.now);
                for _ in 0..2 {
                    door.serve(&self.health, &mut self.random, self.now);
                }
                door.verify(self.now, self.seed);
            }
        }
    }

    fn trouble(&mut self) {
        let at = usize::try_from(self.random.below(self.health.len() as u64)).unwrap();
        self.health[at] = match self.random.below(6) {
            0 => Health::Refuses,
            1 => Health::Drops,
            2 => Health::Slow(2 + u32::try_from(self.random.below(50)).unwrap()),
            3 => {
                let drain = !self.draining[at];
                return self.drain(at, drain);
            }
            _ => Health::Good,
        };
    }

    fn drain(&mut self, at: usize, drain: bool) {
        self.draining[at] = drain;
        let event = if drain { Event::Drained } else { Event::Undrained };
        for door in &mut self.doors {
            door.group.step(at, event, self.now);
        }
    }

    pub fn heal(&mut self) {
        for at in 0..self.health.len() {
            self.health[at] = Health::Good;
            self.drain(at, false);
        }
        self.run(HEALING, false);
        for door in &mut self.doors {
            (door.clients, door.attempts, door.unserved) = (0, 0, 0);
            door.worked.fill(0);
        }
    }
}
