//! Decides whether a request that failed may be sent once more.
//! In: requests and wishes for a retry, each with its moment. Out: yes or no.
//! Retries help while few requests fail. When all fail they are the load that keeps a service from
//! coming back, so they are paid from a budget: a part of each request, and a few in every second.
//! Keeps: in any span of time there are at most `percent` of its requests, plus `floor_per_second`
//! for its length, plus `SAVED_SECONDS` of either, retries; and two for each that is known to have
//! gone well.
//! Not here: whether a request may be repeated at all (the shell knows what was sent).
//! Tested by: below.

use crate::time::Timestamp;

/// What one retry costs: a request earns `percent` of this, the floor the rest.
const COST: u64 = 100;
/// What is saved up at most: the floor of so many seconds, or the worth of so many requests.
const SAVED_SECONDS: u64 = 10;
const SAVED_REQUESTS: u64 = 1_000;
const MICROS: u64 = 1_000_000;

/// How many retries there may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// So many per 100 requests; at most 100.
    pub percent: u32,
    /// And so many per second, so that a service with few requests has some.
    pub floor_per_second: u32,
}

impl Default for Limits {
    /// As in Finagle and linkerd: a fifth more load is what a service of any size stands.
    fn default() -> Self {
        Self { percent: 20, floor_per_second: 10 }
    }
}

/// What is left for retries.
#[derive(Clone, Copy, Debug)]
pub struct Budget {
    limits: Limits,
    /// Earned by requests and not spent.
    earned: u64,
    /// Given by the floor and not spent, in millionths of `COST` parts.
    given: u64,
    at: Timestamp,
}

impl Budget {
    /// Begins with one second of the floor: a service that was just opened may retry.
    pub fn new(limits: Limits, now: Timestamp) -> Self {
        let given = u64::from(limits.floor_per_second) * COST * MICROS;
        Self { limits, earned: 0, given, at: now }
    }

    /// Goes on with other limits.
    pub fn limit(&mut self, limits: Limits) {
        self.limits = limits;
        self.earned = self.earned.min(self.earned_max());
        self.given = self.given.min(self.given_max());
    }

    /// A request came.
    pub fn request(&mut self) {
        let percent = u64::from(self.limits.percent).min(COST);
        self.earned = (self.earned + percent).min(self.earned_max());
    }

    /// Whether one may be sent again; if so, it is paid for.
    pub fn retry(&mut self, now: Timestamp) -> bool {
        let passed = u64::try_from(now.since(self.at).as_micros()).unwrap_or(u64::MAX);
        let per_micro = u64::from(self.limits.floor_per_second) * COST;
        self.given = passed.saturating_mul(per_micro).saturating_add(self.given);
        self.given = self.given.min(self.given_max());
        self.at = self.at.max(now);
        if self.earned >= COST {
            self.earned -= COST;
            return true;
        }
        let paid = self.given >= COST * MICROS;
        if paid {
            self.given -= COST * MICROS;
        }
        paid
    }

    /// One that was paid for went well: it was no load on what is down. Its cost comes back, and as
    /// much again, so that those who wait for a service that is there again come in twice as many
    /// with each round.
    pub fn worked(&mut self) {
        let room = self.earned_max().saturating_sub(self.earned);
        let earned = room.min(2 * COST);
        self.earned += earned;
        self.given = (self.given + (2 * COST - earned) * MICROS).min(self.given_max());
    }

    fn earned_max(&self) -> u64 {
        u64::from(self.limits.percent).min(COST) * SAVED_REQUESTS
    }

