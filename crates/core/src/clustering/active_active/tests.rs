//! What moves when, what a node shows and releases, when a seat gets a new sitting.

mod holder;
mod led;
mod routing;
mod standing;
mod turns;

use crate::cluster::command::{Command, Config, ServiceCommand};
use crate::cluster::partitions::{Change, Owner, What};
use crate::cluster::seats::{Earlier, SeatCommand};
use crate::cluster::state::{Applied, Cause, ClusterState, ServiceState};
use crate::clustering::active_passive::trail::Trails;
use crate::clustering::{
    self,
    active_passive::{ControllerView, Plan, Step},
};
use crate::facts::{Ballot, Data, InstanceFacts, Link, NodeFacts, Process, Told};
use crate::ids::{ClusterId, ConfigVersion, Epoch, NodeId, PartitionId, ServiceId, Term};
use crate::pairing::{Clustering, Kind, Pairing, Replication};
use crate::spec::{ClusterSpec, NodeRole, NodeSpec, Seat, ServiceSpec, Timing};
use crate::time::{Observed, Timestamp};
use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::string::{String, ToString as _};
use alloc::vec;
use alloc::vec::Vec;
use core::time::Duration;

const NOW: Timestamp = Timestamp(100_000_000);
const NOW_MS: u64 = 1_700_000_000_000;
const NAMES: [&str; 3] = ["a", "b", "c"];

/// Three nodes with data, all heard, each with a copy that is well; nobody owns anything yet.
struct Case {
    state: ClusterState,
    facts: BTreeMap<NodeId, Observed<NodeFacts>>,
}

fn work() -> ServiceId {
    "work".into()
}

fn seat(node: &str) -> ServiceId {
    Seat::name(&work(), &node.into())
}

fn config(nodes: &[&str], partitions: u32) -> Box<Config> {
    let pairing = Pairing::new(Kind::Command, Clustering::ActiveActive, Replication::None);
    let spec = ServiceSpec::of_command(pairing.unwrap(), Timing::of_command()).divided(partitions);
    let node = NodeSpec { role: NodeRole::Data, zone: None, priority: 100, capacity: 1 };
    let nodes = nodes.iter().map(|name| (NodeId::from(*name), node.clone())).collect();
    let spec = ClusterSpec { nodes, services: [(work(), spec)].into() };
    Box::new(Config { text: String::new(), spec: spec.with_seats() })
}

fn case(partitions: u32) -> Case {
    let mut state = ClusterState::default();
    let config = config(&NAMES, partitions);
    state.apply(&Command::Found { cluster: ClusterId::from("c0ffee"), config });
    let facts = |node: &str| NodeFacts {
        ended: Default::default(),
        node: node.into(),
        told: Told::default(),
        config_version: ConfigVersion(1),
        links: NAMES.iter().map(|peer| ((*peer).into(), Link::Up(Duration::ZERO))).collect(),
        instances: NAMES.iter().map(|of| (seat(of), InstanceFacts::default())).collect(),
        draining: false,
        doors: BTreeMap::new(),
    };
    let facts = NAMES.map(|node| (node.into(), Observed::new(facts(node), NOW)));
    let mut case = Case { state, facts: facts.into() };
    for node in NAMES {
        case.sit(node, 1, Earlier::Gone);
    }
    case
}

impl Case {
    fn apply(&mut self, service: &ServiceId, command: ServiceCommand) -> Applied {
        let expected = self.state.services[service].revision;
        self.state.apply(&Command::Service { service: service.clone(), expected, command })
    }

    /// A seat gets a term, and its copy runs in it.
    fn sit(&mut self, node: &str, term: u64, earlier: Earlier) {
        let (reason, at_unix_ms, term) = (String::new(), NOW_MS - 60_000, Term(term));
        let (node, name) = (NodeId::from(node), node);
        let cause = Cause::Founded;
        let sit = SeatCommand { node, term, earlier, cause, reason, at_unix_ms };
        let sit = ServiceCommand::Seat(sit);
        assert_eq!(self.apply(&seat(name), sit), Applied::Changed);
        self.apply(&seat(name), ServiceCommand::ConfirmRunning { term, at_unix_ms });
        self.own(name, |own| {
            own.data = Data::Present;
            own.process = Process::Primary;
            (own.promised, own.promoted, own.serving) = (term, term, Some(term));
        });
    }

