//! A few clients, each of which asks again once it has its answer, and an endpoint that takes all
//! that it is asked and answers nothing: no check tells of it.

use crate::door::{Mutation, Random};
use crate::{BEGIN, SEEDS};
use std::time::Duration;
use tandem_core::clustering::load_balanced::balance::{Balance, Draw, Load, Policy};
use tandem_core::clustering::load_balanced::latency::{Latency, Round};
use tandem_core::time::Timestamp;

const STEP: Duration = Duration::from_millis(1);
/// Before one of them hangs.
const WELL: Duration = Duration::from_secs(2);
/// And after.
const HUNG: Duration = Duration::from_secs(4);
/// What a client waits for.
struct Asked {
    at: usize,
    since: Timestamp,
    until: Timestamp,
    round: Round,
}

struct Few {
    balance: Balance,
    latency: Vec<Latency>,
    clients: Vec<Option<Asked>>,
    /// How many each had in all.
    worked: Vec<u64>,
    random: Random,
    mutation: Mutation,
    now: Timestamp,
}

impl Few {
    fn new(seed: u64, mutation: Mutation) -> Self {
        let mut random = Random(seed << 32);
        let mut some = |least: u64, most: u64| {
            usize::try_from(least + random.below(most + 1 - least)).unwrap()
        };
        let (endpoints, clients) = (some(2, 5), some(4, 12));
        Self {
            balance: Balance::new(Policy::PeakEwma),
            latency: vec![Latency::default(); endpoints],
            clients: std::iter::repeat_with(|| None).take(clients).collect(),
            worked: vec![0; endpoints],
            random,
            mutation,
            now: BEGIN,
        }
    }

    fn at(&self, at: usize) -> usize {
        self.clients.iter().flatten().filter(|asked| asked.at == at).count()
    }

    /// `took`: how long each takes, from a random number; none: for ever.
    fn run(&mut self, length: Duration, took: impl Fn(usize, u64) -> Option<Duration>) {
        let until = self.now.plus(length);
        while self.now < until {
            self.now = self.now.plus(STEP);
            for client in 0..self.clients.len() {
                if let Some(asked) = self.clients[client].take_if(|asked| asked.until <= self.now) {
                    let latency = &mut self.latency[asked.at];
                    latency.answered();
                    latency.sample(self.now.since(asked.since), self.now);
                    self.worked[asked.at] += 1;
                }
                if self.clients[client].is_none() {
                    self.ask(client, &took);
                }
            }
        }
    }

    fn ask(&mut self, client: usize, took: impl Fn(usize, u64) -> Option<Duration>) {
        let load = |(at, latency): (usize, &Latency)| Load {
            share: 100,
            in_flight: u32::try_from(self.at(at)).unwrap() + latency.failing(self.now),
            latency_us: latency.mean_us(self.now),
            ..Load::default()
        };
        let loads: Vec<Load> = self.latency.iter().enumerate().map(load).collect();
        let random = [self.random.next(), self.random.next()];
        let at = self.balance.choose(&loads, Draw { random, key: None }).unwrap();
        let round = match self.mutation {
            Mutation::SilenceIsQuick => Round::default(),
            _ => self.latency[at].asked(self.now),
        };
        let took = took(at, self.random.next());
        let until = took.map_or(Timestamp(u64::MAX), |took| self.now.plus(took));
        self.clients[client] = Some(Asked { at, since: self.now, until, round });
    }

    /// All that wait there leave.
    fn leave(&mut self, at: usize) {
        for client in &mut self.clients {
            if let Some(asked) = client.take_if(|asked| asked.at == at) {
                self.latency[at].left(asked.round, self.now);
            }
        }
    }
}

/// Most take a few milliseconds, a few take long: by these the others look slow beside one whose
/// last answer was quick.
fn usual(random: u64) -> Option<Duration> {
    let millis = if random.is_multiple_of(40) { 60 } else { 1 + random % 5 };
    Some(Duration::from_millis(millis))
}

pub fn hanging(seed: u64, mutation: Mutation) {
    let mut few = Few::new(seed, mutation);
    few.run(WELL, |_, random| usual(random));
    let had = few.at(0);
    few.run(HUNG, |at, random| if at == 0 { None } else { usual(random) });
    let (stuck, all) = (few.at(0), few.clients.len());
    let most = (all * 3 / 4).max(had);
    assert!(stuck <= most, "seed {seed}: {stuck} of {all} wait there, {had} did before");
    // They lose patience, and come back: it is remembered for a while.
    few.leave(0);
    few.run(Duration::from_secs(1), |at, random| if at == 0 { None } else { usual(random) });
    let stuck = few.at(0);
    assert!(stuck <= all * 3 / 4, "seed {seed}: {stuck} of {all} wait there again");
    // It goes on, and gets its part again.
    few.leave(0);
    few.run(Duration::from_secs(20), |_, random| usual(random));
    few.worked.fill(0);
    few.run(Duration::from_secs(10), |_, random| usual(random));
    let fair = few.worked.iter().sum::<u64>() / few.worked.len() as u64;
    assert!(few.worked[0] * 2 >= fair, "seed {seed}: {:?}", few.worked);
}

#[test]
fn an_endpoint_that_hangs_draws_few_clients() {
    for seed in 0..SEEDS {
        hanging(seed, Mutation::None);
    }
}

/// Nobody is silent for longer than the others are.
#[test]
fn long_polls_are_spread_as_before() {
    for seed in 0..SEEDS {
        let mut few = Few::new(seed, Mutation::None);
        few.run(Duration::from_secs(120), |_, random| {
            Some(Duration::from_millis(500 + random % 5_000))
        });
        let fair = few.worked.iter().sum::<u64>() / few.worked.len() as u64;
        assert!(few.worked.iter().all(|it| it * 2 >= fair), "seed {seed}: {:?}", few.worked);
    }
}
