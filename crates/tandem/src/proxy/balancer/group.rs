//! Talks to everything of a balancer that shares its endpoints: sessions, checks, names, operators.
//! In: choices and events. Out: `Claim`, conditions, `Snapshot`.
//! Costs per choice: one lock, a look at each endpoint. Shares are computed anew only when an event
//! or time changes them.
//! Not here: the rules (`tandem_core::clustering::load_balanced`).
//! Tested by: `tests.rs`.

mod known;
mod sweep;

use super::BalancerConfig;
use super::member::leaving::Cuts;
use super::member::{Bounds, Claim, Member};
use super::owners::Owners;
use super::snapshot::EndpointSnapshot;
use super::waiting::{Freed, Waiter, Waiting};
use crate::runtime::clock;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use tandem_core::clustering::load_balanced::attempts::Attempts;
use tandem_core::clustering::load_balanced::balance::{Balance, Draw, Load, Policy};
use tandem_core::clustering::load_balanced::ejection::{self, Condition, Event};
use tandem_core::clustering::load_balanced::line::Line;
use tandem_core::ids::ServiceId;
use tandem_core::time::Timestamp;
use tokio::sync::watch;

/// What somebody wants of an endpoint.
#[derive(Clone, Copy, Debug)]
pub(in crate::proxy) struct Wish<'a> {
    /// The hash of what it belongs to, for `Policy::Hash` and for owners; none: to nothing.
    pub(in crate::proxy) key: Option<u64>,
    /// Where it was already.
    pub(in crate::proxy) attempts: &'a Attempts<SocketAddr>,
    /// This one, if it may serve: where the client was before.
    pub(in crate::proxy) token: Option<u64>,
    /// One that has less in flight; 0 is no bound.
    pub(in crate::proxy) in_flight_max: u32,
    /// If there is none, to wait for it with so many at most.
    pub(in crate::proxy) held_max: usize,
}

/// What a wish comes to.
#[derive(Debug)]
pub(in crate::proxy) enum Picked {
    /// A place at an endpoint.
    Place(Claim),
    /// Everybody who serves has failed it.
    Tried,
    /// Nobody serves, or all are full: so it waits for its turn.
    Wait(Waiting),
    /// More wait than may.
    Full,
}

/// An address that the group shall have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::proxy) struct Wanted {
    /// As its owner wrote it: a name stands for many.
    pub(in crate::proxy) upstream: Arc<str>,
    pub(in crate::proxy) address: SocketAddr,
    pub(in crate::proxy) weight: u32,
    pub(in crate::proxy) far: bool,
    pub(in crate::proxy) drain: bool,
}

#[derive(Debug)]
pub(super) struct State {
    health: ejection::Group,
    balance: Balance,
    policy: Policy,
    limits: ejection::Limits,
    pub(super) members: Vec<Arc<Member>>,
    /// What is no longer listed and still has work.
    gone: Vec<Arc<Member>>,
    bounds: Bounds,
    /// What the members were made from.
    wanted: Vec<Wanted>,
    shares: Vec<u32>,
    /// When they have to be computed anew.
    shares_until: Option<Timestamp>,
    /// Room for what a choice looks at.
    loads: Vec<Load>,
    /// With which tokens are made.
    secret: [u8; 32],
    pub(super) line: Line<Waiter>,
    /// There if each part of the work has one endpoint.
    pub(super) owners: Option<Owners>,
}

/// The endpoints of one balancer.
#[derive(Debug)]
pub(in crate::proxy) struct Group {
    service: ServiceId,
    pub(super) state: Mutex<State>,
    unresolved: Mutex<Vec<String>>,
    /// By which names addresses were found.
    hosts: Mutex<BTreeMap<SocketAddr, Arc<str>>>,
    /// What all nodes call what this one reaches there.
    agreed: Mutex<BTreeMap<SocketAddr, Arc<str>>>,
    /// Moves when somebody may have come into service.
    pub(super) changed: watch::Sender<()>,
    cuts: Cuts,
    /// Told when work ends somewhere.
    freed: Arc<Freed>,
    me: Weak<Self>,
}