    fn own(&mut self, node: &str, change: impl FnOnce(&mut InstanceFacts)) {
        self.told(node, node, change);
    }

    /// What a node says of a seat.
    fn told(&mut self, by: &str, of: &str, change: impl FnOnce(&mut InstanceFacts)) {
        let mut facts = self.facts[&NodeId::from(by)].last_known().clone();
        change(facts.instances.get_mut(&seat(of)).unwrap());
        self.facts.insert(by.into(), Observed::new(facts, NOW));
    }

    fn lose(&mut self, node: &str) {
        let old = self.facts[&NodeId::from(node)].last_known().clone();
        self.facts.insert(node.into(), Observed::new(old, Timestamp(0)));
        for other in NAMES.into_iter().filter(|other| *other != node) {
            let mut facts = self.facts[&NodeId::from(other)].last_known().clone();
            facts.links.insert(node.into(), Link::Refused(Duration::ZERO));
            self.facts.insert(other.into(), Observed::new(facts, NOW));
        }
    }

    fn plan(&self, service: &ServiceId) -> Plan {
        let view = ControllerView {
            me: &"b".into(),
            service,
            spec: &self.state.spec.services[service],
            nodes: &self.state.spec.nodes,
            draining: &self.state.draining,
            state: &self.state.services[service],
            services: &self.state.services,
            facts: &self.facts,
            trails: &Trails::default(),
            unix_ms: NOW_MS,
        };
        clustering::plan(&view, NOW)
    }

    fn steps(&self, service: &ServiceId) -> Vec<String> {
        self.plan(service).steps.iter().map(Step::to_string).collect()
    }

    /// Carries out what is planned for the partitions; in words.
    fn go(&mut self) -> String {
        let plan = self.plan(&work());
        let words = self.steps(&work()).concat();
        for step in plan.steps {
            if let Step::Propose(command) = step {
                assert_eq!(self.apply(&work(), command), Applied::Changed);
            }
        }
        words
    }

    fn owners(&self) -> String {
        let table = self.state.services[&work()].partitions.as_ref().unwrap();
        let name = |it: Option<&Owner>| it.map_or("-", |it| it.node.as_str()).to_string();
        table.iter().map(|(_, it)| name(it.owner.as_ref())).collect()
    }
}

#[test]
fn the_first_plan_gives_everything_and_the_next_nothing() {
    let mut case = case(6);
    case.go();
    assert_eq!(case.owners(), "aabbcc");
    assert_eq!(case.go(), "");
    assert!(case.plan(&work()).reason.text().starts_with("6 of 6 partitions are owned"));
}

#[test]
fn who_can_do_more_is_given_more() {
    let mut case = case(8);
    case.state.spec.nodes.get_mut(&NodeId::from("c")).unwrap().capacity = 2;
    case.go();
    assert_eq!(case.owners(), "aabbcccc");
}

#[test]
fn a_dead_nodes_partitions_move_once_its_sitting_passed() {
    let mut case = case(6);
    case.go();
    case.lose("a");
    assert_eq!(case.go(), "", "silence is no proof");
    let asks = ["b", "c"].map(|node| alloc::format!("ask {node} to promise term 2"));
    assert_eq!(case.steps(&seat("a")), asks);
    for node in ["b", "c"] {
        case.told(node, "a", |own| {
            own.ballot = Some(Ballot { term: Term(2), position: None, held: None });
            own.promised = Term(2);
        });
    }
    assert_eq!(case.steps(&seat("a")), ["propose to seat a anew in term 2"]);
    let Some(Step::Propose(command)) = case.plan(&seat("a")).steps.pop() else { panic!("a seat") };
    case.apply(&seat("a"), command);
    assert_eq!(case.go(), "propose to give 0 to b in term 1, give 1 to c in term 1");
    assert_eq!(case.owners(), "bcbbcc");
    assert_eq!(case.steps(&seat("a")), [""; 0], "it owns nothing: one proof is enough");
    let why = case.plan(&seat("a")).reason;
    assert!(why.text().ends_with("it owns nothing"), "{why}");
}

