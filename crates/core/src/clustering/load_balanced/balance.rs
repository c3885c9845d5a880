//! Decides which endpoint of a group gets the next session or request.
//! In: the load of every endpoint, two random numbers, a key. Out: the index of one of them.
//! The default is the power of two choices over the peak EWMA: it looks at two endpoints only, so
//! that many doors that know little of each other do not all choose the same best one; it counts
//! what is slow as full before it fails; and it needs no word from the endpoint. Round-robin is for
//! requests that cost the same, least-connections for long sessions, hash for caches. What has no
//! key under hash is chosen for as by default: nobody knows where it belongs, and one endpoint for
//! all of it would drown. How much slower or faster one of two counts is bounded: a single answer
//! that took long shall not send all the rest to the others until they drown. One that is silent
//! counts as that much slower than the other, however quick it was: few clients, each of which asks
//! again once it has its answer, would all end up there.
//! Keeps: INV-7 as far as a choice can: a group with a share left always has an answer.
//! Not here: whose share is zero (`ejection.rs`).
//! Tested by: below.

use super::rendezvous;
use alloc::vec::Vec;
use serde::{Deserialize, Serialize};

/// An endpoint in another zone is chosen once those nearby cost so many times as much.
const FAR: u64 = 4;
/// Of two, one counts as at most so many times as slow as the other.
const SLOWER_MAX: u64 = 16;
/// So many times as quick is more than chance.
const CLEARLY: u128 = 2;
/// A hash key goes to its next endpoint once its first has so many percent of its fair share of
/// what is in flight (consistent hashing with bounded loads, Mirrokni and others, 2016).
const HASH_BOUND_PERCENT: u64 = 125;
/// And not before it has so many more than its fair share: in small numbers a quarter is nothing,
/// and two requests at once would cost a key its cache.
const HASH_ROOM_MIN: u64 = 8;

/// How an endpoint is chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Policy {
    /// The better of two random ones, by latency and what is in flight.
    PeakEwma,
    /// One after the other, by weight.
    RoundRobin,
    /// The one with the fewest sessions for its weight.
    LeastConnections,
    /// Any, by weight.
    Random,
    /// The one that the key belongs to, unless it is full.
    Hash,
}

impl Policy {
    /// Every word, as written in the configuration.
    pub const WORDS: &'static [&'static str] =
        &["peak-ewma", "round-robin", "least-connections", "random", "hash"];

    /// The value of a word.
    pub fn from_word(word: &str) -> Option<Self> {
        Some(match word {
            "peak-ewma" => Self::PeakEwma,
            "round-robin" => Self::RoundRobin,
            "least-connections" => Self::LeastConnections,
            "random" => Self::Random,
            "hash" => Self::Hash,
            _ => return None,
        })
    }

    /// The word as written in the configuration.
    pub const fn word(self) -> &'static str {
        match self {
            Self::PeakEwma => "peak-ewma",
            Self::RoundRobin => "round-robin",
            Self::LeastConnections => "least-connections",
            Self::Random => "random",
            Self::Hash => "hash",
        }
    }
}

/// One endpoint as a choice sees it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
    /// How much of the work it may get now, relative to the others; 0 is none.
    pub share: u32,
    /// Sessions or requests that it has, and those that failed just now.
    pub in_flight: u32,
    /// How slow it is, in microseconds; 0 is not known.
    pub latency_us: u64,
    /// It hangs, as far as this can be told (`latency.rs`).
    pub is_silent: bool,
    /// In another zone than the one who chooses.
    pub far: bool,
    /// The hash of its name, for `Policy::Hash`.
    pub name: u64,
}

/// What differs from one choice to the next.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Draw {
    /// Two random numbers.
    pub random: [u64; 2],
    /// The hash of the key, for `Policy::Hash`; none: it has none.
    pub key: Option<u64>,
}

/// Chooses for one group.
#[derive(Clone, Debug)]
pub struct Balance {
    policy: Policy,
    /// What each endpoint is owed in turns.
    credits: Vec<i64>,
}

impl Balance {
    /// Begins with nobody owed anything.
    pub const fn new(policy: Policy) -> Self {
        Self { policy, credits: Vec::new() }
    }

