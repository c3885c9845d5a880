//! Where it runs, when it moves, what one node does.

mod changes;
mod withdrawn;

use super::instance::plan as plan_copy;
use super::*;
use crate::cluster::state::{
    Appointed, Appointment, Cause, Forced, Phase, ServiceState, Switchover,
};
use crate::clustering::active_passive::controller::{ControllerView, Plan, Step};
use crate::clustering::active_passive::trail::Trails;
use crate::facts::withdrawal::{Doors, Wish};
use crate::facts::{Ballot, Data, InstanceFacts, Link, NodeFacts, Process, Told};
use crate::ids::{ConfigVersion, NodeId, Revision, ServiceId, Term};
use crate::pairing::{Clustering, Kind, Pairing, Replication};
use crate::spec::{NodeRole, NodeSpec, ServiceSpec, Timing};
use crate::time::{Observed, Timestamp};
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::{String, ToString as _};
use alloc::vec::Vec;
use alloc::{format, vec};
use core::time::Duration;

const NOW: Timestamp = Timestamp(100_000_000);
/// For what is under way.
const DRAIN_MAX: Duration = Duration::from_secs(2);
const NOW_MS: u64 = 1_700_000_000_000;

/// Three nodes with data, all heard, `a` running it in term 1 for an hour.
struct Case {
    state: ServiceState,
    nodes: BTreeMap<NodeId, NodeSpec>,
    draining: BTreeSet<NodeId>,
    facts: BTreeMap<NodeId, Observed<NodeFacts>>,
}

fn case() -> Case {
    let spec = || NodeSpec { role: NodeRole::Data, zone: None, priority: 100, capacity: 1 };
    let names = ["a", "b", "c"].map(NodeId::from);
    let own = InstanceFacts { data: Data::Present, ..InstanceFacts::default() };
    let facts = |node: &NodeId| NodeFacts {
        ended: Default::default(),
        node: node.clone(),
        told: Told::default(),
        config_version: ConfigVersion(1),
        links: names.iter().map(|peer| (peer.clone(), Link::Up(Duration::ZERO))).collect(),
        instances: BTreeMap::from([("jobs".into(), own.clone())]),
        draining: false,
        doors: BTreeMap::new(),
    };
    let mut case = Case {
        state: ServiceState { revision: Revision(3), ..appointed("a", 1) },
        nodes: names.iter().map(|node| (node.clone(), spec())).collect(),
        draining: BTreeSet::new(),
        facts: names.iter().map(|node| (node.clone(), Observed::new(facts(node), NOW))).collect(),
    };
    case.set("a", |own| runs(own, 1));
    case
}

fn runs(own: &mut InstanceFacts, term: u64) {
    own.process = Process::Primary;
    (own.promoted, own.serving) = (Term(term), Some(Term(term)));
}

fn appointed(node: &str, term: u64) -> ServiceState {
    let line = Appointed {
        term: Term(term),
        primary: node.into(),
        cause: Cause::Founded,
        reason: String::new(),
        at_unix_ms: NOW_MS - 3_600_000,
        whole: true,
        active_unix_ms: Some(NOW_MS - 3_600_000),
    };
    let appointment = Appointment {
        term: Term(term),
        primary: node.into(),
        rules: Vec::new(),
        phase: Phase::Active,
    };
    let history = vec![line];
    ServiceState { appointment: Some(appointment), history, ..ServiceState::default() }
}

fn spec() -> ServiceSpec {
    let pairing = Pairing::new(Kind::Command, Clustering::ActivePassive, Replication::None);
    ServiceSpec::of_command(pairing.unwrap_or_else(|_| unreachable!()), Timing::of_command())
}

