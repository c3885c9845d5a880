//! A few clients at each of several doors, each of which asks again once it has its answer, and an
//! endpoint that takes all that it is asked and answers nothing, or takes long: no check tells of
//! it, and another one is still known for having done so before.

use crate::door::Mutation;
use crate::world::Random;
use crate::{BEGIN, DOORS};
use std::time::Duration;
use tandem_core::clustering::load_balanced::balance::{Balance, Draw, Load, Policy};
use tandem_core::clustering::load_balanced::latency::{Latency, Round};
use tandem_core::time::Timestamp;

/// Of each kind.
const STORIES: u64 = 60;
const STEP: Duration = Duration::from_micros(250);
const ENDPOINTS: usize = 3;
/// At each door.
const CLIENTS: usize = 3;
/// Between an answer and what is asked next.
const PAUSE: Duration = Duration::from_millis(5);
/// How long each story lasts.
const LASTS: Duration = Duration::from_secs(3);
/// What a slow one takes.
const SLOW: Duration = Duration::from_millis(250);
/// Nobody gets an answer for so long: an outage.
const OUTAGE: Duration = Duration::from_millis(100);

/// What a client waits for.
struct Asked {
    at: usize,
    since: Timestamp,
    /// None: it hangs.
    until: Option<Timestamp>,
    round: Round,
}

enum Client {
    Pauses(Timestamp),
    Waits(Asked),
}

/// A door, and those who are at it.
struct Few {
    balance: Balance,
    latency: [Latency; ENDPOINTS],
    clients: Vec<Client>,
}

impl Few {
    fn loads(&self, mutation: Mutation, now: Timestamp) -> Vec<Load> {
        let load = |(at, latency): (usize, &Latency)| Load {
            share: 100,
            in_flight: self.at(at) + latency.failing(now),
            latency_us: latency.mean_us(now),
            is_silent: mutation != Mutation::SilenceIsQuick && latency.is_silent(now),
            ..Load::default()
        };
        self.latency.iter().enumerate().map(load).collect()
    }

    fn at(&self, at: usize) -> u32 {
        let is_there = |it: &&Client| matches!(it, Client::Waits(asked) if asked.at == at);
        u32::try_from(self.clients.iter().filter(is_there).count()).unwrap()
    }
}

struct Story {
    doors: Vec<Few>,
    /// How many each had in all.
    worked: [u64; ENDPOINTS],
    random: Random,
    mutation: Mutation,
    now: Timestamp,
}

/// Most take a millisecond or so, a few take long: by these the others look slow beside one whose
/// last answers were quick.
fn usual(random: u64) -> Option<Duration> {
    let micros = if random.is_multiple_of(100) { 20_000 } else { 300 + random % 1_500 };
    Some(Duration::from_micros(micros))
}

impl Story {
    fn new(seed: u64, mutation: Mutation) -> Self {
        let door = || Few {
            balance: Balance::new(Policy::PeakEwma),
            latency: [Latency::default(); ENDPOINTS],
            clients: (0..CLIENTS).map(|_| Client::Pauses(BEGIN)).collect(),
        };
        Self {
            doors: std::iter::repeat_with(door).take(DOORS).collect(),
            worked: [0; ENDPOINTS],
            random: Random(seed << 32),
            mutation,
            now: BEGIN,
        }
    }

    /// The longest time in which nobody got an answer. `took`: how long each takes, from a random
    /// number; none: until a run in which it does not hang.
    fn run(&mut self, took: impl Fn(usize, u64) -> Option<Duration>) -> Duration {
        let until = self.now.plus(LASTS);
        let (mut answered_at, mut longest) = (self.now, Duration::ZERO);
        while self.now < until {
            self.now = self.now.plus(STEP);
            for door in 0..self.doors.len() {
                for client in 0..CLIENTS {
                    if self.step((door, client), &took) {
                        longest = longest.max(self.now.since(answered_at));
                        answered_at = self.now;
                    }
                }
            }
        }
        longest.max(self.now.since(answered_at))
    }