    /// The endpoint of the next session or request; none if every share is 0.
    pub fn choose(&mut self, loads: &[Load], draw: Draw) -> Option<usize> {
        match self.policy {
            Policy::PeakEwma => better_of_two(loads, draw.random),
            Policy::RoundRobin => self.next_in_turn(loads),
            Policy::LeastConnections => least(loads, draw.random[0]),
            Policy::Random => {
                let near = prefers_near(loads);
                drawn(loads, draw.random[0], |_, load| !(near && load.far))
            }
            Policy::Hash => match draw.key {
                Some(key) => owner(loads, key),
                None => better_of_two(loads, draw.random),
            },
        }
    }

    /// Smooth weighted round-robin, as nginx does it: everyone earns its share, who is owed most is
    /// next and pays the sum. Three of weight 2, 1, 1 give a, b, c, a and not a, a, b, c.
    fn next_in_turn(&mut self, loads: &[Load]) -> Option<usize> {
        self.credits.resize(loads.len(), 0);
        let near = prefers_near(loads);
        let (mut sum, mut next) = (0, None::<usize>);
        for (at, load) in loads.iter().enumerate() {
            if load.share == 0 || (near && load.far) {
                self.credits[at] = 0;
                continue;
            }
            self.credits[at] += i64::from(load.share);
            sum += i64::from(load.share);
            if next.is_none_or(|next| self.credits[at] > self.credits[next]) {
                next = Some(at);
            }
        }
        self.credits[next?] -= sum;
        next
    }
}

/// Zones are not told apart once less is left near than far.
fn prefers_near(loads: &[Load]) -> bool {
    let share = |far: bool| -> u64 {
        loads.iter().filter(|load| load.far == far).map(|load| u64::from(load.share)).sum()
    };
    let (near, far) = (share(false), share(true));
    near > 0 && near * 2 >= far
}

/// One of those that `may`, by share.
fn drawn(loads: &[Load], random: u64, may: impl Fn(usize, &Load) -> bool) -> Option<usize> {
    let share = |at: usize, load: &Load| if may(at, load) { u64::from(load.share) } else { 0 };
    let sum: u64 = loads.iter().enumerate().map(|(at, load)| share(at, load)).sum();
    let mut left = random.checked_rem(sum)?;
    loads.iter().enumerate().position(|(at, load)| {
        let share = share(at, load);
        if left < share {
            return true;
        }
        left -= share;
        false
    })
}

/// The first is near if there is one, the second is anyone else: so work spills over to other zones
/// exactly when those nearby cost `FAR` times as much.
fn better_of_two(loads: &[Load], random: [u64; 2]) -> Option<usize> {
    let first = drawn(loads, random[0], |_, load| !load.far)
        .or_else(|| drawn(loads, random[0], |_, _| true))?;
    let Some(second) = drawn(loads, random[1], |at, _| at != first) else {
        return Some(first);
    };
    let (a, b) = (&loads[first], &loads[second]);
    // What is not known yet is taken to be as slow as the other.
    let known = a.latency_us.max(b.latency_us).max(1);
    let believed = |load: &Load| if load.latency_us == 0 { known } else { load.latency_us };
    let (slow_a, slow_b) = match (a.is_silent, b.is_silent) {
        (true, false) => (SLOWER_MAX, 1),
        (false, true) => (1, SLOWER_MAX),
        _ => {
            let slow_max = believed(a).min(believed(b)).saturating_mul(SLOWER_MAX);
            (believed(a).min(slow_max), believed(b).min(slow_max))
        }
    };
    let least = a.share.min(b.share);
    let rounds = rendezvous::mix(random[0] ^ random[1]);
    let (work_a, work_b) = (scaled(a, least, rounds), scaled(b, least, rounds));
    let better = if work_a == 0 && work_b == 0 {
        // Nothing to speak of is going on, and the first was drawn by its share already: the other
        // one is better for as much as it is quicker than its share is smaller; one with a greater
        // share only once it is clearly quicker, or chance would take from the smaller alone.
        let clearly = if a.share < b.share { CLEARLY } else { 1 };
        cost(b, slow_b, least, 0) * clearly < cost(a, slow_a, a.share, 0)
    } else {
        cost(b, slow_b, least, work_b) < cost(a, slow_a, least, work_a)
    };
    Some(if better { second } else { first })
}

/// What it would have in flight with that smaller share. Rounded by chance, up as often as there is
/// a part left: one in flight at an endpoint of weight 9 is a ninth of one at weight 1, which gets
/// its work by that, and not only once the other one has nine.
fn scaled(load: &Load, share: u32, random: u64) -> u32 {
    let (own, work) = (u64::from(load.share.max(1)), u64::from(load.in_flight) * u64::from(share));
    let rounded = work / own + u64::from(random % own < work % own);
    u32::try_from(rounded).unwrap_or(u32::MAX)
}