impl Case {
    fn doors<'a>(&'a self, me: &'a NodeId, service: &'a ServiceId) -> Doors<'a> {
        let Timing { suspicion, .. } = Timing::of_command();
        let Self { nodes, facts, .. } = self;
        Doors { me, service, nodes, facts, suspicion, drain_max: DRAIN_MAX }
    }

    fn set(&mut self, node: &str, change: impl FnOnce(&mut InstanceFacts)) {
        self.set_node(node, |facts| change(facts.instances.get_mut(&"jobs".into()).unwrap()));
    }

    fn set_node(&mut self, node: &str, change: impl FnOnce(&mut NodeFacts)) {
        let mut facts = self.facts[&NodeId::from(node)].last_known().clone();
        change(&mut facts);
        self.facts.insert(node.into(), Observed::new(facts, NOW));
    }

    /// A node that nobody hears any more, seen so by all others.
    fn lose(&mut self, node: &str, link: Link) {
        let old = self.facts[&NodeId::from(node)].last_known().clone();
        self.facts.insert(node.into(), Observed::new(old, Timestamp(0)));
        for other in ["a", "b", "c"].into_iter().filter(|other| *other != node) {
            self.set_node(other, |facts| {
                facts.links.insert(node.into(), link);
            });
        }
    }

    fn vote(&mut self, node: &str, term: u64) {
        self.set(node, |own| {
            own.promised = Term(term);
            own.ballot = Some(Ballot { term: Term(term), position: None, held: None });
        });
    }

    /// What the controller on `b` plans, in words.
    fn plan(&self) -> (Vec<String>, String) {
        let plan = self.whole_plan();
        (plan.steps.iter().map(Step::to_string).collect(), plan.reason.to_string())
    }

    fn whole_plan(&self) -> Plan {
        self.with_view(|view| super::plan(view, NOW))
    }

    fn with_view<T>(&self, ask: impl FnOnce(&ControllerView<'_>) -> T) -> T {
        ask(&ControllerView {
            me: &"b".into(),
            service: &"jobs".into(),
            spec: &spec(),
            nodes: &self.nodes,
            draining: &self.draining,
            state: &self.state,
            services: &BTreeMap::new(),
            facts: &self.facts,
            trails: &Trails::default(),
            unix_ms: NOW_MS,
        })
    }

    fn steps(&self) -> Vec<String> {
        self.plan().0
    }
}

#[test]
fn the_first_appointment_needs_a_majority_too() {
    let mut case = case();
    case.state = ServiceState::default();
    case.set("a", |own| own.process = Process::Stopped);
    let asks = ["a", "b", "c"].map(|node| format!("ask {node} to promise term 1"));
    assert_eq!(case.steps(), asks);
    case.vote("c", 1);
    assert_eq!(case.steps(), asks[..2], "one of three is no proof");
    case.vote("b", 1);
    assert_eq!(case.steps(), ["propose to appoint a for term 1"]);
}

#[test]
fn what_runs_is_confirmed_and_left_alone() {
    let mut case = case();
    let quiet = (Vec::new(), "a runs it".to_string());
    assert_eq!(case.plan(), quiet);
    case.state.appointment.as_mut().unwrap().phase = Phase::Appointed;
    assert_eq!(case.steps(), ["propose to confirm that it runs in term 1"]);
    case.set("a", |own| own.process = Process::Stopped);
    assert_eq!(case.steps(), [""; 0], "its node starts it again");
}

#[test]
fn a_dead_node_is_outwaited_by_a_majority() {
    let mut case = case();
    case.lose("a", Link::Refused(Duration::ZERO));
    assert_eq!(case.steps(), ["b", "c"].map(|node| format!("ask {node} to promise term 2")));
    case.vote("b", 2);
    assert_eq!(case.steps(), ["ask c to promise term 2"]);
    case.vote("c", 2);
    let (steps, reason) = case.plan();
    assert_eq!(steps, ["propose to appoint b for term 2"]);
    assert_eq!(
        reason,
        "b runs it in term 2: 2 of 3 nodes are refused by a; 2 of 3 waited its lease out"
    );
    case.state.paused = true;
    assert_eq!(case.steps(), [""; 0], "an operator has paused it");
}

#[test]
fn silence_must_last_and_be_heard_by_a_majority() {
    let mut case = case();
    case.lose("a", Link::Silent(Duration::from_millis(900)));
    assert_eq!(case.steps(), [""; 0]);
    case.lose("a", Link::Silent(Duration::from_millis(1100)));
    assert_eq!(case.steps().len(), 2);
    case.set_node("c", |facts| {
        facts.links.insert("a".into(), Link::Up(Duration::ZERO));
    });
    assert_eq!(case.steps(), [""; 0], "c hears it");
}

