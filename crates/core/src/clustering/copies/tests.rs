use super::controller::{CopiesView, Decision, LOST_AFTER};
use super::copy::{Action, CopyView, Judged, Wish};
use super::placement::{Candidate, Candidates, Grade, place};
use super::{controller, copy};
use crate::cluster::command::ServiceCommand;
use crate::cluster::copies::CopiesCommand;
use crate::cluster::state::{Applied, Copies, ServiceState};
use crate::facts::{DoorUse, InstanceFacts, Link, NodeFacts, Process, Told};
use crate::ids::{ConfigVersion, NodeId, ServiceId, Term};
use crate::pairing::{Clustering, Kind, Pairing, Replication};
use crate::spec::{Copies as Wanted, NodeRole, NodeSpec, ServiceSpec, Timing};
use crate::time::{Observed, Timestamp};
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::ToString;
use alloc::vec::Vec;
use core::time::Duration;

mod door;
mod last;

const NAMES: [&str; 4] = ["a", "b", "c", "d"];

fn set(names: &[&str]) -> BTreeSet<NodeId> {
    names.iter().map(|name| NodeId::from(*name)).collect()
}

fn candidate(grade: Grade, zone: Option<&str>, capacity: u32) -> Candidate {
    Candidate { grade, zone: zone.map(Into::into), capacity }
}

/// All grades and zones of four nodes, all present sets, all numbers.
#[test]
fn inv14_over_all_small_cases_only_what_must_moves() {
    let grades = [Grade::Good, Grade::Failing, Grade::Lost];
    for case in 0..3_usize.pow(4) * 2_usize.pow(4) * 16 * 5 {
        let (grade_bits, rest) = (case % 81, case / 81);
        let (zone_bits, rest) = (rest % 16, rest / 16);
        let (present_bits, replicas) = (rest % 16, rest / 16);
        let zone = |at: usize| if zone_bits >> at & 1 == 1 { "x" } else { "y" };
        let grade = |at: usize| grades[grade_bits / 3_usize.pow(at as u32) % 3];
        let node = |at: usize| (NodeId::from(NAMES[at]), candidate(grade(at), Some(zone(at)), 1));
        let candidates: Candidates = (0..4).map(node).collect();
        let names: Vec<&str> =
            (0..4).filter(|at| present_bits >> at & 1 == 1).map(|at| NAMES[at]).collect();
        let present = set(&names);
        let chosen = place(&present, &candidates, replicas);
        let good = |it: &&NodeId| candidates[*it].grade == Grade::Good;
        let can = |it: &&NodeId| candidates[*it].grade != Grade::Lost || present.contains(*it);
        let able = candidates.keys().filter(can).count();
        assert_eq!(chosen.len(), replicas.min(able), "{candidates:?} {present:?}");
        let kept = present.iter().filter(good).filter(|it| chosen.contains(*it)).count();
        let stays = present.iter().filter(good).count();
        assert_eq!(kept, stays.min(replicas), "a good one stays: {candidates:?} {present:?}");
        let fine = chosen.iter().filter(good).count();
        let most = candidates.keys().filter(good).count();
        assert_eq!(fine, most.min(replicas), "good ones first: {candidates:?} {present:?}");
        assert_eq!(place(&chosen, &candidates, replicas), chosen, "twice is once");
    }
}

#[test]
fn copies_are_spread_over_zones_then_by_capacity() {
    let all = |spec: [(Option<&str>, u32); 4]| -> Candidates {
        let node = |at: usize| (NAMES[at].into(), candidate(Grade::Good, spec[at].0, spec[at].1));
        (0..4).map(node).collect()
    };
    let zones = all([(Some("x"), 1), (Some("x"), 9), (Some("y"), 1), (Some("y"), 1)]);
    assert_eq!(place(&set(&[]), &zones, 2), set(&["b", "c"]));
    assert_eq!(place(&set(&["a", "b"]), &zones, 2), set(&["a", "b"]), "what runs stays");
    assert_eq!(place(&set(&["a", "b", "c"]), &zones, 2), set(&["b", "c"]), "the crowded zone");
    let alone = all([(None, 1), (None, 1), (None, 3), (None, 2)]);
    assert_eq!(place(&set(&[]), &alone, 2), set(&["c", "d"]));
}

