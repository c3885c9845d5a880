//! Decides whom a front door may send clients to.
//! In: agreed state, facts with their ages. Out: `Routing`.
//! Keeps: INV-7 only the appointed primary whose barrier was acknowledged takes clients; H41 what
//! was heard too long ago counts for nothing.
//! Not here: addresses (the shell), what a session does about it (`proxy`).
//! Tested by: below, and the simulator, in which every node routes.

use crate::cluster::state::ServiceState;
use crate::facts::{InstanceFacts, NodeFacts, Process};
use crate::ids::{NodeId, ServiceId, Term};
use crate::spec::{ClusterSpec, Timing};
use crate::time::{Observed, Timestamp};
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;
use core::time::Duration;

/// What a node's doors go by.
#[derive(Clone, Debug)]
pub struct RoutingView<'a> {
    /// The service.
    pub service: &'a ServiceId,
    /// The machines.
    pub spec: &'a ClusterSpec,
    /// How long things may take.
    pub timing: Timing,
    /// What is agreed.
    pub state: &'a ServiceState,
    /// Nodes that shall get no new work.
    pub draining: &'a BTreeSet<NodeId>,
    /// What each node last said, this one included.
    pub facts: &'a BTreeMap<NodeId, Observed<NodeFacts>>,
    /// A replica further behind than this serves no reads, in bytes.
    pub lag_bytes_max: u64,
    /// A replica further behind than this serves no reads, in time.
    pub lag_max: Duration,
}

/// Who may be talked to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Routing {
    /// The appointed term.
    pub term: Term,
    /// Who takes writes, if anybody.
    pub primary: Option<NodeId>,
    /// Who may be read from.
    pub replicas: Vec<Readable>,
    /// The primary is being changed on purpose: new work waits.
    pub holding: bool,
    /// None of it counts after this.
    pub valid_until: Option<Timestamp>,
}

/// A replica that is near enough.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Readable {
    /// Which.
    pub node: NodeId,
    /// How far behind the primary it is.
    pub lag_bytes: u64,
    /// How far behind in time: how long ago it last got anything, or how old what it replays is.
    pub lag: Duration,
    /// Its node is drained: what reads there may go on, nothing new comes.
    pub draining: bool,
}

/// A node that was not heard for this long is not routed to: as long as a primary may serve on one
/// proof, which the configuration keeps above three heartbeats.
pub const fn heard_within(timing: &Timing) -> Duration {
    timing.lease
}

