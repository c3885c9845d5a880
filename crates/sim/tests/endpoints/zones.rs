//! Endpoints of two zones: each door has its own idea of what is near.

use crate::door::{Door, Health, Mutation};
use crate::world::World;
use crate::{POLICIES, QUIET, SEEDS, STORM};
use tandem_core::clustering::load_balanced::balance::Policy;

/// Storms over two zones; then all is well; then nothing is left near the first door.
pub fn zones(seed: u64, mutation: Mutation) {
    let policy = POLICIES[usize::try_from(seed % 5).unwrap()];
    let mut world = World::new(seed, policy, mutation);
    world.spread_over_zones();
    world.run(STORM, true);
    world.heal();
    world.run(QUIET, false);
    for door in &world.doors {
        let case = format!("seed {seed} {policy:?}: {:?} far {:?}", door.worked, door.far);
        assert_eq!(door.unserved, 0, "{case}: all is well and a client was not served");
        assert_eq!(door.attempts, door.clients, "{case}: all is well and something is tried again");
        is_near_first(door, policy, &case);
    }
    let far = world.doors[0].far.clone();
    for (health, far) in world.health.iter_mut().zip(&far) {
        *health = if *far { Health::Good } else { Health::Refuses };
    }
    world.run(QUIET, false);
    for door in world.doors.iter().filter(|_| far.contains(&true)) {
        let case = format!("seed {seed} {policy:?}: {:?} far {:?}", door.worked, door.far);
        assert_eq!(door.unserved, 0, "{case}: the other zone works");
    }
}

fn is_near_first(door: &Door, policy: Policy, case: &str) {
    let (near, far) = (door.worked_by(false), door.worked_by(true));
    let fair_of = |count: usize| door.clients / count.max(1) as u64;
    let all_get_half_of = |some: &[u64], fair: u64| some.iter().all(|worked| worked * 2 >= fair);
    let fair = fair_of(door.worked.len());
    match policy {
        Policy::RoundRobin | Policy::Random if door.stays_near() => {
            assert_eq!(far.iter().sum::<u64>(), 0, "{case}: there is enough nearby");
            assert!(all_get_half_of(&near, fair_of(near.len())), "{case}: starved");
        }
        // A key belongs where it does.
        Policy::RoundRobin | Policy::Random | Policy::Hash => {
            assert!(all_get_half_of(&door.worked, fair), "{case}: starved");
        }
        // By cost: whoever is near is never worse off.
        Policy::PeakEwma | Policy::LeastConnections => {
            let (least, most) = (near.iter().min(), far.iter().max());
            assert!(near.is_empty() || least >= most, "{case}: far is nearer");
            let some = if near.is_empty() { &far } else { &near };
            assert!(all_get_half_of(some, fair), "{case}: starved");
        }
    }
}

#[test]
fn work_stays_near_and_spills_over_when_nothing_is_left_there() {
    for seed in 0..SEEDS {
        zones(seed, Mutation::None);
    }
}