impl Group {
    pub(in crate::proxy) fn new(config: &BalancerConfig) -> Arc<Self> {
        let state = State {
            health: ejection::Group::new(&[], config.limits, config.check.is_some()),
            balance: Balance::new(config.policy),
            policy: config.policy,
            limits: config.limits,
            members: Vec::new(),
            gone: Vec::new(),
            bounds: Bounds::of(config),
            wanted: Vec::new(),
            shares: Vec::new(),
            shares_until: None,
            loads: Vec::new(),
            secret: secret(config),
            line: Line::default(),
            owners: config.partitions.map(Owners::new),
        };
        let changed = watch::Sender::new(());
        Arc::new_cyclic(|me| Self {
            service: config.service.clone(),
            state: Mutex::new(state),
            unresolved: Mutex::default(),
            hosts: Mutex::default(),
            agreed: Mutex::default(),
            changed,
            cuts: Cuts::default(),
            freed: Arc::new(Freed::new(me.clone())),
            me: me.clone(),
        })
    }

    /// Wakes those who wait for an endpoint.
    pub(in crate::proxy) fn changed(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// When a share changes with nothing but time.
    pub(in crate::proxy) fn deadline(&self) -> Option<Timestamp> {
        let state = lock(&self.state);
        let waits_at = |at| state.line.waits_at(at);
        let gates = state.owners.as_ref().and_then(|owners| owners.deadline(waits_at));
        state.shares_until.into_iter().chain(gates).min()
    }

    /// Whether that is now, or was.
    pub(in crate::proxy) fn is_due(&self) -> bool {
        self.deadline().is_some_and(|at| at <= clock::now())
    }

    /// A place at the endpoint that suits the wish best, or in the line of those who wait for one.
    pub(in crate::proxy) fn ask(&self, wish: Wish<'_>) -> Picked {
        let mut state = lock(&self.state);
        let at = state.only_place(wish);
        if !state.line.is_before(at)
            && let Some(picked) = state.pick(wish)
        {
            return picked;
        }
        let (waiter, given) = Waiter::new(wish);
        let Some(ticket) = state.line.join(at, waiter, wish.held_max) else {
            return Picked::Full;
        };
        self.freed.count(state.line.len());
        drop(state);
        // Work may have ended since, and have told nobody.
        self.serve_line();
        Picked::Wait(Waiting::new(self.me.clone(), ticket, given))
    }

    /// Gives what there is to those who wait, in the order in which they came.
    pub(super) fn serve_line(&self) {
        let mut state = lock(&self.state);
        let mut line = std::mem::take(&mut state.line);
        let in_flight_max = state.bounds.in_flight_max;
        let served = line.serve(|waiter| state.pick(waiter.wish(in_flight_max)));
        state.line = line;
        self.freed.count(state.line.len());
        drop(state);
        for (waiter, picked) in served {
            // Whoever has left meanwhile leaves the place to the next.
            drop(waiter.give.send(picked));
        }
    }

    pub(super) fn leave_line(&self, ticket: u64) {
        let mut state = lock(&self.state);
        let left = state.line.leave(ticket);
        self.freed.count(state.line.len());
        drop(state);
        drop(left);
    }

    /// Takes note of what became of an endpoint.
    pub(in crate::proxy) fn note(&self, member: &Member, event: Event) {
        if event == Event::WorkFailed {
            member.failed();
        }
        let mut state = lock(&self.state);
        let now = clock::now();
        let is_it = |it: &Arc<Member>| std::ptr::eq(&**it, member);
        let Some(at) = state.members.iter().position(is_it) else { return };
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
        let is_same = |it: &Arc<Member>| it.agreed == self.agreed_name(it.address);
        if state.wanted == wanted && state.members.iter().all(is_same) {
            return;
        }
        let now = clock::now();
        let (mut members, mut kept) = (Vec::new(), Vec::new());
        for wanted in wanted {
            // What is there by another name is another one.
            let is_it = |m: &Arc<Member>| m.address == wanted.address && is_same(m);
            let before = state.members.iter().position(is_it);
            let member = match before {
                Some(at) => Arc::clone(&state.members[at]),
                None => self.member(wanted.address, &state),
            };
            member.call(&wanted.upstream);
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
            let leaving = &members[at].leaving;
            if wanted.drain { leaving.begin(now) } else { leaving.stay() }
        }
        let before = std::mem::replace(&mut state.members, members);
        state.gone.extend(before);
        state.forget();
        state.gone.iter().for_each(|member| member.leaving.begin(now));
        state.wanted = wanted.to_vec();
        state.compute(now);
        drop(state);
        tracing::info!(service = %self.service, endpoints = wanted.len(), "endpoints replaced");
        self.changed.send_replace(());
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
        state.limits = config.limits;
        state.bounds = Bounds::of(config);
        state.secret = secret(config);
        state.members.iter().for_each(|member| member.hide(&state.secret));
        state.compute(now);
        drop(state);
        self.changed.send_replace(());
    }

    /// One that was listed before and still has work is the same again.
    fn member(&self, address: SocketAddr, state: &State) -> Arc<Member> {
        let agreed = self.agreed_name(address);
        let is_it = |member: &&Arc<Member>| member.address == address && member.agreed == agreed;
        let new = || Arc::new(Member::new(address, &agreed, &self.freed));
        let member = state.gone.iter().find(is_it).map_or_else(new, Arc::clone);
        member.hide(&state.secret);
        member
    }

    /// Every endpoint as it is now, then those that are no longer listed and still have work.
    pub(in crate::proxy) fn snapshot(&self) -> Vec<EndpointSnapshot> {
        let mut state = lock(&self.state);
        state.forget();
        let now = clock::now();
        let shares = state.health.shares(now);
        let bounds = state.bounds;
        let listed = state.members.iter().enumerate().map(|(at, member)| {
            let condition = state.health.condition(at, now);
            member.snapshot(condition, shares[at], (bounds, now))
        });
        let gone = state.gone.iter().filter(|member| member.has_work());
        let gone = gone.map(|member| member.snapshot(None, 0, (bounds, now)));
        listed.chain(gone).collect()
    }
}

impl State {
    /// Where somebody belongs whose cookie says this.
    pub(super) fn place_of(&self, token: Option<u64>) -> Option<usize> {
        let token = token?;
        self.members.iter().position(|member| member.token() == token)
    }