/// Whom the doors of a node may send clients to.
pub fn routing(view: &RoutingView<'_>, now: Timestamp) -> Routing {
    let Some(appointment) = &view.state.appointment else { return Routing::default() };
    let heard_within = heard_within(&view.timing);
    let instance = |node: &NodeId| -> Option<&InstanceFacts> {
        view.facts.get(node)?.fresh(now, heard_within)?.instances.get(view.service)
    };
    let primary = instance(&appointment.primary).filter(|own| {
        own.process == Process::Primary
            && own.promoted == appointment.term
            && own.serving == Some(appointment.term)
    });
    let end = primary.map(|own| own.flushed);
    let mut replicas = Vec::new();
    for node in view.spec.data_nodes().filter(|node| **node != appointment.primary) {
        let Some(own) = instance(node) else { continue };
        let follows = own.upstream == Some((appointment.primary.clone(), appointment.term));
        let age = view.facts.get(node).map_or(Duration::ZERO, |facts| facts.age(now));
        let missing = end.map(|end| end.bytes_ahead_of(own.replayed));
        let Some(lag) = own.lag(missing, age) else { continue };
        let lag_bytes = missing.unwrap_or(0);
        let is_near = lag_bytes <= view.lag_bytes_max && lag <= view.lag_max;
        if follows && is_near && own.process == Process::Standby {
            let draining = view.draining.contains(node);
            replicas.push(Readable { node: node.clone(), lag_bytes, lag, draining });
        }
    }
    let heard = view.facts.get(&appointment.primary).map(|facts| facts.age(now));
    let left = heard.map_or(Duration::ZERO, |age| heard_within.saturating_sub(age));
    Routing {
        term: appointment.term,
        primary: primary.map(|_| appointment.primary.clone()),
        replicas,
        holding: view.state.switchover.is_some() || view.state.forced.is_some(),
        valid_until: Some(now.plus(left)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::state::{Appointment, Phase};
    use crate::facts::Stream;
    use crate::ids::ConfigVersion;

    fn appointed() -> ServiceState {
        let appointment = Appointment {
            term: Term(4),
            primary: "a".into(),
            rules: Vec::new(),
            phase: Phase::Active,
        };
        ServiceState { appointment: Some(appointment), ..ServiceState::default() }
    }

    fn said(node: &str, own: InstanceFacts, at: Timestamp) -> (NodeId, Observed<NodeFacts>) {
        let facts = NodeFacts {
            ended: Default::default(),
            node: node.into(),
            told: crate::facts::Told::default(),
            config_version: ConfigVersion(1),
            links: BTreeMap::new(),
            instances: [("orders".into(), own)].into(),
            draining: false,
            doors: BTreeMap::new(),
        };
        (node.into(), Observed::new(facts, at))
    }

    fn primary_heard(
        ago: Duration,
        timing: Timing,
        change: impl Fn(&mut InstanceFacts),
    ) -> Routing {
        let state = appointed();
        let mut own = InstanceFacts {
            process: Process::Primary,
            promoted: Term(4),
            serving: Some(Term(4)),
            ..InstanceFacts::default()
        };
        change(&mut own);
        let now = Timestamp(100_000_000);
        let view = RoutingView {
            service: &"orders".into(),
            spec: &ClusterSpec::default(),
            timing,
            state: &state,
            draining: &BTreeSet::new(),
            facts: &[said("a", own, now.minus(ago))].into(),
            lag_bytes_max: 0,
            lag_max: Duration::MAX,
        };
        routing(&view, now)
    }

    #[test]
    fn only_the_primary_of_the_term_behind_its_barrier_takes_clients() {
        let to = |change: &dyn Fn(&mut InstanceFacts)| {
            primary_heard(Duration::ZERO, Timing::default(), change).primary
        };
        assert_eq!(to(&|_| {}), Some("a".into()));
        assert_eq!(to(&|own| own.serving = None), None);
        assert_eq!(to(&|own| own.serving = Some(Term(3))), None);
        assert_eq!(to(&|own| own.promoted = Term(3)), None);
        assert_eq!(to(&|own| own.process = Process::Standby), None);
    }

    #[test]
    fn a_replica_is_read_from_within_both_bounds() {
        let state = appointed();
        let mut spec = ClusterSpec::default();
        for node in ["a", "b"] {
            let (role, zone, priority) = (crate::spec::NodeRole::Data, None, 100);
            spec.nodes
                .insert(node.into(), crate::spec::NodeSpec { role, zone, priority, capacity: 1 });
        }
        let primary = InstanceFacts {
            process: Process::Primary,
            promoted: Term(4),
            serving: Some(Term(4)),
            flushed: crate::lsn::Lsn(1_000),
            ..InstanceFacts::default()
        };
        let drained = BTreeSet::from(["b".into()]);
        let read_from = |replayed: u64, delay_ms: u64, silence_ms: u64| {
            let standby = InstanceFacts {
                process: Process::Standby,
                upstream: Some(("a".into(), Term(4))),
                stream: Stream::Connected(Duration::from_millis(silence_ms)),
                replayed: crate::lsn::Lsn(replayed),
                replay_delay: Duration::from_millis(delay_ms),
                ..InstanceFacts::default()
            };
            let now = Timestamp(100_000_000);
            let view = RoutingView {
                service: &"orders".into(),
                spec: &spec,
                timing: Timing::default(),
                state: &state,
                draining: &drained,
                facts: &[said("a", primary.clone(), now), said("b", standby, now)].into(),
                lag_bytes_max: 100,
                lag_max: Duration::from_secs(2),
            };
            let replicas = routing(&view, now).replicas;
            assert!(replicas.iter().all(|it| it.draining), "no new work, and no session is cut");
            replicas.len() == 1
        };
        assert!(read_from(1_000, 0, 0));
        assert!(read_from(900, 2_000, 2_000), "at both bounds");
        assert!(!read_from(899, 0, 0), "too many bytes behind");
        assert!(!read_from(950, 2_001, 0), "what it replays is too old");
        assert!(!read_from(950, 0, 2_001), "nothing was heard for too long");
        assert!(read_from(1_000, 0, 9_000), "an idle primary sends nothing");
    }

    #[test]
    fn how_long_a_primary_counts_follows_from_the_agreed_times() {
        let slow = Timing {
            heartbeat: Duration::from_secs(2),
            suspicion: Duration::from_secs(7),
            lease: Duration::from_secs(10),
            ..Timing::default()
        };
        let to = |ago, timing| primary_heard(Duration::from_millis(ago), timing, |_| {}).primary;
        assert_eq!(to(1_500, Timing::default()), Some("a".into()));
        assert_eq!(to(1_501, Timing::default()), None);
        assert_eq!(to(4_000, slow), Some("a".into()), "one heartbeat of 2 s was lost");
        assert_eq!(to(10_001, slow), None);
        let routing = primary_heard(Duration::from_secs(4), slow, |_| {});
        assert_eq!(routing.valid_until, Some(Timestamp(106_000_000)));
    }
}
