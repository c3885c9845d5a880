//! A node's balancer before endpoints that are well or not, without sockets.

use crate::world::Random;
use crate::{BEGIN, LIMITS, RETRIES};
use std::time::Duration;
use tandem_core::clustering::load_balanced::attempts::{Attempts, Failure, Next, PACE};
use tandem_core::clustering::load_balanced::balance::{Balance, Draw, Load, Policy};
use tandem_core::clustering::load_balanced::ejection::{Condition, Event, Group, Limits};
use tandem_core::clustering::load_balanced::latency::Latency;
use tandem_core::clustering::load_balanced::pace::{Pace, Recent};
use tandem_core::clustering::load_balanced::rendezvous::hash;
use tandem_core::clustering::load_balanced::retry::Budget;
use tandem_core::time::Timestamp;

/// How long a client waits for an endpoint.
const HOLD_MAX: Duration = Duration::from_secs(10);

/// What is done wrong, to see that it is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutation {
    None,
    /// Bad work is not better than none.
    LastIsEjected,
    /// Any number may be out at once.
    AllAreEjected,
    /// What was slow once counts as slow for ever.
    PeaksNeverFade,
    /// Retries are not paid for.
    NoBudget,
    /// What fails at once counts as quick.
    FailuresAreQuick,
    /// Nobody knows where a request was before.
    ForgetsAttempts,
    /// Another zone is as near as the own.
    NobodyIsFar,
    /// Another zone gets nothing, whatever becomes of the own.
    StaysNear,
    /// How long things take is not looked at.
    NobodyIsSlow,
    /// What takes long is slow, whatever the others take.
    SlowIsAbsolute,
    /// What answers nothing counts as it did when it answered last.
    SilenceIsQuick,
    /// Who was answered late after a silence measured how long the next will take.
    LateIsSlow,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    Good,
    /// Works, and takes so many times as long.
    Slow(u32),
    /// Takes no connections, nor checks.
    Refuses,
    /// Takes connections and checks, and does nothing with them.
    Drops,
}

/// What a choice comes to.
enum Choice {
    Endpoint(usize),
    /// Everybody who serves has failed it.
    Tried(Vec<u32>),
    Nobody,
}

/// A client that is being served, and where it was, as it is seen from outside.
struct Request {
    attempts: Attempts<usize>,
    key: u64,
    is_repeatable: bool,
    /// When it is tried again.
    next: Timestamp,
    /// When it is told that nobody took it.
    until: Timestamp,
    refused: Vec<usize>,
    have_it: Vec<usize>,
}

impl Request {
    pub fn new(key: u64, is_repeatable: bool, now: Timestamp) -> Self {
        let (refused, have_it) = (Vec::new(), Vec::new());
        let attempts = Attempts::default();
        Self {
            attempts,
            key,
            is_repeatable,
            next: now,
            until: now.plus(HOLD_MAX),
            refused,
            have_it,
        }
    }

    /// Whether an endpoint may be asked, by what happened and not by what `attempts` says.
    fn verify(&self, at: usize) {
        assert!(!self.have_it.contains(&at), "{at} gets a request twice");
        assert!(self.have_it.len() < 3, "one request is sent four times");
        assert!(!self.refused.contains(&at), "{at} is asked again before the others");
    }

    fn next_round(&mut self, shares: &[u32]) -> Next {
        let was_tried = |at: &usize| self.refused.contains(at) || self.have_it.contains(at);
        assert!((0..shares.len()).all(|at| shares[at] == 0 || was_tried(&at)), "{shares:?}");
        self.refused.clear();
        self.attempts.next_round()
    }

    fn note(&mut self, at: usize, how: Failure) {
        match how {
            Failure::Refused | Failure::Declined => self.refused.push(at),
            Failure::Misdirected | Failure::Gone => {}
            Failure::Stale | Failure::Broke => self.have_it.push(at),
        }
    }
}

fn limits(mutation: Mutation) -> Limits {
    let ejected_percent_max = if mutation == Mutation::AllAreEjected { 100 } else { 50 };
    Limits { ejected_percent_max, ..LIMITS }
}

/// A node's balancer, as `proxy/balancer` is, without sockets.
pub struct Door {
    pub group: Group,
    balance: Balance,
    latency: Vec<Latency>,
    /// Which of them are in another zone.
    pub far: Vec<bool>,
    recent: Vec<Recent>,
    /// Sessions that end at a moment, by endpoint.
    open: Vec<Vec<Timestamp>>,
    pub worked: Vec<u64>,
    pub asked: Vec<u64>,
    pub attempts: u64,
    pub clients: u64,
    pub unserved: u64,
    /// How often somebody was out for being slow.
    ejected: u64,
    /// There where requests are balanced: a connection that fails carried nothing, and costs none.
    pub budget: Option<Budget>,
    /// What will be tried again.
    waiting: Vec<Request>,
    requests: u64,
    retries: u64,
    /// The slowest that each ever was.
    worst_us: Vec<u64>,
    mutation: Mutation,
}