/// What one more would wait there beside so many, if it has such a share.
fn cost(load: &Load, latency_us: u64, share: u32, in_flight: u32) -> u128 {
    let distance = if load.far { FAR } else { 1 };
    // A share is at most 32 bits: the quotient keeps that much.
    let work = (u128::from(latency_us) * u128::from(distance)) << 32;
    work / u128::from(share.max(1)) * (u128::from(in_flight) + 1)
}

/// Those that have nothing to do are equals, whatever their share. Equals are drawn by their share:
/// so many doors that start together do not all choose the first, and where there is little to do
/// it is not all done by the one with the greatest share.
fn least(loads: &[Load], random: u64) -> Option<usize> {
    let most = loads.iter().map(|load| load.share).max()?;
    let share = |load: &Load| if load.in_flight == 0 { most } else { load.share };
    let cost =
        |load: &Load| (load.share > 0).then(|| self::cost(load, 1, share(load), load.in_flight));
    let least = loads.iter().filter_map(cost).min()?;
    drawn(loads, random, |_, load| cost(load) == Some(least))
}

fn owner(loads: &[Load], key: u64) -> Option<usize> {
    let shares: u64 = loads.iter().map(|load| u64::from(load.share)).sum();
    let in_flight: u64 =
        loads.iter().filter(|l| l.share > 0).map(|load| u64::from(load.in_flight)).sum();
    // Everything in hundredths of a share, so that nothing is rounded.
    let has_room = |load: &Load| {
        let fair = (in_flight + 1) * u64::from(load.share);
        let bound = (fair * HASH_BOUND_PERCENT).max(fair * 100 + HASH_ROOM_MIN * 100 * shares);
        u64::from(load.in_flight) * 100 * shares < bound
    };
    let candidates = loads.iter().enumerate().filter(|(_, load)| load.share > 0 && has_room(load));
    candidates
        .max_by_key(|(_, load)| rendezvous::score(key, load.name, load.share))
        .map(|(at, _)| at)
}

#[cfg(test)]
mod tests {
    use super::super::latency::Latency;
    use super::*;
    use crate::time::Timestamp;
    use core::time::Duration;

    const ALL: [Policy; 5] = [
        Policy::PeakEwma,
        Policy::RoundRobin,
        Policy::LeastConnections,
        Policy::Random,
        Policy::Hash,
    ];

    fn shares<const N: usize>(shares: [u32; N]) -> [Load; N] {
        let mut name = 0;
        shares.map(|share| {
            name += 1;
            Load { share, name: rendezvous::mix(name), ..Load::default() }
        })
    }

    fn draws() -> impl Iterator<Item = Draw> {
        (0_u64..).map(|n| {
            let random = |salt: u64| rendezvous::mix(n.wrapping_mul(3) ^ (salt << 60));
            Draw { random: [random(1), random(2)], key: Some(random(3)) }
        })
    }

    /// How often each is chosen when nothing lasts.
    fn count<const N: usize>(policy: Policy, loads: &[Load; N], times: usize) -> [usize; N] {
        let (mut balance, mut count) = (Balance::new(policy), [0; N]);
        for draw in draws().take(times) {
            count[balance.choose(loads, draw).unwrap()] += 1;
        }
        count
    }

    #[test]
    fn a_group_has_an_answer_exactly_if_it_has_a_share() {
        for policy in ALL {
            let mut balance = Balance::new(policy);
            for draw in draws().take(100) {
                assert_eq!(balance.choose(&[], draw), None);
                assert_eq!(balance.choose(&shares([0, 0]), draw), None);
                assert_eq!(balance.choose(&shares([0, 3, 0]), draw), Some(1));
                let mut busy = shares([0, 3, 0]);
                busy[1].in_flight = 9_999;
                assert_eq!(balance.choose(&busy, draw), Some(1), "{policy:?}");
            }
        }
    }

    #[test]
    fn words_and_policies_are_the_same_list() {
        let words: Vec<&str> = ALL.iter().map(|policy| policy.word()).collect();
        assert_eq!(words, Policy::WORDS);
        assert!(ALL.iter().all(|policy| Policy::from_word(policy.word()) == Some(*policy)));
    }