    fn given_max(&self) -> u64 {
        u64::from(self.limits.floor_per_second) * COST * MICROS * SAVED_SECONDS
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;

    const LIMITS: Limits = Limits { percent: 20, floor_per_second: 10 };

    fn retries(budget: &mut Budget, wishes: u32, now: Timestamp) -> u32 {
        (0..wishes).map(|_| u32::from(budget.retry(now))).sum()
    }

    #[test]
    fn a_fifth_of_the_requests_and_a_few_per_second() {
        let start = Timestamp(5 * MICROS);
        let mut budget = Budget::new(LIMITS, start);
        assert_eq!(retries(&mut budget, 100, start), 10, "one second of the floor");
        for _ in 0..500 {
            budget.request();
        }
        assert_eq!(retries(&mut budget, 500, start), 100);
        let later = Timestamp(7 * MICROS);
        assert_eq!(retries(&mut budget, 500, later), 20, "two seconds of the floor");
        assert_eq!(retries(&mut budget, 500, start), 0, "time that goes back gives nothing");
    }

    #[test]
    fn quiet_hours_are_not_saved_up() {
        let mut budget = Budget::new(LIMITS, Timestamp(0));
        for _ in 0..1_000_000 {
            budget.request();
        }
        let later = Timestamp(3_600 * MICROS);
        assert_eq!(retries(&mut budget, 10_000, later), 200 + 100);
    }

    #[test]
    fn nothing_is_given_where_nothing_is_allowed() {
        let none = Limits { percent: 0, floor_per_second: 0 };
        let mut budget = Budget::new(none, Timestamp(0));
        budget.request();
        assert!(!budget.retry(Timestamp(u64::MAX)));
        budget.limit(LIMITS);
        assert!(!budget.retry(Timestamp(u64::MAX)));
        let mut budget =
            Budget::new(Limits { percent: u32::MAX, floor_per_second: 0 }, Timestamp(0));
        budget.request();
        assert!(budget.retry(Timestamp(0)), "100 percent is one for one");
        assert!(!budget.retry(Timestamp(0)));
    }

    /// Thousands wait for a service that is down: it hears little of them, and once it is there all
    /// come in within a few rounds.
    #[test]
    fn what_went_well_pays_for_twice_as_many() {
        let mut budget = Budget::new(LIMITS, Timestamp(0));
        assert_eq!(retries(&mut budget, 5_000, Timestamp(MICROS)), 20);
        let (mut waiting, mut now, mut rounds) = (5_000, Timestamp(MICROS), 0);
        while waiting > 0 {
            now = Timestamp(now.0 + MICROS / 10);
            let served = retries(&mut budget, waiting, now);
            (0..served).for_each(|_| budget.worked());
            (waiting, rounds) = (waiting - served, rounds + 1);
        }
        assert!((8..30).contains(&rounds), "{rounds}");
        let mut none = Budget::new(Limits { percent: 0, floor_per_second: 10 }, now);
        assert_eq!(retries(&mut none, 50, now), 10);
        none.worked();
        assert_eq!(retries(&mut none, 50, now), 2, "the floor saves it up where nothing else does");
    }

    /// In every span of a random history, however it is cut.
    #[test]
    fn amplification_stays_within_the_budget() {
        let mut random = 0x9e37_79b9_7f4a_7c15_u64;
        let mut draw = move |below: u64| {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            random % below
        };
        for _ in 0..60 {
            let percent = u32::try_from(draw(101)).unwrap();
            let floor_per_second = u32::try_from(draw(30)).unwrap();
            let limits = Limits { percent, floor_per_second };
            let mut now = Timestamp(draw(1_000_000));
            let mut budget = Budget::new(limits, now);
            let (mut history, mut seen) = (Vec::new(), (0_u64, 0_u64, 0_u64));
            for _ in 0..400 {
                let longest = if draw(10) == 0 { 4_000_000 } else { 20_000 };
                now = Timestamp(now.0 + draw(longest));
                for _ in 0..draw(30) {
                    budget.request();
                    seen.0 += 1;
                }
                for _ in 0..draw(60) {
                    let paid = budget.retry(now);
                    seen.1 += u64::from(paid);
                    if paid && draw(8) == 0 {
                        budget.worked();
                        seen.2 += 1;
                    }
                }
                history.push((now, seen));
            }
            for (at, (from, before)) in history.iter().enumerate().step_by(7) {
                for (to, after) in &history[at..] {
                    let requests = after.0 - before.0;
                    let seconds = (to.0 - from.0).div_ceil(MICROS);
                    let floor = u64::from(floor_per_second);
                    let saved = u64::from(percent) * SAVED_REQUESTS / 100 + floor * SAVED_SECONDS;
                    let earned = requests * u64::from(percent) / 100 + 2 * (after.2 - before.2);
                    let allowed = earned + floor * seconds + saved + 1;
                    assert!(after.1 - before.1 <= allowed, "{limits:?} {requests} {seconds}");
                }
            }
        }
    }
}