impl Door {
    pub fn new(size: usize, (policy, checks): (Policy, bool), mutation: Mutation) -> Self {
        Self {
            budget: None,
            waiting: Vec::new(),
            requests: 0,
            retries: 0,
            worst_us: vec![0; size],
            mutation,
            group: Group::new(&vec![1; size], limits(mutation), checks),
            balance: Balance::new(policy),
            latency: vec![Latency::default(); size],
            far: vec![false; size],
            recent: vec![Recent::default(); size],
            open: vec![Vec::new(); size],
            worked: vec![0; size],
            asked: vec![0; size],
            attempts: 0,
            clients: 0,
            unserved: 0,
            ejected: 0,
        }
    }

    /// They get as much as they weigh.
    pub fn weigh(&mut self, weights: &[u32], checks: bool) {
        self.group = Group::new(weights, limits(self.mutation), checks);
    }

    pub fn check(&mut self, health: &[Health], now: Timestamp) {
        for (at, health) in health.iter().enumerate() {
            let answers = *health != Health::Refuses;
            let event = if answers { Event::CheckSucceeded } else { Event::CheckFailed };
            self.group.step(at, event, now);
        }
    }

    /// One client: what carried nothing is tried at another endpoint, and so is what was dropped
    /// if it may be repeated.
    pub fn serve(&mut self, health: &[Health], random: &mut Random, now: Timestamp) {
        self.clients += 1;
        self.requests += 1;
        self.budget.iter_mut().for_each(Budget::request);
        let is_repeatable = self.budget.is_some() && random.below(2) == 0;
        let key = random.next();
        self.go_on(Request::new(key, is_repeatable, now), (health, random), now);
    }

    /// Those whose pause is over.
    pub fn resume(&mut self, health: &[Health], random: &mut Random, now: Timestamp) {
        let (due, waiting) =
            std::mem::take(&mut self.waiting).into_iter().partition(|it| it.next <= now);
        self.waiting = waiting;
        for request in due {
            self.go_on(request, (health, random), now);
        }
    }

    fn go_on(
        &mut self,
        mut request: Request,
        (health, random): (&[Health], &mut Random),
        now: Timestamp,
    ) {
        loop {
            if self.mutation == Mutation::ForgetsAttempts {
                request.attempts = Attempts::default();
            }
            let next = match self.choose(&request, random, now) {
                Choice::Tried(shares) => request.next_round(&shares),
                Choice::Nobody => Next::Over,
                Choice::Endpoint(at) => match self.ask(at, &mut request, health[at], now) {
                    None => return,
                    Some(next) => next,
                },
            };
            match next {
                Next::AtOnce => {}
                Next::Paced if now < request.until => {
                    request.next = now.plus(PACE);
                    self.waiting.push(request);
                    return;
                }
                Next::Paced | Next::Over => {
                    self.unserved += 1;
                    return;
                }
            }
        }
    }

    fn choose(&mut self, request: &Request, random: &mut Random, now: Timestamp) -> Choice {
        let shares = self.shares(now);
        let load = |(at, share): (usize, &u32)| Load {
            share: if request.attempts.may_ask(&at) { *share } else { 0 },
            in_flight: u32::try_from(self.open[at].len()).unwrap() + self.latency[at].failing(now),
            latency_us: match self.mutation {
                Mutation::PeaksNeverFade => self.worst_us[at],
                _ => self.latency[at].mean_us(now),
            },
            // A session here is answered once it begins, and what takes long has begun.
            is_silent: false,
            far: self.far[at] && self.mutation != Mutation::NobodyIsFar,
            name: hash(&at.to_be_bytes()),
        };
        let loads: Vec<Load> = shares.iter().enumerate().map(load).collect();
        let draw = Draw { random: [random.next(), random.next()], key: Some(request.key) };
        match self.balance.choose(&loads, draw) {
            Some(at) => {
                request.verify(at);
                Choice::Endpoint(at)
            }
            None if shares.iter().any(|share| *share > 0) => Choice::Tried(shares),
            None => Choice::Nobody,
        }
    }