struct Case {
    me: NodeId,
    spec: ServiceSpec,
    nodes: BTreeMap<NodeId, NodeSpec>,
    draining: BTreeSet<NodeId>,
    state: ServiceState,
    facts: BTreeMap<NodeId, Observed<NodeFacts>>,
    wish: Wish,
    judged: Judged,
}

const NOW: Timestamp = Timestamp(100_000_000);

fn service() -> ServiceId {
    "web".into()
}

impl Case {
    /// All copies run and serve.
    fn new(names: &[&str], replicas: Option<u32>) -> Self {
        let Ok(pairing) = Pairing::new(Kind::Command, Clustering::LoadBalanced, Replication::None)
        else {
            panic!("a pair that makes sense")
        };
        let spec = ServiceSpec {
            copies: Some(Wanted { replicas, drain_max: Duration::from_secs(10) }),
            ..ServiceSpec::of_command(pairing, Timing::of_command())
        };
        let data = || NodeSpec { role: NodeRole::Data, zone: None, priority: 100, capacity: 1 };
        let copies = Copies { term: Term(1), ..Copies::default() };
        let mut case = Self {
            me: "a".into(),
            spec,
            nodes: names.iter().map(|name| ((*name).into(), data())).collect(),
            draining: BTreeSet::new(),
            state: ServiceState { copies, ..ServiceState::default() },
            facts: BTreeMap::new(),
            wish: Wish::Agreed,
            judged: Judged::Yes,
        };
        for name in names {
            case.says(name, |_| {});
        }
        case
    }

    fn own(&mut self, name: &str, change: impl FnOnce(&mut InstanceFacts)) {
        let mut facts = self.facts[&NodeId::from(name)].last_known().clone();
        change(facts.instances.entry(service()).or_default());
        self.facts.insert(name.into(), Observed::new(facts, NOW));
    }

    fn says(&mut self, name: &str, change: impl FnOnce(&mut NodeFacts)) {
        let node: NodeId = name.into();
        let peers = self.nodes.keys().filter(|it| **it != node);
        let own = InstanceFacts {
            process: Process::Primary,
            promoted: Term(1),
            serving: Some(Term(1)),
            ..InstanceFacts::default()
        };
        let mut facts = NodeFacts {
            ended: Default::default(),
            node: node.clone(),
            told: Told::default(),
            config_version: ConfigVersion(1),
            links: peers.map(|it| (it.clone(), Link::Up(Duration::ZERO))).collect(),
            instances: BTreeMap::from([(service(), own)]),
            draining: false,
            doors: BTreeMap::from([(service(), BTreeMap::new())]),
        };
        change(&mut facts);
        self.facts.insert(node, Observed::new(facts, NOW));
    }

    /// The node is gone, and the others say so.
    fn lose(&mut self, name: &str, silence: Duration) {
        let node: NodeId = name.into();
        self.facts.insert(node.clone(), {
            Observed::new(self.facts[&node].last_known().clone(), NOW.minus(silence))
        });
        for other in self.nodes.keys().filter(|it| **it != node).cloned().collect::<Vec<_>>() {
            let mut facts = self.facts[&other].last_known().clone();
            facts.links.insert(node.clone(), Link::Refused(silence));
            self.facts.insert(other, Observed::new(facts, NOW));
        }
    }

    fn decide(&self) -> Decision {
        let view = CopiesView {
            service: &service(),
            spec: &self.spec,
            nodes: &self.nodes,
            draining: &self.draining,
            state: &self.state,
            facts: &self.facts,
            unix_ms: 7,
        };
        controller::plan(&view, NOW)
    }

    /// Agrees on whatever is proposed.
    fn settle(&mut self) -> Decision {
        let decision = self.decide();
        if let Some(command) = &decision.command {
            assert_eq!(self.agree(command), Applied::Changed, "{decision:?}");
        }
        decision
    }

    fn agree(&mut self, command: &CopiesCommand) -> Applied {
        use crate::cluster::command::Command;
        use crate::cluster::state::ClusterState;
        let services = BTreeMap::from([(service(), self.state.clone())]);
        let mut cluster = ClusterState { services, ..ClusterState::default() };
        let (service, expected) = (service(), self.state.revision);
        let applied = cluster.apply(&Command::Service {
            service,
            expected,
            command: ServiceCommand::Copies(command.clone()),
        });
        self.state = cluster.services.remove(&self::service()).unwrap_or_default();
        applied
    }

