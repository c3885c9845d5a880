//! Talks to everything of a balancer that shares its endpoints: sessions, checks, names, operators.
//! In: choices and events. Out: `Claim`, conditions, `Snapshot`.
//! Costs per choice: one lock, a look at each endpoint. Shares are computed anew only when an event
//! or time changes them.
//! Not here: the rules (`tandem_core::clustering::load_balanced`).
//! Tested by: `tests.rs`.

use super::BalancerConfig;
use super::snapshot::EndpointSnapshot;
use crate::runtime::clock;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tandem_core::clustering::load_balanced::balance::{Balance, Draw, Load, Policy};
use tandem_core::clustering::load_balanced::ejection::{self, Condition, Event};
use tandem_core::clustering::load_balanced::latency::Latency;
use tandem_core::clustering::load_balanced::rendezvous;
use tandem_core::ids::ServiceId;
use tandem_core::time::Timestamp;
use tokio::sync::{Notify, watch};

/// One endpoint, for as long as somebody uses it.
#[derive(Debug)]
pub(in crate::proxy) struct Member {
    pub(in crate::proxy) address: SocketAddr,
    weight: AtomicU32,
    far: AtomicBool,
    name: u64,
    /// What a client's cookie says.
    token: AtomicU64,
    in_flight: AtomicU32,
    /// Told when work ends.
    freed: Arc<Notify>,
    latency: Mutex<Latency>,
    served: AtomicU64,
    failed: AtomicU64,
    ejected: AtomicU64,
    /// What went wrong last.
    failure: Mutex<Option<String>>,
}

impl Member {
    /// It has one more connection or response, after so long.
    pub(in crate::proxy) fn connected_in(&self, took: Duration) {
        self.served.fetch_add(1, Ordering::Relaxed);
        self.took(took);
    }

    /// How long something took there.
    pub(in crate::proxy) fn took(&self, took: Duration) {
        lock(&self.latency).sample(took, clock::now());
    }

    /// What a client's cookie says that belongs here.
    pub(in crate::proxy) fn token(&self) -> u64 {
        self.token.load(Ordering::Relaxed)
    }

    fn hide(&self, secret: &[u8; 32]) {
        let hash = blake3::keyed_hash(secret, self.address.to_string().as_bytes());
        let [a, b, c, d, e, f, g, h, ..] = *hash.as_bytes();
        self.token.store(u64::from_be_bytes([a, b, c, d, e, f, g, h]), Ordering::Relaxed);
    }

    /// Something went wrong, for operators.
    pub(in crate::proxy) fn failed_because(&self, why: impl Into<String>) {
        *lock(&self.failure) = Some(why.into());
    }
}

/// A place at an endpoint, until dropped.
#[derive(Debug)]
pub(in crate::proxy) struct Claim(pub(in crate::proxy) Arc<Member>);

impl Drop for Claim {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::AcqRel);
        self.0.freed.notify_one();
    }
}

/// What somebody wants of an endpoint.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::proxy) struct Wish<'a> {
    /// The hash of what it belongs to, for `Policy::Hash`; none: to nothing.
    pub(in crate::proxy) key: Option<u64>,
    /// Better none of these.
    pub(in crate::proxy) avoid: &'a [SocketAddr],
    /// This one, if it may serve: where the client was before.
    pub(in crate::proxy) token: Option<u64>,
    /// One that has less in flight; 0 is no bound.
    pub(in crate::proxy) in_flight_max: u32,
}

/// An address that the group shall have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::proxy) struct Wanted {
    pub(in crate::proxy) address: SocketAddr,
    pub(in crate::proxy) weight: u32,
    pub(in crate::proxy) far: bool,
    pub(in crate::proxy) drain: bool,
}

#[derive(Debug)]
struct State {
    health: ejection::Group,
    balance: Balance,
    policy: Policy,
    members: Vec<Arc<Member>>,
    /// What the members were made from.
    wanted: Vec<Wanted>,
    shares: Vec<u32>,
    /// When they have to be computed anew.
    shares_until: Option<Timestamp>,
    /// Room for what a choice looks at.
    loads: Vec<Load>,
    /// With which tokens are made.
    secret: [u8; 32],
}

/// The endpoints of one balancer.
#[derive(Debug)]
pub(in crate::proxy) struct Group {
    service: ServiceId,
    state: Mutex<State>,
    unresolved: Mutex<Vec<String>>,
    /// Moves when somebody may have come into service.
    changed: watch::Sender<()>,
    /// Told when work ends somewhere.
    freed: Arc<Notify>,
}