#[test]
fn a_crash_loop_moves_on_the_holders_word_and_ends_where_all_fail() {
    let mut case = case();
    let fails = |own: &mut InstanceFacts| {
        own.starts_failed = FAILURES_MAX;
        own.serving = None;
    };
    case.set("a", fails);
    assert_eq!(case.steps(), ["ask a to promise term 2"]);
    case.vote("a", 2);
    assert_eq!(case.steps(), ["propose to appoint b for term 2"]);
    case.set("b", fails);
    assert_eq!(case.steps(), ["propose to appoint c for term 2"]);
    case.set("c", fails);
    let (steps, reason) = case.plan();
    assert_eq!(steps, [""; 0]);
    assert_eq!(reason, "it failed 5 times in a row on a; nobody can take over");
}

#[test]
fn a_switchover_stops_first_then_moves() {
    let mut case = case();
    case.state.switchover = Some(Switchover { to: "c".into(), deadline_unix_ms: NOW_MS + 10_000 });
    assert_eq!(case.plan(), (Vec::new(), "a stops, so that c can run it".into()));
    case.set("a", |own| own.process = Process::Stopped);
    assert_eq!(case.steps(), [""; 0], "that may be of before it knew");
    case.set("a", |own| own.revision = Revision(3));
    assert_eq!(case.steps(), ["ask a to promise term 2"]);
    case.vote("a", 2);
    assert_eq!(case.steps(), ["propose to appoint c for term 2"]);
    case.lose("c", Link::Silent(Duration::from_secs(2)));
    assert_eq!(case.steps(), ["propose to give the switchover up"]);
}

#[test]
fn an_operator_takes_it_from_a_holder_by_force() {
    let mut case = case();
    let to = Some(NodeId::from("c"));
    let deadline_unix_ms = NOW_MS + 10_000;
    case.state.forced = Some(Forced { to, accept_loss: true, deadline_unix_ms });
    assert_eq!(case.steps().len(), 3, "all are asked");
    case.vote("a", 2);
    assert_eq!(case.steps(), ["propose to appoint c for term 2"]);
    case.set("c", |own| own.starts_failed = FAILURES_MAX);
    assert_eq!(case.steps(), ["propose to give the failover up"]);
}

#[test]
fn it_leaves_a_node_that_is_emptied_and_goes_back_to_a_preferred_one() {
    let mut case = case();
    case.draining.insert("a".into());
    assert_eq!(case.steps(), ["propose to switch over to b"]);
    case.draining.clear();
    case.nodes.get_mut(&"c".into()).unwrap().priority = 200;
    assert_eq!(case.steps(), ["propose to switch over to c"]);
    case.state.history.last_mut().unwrap().at_unix_ms = NOW_MS - 30_000;
    assert_eq!(case.steps(), [""; 0], "not so soon (H37)");
    case.state.history.last_mut().unwrap().at_unix_ms = NOW_MS + 3_600_000;
    assert_eq!(case.steps(), ["propose to switch over to c"], "a clock was an hour ahead (H45)");
    case.state.history.last_mut().unwrap().at_unix_ms = NOW_MS + 30_000;
    assert_eq!(case.steps(), [""; 0], "that was not long ago by any clock");
    case.nodes.get_mut(&"a".into()).unwrap().priority = 0;
    assert_eq!(case.steps(), ["propose to switch over to c"], "never for long there");
}

#[test]
fn a_begun_election_makes_a_holder_that_runs_go_on_under_the_later_term() {
    let mut case = case();
    case.vote("c", 4);
    assert_eq!(case.steps(), ["propose to appoint a for term 4"]);
}