    fn turn(&self) -> Option<&str> {
        self.state.copies.turn.as_ref().map(NodeId::as_str)
    }

    fn plan(&self, node: &str, now: Timestamp) -> copy::Next {
        let me: NodeId = node.into();
        let own = &self.facts[&me].last_known().instances[&service()];
        let view = CopyView {
            me: &me,
            service: &service(),
            spec: &self.spec,
            nodes: &self.nodes,
            draining: &self.draining,
            state: &self.state,
            facts: &self.facts,
            own,
            wish: if me == self.me { self.wish } else { Wish::Agreed },
            unwanted_since: None,
            retry_at: Timestamp(0),
            judged: self.judged,
        };
        copy::plan(&view, now)
    }

    fn next(&self, node: &str) -> Option<Action> {
        self.plan(node, NOW).action
    }
}

#[test]
fn k_copies_are_placed_and_a_lost_node_is_replaced() {
    let mut case = Case::new(&["a", "b", "c"], Some(2));
    let decision = case.settle();
    assert_eq!(case.state.copies.nodes, set(&["a", "b"]));
    assert_eq!(decision.reason.text(), "2 copies are wanted, so a, b joins");
    assert_eq!(case.settle().command, None, "twice is once");
    case.lose("b", Duration::from_secs(2));
    assert_eq!(case.settle().command, None, "its daemon may be restarted");
    case.lose("b", LOST_AFTER);
    let decision = case.settle();
    assert_eq!(case.state.copies.nodes, set(&["a", "c"]));
    assert_eq!(decision.reason.text(), "b is lost, so c takes over");
    case.says("b", |_| {});
    assert_eq!(case.settle().command, None, "it does not move back");
    assert_eq!(case.state.copies.placed.len(), 2);
}

#[test]
fn a_drained_or_failing_node_is_replaced_where_one_is_free() {
    let mut case = Case::new(&["a", "b", "c"], Some(2));
    case.settle();
    case.own("a", |own| own.starts_failed = 5);
    assert_eq!(case.settle().reason.text(), "it failed 5 times in a row on a, so c takes over");
    case.draining.insert("b".into());
    let decision = case.settle();
    assert_eq!(case.state.copies.nodes, set(&["a", "c"]), "{}", decision.reason);
    case.state.paused = true;
    case.draining.insert("c".into());
    assert_eq!(case.settle().command, None, "an operator paused it");
}

#[test]
fn inv14_copies_start_anew_one_at_a_time() {
    let mut case = Case::new(&["a", "b", "c"], None);
    assert_eq!(case.agree(&CopiesCommand::Restart), Applied::Changed);
    for (node, next) in [("a", Some("b")), ("b", Some("c")), ("c", None)] {
        if node == "a" {
            case.settle();
        }
        assert_eq!(case.turn(), Some(node));
        for other in ["a", "b", "c"].into_iter().filter(|it| *it != node) {
            assert_eq!(case.next(other), None, "not its turn");
        }
        assert_eq!(case.next(node), Some(Action::Withdraw));
        case.own(node, |own| own.withdrawn = Some(NOW));
        assert_eq!(case.settle().command, None);
        case.own(node, |own| (own.process, own.serving) = (Process::Stopped, None));
        assert_eq!(case.settle().command, None, "it is not back");
        assert_eq!(case.next(node), Some(Action::Start { term: Term(2) }));
        case.own(node, |own| {
            (own.process, own.promoted, own.withdrawn) = (Process::Primary, Term(2), None);
        });
        assert_eq!(case.settle().command, None, "it is not healthy");
        case.own(node, |own| own.serving = Some(Term(2)));
        case.settle();
        assert_eq!(case.turn(), next);
    }
    assert_eq!(case.settle().reason.text(), "3 of 3 copies serve");
}

#[test]
fn what_breaks_one_copy_does_not_reach_the_next() {
    let mut case = Case::new(&["a", "b", "c"], None);
    for node in ["a", "b", "c"] {
        case.own(node, |own| own.pending_restart = true);
    }
    case.settle();
    assert_eq!(case.turn(), Some("a"));
    case.own("a", |own| {
        (own.process, own.serving, own.starts_failed) = (Process::Stopped, None, 3);
    });
    let decision = case.settle();
    assert_eq!(decision.command, None);
    assert!(decision.reason.text().contains("so no other is started anew"), "{decision:?}");
    case.lose("a", LOST_AFTER);
    case.settle();
    assert_eq!(case.turn(), Some("b"), "a lost node does not stop the others");
}