    /// What a wish comes to; none if nobody serves, or all are full.
    fn pick(&mut self, wish: Wish<'_>) -> Option<Picked> {
        if self.owners.is_some() {
            return self.pick_owner(wish);
        }
        let now = clock::now();
        if self.shares_until.is_some_and(|until| now >= until) {
            self.compute(now);
        }
        let before = self.place_of(wish.token);
        let State { balance, members, shares, loads, .. } = self;
        let load =
            |(member, share): (&Arc<Member>, &u32)| member.load(*share, wish.in_flight_max, now);
        loads.clear();
        loads.extend(members.iter().zip(&*shares).map(load));
        let mut serves = false;
        for (member, load) in members.iter().zip(&mut *loads) {
            serves |= load.share > 0;
            if !wish.attempts.may_ask(&member.address) {
                load.share = 0;
            }
        }
        if let Some(at) = before.filter(|at| shares[*at] > 0)
            && members[at].is_full(wish.in_flight_max)
            && wish.attempts.may_ask(&members[at].address)
        {
            // What it has there is worth a wait: to go elsewhere would move it for good.
            return None;
        }
        let before = before.filter(|at| loads[*at].share > 0);
        let draw = Draw { random: [rand::random(), rand::random()], key: wish.key };
        match before.or_else(|| balance.choose(loads, draw)) {
            Some(at) => Some(Picked::Place(Claim::new(&members[at], None))),
            None if serves => Some(Picked::Tried),
            None => None,
        }
    }

    fn compute(&mut self, now: Timestamp) {
        self.shares = self.health.shares(now);
        self.shares_until = self.health.deadline(now);
    }

    /// What is listed again, or has no work and nothing to be told of it, is not gone.
    fn forget(&mut self) {
        let Self { members, gone, .. } = self;
        gone.retain(|member| {
            let is_listed = members.iter().any(|listed| Arc::ptr_eq(listed, member));
            !is_listed && (member.has_work() || member.leaving.has_news())
        });
    }
}

fn secret(config: &BalancerConfig) -> [u8; 32] {
    config.http.as_ref().map_or([0; 32], |http| http.secret)
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing here leaves a value half changed when it panics.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