impl Group {
    pub(in crate::proxy) fn new(config: &BalancerConfig) -> Self {
        let state = State {
            health: ejection::Group::new(&[], config.limits, config.check.is_some()),
            balance: Balance::new(config.policy),
            policy: config.policy,
            members: Vec::new(),
            wanted: Vec::new(),
            shares: Vec::new(),
            shares_until: None,
            loads: Vec::new(),
            secret: secret(config),
        };
        let changed = watch::Sender::new(());
        let freed = Arc::new(Notify::new());
        Self {
            service: config.service.clone(),
            state: Mutex::new(state),
            unresolved: Mutex::default(),
            changed,
            freed,
        }
    }

    /// Wakes one of those who wait for an endpoint that has less in flight.
    pub(in crate::proxy) fn freed(&self) -> &Notify {
        &self.freed
    }

    /// Wakes those who wait for an endpoint.
    pub(in crate::proxy) fn changed(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// When a share changes with nothing but time.
    pub(in crate::proxy) fn deadline(&self) -> Option<Timestamp> {
        lock(&self.state).shares_until
    }

    /// A place at an endpoint that is not in `avoid`, or, if all are, at any.
    pub(in crate::proxy) fn choose(&self, key: u64, avoid: &[SocketAddr]) -> Option<Claim> {
        self.pick(Wish { key: Some(key), avoid, ..Wish::default() })
    }

    /// A place at the endpoint that suits the wish best; none if nobody serves, or all are full.
    pub(in crate::proxy) fn pick(&self, wish: Wish<'_>) -> Option<Claim> {
        let mut state = lock(&self.state);
        let now = clock::now();
        if state.shares_until.is_some_and(|until| now >= until) {
            state.compute(now);
        }
        let State { balance, members, shares, loads, .. } = &mut *state;
        let load = |(member, share): (&Arc<Member>, &u32)| {
            let in_flight = member.in_flight.load(Ordering::Relaxed);
            let is_full = wish.in_flight_max > 0 && in_flight >= wish.in_flight_max;
            Load {
                share: if is_full { 0 } else { *share },
                in_flight,
                latency_us: lock(&member.latency).mean_us(now),
                far: member.far.load(Ordering::Relaxed),
                name: member.name,
            }
        };
        loads.clear();
        loads.extend(members.iter().zip(&*shares).map(load));
        let fresh = |member: &Arc<Member>| !wish.avoid.contains(&member.address);
        let before = wish.token.and_then(|token| members.iter().position(|m| m.token() == token));
        let before = before.filter(|at| loads[*at].share > 0 && fresh(&members[*at]));
        let others = members.iter().zip(&*loads).any(|(m, load)| load.share > 0 && fresh(m));
        if others {
            for (member, load) in members.iter().zip(&mut *loads) {
                load.share = if fresh(member) { load.share } else { 0 };
            }
        }
        let draw = Draw { random: [rand::random(), rand::random()], key: wish.key };
        let member = &members[before.or_else(|| balance.choose(loads, draw))?];
        member.in_flight.fetch_add(1, Ordering::AcqRel);
        Some(Claim(Arc::clone(member)))
    }

    /// Takes note of what became of an endpoint.
    pub(in crate::proxy) fn note(&self, member: &Member, event: Event) {
        if event == Event::WorkFailed {
            member.failed.fetch_add(1, Ordering::Relaxed);
        }
        let mut state = lock(&self.state);
        let now = clock::now();
        let Some(at) = state.members.iter().position(|m| m.address == member.address) else {
            return;
        };
        if !state.health.step(at, event, now) {
            return;
        }
        state.compute(now);
        let condition = state.health.condition(at, now);
        drop(state);
        if let Some(Condition::Ejected(_)) = condition {
            member.ejected.fetch_add(1, Ordering::Relaxed);
        }
        let (service, address) = (&self.service, member.address);
        tracing::info!(%service, %address, ?condition, cause = ?event, "endpoint changed");
        self.changed.send_replace(());
    }

    /// Every endpoint.
    pub(in crate::proxy) fn members(&self) -> Vec<Arc<Member>> {
        lock(&self.state).members.clone()
    }

    pub(in crate::proxy) fn in_flight(&self) -> BTreeMap<SocketAddr, u32> {
        let count = |it: &Arc<Member>| (it.address, it.in_flight.load(Ordering::Acquire));
        lock(&self.state).members.iter().map(count).collect()
    }

    /// Goes on with these addresses; what stays keeps its past and its connections.
    pub(in crate::proxy) fn replace(&self, wanted: &[Wanted]) {
        let mut state = lock(&self.state);
        if state.wanted == wanted {
            return;
        }
        let now = clock::now();
        let (mut members, mut kept) = (Vec::new(), Vec::new());
        for wanted in wanted {
            let before = state.members.iter().position(|m| m.address == wanted.address);
            let member = before.map(|at| Arc::clone(&state.members[at]));
            let member =
                member.unwrap_or_else(|| Arc::new(self.member(wanted.address, &state.secret)));
            member.weight.store(wanted.weight, Ordering::Relaxed);
            member.far.store(wanted.far, Ordering::Relaxed);
            members.push(member);
            kept.push((wanted.weight, before));
        }
        state.health.replace(&kept, now);
        for (at, wanted) in wanted.iter().enumerate() {
            let is_draining = state.health.condition(at, now) == Some(Condition::Draining);
            if is_draining != wanted.drain {
                let event = if wanted.drain { Event::Drained } else { Event::Undrained };
                state.health.step(at, event, now);
            }
        }
        state.members = members;
        state.wanted = wanted.to_vec();
        state.compute(now);
        drop(state);
        tracing::info!(service = %self.service, endpoints = wanted.len(), "endpoints replaced");
        self.changed.send_replace(());
    }

    /// Names that stand for nothing yet.
    pub(in crate::proxy) fn unresolved(&self) -> MutexGuard<'_, Vec<String>> {
        lock(&self.unresolved)
    }