    #[test]
    fn turns_are_smooth_and_by_weight() {
        let mut balance = Balance::new(Policy::RoundRobin);
        let turns: Vec<usize> =
            draws().take(8).map(|d| balance.choose(&shares([2, 1, 1]), d).unwrap()).collect();
        assert_eq!(turns, [0, 1, 2, 0, 0, 1, 2, 0]);
    }

    #[test]
    fn what_comes_back_is_not_owed_the_turns_that_it_missed() {
        let mut balance = Balance::new(Policy::RoundRobin);
        for draw in draws().take(50) {
            balance.choose(&shares([1, 0]), draw);
        }
        let turns: Vec<usize> =
            draws().take(6).map(|d| balance.choose(&shares([1, 1]), d).unwrap()).collect();
        assert_eq!(turns, [0, 1, 0, 1, 0, 1]);
    }

    #[test]
    fn random_and_hash_go_by_weight() {
        for policy in [Policy::Random, Policy::Hash] {
            let [a, b] = count(policy, &shares([1, 3]), 8_000);
            assert!((1_800..2_200).contains(&a), "{policy:?} {a} {b}");
        }
    }

    #[test]
    fn sessions_level_out() {
        for policy in [Policy::LeastConnections, Policy::PeakEwma] {
            let (mut balance, mut loads) = (Balance::new(policy), shares([1, 1, 2, 0]));
            loads[0].in_flight = 50;
            for draw in draws().take(350) {
                loads[balance.choose(&loads, draw).unwrap()].in_flight += 1;
            }
            let sessions: Vec<u32> = loads.iter().map(|load| load.in_flight).collect();
            let close = |have: u32, want: u32| have.abs_diff(want) <= 12;
            assert!(close(sessions[0], 100) && close(sessions[1], 100), "{policy:?} {sessions:?}");
            assert!(close(sessions[2], 200) && sessions[3] == 0, "{policy:?} {sessions:?}");
        }
    }

    #[test]
    fn what_is_slow_gets_little_before_it_fails() {
        let mut loads = shares([1, 1, 1]);
        for (load, latency_us) in loads.iter_mut().zip([1_000, 1_000, 50_000]) {
            load.latency_us = latency_us;
        }
        // Only when both of the two are the slow one, which cannot be.
        assert_eq!(count(Policy::PeakEwma, &loads, 3_000)[2], 0);
        loads[0].in_flight = 60;
        loads[1].in_flight = 60;
        assert!(count(Policy::PeakEwma, &loads, 3_000)[2] > 1_000, "but not when the rest is full");
    }

    #[test]
    fn what_is_not_measured_counts_as_slow_as_the_other() {
        let mut loads = shares([1, 1]);
        loads[0].latency_us = 3_000;
        loads[1].in_flight = 1;
        assert_eq!(count(Policy::PeakEwma, &loads, 200), [200, 0]);
    }

    /// The endpoint that stalled once is no reason to drown the others.
    #[test]
    fn however_slow_one_is_the_other_does_not_drown() {
        let mut loads = shares([1, 1]);
        (loads[0].latency_us, loads[1].latency_us) = (10_000_000, 5_000);
        let mut balance = Balance::new(Policy::PeakEwma);
        for draw in draws().take(340) {
            loads[balance.choose(&loads, draw).unwrap()].in_flight += 1;
        }
        assert!((18..=22).contains(&loads[0].in_flight), "{loads:?}");
    }

    /// A slow start with nothing measured of late, beside one that has all the work.
    #[test]
    fn who_starts_slowly_gets_little_however_fast_it_was() {
        let now = Timestamp(60_000_000);
        let mut before = Latency::default();
        before.sample(Duration::from_micros(1), Timestamp(1));
        let mut loads = shares([100, 1]);
        (loads[0].latency_us, loads[0].in_flight) = (5_000, 5);
        loads[1].latency_us = before.mean_us(now);
        let mut balance = Balance::new(Policy::PeakEwma);
        for draw in draws().take(100) {
            loads[balance.choose(&loads, draw).unwrap()].in_flight += 1;
        }
        assert!(loads[1].in_flight <= 10, "{loads:?}");
    }