    /// None: it is served.
    fn ask(
        &mut self,
        at: usize,
        request: &mut Request,
        health: Health,
        now: Timestamp,
    ) -> Option<Next> {
        self.attempts += 1;
        self.asked[at] += 1;
        let how = match health {
            Health::Good => {
                self.work(at, 1, now);
                return None;
            }
            Health::Slow(times) => {
                self.work(at, times, now);
                return None;
            }
            Health::Refuses => Failure::Refused,
            Health::Drops => Failure::Broke,
        };
        self.failed(at, now);
        request.note(at, how);
        if how == Failure::Broke && !request.is_repeatable {
            return Some(Next::Over);
        }
        let Self { budget, retries, mutation, .. } = self;
        Some(request.attempts.failed(at, how, || {
            let Some(budget) = budget else { return true };
            let may = budget.retry(now) || *mutation == Mutation::NoBudget;
            *retries += u64::from(may);
            may
        }))
    }

    fn shares(&self, now: Timestamp) -> Vec<u32> {
        let mut shares = self.group.shares(now);
        for (at, share) in shares.iter_mut().enumerate() {
            let ejected = matches!(self.group.condition(at, now), Some(Condition::Ejected(_)));
            let stays_near = self.mutation == Mutation::StaysNear && self.far.contains(&false);
            if self.mutation == Mutation::LastIsEjected && ejected || stays_near && self.far[at] {
                *share = 0;
            }
        }
        shares
    }

    fn failed(&mut self, at: usize, now: Timestamp) {
        self.group.step(at, Event::WorkFailed, now);
        if self.mutation != Mutation::FailuresAreQuick {
            self.latency[at].failed(now);
        }
    }

    fn work(&mut self, at: usize, times: u32, now: Timestamp) {
        let took = Duration::from_micros(300) * times;
        self.latency[at].sample(took, now);
        self.recent[at].sample(took, now);
        self.worst_us[at] = self.worst_us[at].max(u64::from(times) * 300);
        self.open[at].push(now.plus(Duration::from_millis(60) * times));
        self.worked[at] += 1;
    }

    /// Once a second.
    pub fn judge(&mut self, now: Timestamp) {
        let pace = |recent: &mut Recent| recent.pace(now, LIMITS.window);
        let mut paces: Vec<Option<Pace>> = self.recent.iter_mut().map(pace).collect();
        if self.mutation == Mutation::SlowIsAbsolute {
            let mut known = paces.iter_mut().flatten();
            // As if one of the others took no time.
            known.next().iter_mut().for_each(|pace| pace.median_us = 1);
        }
        if self.mutation != Mutation::NobodyIsSlow {
            self.ejected += self.group.judge(&paces, now).len() as u64;
        }
    }

    /// How often somebody was ejected for being slow.
    pub fn out(&self) -> u64 {
        self.ejected
    }

    pub fn end(&mut self, now: Timestamp) {
        for at in 0..self.open.len() {
            let before = self.open[at].len();
            self.open[at].retain(|until| *until > now);
            for _ in self.open[at].len()..before {
                self.group.step(at, Event::WorkSucceeded, now);
            }
        }
    }

    /// The own zone has enough that work stays there.
    pub fn stays_near(&self) -> bool {
        let near = self.far.iter().filter(|far| !**far).count();
        near > 0 && near * 2 >= self.far.len() - near
    }

    /// What those of its own zone, or of another, worked.
    pub fn worked_by(&self, far: bool) -> Vec<u64> {
        let all = self.worked.iter().zip(&self.far);
        all.filter(|(_, is_far)| **is_far == far).map(|(worked, _)| *worked).collect()
    }

    /// What must be true at every moment.
    pub fn verify(&self, now: Timestamp, seed: u64) {
        let size = self.open.len();
        let conditions: Vec<Condition> =
            (0..size).filter_map(|at| self.group.condition(at, now)).collect();
        let refused = |c: &Condition| matches!(c, Condition::Down | Condition::Draining);
        let serves = self.shares(now).iter().any(|share| *share > 0);
        let may = !conditions.iter().all(refused);
        assert_eq!(serves, may, "seed {seed}: the last one was ejected: {conditions:?}");
        let out = conditions.iter().filter(|c| matches!(c, Condition::Ejected(_))).count();
        assert!(out <= 1.max(size / 2), "seed {seed}: too many were ejected: {conditions:?}");
        // From the first request on: a part of them, the floor of the time, and its first second.
        let seconds = now.since(BEGIN).as_millis().div_ceil(1_000);
        let floor = (u64::try_from(seconds).unwrap() + 1) * u64::from(RETRIES.floor_per_second);
        let most = self.requests * u64::from(RETRIES.percent) / 100 + floor;
        assert!(self.retries <= most, "seed {seed}: {} retries, not {most}", self.retries);
    }
}