    /// True if that client has an answer.
    fn step(
        &mut self,
        (door, client): (usize, usize),
        took: impl Fn(usize, u64) -> Option<Duration>,
    ) -> bool {
        let now = self.now;
        match &self.doors[door].clients[client] {
            Client::Pauses(until) if *until > now => false,
            Client::Pauses(_) => {
                let loads = self.doors[door].loads(self.mutation, now);
                let random = [self.random.next(), self.random.next()];
                let draw = Draw { random, key: None };
                let few = &mut self.doors[door];
                let at = few.balance.choose(&loads, draw).unwrap();
                let round = few.latency[at].asked(now);
                let until = took(at, self.random.next()).map(|took| now.plus(took));
                few.clients[client] = Client::Waits(Asked { at, since: now, until, round });
                false
            }
            Client::Waits(asked) => {
                let (at, since, round) = (asked.at, asked.since, asked.round);
                // What hung goes on once its endpoint does.
                let over = match asked.until {
                    Some(until) => until <= now,
                    None => took(at, 0).is_some(),
                };
                if over {
                    let few = &mut self.doors[door];
                    match self.mutation {
                        Mutation::LateIsSlow => {
                            few.latency[at].spoke(now);
                            few.latency[at].sample(now.since(since), now);
                        }
                        _ => few.latency[at].answered(round, now.since(since), now),
                    }
                    few.clients[client] = Client::Pauses(now.plus(PAUSE));
                    self.worked[at] += 1;
                }
                over
            }
        }
    }

    /// All that wait there leave.
    fn leave(&mut self, at: usize) {
        for few in &mut self.doors {
            let Few { latency, clients, .. } = few;
            for client in clients {
                if let Client::Waits(asked) = client
                    && asked.at == at
                {
                    latency[at].left(asked.round);
                    *client = Client::Pauses(self.now);
                }
            }
        }
    }
}

const fn hangs(which: usize) -> impl Fn(usize, u64) -> Option<Duration> {
    move |at, random| if at == which { None } else { usual(random) }
}

/// How many of the faults of one story were an outage for all.
fn outages(seed: u64, mutation: Mutation) -> u32 {
    let mut story = Story::new(seed, mutation);
    let mut outages = 0;
    let mut count = |longest: Duration| outages += u32::from(longest > OUTAGE);
    story.run(|_, random| usual(random));
    count(story.run(hangs(0)));
    // Its answers were three seconds late, and it is known for that.
    story.run(|_, random| usual(random));
    count(story.run(hangs(1)));
    // Clients lose patience, and come back.
    story.leave(1);
    count(story.run(hangs(1)));
    story.run(|_, random| usual(random));
    count(story.run(|at, random| if at == 2 { Some(SLOW) } else { usual(random) }));
    outages
}

/// In how many of these stories something was an outage.
fn hanging(seeds: u64, mutation: Mutation) -> usize {
    (0..seeds).filter(|seed| outages(*seed, mutation) > 0).count()
}

#[test]
fn an_endpoint_that_hangs_or_is_slow_does_not_draw_all_clients() {
    assert_eq!(hanging(STORIES, Mutation::None), 0);
    assert!(hanging(STORIES, Mutation::SilenceIsQuick) > 0);
    assert!(hanging(STORIES, Mutation::LateIsSlow) > STORIES as usize / 2);
}

/// An endpoint that hung gets its part again.
#[test]
fn who_hung_is_not_shunned_for_long() {
    for seed in 0..STORIES {
        let mut story = Story::new(seed, Mutation::None);
        story.run(hangs(0));
        for _ in 0..20 {
            story.run(|_, random| usual(random));
        }
        story.worked = [0; ENDPOINTS];
        story.run(|_, random| usual(random));
        let fair = story.worked.iter().sum::<u64>() / ENDPOINTS as u64;
        assert!(story.worked[0] * 2 >= fair, "seed {seed}: {:?}", story.worked);
    }
}

/// Nobody is silent for longer than the others are.
#[test]
fn long_polls_are_spread_as_before() {
    for seed in 0..STORIES {
        let mut story = Story::new(seed, Mutation::None);
        for _ in 0..40 {
            story.run(|_, random| Some(Duration::from_millis(500 + random % 5_000)));
        }
        let fair = story.worked.iter().sum::<u64>() / ENDPOINTS as u64;
        assert!(story.worked.iter().all(|it| it * 2 >= fair), "seed {seed}: {:?}", story.worked);
    }
}