#[test]
fn who_goes_on_without_a_proof_keeps_what_it_owns() {
    let mut case = case(3);
    case.go();
    case.told("c", "a", |own| own.promised = Term(2));
    assert_eq!(case.steps(&seat("a")), ["propose to let a go on in term 2"]);
    case.sit("a", 2, Earlier::MayRun);
    assert_eq!((case.go().as_str(), case.owners().as_str()), ("", "abc"));
    assert_eq!(case.state.services[&seat("a")].sitting, Term(1));
}

/// What a majority that waited the lease out of `a` proves, and what follows.
fn is_freed_by_a_majority(case: &mut Case) {
    let asks = NAMES.map(|node| alloc::format!("ask {node} to promise term 2"));
    assert_eq!(case.steps(&seat("a")), asks);
    for node in ["b", "c"] {
        case.told(node, "a", |own| {
            own.ballot = Some(Ballot { term: Term(2), position: None, held: None });
            own.promised = Term(2);
        });
    }
    let Some(Step::Propose(command)) = case.plan(&seat("a")).steps.pop() else { panic!("a seat") };
    assert_eq!(command.to_string(), "seat a anew in term 2");
    case.apply(&seat("a"), command);
    assert_eq!(case.go(), "propose to give 0 to b in term 1");
    assert_eq!(case.steps(&seat("a")), [""; 0], "once");
}

#[test]
fn a_copy_that_does_not_die_is_passed_over_by_a_majority() {
    let mut case = case(3);
    case.go();
    case.own("a", |own| {
        (own.process, own.serving) = (Process::Stopping, None);
        own.stalled = Duration::from_secs(9);
    });
    assert_eq!(case.steps(&seat("a")), [""; 0], "it may take its time");
    case.own("a", |own| own.stalled = Duration::from_secs(10));
    is_freed_by_a_majority(&mut case);
}

#[test]
fn a_copy_that_ended_and_does_not_start_releases_in_good_order() {
    let mut case = case(3);
    case.go();
    case.own("a", |own| {
        (own.process, own.serving) = (Process::Stopped, None);
        own.stalled = Duration::from_secs(10);
        own.seat.unwell = Duration::from_secs(10);
    });
    assert_eq!(case.steps(&seat("a")), [""; 0]);
    assert_eq!(case.go(), "propose to release 0 to b");
}

#[test]
fn a_node_that_cannot_read_what_it_must_know_is_passed_over_by_a_majority() {
    let mut case = case(3);
    case.go();
    let reason = "services/work@a/released cannot be read";
    case.own("a", |own| {
        *own = InstanceFacts { process: Process::Stopping, ..InstanceFacts::default() };
        own.data = Data::Quarantined { reason: reason.to_string() };
    });
    let why = case.plan(&seat("a")).reason;
    assert!(why.text().contains(reason), "{why}");
    is_freed_by_a_majority(&mut case);
    let why = case.plan(&work()).reason;
    assert!(why.text().ends_with(&alloc::format!("a: {reason}")), "{why}");
}

#[test]
fn what_no_copy_works_on_and_no_disk_can_release_is_freed_by_a_majority() {
    let mut case = case(3);
    case.go();
    case.own("a", |own| {
        (own.process, own.serving, own.starts_failed) = (Process::Stopped, None, 5);
        own.seat.unwell = Duration::from_secs(10);
    });
    assert_eq!(case.steps(&seat("a")), [""; 0], "it releases");
    case.own("a", |own| own.seat.mute = true);
    is_freed_by_a_majority(&mut case);
}

fn released(case: &mut Case, node: &str, partition: u32, epoch: u64) {
    case.own(node, |own| {
        own.seat.table = ConfigVersion(1);
        own.seat.released.insert(PartitionId(partition), Epoch(epoch));
    });
}

