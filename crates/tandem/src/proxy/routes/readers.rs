//! Decides which replica gets the next session of readers, and keeps what is known of each.
//! In: the replicas that may be read from, what became of sessions there. Out: one of them,
//! numbers for operators.
//! A check is what the cluster agrees on and hears: role, term, lag. Beside it counts what this
//! door saw itself: a replica that takes no sessions is left out for a while, and one that comes
//! back starts slowly.
//! Costs: a look at each replica per session, under the lock that the choice is counted under.
//! Not here: whether a replica may be read from (`tandem_core::…::routing`), the primary.
//! Tested by: below, `proxy/tests/read.rs`.

use super::Replica;
use crate::proxy::balancer::EndpointSnapshot;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;
use tandem_core::clustering::load_balanced::balance::{Balance, Draw, Load, Policy};
use tandem_core::clustering::load_balanced::ejection::{Condition, Event, Group, Limits};
use tandem_core::clustering::load_balanced::latency::Latency;
use tandem_core::clustering::load_balanced::quantiles::Times;
use tandem_core::clustering::load_balanced::rendezvous;
use tandem_core::ids::NodeId;
use tandem_core::time::Timestamp;

/// A replica that takes no sessions is mostly one that restarts: seconds, not minutes.
const LIMITS: Limits = Limits {
    fall: 1,
    rise: 1,
    failures: 3,
    success_percent_min: 50,
    latency_times: 0,
    window: Duration::from_secs(10),
    ejection: Duration::from_secs(2),
    ejection_max: Duration::from_secs(60),
    ejected_percent_max: 50,
    slow_start: Duration::from_secs(10),
};

/// The replicas of one door.
#[derive(Debug)]
pub(in crate::proxy) struct Readers {
    policy: Policy,
    balance: Balance,
    health: Group,
    /// In the order of the routes, as the health group has them.
    members: Vec<Reader>,
}

#[derive(Debug)]
struct Reader {
    node: NodeId,
    address: SocketAddr,
    weight: u32,
    far: bool,
    draining: bool,
    latency: Latency,
    times: Times,
    served: u64,
    failed: u64,
    ejected: u64,
    /// What went wrong last.
    failure: Option<String>,
}

impl Readers {
    /// Begins with nobody.
    pub(in crate::proxy) fn new(policy: Policy) -> Self {
        Self {
            policy,
            balance: Balance::new(policy),
            health: Group::new(&[], LIMITS, false),
            members: Vec::new(),
        }
    }

    /// The next sessions are spread so; what is known of each replica stays.
    pub(in crate::proxy) fn spread_by(&mut self, policy: Policy) {
        if self.policy != policy {
            (self.policy, self.balance) = (policy, Balance::new(policy));
        }
    }

    /// The replica of the next session; none if there is none but `avoid`.
    pub(in crate::proxy) fn choose(
        &mut self,
        replicas: &[Replica],
        sessions: &BTreeMap<NodeId, u64>,
        (avoid, draw): (Option<&NodeId>, Draw),
        now: Timestamp,
    ) -> Option<usize> {
        self.follow(replicas, now);
        let shares = self.health.shares(now);
        let load = |(member, share): (&Reader, u32)| Load {
            share: if Some(&member.node) == avoid { 0 } else { share },
            in_flight: sessions_of(sessions, &member.node),
            latency_us: member.latency.mean_us(now),
            // Sessions are not followed statement by statement.
            is_silent: false,
            far: member.far,
            name: rendezvous::hash(member.node.as_str().as_bytes()),
        };
        let loads: Vec<Load> = self.members.iter().zip(shares).map(load).collect();
        self.balance.choose(&loads, draw)
    }

    /// A session began at a node, after so long.
    pub(in crate::proxy) fn began(&mut self, node: &NodeId, took: Duration, now: Timestamp) {
        let Some(at) = self.at(node) else { return };
        let member = &mut self.members[at];
        member.latency.sample(took, now);
        member.times.sample(took, now);
        member.served += 1;
        self.health.step(at, Event::WorkSucceeded, now);
    }

    /// A node did not take a session.
    pub(in crate::proxy) fn failed(&mut self, node: &NodeId, why: String, now: Timestamp) {
        let Some(at) = self.at(node) else { return };
        self.members[at].failed += 1;
        self.members[at].failure = Some(why);
        if self.health.step(at, Event::WorkFailed, now) {
            self.members[at].ejected += 1;
        }
    }