    #[test]
    fn another_zone_is_used_when_this_one_is_full_or_mostly_gone() {
        let mut loads = shares([1, 1, 1, 1]);
        loads[2].far = true;
        loads[3].far = true;
        for policy in
            [Policy::PeakEwma, Policy::RoundRobin, Policy::LeastConnections, Policy::Random]
        {
            let [.., c, d] = count(policy, &loads, 500);
            assert_eq!(c + d, 0, "{policy:?}");
        }
        for policy in [Policy::PeakEwma, Policy::LeastConnections] {
            let mut busy = loads;
            (busy[0].in_flight, busy[1].in_flight) = (40, 40);
            let [a, b, c, d] = count(policy, &busy, 500);
            assert!(c + d > 300, "{policy:?} {a} {b} {c} {d}");
        }
        for policy in [Policy::RoundRobin, Policy::Random] {
            let mut little = shares([0, 1, 2, 3]);
            (little[2].far, little[3].far) = (true, true);
            let [_, b, c, d] = count(policy, &little, 600);
            assert!(b < 150 && c + d > 450, "{policy:?} {b} {c} {d}");
        }
    }

    #[test]
    fn a_popular_key_does_not_drown_its_endpoint() {
        let (mut balance, mut loads) = (Balance::new(Policy::Hash), shares([1, 1, 1, 1]));
        let draw = Draw { key: Some(7), ..Draw::default() };
        let first = balance.choose(&loads, draw).unwrap();
        assert!((0..10).all(|_| balance.choose(&loads, draw) == Some(first)));
        for _ in 0..400 {
            loads[balance.choose(&loads, draw).unwrap()].in_flight += 1;
        }
        assert!(loads.iter().all(|load| load.in_flight <= 126), "{loads:?}");
        assert!(loads[first].in_flight >= 124, "{loads:?}");
    }

    #[test]
    fn a_key_stays_where_it_is_while_there_is_little_to_do() {
        let (mut balance, mut loads) = (Balance::new(Policy::Hash), shares([1, 1, 1]));
        let draw = Draw { key: Some(7), ..Draw::default() };
        let first = balance.choose(&loads, draw).unwrap();
        for _ in 0..HASH_ROOM_MIN {
            assert_eq!(balance.choose(&loads, draw), Some(first), "{loads:?}");
            loads[first].in_flight += 1;
        }
    }

    #[test]
    fn what_has_no_key_is_spread_by_cost() {
        let mut loads = shares([1, 1, 1]);
        loads[2].in_flight = 40;
        let (mut balance, mut count) = (Balance::new(Policy::Hash), [0; 3]);
        for draw in draws().take(400) {
            count[balance.choose(&loads, Draw { key: None, ..draw }).unwrap()] += 1;
        }
        assert!(count[0] > 100 && count[1] > 100 && count[2] == 0, "{count:?}");
    }

    /// One request after the other: nothing is in flight when the next one comes.
    #[test]
    fn where_there_is_little_to_do_each_does_its_share() {
        for policy in [Policy::PeakEwma, Policy::LeastConnections] {
            let mut loads = shares([100, 300]);
            let few = count(policy, &loads, 4000)[0];
            assert!((900..1100).contains(&few), "{policy:?}: {few}");
            // One that starts slowly, though it is a little quicker.
            loads = shares([10, 100]);
            (loads[0].latency_us, loads[1].latency_us) = (90, 100);
            let few = count(policy, &loads, 4000)[0];
            assert!((280..450).contains(&few), "{policy:?}: {few}");
            loads[1].in_flight = 1;
            let busy = count(policy, &loads, 1000)[0];
            let due = if policy == Policy::LeastConnections { 1000..=1000 } else { 100..=250 };
            assert!(due.contains(&busy), "{policy:?}: {busy}");
        }
        let mut loads = shares([100, 300]);
        loads[1].latency_us = 1_000;
        loads[0].latency_us = 100;
        assert_eq!(count(Policy::PeakEwma, &loads, 1000)[0], 1000, "so much quicker");
    }

    #[test]
    fn one_that_is_silent_gets_what_the_others_cannot_take() {
        let mut loads = shares([1, 1]);
        (loads[0].latency_us, loads[1].latency_us) = (100, 5_000_000);
        (loads[0].is_silent, loads[0].in_flight) = (true, 2);
        assert_eq!(count(Policy::PeakEwma, &loads, 100), [0, 100], "however quick it was");
        loads[1].in_flight = 3 * 16;
        assert_eq!(count(Policy::PeakEwma, &loads, 100), [100, 0], "it has room, if it lives");
        loads[1].is_silent = true;
        loads[1].in_flight = 2;
        assert_eq!(count(Policy::PeakEwma, &loads, 100), [100, 0], "both are: as ever");
    }
}