#[test]
fn an_emptied_node_releases_first_and_only_its_word_for_the_epoch_counts() {
    let mut case = case(3);
    case.go();
    case.state.apply(&Command::Drain { node: "a".into(), draining: true });
    assert_eq!(case.go(), "propose to release 0 to b");
    released(&mut case, "a", 0, 0);
    assert_eq!(case.go(), "", "that was another epoch");
    released(&mut case, "a", 0, 1);
    assert_eq!(case.go(), "propose to give 0 to b in term 1");
    assert_eq!(case.owners(), "bbc");
    case.state.apply(&Command::Drain { node: "a".into(), draining: false });
    assert_eq!(case.go(), "propose to release 1 to a", "the least that makes it even");
    case.state.apply(&Command::Drain { node: "a".into(), draining: true });
    assert_eq!(case.go(), "propose to keep 1", "called off, under another epoch");
}

#[test]
fn a_crash_loop_and_a_copy_that_is_not_well_lose_their_work_a_short_failure_does_not() {
    let mut case = case(3);
    case.go();
    case.own("a", |own| (own.process, own.serving) = (Process::Stopped, None));
    assert_eq!(case.go(), "", "it is started again");
    case.own("a", |own| own.starts_failed = 3);
    assert_eq!(case.go(), "propose to release 0 to b");
    let mut case = self::case(3);
    case.go();
    case.own("c", |own| (own.serving, own.seat.unwell) = (None, super::controller::UNWELL_MAX));
    assert_eq!(case.go(), "propose to release 2 to a");
}

#[test]
fn h37_a_node_that_was_lost_again_and_again_is_given_nothing_for_a_while() {
    let mut case = case(3);
    case.lose("a");
    case.go();
    assert_eq!(case.owners(), "bbc");
    for term in [2, 3] {
        let sit = SeatCommand {
            node: "a".into(),
            term: Term(term),
            earlier: Earlier::Gone,
            cause: Cause::NodeDied,
            reason: String::new(),
            at_unix_ms: NOW_MS - 2_000,
        };
        case.apply(&seat("a"), ServiceCommand::Seat(sit));
    }
    let facts = case.facts[&NodeId::from("b")].last_known().links.clone();
    for node in NAMES {
        let mut told = case.facts[&NodeId::from(node)].last_known().clone();
        told.links = facts.keys().map(|it| (it.clone(), Link::Up(Duration::ZERO))).collect();
        case.facts.insert(node.into(), Observed::new(told, NOW));
    }
    let at_unix_ms = NOW_MS - 2_000;
    case.apply(&seat("a"), ServiceCommand::ConfirmRunning { term: Term(3), at_unix_ms });
    case.own("a", |own| (own.promoted, own.serving) = (Term(3), Some(Term(3))));
    assert_eq!(case.go(), "");
    let why = case.plan(&work()).reason;
    assert!(why.text().contains("waits 3000 ms"), "{why}");
}

#[test]
fn what_would_forget_who_owns_what_is_not_agreed() {
    let mut case = case(3);
    case.go();
    let mut applied = |nodes: &[&str], partitions| {
        let (expected, config) = (case.state.config_version, config(nodes, partitions));
        case.state.apply(&Command::Configure { expected, config })
    };
    let ignored = |because: &str| Applied::Ignored { because: because.into() };
    let other = "the partitions of a service that runs cannot change";
    assert_eq!(applied(&NAMES, 4), ignored(other));
    let owner = "a node that would go owns partitions: drain it first";
    assert_eq!(applied(&["a", "b"], 3), ignored(owner));
    assert_eq!(applied(&["a", "b", "c", "d"], 3), Applied::Changed);
}

#[test]
fn an_operator_who_vouches_for_the_loss_of_nodes_sets_what_they_owned_free() {
    let mut case = case(6);
    case.go();
    let config = config(&["a"], 6);
    let version = case.state.config_version;
    let configure = Command::Configure { expected: version, config: config.clone() };
    let refused = case.state.clone().apply(&configure);
    assert!(matches!(refused, Applied::Ignored { .. }), "{refused:?}");
    for command in case.state.vouched_gone(&config.spec, NOW_MS) {
        assert_eq!(case.state.apply(&command), Applied::Changed);
    }
    assert_eq!(case.state.apply(&configure), Applied::Changed);
    assert!(!case.state.services.contains_key(&seat("b")));
    assert_eq!(case.state.services[&work()].partitions.as_ref().map(|it| it.count()), Some(6));
}