    /// Every replica, as operators see it; `sessions` are those of this door.
    pub(in crate::proxy) fn snapshots(
        &self,
        sessions: &BTreeMap<NodeId, u64>,
        now: Timestamp,
    ) -> Vec<EndpointSnapshot> {
        let shares = self.health.shares(now);
        let snapshot = |((at, member), share): ((usize, &Reader), u32)| {
            let condition = self.health.condition(at, now);
            let ejected_for = match condition {
                Some(Condition::Ejected(until)) => Some(until.since(now)),
                _ => None,
            };
            EndpointSnapshot {
                address: member.address,
                upstream: member.node.to_string(),
                condition,
                ejected_for,
                weight: member.weight,
                far: member.far,
                share_percent: share / member.weight.max(1),
                in_flight: sessions_of(sessions, &member.node),
                latency_us: member.latency.mean_us(now),
                quantiles: member.times.quantiles(now),
                rate_milli: member.times.rate_milli(now),
                histogram: member.times.histogram(),
                served: member.served,
                failed: member.failed,
                // Each of them is tried again, at once or after news.
                retried: member.failed,
                ejected: member.ejected,
                failure: member.failure.clone(),
                is_slow: false,
                cut: 0,
                is_full: false,
                cut_in: None,
            }
        };
        self.members.iter().enumerate().zip(shares).map(snapshot).collect()
    }

    fn at(&self, node: &NodeId) -> Option<usize> {
        self.members.iter().position(|member| member.node == *node)
    }

    /// Makes the members what the routes say, in their order.
    pub(in crate::proxy) fn follow(&mut self, replicas: &[Replica], now: Timestamp) {
        let is = |(member, replica): (&Reader, &Replica)| {
            member.node == replica.target.node
                && member.address == replica.target.address
                && (member.weight, member.far) == (replica.weight, replica.far)
                && member.draining == replica.draining
        };
        if self.members.len() == replicas.len() && self.members.iter().zip(replicas).all(is) {
            return;
        }
        let places: Vec<(u32, Option<usize>)> = replicas
            .iter()
            .map(|replica| (replica.weight, self.at(&replica.target.node)))
            .collect();
        self.health.replace(&places, now);
        let mut before: Vec<Option<Reader>> =
            std::mem::take(&mut self.members).into_iter().map(Some).collect();
        for (replica, (_, place)) in replicas.iter().zip(places) {
            let known = place.and_then(|at| before.get_mut(at)?.take());
            let mut member = known.unwrap_or_else(|| Reader::new(replica));
            member.address = replica.target.address;
            (member.weight, member.far) = (replica.weight, replica.far);
            if member.draining != replica.draining {
                member.draining = replica.draining;
                let event = if replica.draining { Event::Drained } else { Event::Undrained };
                self.health.step(self.members.len(), event, now);
            }
            self.members.push(member);
        }
    }
}

impl Reader {
    fn new(replica: &Replica) -> Self {
        Self {
            node: replica.target.node.clone(),
            address: replica.target.address,
            weight: replica.weight,
            far: replica.far,
            draining: false,
            latency: Latency::default(),
            times: Times::default(),
            served: 0,
            failed: 0,
            ejected: 0,
            failure: None,
        }
    }
}

