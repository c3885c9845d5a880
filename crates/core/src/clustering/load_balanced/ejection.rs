//! Decides which endpoints of a group get work, from checks that ask them and from what became of
//! the work that they got.
//! In: `Event`, each endpoint's `Pace`. Out: shares, and each endpoint's `Condition` with its
//! reason.
//! States of an endpoint: unknown → up ⇄ down by checks; in service ⇄ ejected by its work, each
//! time for longer; after either it comes back slowly. Draining is an operator's word.
//! Keeps: INV-7, what is ejected for its work is never the last that is up, nor more than the
//! permitted share of the group. A check's word counts to the last: what refuses connections serves
//! nobody, and clients are held.
//! Not here: who of those in service is chosen (`balance.rs`), the checks themselves (the shell).
//! Tested by: below, and the simulator's storms of endpoints.

pub mod ending;
mod slow;

pub use slow::Slow;

use crate::time::Timestamp;
use alloc::vec::Vec;
use core::time::Duration;

/// What a weight of 1 counts in shares, so that slow start has steps.
const SHARE_UNIT: u32 = 100;
/// With fewer results in a window, a success rate says nothing.
const RATE_VOLUME_MIN: u32 = 20;

/// When an endpoint is out, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// So many checks in a row fail: down. At least 1.
    pub fall: u32,
    /// So many checks in a row succeed: up again. At least 1. The first check ever decides alone.
    pub rise: u32,
    /// So many pieces of work in a row fail: ejected. 0 is never.
    pub failures: u32,
    /// Less than this succeeds within a window: ejected. In percent; 0 is never.
    pub success_percent_min: u32,
    /// Takes more than so many times what the others take: ejected. 0 is never.
    pub latency_times: u32,
    /// How long results count together.
    pub window: Duration,
    /// How long the first ejection lasts; the next ones twice, three times, ...
    pub ejection: Duration,
    /// The longest ejection.
    pub ejection_max: Duration,
    /// At most so much of the group is ejected at once, in percent of its endpoints.
    pub ejected_percent_max: u32,
    /// What comes back gets its whole share after this time.
    pub slow_start: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            fall: 3,
            rise: 2,
            failures: 5,
            success_percent_min: 50,
            latency_times: 0,
            window: Duration::from_secs(10),
            ejection: Duration::from_secs(10),
            ejection_max: Duration::from_secs(300),
            ejected_percent_max: 50,
            slow_start: Duration::from_secs(10),
        }
    }
}

/// Something was learnt about an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// A check was answered as it should.
    CheckSucceeded,
    /// A check was not.
    CheckFailed,
    /// A piece of work went well.
    WorkSucceeded,
    /// A piece of work failed, by the endpoint's fault.
    WorkFailed,
    /// No new work, by an operator's word.
    Drained,
    /// The operator's word is taken back.
    Undrained,
}

/// What an endpoint is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Condition {
    /// Not checked yet: used while nothing is known to be up.
    Unknown,
    /// Gets its share.
    Up,
    /// Gets a growing part of its share.
    Starting,
    /// Failed its checks.
    Down,
    /// Out for its work's results, until then.
    Ejected(Timestamp),
    /// Gets no new work, by an operator's word.
    Draining,
}