/// What node `a` does.
fn own(change: impl FnOnce(&mut SingletonView<'_>, &mut InstanceFacts)) -> String {
    let (state, me) = (appointed("a", 1), NodeId::from("a"));
    with_state(&state, &me, change)
}

fn with_state(
    state: &ServiceState,
    me: &NodeId,
    change: impl FnOnce(&mut SingletonView<'_>, &mut InstanceFacts),
) -> String {
    let service = "jobs".into();
    let mut facts = InstanceFacts { data: Data::Present, ..InstanceFacts::default() };
    let unused = InstanceFacts::default();
    let lease = Some(NOW.plus(Duration::from_millis(800)));
    let case = case();
    let mut view = SingletonView {
        me,
        timing: Timing::of_command(),
        state,
        own: &unused,
        asked: None,
        lease,
        counts_from: None,
        retry_at: Timestamp(0),
        wish: Wish::Agreed,
        is_emptied_first: false,
        doors: case.doors(me, &service),
    };
    change(&mut view, &mut facts);
    let next = plan_copy(&SingletonView { own: &facts, ..view }, NOW);
    next.action.map_or_else(|| format!("wait: {}", next.reason), |action| action.to_string())
}

#[test]
fn it_starts_only_with_a_lease_that_lasts() {
    assert_eq!(own(|_, _| {}), "start in term 1");
    let unproven = "wait: no majority proves its lease yet in term 1";
    assert_eq!(own(|view, _| view.lease = None), unproven);
    let short = NOW.plus(Duration::from_millis(300));
    assert_eq!(own(|view, _| view.lease = Some(short)), unproven);
    let pause = own(|view, own| {
        (view.retry_at, own.starts_failed) = (NOW.plus(Duration::from_millis(400)), 3);
    });
    assert_eq!(pause, "wait: failed 3 times in a row, starts again in 400 ms");
}

#[test]
fn what_runs_stays_only_where_it_is_appointed_for_its_term() {
    assert_eq!(own(|_, own| runs(own, 1)), "wait: runs in term 1");
    let elsewhere = appointed("b", 2);
    let a = NodeId::from("a");
    assert_eq!(with_state(&elsewhere, &a, |_, own| runs(own, 1)), "kill the copy");
    assert_eq!(with_state(&elsewhere, &a, |_, _| {}), "wait: b runs it in term 2");
    let nobody = ServiceState::default();
    assert_eq!(with_state(&nobody, &a, |_, own| runs(own, 1)), "kill the copy");
    assert_eq!(own(|_, own| (runs(own, 1), own.promised = Term(2)).1), "kill the copy");
}

#[test]
fn it_goes_on_under_a_later_term_only_if_nobody_held_it_between() {
    let a = NodeId::from("a");
    let mut state = appointed("a", 1);
    state.history.extend(appointed("a", 3).history);
    state.appointment = appointed("a", 3).appointment;
    assert_eq!(with_state(&state, &a, |_, own| runs(own, 1)), "go on in term 3");
    state.history.insert(1, appointed("b", 2).history.remove(0));
    assert_eq!(with_state(&state, &a, |_, own| runs(own, 1)), "kill the copy");
}

#[test]
fn a_promise_comes_first_and_a_vote_waits_the_lease_out_but_for_the_holder() {
    assert_eq!(own(|view, _| view.asked = Some(Term(2))), "promise term 2");
    assert_eq!(
        own(|view, own| (view.asked, own.promised) = (Some(Term(2)), Term(2))),
        "vote in term 2"
    );
    let later = Some(NOW.plus(Duration::from_millis(70)));
    let promised = |view: &mut SingletonView<'_>, own: &mut InstanceFacts| {
        (view.counts_from, own.promised) = (later, Term(2));
    };
    assert_eq!(own(promised), "vote in term 2", "the holder knows that it is gone");
    let (state, me) = (appointed("b", 1), NodeId::from("a"));
    let waits = "wait: its vote in term 2 counts in 70 ms: a lease may hold";
    assert_eq!(with_state(&state, &me, promised), waits);
    let told = own(|_, own| {
        own.promised = Term(2);
        own.ballot = Some(Ballot { term: Term(2), position: None, held: None });
    });
    assert_eq!(told, "wait: waits for an appointment: promised term 2");
    // What it said as the holder of an earlier term says nothing now.
    let said = |view: &mut SingletonView<'_>, own: &mut InstanceFacts| {
        promised(view, own);
        own.ballot = Some(Ballot { term: Term(2), position: None, held: Some(Term(1)) });
    };
    assert_eq!(own(said), "wait: waits for an appointment: promised term 2");
    assert_eq!(with_state(&state, &me, said), waits);
}

#[test]
fn a_switchover_ends_the_copy_in_good_order_and_keeps_it_stopped() {
    let mut state = appointed("a", 1);
    state.switchover = Some(Switchover { to: "b".into(), deadline_unix_ms: 0 });
    let a = NodeId::from("a");
    assert_eq!(with_state(&state, &a, |_, own| runs(own, 1)), "stop in good order");
    assert_eq!(with_state(&state, &a, |_, _| {}), "wait: stopped, so that b can run it");
}

#[test]
fn the_pauses_between_starts_grow_up_to_a_limit() {
    let pauses: Vec<u128> = (0..12).map(|n| retry_after(n).as_millis()).collect();
    let expected = [0, 0, 200, 400, 800, 1600, 3200, 6400, 12_800, 25_600, 30_000, 30_000];
    assert_eq!(pauses, expected);
}