#[test]
fn nobody_is_restarted_while_another_copy_is_away() {
    let mut case = Case::new(&["a", "b"], None);
    case.own("a", |own| own.pending_restart = true);
    case.own("b", |own| own.serving = None);
    let decision = case.settle();
    assert!(decision.command.is_none() && decision.reason.text().contains("waits until b"));
    case.own("a", |own| own.serving = None);
    assert_eq!(case.next("a"), Some(Action::Withdraw), "it serves nobody: no turn is needed");
}

#[test]
fn inv14_a_withdrawn_copy_waits_for_every_door_that_answers() {
    let mut case = Case::new(&["a", "b", "c"], None);
    case.draining.insert("a".into());
    assert_eq!(case.next("a"), Some(Action::Withdraw));
    case.own("a", |own| own.withdrawn = Some(NOW));
    let obeys = |at, in_flight| {
        move |facts: &mut NodeFacts| {
            let door = BTreeMap::from([("a".into(), DoorUse { obeys: at, in_flight })]);
            facts.doors.insert(service(), door);
        }
    };
    let says = |case: &mut Case, name: &str, change: &dyn Fn(&mut NodeFacts)| {
        let mut facts = case.facts[&NodeId::from(name)].last_known().clone();
        change(&mut facts);
        case.facts.insert(name.into(), Observed::new(facts, NOW));
    };
    for (name, in_flight) in [("a", 0), ("b", 2), ("c", 0)] {
        assert_eq!(case.next("a"), None, "before {name} knows of it");
        says(&mut case, name, &obeys(NOW, in_flight));
    }
    assert!(case.plan("a", NOW).reason.text().contains("2 are not over"), "at b");
    says(&mut case, "b", &obeys(Timestamp(1), 0));
    assert_eq!(case.next("a"), None, "b tells of an earlier withdrawal");
    let late = NOW.plus(Duration::from_secs(10));
    assert_eq!(case.plan("a", late).action, Some(Action::Return), "nobody else is heard any more");
    let facts = case.facts[&NodeId::from("b")].last_known().clone();
    case.facts.insert("b".into(), Observed::new(facts, late));
    assert_eq!(case.plan("a", late).action, Some(Action::Stop), "drain_max has passed");
    says(&mut case, "b", &obeys(NOW, 0));
    assert_eq!(case.next("a"), Some(Action::Stop));
    case.draining.clear();
    assert_eq!(case.next("a"), Some(Action::Return), "undrained in time");
}

#[test]
fn inv14_the_last_one_that_serves_stays() {
    let mut case = Case::new(&["a", "b", "c"], Some(1));
    case.state.copies.nodes = set(&["b"]);
    case.own("b", |own| own.serving = None);
    let next = case.plan("a", NOW);
    assert!(next.action.is_none() && next.is_unwanted, "{next:?}");
    assert_eq!(next.reason.text(), "no copy is wanted here, but no other copy serves, so it stays");
    case.own("b", |own| own.serving = Some(Term(1)));
    assert_eq!(case.next("a"), Some(Action::Withdraw));
    case.own("a", |own| own.withdrawn = Some(NOW));
    assert_eq!(case.next("a"), None, "doors have work there");
    case.own("b", |own| own.serving = None);
    assert_eq!(case.next("a"), Some(Action::Return), "the other one is gone meanwhile");
    case.own("a", |own| own.withdrawn = None);
    case.wish = Wish::Leave;
    assert_eq!(case.next("a"), Some(Action::Withdraw), "its node is removed");
}

#[test]
fn what_is_not_wanted_does_not_start() {
    let mut case = Case::new(&["a", "b"], None);
    case.own("a", |own| own.process = Process::Stopped);
    case.draining.insert("a".into());
    assert_eq!(case.plan("a", NOW).reason.to_string(), "this node is drained");
    case.draining.clear();
    assert_eq!(case.next("a"), Some(Action::Start { term: Term(1) }));
}