    /// Goes on with other rules.
    pub(in crate::proxy) fn configure(&self, config: &BalancerConfig) {
        let mut state = lock(&self.state);
        let now = clock::now();
        state.health.configure(config.limits, config.check.is_some(), now);
        if state.policy != config.policy {
            state.policy = config.policy;
            state.balance = Balance::new(config.policy);
        }
        state.secret = secret(config);
        state.members.iter().for_each(|member| member.hide(&state.secret));
        state.compute(now);
        drop(state);
        self.changed.send_replace(());
    }

    fn member(&self, address: SocketAddr, secret: &[u8; 32]) -> Member {
        let member = Member {
            address,
            weight: AtomicU32::new(1),
            far: AtomicBool::new(false),
            name: rendezvous::hash(address.to_string().as_bytes()),
            token: AtomicU64::new(0),
            in_flight: AtomicU32::new(0),
            freed: Arc::clone(&self.freed),
            latency: Mutex::default(),
            served: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            ejected: AtomicU64::new(0),
            failure: Mutex::default(),
        };
        member.hide(secret);
        member
    }

    /// Every endpoint as it is now.
    pub(in crate::proxy) fn snapshot(&self) -> Vec<EndpointSnapshot> {
        let state = lock(&self.state);
        let now = clock::now();
        let shares = state.health.shares(now);
        let endpoint = |(at, member): (usize, &Arc<Member>)| {
            let condition = state.health.condition(at, now)?;
            let ejected_for = match condition {
                Condition::Ejected(until) => Some(until.since(now)),
                _ => None,
            };
            let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
            Some(EndpointSnapshot {
                address: member.address,
                condition,
                ejected_for,
                weight: member.weight.load(Ordering::Relaxed),
                far: member.far.load(Ordering::Relaxed),
                share_percent: shares[at] / member.weight.load(Ordering::Relaxed).max(1),
                in_flight: member.in_flight.load(Ordering::Relaxed),
                latency_us: lock(&member.latency).mean_us(now),
                served: count(&member.served),
                failed: count(&member.failed),
                ejected: count(&member.ejected),
                failure: lock(&member.failure).clone(),
            })
        };
        state.members.iter().enumerate().filter_map(endpoint).collect()
    }
}

impl State {
    fn compute(&mut self, now: Timestamp) {
        self.shares = self.health.shares(now);
        self.shares_until = self.health.deadline(now);
    }
}

fn secret(config: &BalancerConfig) -> [u8; 32] {
    config.http.as_ref().map_or([0; 32], |http| http.secret)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing here leaves a value half changed when it panics.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