fn sessions_of(sessions: &BTreeMap<NodeId, u64>, node: &NodeId) -> u32 {
    let count = sessions.get(node).copied().unwrap_or(0);
    count.try_into().unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::Target;

    fn replica(node: &str, weight: u32, far: bool) -> Replica {
        let target = Target { node: node.into(), address: ([127, 0, 0, 1], 1).into() };
        Replica { target, lag_bytes: 0, lag: Duration::ZERO, weight, far, draining: false }
    }

    /// Who gets so many sessions that all stay, one every millisecond.
    fn spread(
        readers: &mut Readers,
        replicas: &[Replica],
        (times, from): (u64, u64),
    ) -> BTreeMap<NodeId, u64> {
        let mut sessions = BTreeMap::new();
        for n in 0..times {
            let random =
                |salt: u64| rendezvous::hash(&[n.to_be_bytes(), salt.to_be_bytes()].concat());
            let draw = Draw { random: [random(1), random(2)], key: Some(random(3)) };
            let now = Timestamp((from + n) * 1000);
            let at = readers.choose(replicas, &sessions, (None, draw), now).unwrap();
            let node = replicas[at].target.node.clone();
            readers.began(&node, Duration::from_millis(1), now);
            *sessions.entry(node).or_insert(0) += 1;
        }
        sessions
    }

    #[test]
    fn every_policy_spreads_by_capacity() {
        let replicas = [replica("b", 1, false), replica("c", 3, false)];
        for word in Policy::WORDS {
            let mut readers = Readers::new(Policy::from_word(word).unwrap());
            let sessions = spread(&mut readers, &replicas, (400, 0));
            let of = |node: &str| sessions[&node.into()];
            assert!((60..=140).contains(&of("b")), "{word}: {sessions:?}");
            assert_eq!(of("b") + of("c"), 400);
        }
    }

    #[test]
    fn another_policy_counts_from_the_next_session_on_and_forgets_no_replica() {
        let replicas = [replica("b", 1, false), replica("c", 1, false)];
        let mut readers = Readers::new(Policy::LeastConnections);
        spread(&mut readers, &replicas, (40, 0));
        readers.spread_by(Policy::Hash);
        let now = Timestamp(60_000_000);
        let mut chosen = || {
            let draw = Draw { random: [1, 2], key: Some(7) };
            readers.choose(&replicas, &BTreeMap::new(), (None, draw), now).unwrap()
        };
        let first = chosen();
        assert!((0..20).all(|_| chosen() == first), "one client stays on one replica");
        let seen = readers.snapshots(&BTreeMap::new(), now);
        assert_eq!(seen[0].served + seen[1].served, 40);
    }

    #[test]
    fn readers_stay_in_their_zone_while_enough_is_left_there() {
        let replicas = [replica("b", 1, true), replica("c", 1, false), replica("d", 1, false)];
        for policy in [Policy::RoundRobin, Policy::Random] {
            let sessions = spread(&mut Readers::new(policy), &replicas, (100, 0));
            assert_eq!(sessions.get(&"b".into()), None, "{policy:?}");
        }
        let far = [replica("b", 1, true)];
        assert_eq!(spread(&mut Readers::new(Policy::Random), &far, (3, 0))[&"b".into()], 3);
    }

    #[test]
    fn a_replica_that_takes_no_sessions_is_left_out_and_comes_back_slowly() {
        let replicas = [replica("b", 1, false), replica("c", 1, false)];
        let mut readers = Readers::new(Policy::LeastConnections);
        spread(&mut readers, &replicas, (2, 0));
        for n in 0..3 {
            readers.failed(&"b".into(), "no".into(), Timestamp(2000 + n));
        }
        let seen = readers.snapshots(&BTreeMap::new(), Timestamp(3000));
        assert!(matches!(seen[0].condition, Some(Condition::Ejected(_))), "{seen:?}");
        assert_eq!(
            (seen[0].failed, seen[0].ejected, seen[1].condition),
            (3, 1, Some(Condition::Up))
        );
        let sessions = spread(&mut readers, &replicas, (50, 3));
        assert_eq!(sessions.get(&"b".into()), None);
        // The last one is never out.
        for n in 0..9 {
            readers.failed(&"c".into(), "no".into(), Timestamp(60_000 + n));
        }
        assert_eq!(spread(&mut readers, &replicas, (50, 70))[&"c".into()], 50);
        let sessions = spread(&mut readers, &replicas, (100, 3_000));
        assert!((1..40).contains(&sessions[&"b".into()]), "slowly: {sessions:?}");
    }

    #[test]
    fn a_drained_replica_keeps_its_sessions_and_gets_no_more() {
        let [b, c] = ["b", "c"].map(|node| replica(node, 1, false));
        let mut readers = Readers::new(Policy::LeastConnections);
        spread(&mut readers, &[b.clone(), c.clone()], (4, 0));
        let drained = Replica { draining: true, ..b.clone() };
        let sessions = spread(&mut readers, &[drained.clone(), c.clone()], (10, 10));
        assert_eq!(sessions.get(&"b".into()), None);
        let seen = readers.snapshots(&BTreeMap::from([("b".into(), 2)]), Timestamp(30_000));
        assert_eq!((seen[0].condition, seen[0].in_flight), (Some(Condition::Draining), 2));
        let none = (None, Draw::default());
        assert_eq!(readers.choose(&[drained], &BTreeMap::new(), none, Timestamp(0)), None);
        let both = [b, c];
        spread(&mut readers, &both, (1, 20_000));
        assert_eq!(spread(&mut readers, &both, (10, 40_000))[&"b".into()], 5, "slowly, then even");
    }

    #[test]
    fn a_replica_keeps_what_is_known_of_it_when_others_come_and_go() {
        let [b, c, d] = ["b", "c", "d"].map(|node| replica(node, 1, false));
        let mut readers = Readers::new(Policy::LeastConnections);
        spread(&mut readers, &[b.clone(), c.clone()], (10, 0));
        spread(&mut readers, &[d, c.clone(), b], (10, 20));
        let seen = readers.snapshots(&BTreeMap::new(), Timestamp(40_000));
        let of = |at: usize| (seen[at].upstream.as_str(), seen[at].served >= 5);
        assert_eq!([of(1), of(2)], [("c", true), ("b", true)]);
        assert_eq!(seen[0].condition, Some(Condition::Starting), "it is new where others work");
        let nobody = readers.choose(&[], &BTreeMap::new(), (None, Draw::default()), Timestamp(0));
        assert_eq!(nobody, None);
        let only = readers.choose(
            &[c],
            &BTreeMap::new(),
            (Some(&"c".into()), Draw::default()),
            Timestamp(0),
        );
        assert_eq!(only, None, "the primary is better than what failed just now");
    }
}