impl Condition {
    /// Known to be able to work.
    pub const fn is_in_service(self) -> bool {
        matches!(self, Self::Up | Self::Starting)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Checked {
    Not,
    Up,
    Down,
}

#[derive(Clone, Debug)]
struct Endpoint {
    weight: u32,
    checked: Checked,
    /// Checks in a row that contradict `checked`.
    contrary: u32,
    draining: bool,
    failures: u32,
    window: Window,
    ejections: u32,
    ejected_until: Option<Timestamp>,
    /// When it came back; none: it did not have to.
    back_at: Option<Timestamp>,
}

#[derive(Clone, Copy, Debug)]
struct Window {
    from: Timestamp,
    succeeded: u32,
    failed: u32,
}

/// A group of endpoints.
#[derive(Clone, Debug)]
pub struct Group {
    limits: Limits,
    checks: bool,
    endpoints: Vec<Endpoint>,
}

impl Group {
    /// A group of endpoints with these weights. Without `checks` all count as up.
    pub fn new(weights: &[u32], limits: Limits, checks: bool) -> Self {
        let endpoints = weights.iter().map(|weight| Endpoint::new(*weight, checks)).collect();
        Self { limits, checks, endpoints }
    }

    /// Goes on with other endpoints: each has a weight, and is the one at that index so far or new.
    /// A new one in a group that works starts slowly.
    pub fn replace(&mut self, members: &[(u32, Option<usize>)], now: Timestamp) {
        let works = self
            .endpoints
            .iter()
            .enumerate()
            .any(|(at, _)| self.condition(at, now).is_some_and(Condition::is_in_service));
        let member = |(weight, before): &(u32, Option<usize>)| match before
            .and_then(|at| self.endpoints.get(at))
        {
            Some(before) => Endpoint { weight: *weight, ..before.clone() },
            None => {
                let back_at = works.then_some(now);
                Endpoint { back_at, ..Endpoint::new(*weight, self.checks) }
            }
        };
        self.endpoints = members.iter().map(member).collect();
    }

    /// Goes on with other limits, and with or without checks. What was known stays known; without
    /// checks nothing is down.
    pub fn configure(&mut self, limits: Limits, checks: bool, now: Timestamp) {
        self.limits = limits;
        self.checks = checks;
        for endpoint in self.endpoints.iter_mut().filter(|_| !checks) {
            if endpoint.checked == Checked::Down {
                endpoint.come_back(now);
            }
            endpoint.checked = Checked::Up;
            endpoint.contrary = 0;
        }
    }

    /// Takes note of an event at an endpoint; whether its condition changed. An endpoint that is
    /// not there changes nothing.
    pub fn step(&mut self, at: usize, event: Event, now: Timestamp) -> bool {
        let Some(before) = self.condition(at, now) else { return false };
        match event {
            Event::CheckSucceeded => self.check(at, Checked::Up, now),
            Event::CheckFailed => self.check(at, Checked::Down, now),
            Event::WorkSucceeded => self.endpoints[at].succeeded(now, self.limits.window),
            Event::WorkFailed => self.failed(at, now),
            Event::Drained => self.endpoints[at].draining = true,
            Event::Undrained => {
                self.endpoints[at].draining = false;
                self.endpoints[at].come_back(now);
            }
        }
        self.condition(at, now) != Some(before)
    }

    /// What an endpoint is in; none if there is no such endpoint.
    pub fn condition(&self, at: usize, now: Timestamp) -> Option<Condition> {
        let endpoint = self.endpoints.get(at)?;
        Some(match endpoint.checked {
            _ if endpoint.draining => Condition::Draining,
            Checked::Down => Condition::Down,
            Checked::Not => Condition::Unknown,
            Checked::Up => match endpoint.ejected_until {
                Some(until) if until > now => Condition::Ejected(until),
                _ if endpoint.ramp(now, self.limits.slow_start).is_some() => Condition::Starting,
                _ => Condition::Up,
            },
        })
    }

    /// How much of the work each may get now. All 0 only if all are down or draining.
    ///
    /// What is up serves; else what is not known to be down; else what was ejected, for bad work is
    /// better than none (INV-7).
    pub fn shares(&self, now: Timestamp) -> Vec<u32> {
        let unknown = |condition| matches!(condition, Condition::Unknown);
        let ejected = |condition| matches!(condition, Condition::Ejected(_));
        let mut shares = self.shares_if(now, Condition::is_in_service);
        for fallback in [unknown as fn(Condition) -> bool, ejected] {
            if shares.iter().all(|share| *share == 0) {
                shares = self.shares_if(now, fallback);
            }
        }
        shares
    }

    /// When a share changes with nothing but time, if it will: a moment at which to ask again.
    pub fn deadline(&self, now: Timestamp) -> Option<Timestamp> {
        let step = self.limits.slow_start / SHARE_UNIT;
        let next = |at: usize| match self.condition(at, now)? {
            Condition::Ejected(until) => Some(until),
            Condition::Starting => Some(now.plus(step.max(Duration::from_millis(1)))),
            Condition::Unknown | Condition::Up | Condition::Down | Condition::Draining => None,
        };
        (0..self.endpoints.len()).filter_map(next).min()
    }

    fn shares_if(&self, now: Timestamp, may: impl Fn(Condition) -> bool) -> Vec<u32> {
        let share = |(at, endpoint): (usize, &Endpoint)| {
            if !self.condition(at, now).is_some_and(&may) {
                return 0;
            }
            let percent = endpoint.ramp(now, self.limits.slow_start).unwrap_or(100);
            (endpoint.weight.saturating_mul(SHARE_UNIT) / 100).saturating_mul(percent)
        };
        self.endpoints.iter().enumerate().map(share).collect()
    }

    fn check(&mut self, at: usize, found: Checked, now: Timestamp) {
        if !self.checks {
            return;
        }
        let endpoint = &mut self.endpoints[at];
        if endpoint.checked == found {
            endpoint.contrary = 0;
            return;
        }
        endpoint.contrary += 1;
        let needed = match (endpoint.checked, found) {
            (Checked::Not, _) => 1,
            (_, Checked::Down) => self.limits.fall,
            (_, Checked::Up | Checked::Not) => self.limits.rise,
        };
        if endpoint.contrary < needed {
            return;
        }
        if endpoint.checked == Checked::Down {
            endpoint.come_back(now);
        }
        endpoint.checked = found;
        endpoint.contrary = 0;
    }

    fn failed(&mut self, at: usize, now: Timestamp) {
        // What is out already, for whatever reason, is judged anew when it comes back.
        if !self.condition(at, now).is_some_and(Condition::is_in_service) {
            return;
        }
        let limits = self.limits;
        let endpoint = &mut self.endpoints[at];
        let window = endpoint.current_window(now, limits.window);
        window.failed += 1;
        let Window { succeeded, failed, .. } = *window;
        endpoint.failures += 1;
        let all = succeeded + failed;
        let in_a_row = limits.failures > 0 && endpoint.failures >= limits.failures;
        let by_rate = all >= RATE_VOLUME_MIN
            && u64::from(succeeded) * 100 < u64::from(all) * u64::from(limits.success_percent_min);
        if (in_a_row || by_rate) && self.may_eject(at, now) {
            self.endpoints[at].eject(now, &limits);
        }
    }

    /// Whether enough is left without it (INV-7).
    fn may_eject(&self, at: usize, now: Timestamp) -> bool {
        let conditions = || {
            (0..self.endpoints.len())
                .filter(|other| *other != at)
                .filter_map(|other| self.condition(other, now))
        };
        let left = conditions().any(Condition::is_in_service);
        let ejected = conditions().filter(|c| matches!(c, Condition::Ejected(_))).count() + 1;
        let bound = self.endpoints.len() * self.limits.ejected_percent_max as usize;
        // One may always go: half of three is one, and so is half of two.
        left && (ejected == 1 || ejected * 100 <= bound)
    }
}

impl Endpoint {
    const fn new(weight: u32, checks: bool) -> Self {
        Self {
            weight,
            checked: if checks { Checked::Not } else { Checked::Up },
            contrary: 0,
            draining: false,
            failures: 0,
            window: Window { from: Timestamp(0), succeeded: 0, failed: 0 },
            ejections: 0,
            ejected_until: None,
            back_at: None,
        }
    }

    fn current_window(&mut self, now: Timestamp, length: Duration) -> &mut Window {
        if now.since(self.window.from) >= length {
            self.window = Window { from: now, succeeded: 0, failed: 0 };
        }
        &mut self.window
    }

    fn succeeded(&mut self, now: Timestamp, window: Duration) {
        self.current_window(now, window).succeeded += 1;
        self.failures = 0;
    }

    fn eject(&mut self, now: Timestamp, limits: &Limits) {
        // What behaved for as long as it was out the last time begins anew.
        let last = limits.ejection.saturating_mul(self.ejections).min(limits.ejection_max);
        if self.back_at.is_some_and(|back| now.since(back) > last.max(limits.ejection)) {
            self.ejections = 0;
        }
        self.ejections += 1;
        let out = limits.ejection.saturating_mul(self.ejections).min(limits.ejection_max);
        self.come_back(now.plus(out));
        self.ejected_until = Some(now.plus(out));
    }

    /// Old results do not count against it.
    fn come_back(&mut self, at: Timestamp) {
        self.back_at = Some(at);
        self.ejected_until = None;
        self.failures = 0;
        self.window = Window { from: at, succeeded: 0, failed: 0 };
    }

    /// Percent of its share during a slow start; none outside of one. Never 0, or nothing would
    /// ever be learnt about it.
    fn ramp(&self, now: Timestamp, slow_start: Duration) -> Option<u32> {
        let passed = now.since(self.back_at?).as_micros();
        let whole = slow_start.as_micros();
        (passed < whole).then(|| u32::try_from(passed * 100 / whole).unwrap_or(100).max(1))
    }
}

#[cfg(test)]
mod tests;
