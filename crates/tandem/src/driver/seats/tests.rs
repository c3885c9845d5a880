//! A seat on a real folder, with what is agreed and what its copy does set by the test.

use super::*;
use crate::api::partitions::Holds;
use std::collections::BTreeMap;
use std::path::Path;
use tandem_core::cluster::command::{Command, Config, ServiceCommand};
use tandem_core::cluster::partitions::{Change, Owner, What};
use tandem_core::cluster::seats::{Earlier, SeatCommand};
use tandem_core::cluster::state::{Applied, Cause, ClusterState};
use tandem_core::facts::InstanceFacts;
use tandem_core::pairing::{Clustering, Kind, Pairing, Replication};
use tandem_core::spec::{self, ClusterSpec, NodeRole, NodeSpec, ServiceSpec, Timing};

const TERM: Term = Term(1);

fn seat_of_a() -> ServiceId {
    spec::Seat::name(&"work".into(), &"a".into())
}

fn change(state: &mut ClusterState, service: &ServiceId, command: ServiceCommand) {
    let expected = state.services[service].revision;
    let command = Command::Service { service: service.clone(), expected, command };
    assert_eq!(state.apply(&command), Applied::Changed);
}

fn partition(state: &mut ClusterState, epoch: u64, what: What) {
    let changes = vec![Change { partition: PartitionId(0), epoch: Epoch(epoch), what }];
    let reason = String::new();
    change(state, &"work".into(), ServiceCommand::Partition { changes, reason });
}

/// Two nodes; the copy of `a` owns partition 0 under epoch 1.
fn agreed() -> ClusterState {
    let pairing = Pairing::new(Kind::Command, Clustering::ActiveActive, Replication::None);
    let work = ServiceSpec::of_command(pairing.unwrap(), Timing::of_command()).divided(1);
    let node = NodeSpec { role: NodeRole::Data, zone: None, priority: 100, capacity: 1 };
    let nodes = [("a".into(), node.clone()), ("b".into(), node)].into();
    let spec = ClusterSpec { nodes, services: [("work".into(), work)].into() }.with_seats();
    let config = Box::new(Config { text: String::new(), spec });
    let mut state = ClusterState::default();
    state.apply(&Command::Found { cluster: "test".into(), config });
    let sit = SeatCommand {
        node: "a".into(),
        term: TERM,
        earlier: Earlier::Gone,
        cause: Cause::Founded,
        reason: String::new(),
        at_unix_ms: 0,
    };
    change(&mut state, &seat_of_a(), ServiceCommand::Seat(sit));
    partition(&mut state, 0, What::Give(Owner { node: "a".into(), sitting: TERM }));
    state
}

struct Case {
    seat: Arc<Seat>,
    agreed: watch::Sender<Agreed>,
    written: u64,
    _wishes: mpsc::Receiver<Asked>,
}

fn case(dir: &Path, state: ClusterState) -> Case {
    let (agreed, watched) = watch::channel(Agreed { state: Arc::new(state), index: 1 });
    let (wish, wishes) = mpsc::channel(1);
    let hub = Arc::new(Hub::new("a".into()));
    let own = InstanceFacts {
        process: Process::Primary,
        promoted: TERM,
        serving: Some(TERM),
        ..InstanceFacts::default()
    };
    hub.publish(&seat_of_a(), &own, clock::now());
    let seat = Seat::open(Wiring {
        work: "work".into(),
        seat: seat_of_a(),
        dir: dir.to_owned(),
        release_max: Duration::from_secs(600),
        hub,
        agreed: watched,
        wishes: wish,
        events: EventLog::new("a".into()),
    });
    Case { seat: seat.unwrap(), agreed, written: 0, _wishes: wishes }
}

impl Case {
    async fn go_on(&mut self) {
        self.seat.go_on(&mut self.written).await;
    }

    fn told(&self) -> EventKinds {
        self.seat.it.events.since(0).into_iter().map(|event| event.kind).collect()
    }

    fn said(&self) -> SeatFacts {
        self.seat.it.hub.own().instances[&seat_of_a()].seat.clone()
    }
}

type EventKinds = Vec<EventKind>;

/// What the copy reads.
fn read(dir: &Path) -> OwnPartitions {
    let path = path_in(dir).unwrap().display().to_string().replace("{sitting}", "1");
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn state_of(dir: &Path) -> Holds {
    read(dir).partitions[0].state
}

#[tokio::test]
async fn inv13_nobody_is_told_of_a_release_that_a_later_daemon_would_not_know_of() {
    let dir = tempfile::tempdir().unwrap();
    let before = agreed();
    let mut it = case(dir.path(), before.clone());
    it.go_on().await;
    assert_eq!(state_of(dir.path()), Holds::Owned);
    // Nothing can be made durable.
    let in_the_way = dir.path().join("released.new");
    std::fs::create_dir(&in_the_way).unwrap();
    let mut state = before.clone();
    partition(&mut state, 1, What::Release("b".into()));
    it.agreed.send_modify(|agreed| agreed.state = Arc::new(state));
    it.go_on().await;
    assert_eq!(state_of(dir.path()), Holds::Owned, "a crash now would begin with the state before");
    it.go_on().await;
    assert!(it.said().unwell > Duration::ZERO, "it is given nothing more: {:?}", it.said());
    assert_eq!(it.told(), [EventKind::DiskFull], "once");
    std::fs::remove_dir(&in_the_way).unwrap();
    it.go_on().await;
    assert_eq!(state_of(dir.path()), Holds::Releasing);
    assert_eq!(it.told(), [EventKind::DiskFull, EventKind::DiskRecovered]);
    assert_eq!(it.said().unwell, Duration::ZERO);
    // The next daemon begins with the state before.
    let mut next = case(dir.path(), before);
    next.go_on().await;
    assert_eq!(next.seat.own(), None);
    assert_eq!(state_of(dir.path()), Holds::Releasing, "never its own again under that epoch");
}

#[tokio::test]
async fn what_was_released_stays_told_while_the_disk_takes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut it = case(dir.path(), agreed());
    it.go_on().await;
    let mut state = agreed();
    partition(&mut state, 1, What::Release("b".into()));
    it.agreed.send_modify(|agreed| agreed.state = Arc::new(state.clone()));
    it.go_on().await;
    it.seat.confirm(PartitionId(0), Epoch(1)).unwrap();
    it.go_on().await;
    let released = [(PartitionId(0), Epoch(1))].into();
    assert_eq!(it.said().released, released);
    std::fs::remove_dir_all(dir.path().join("partitions")).unwrap();
    partition(&mut state, 1, What::Give(Owner { node: "b".into(), sitting: TERM }));
    it.agreed.send_modify(|agreed| agreed.state = Arc::new(state));
    it.go_on().await;
    assert_eq!(it.said().released, released);
    assert_eq!(it.told(), [EventKind::DiskFull]);
}

#[tokio::test]
async fn a_clock_that_was_set_back_makes_no_version_smaller() {
    let dir = tempfile::tempdir().unwrap();
    let mut it = case(dir.path(), agreed());
    it.go_on().await;
    let far = read(dir.path()).version + 1_000_000_000_000;
    let told = OwnPartitions { version: far, ..read(dir.path()) };
    files::write(dir.path(), &told, TERM).unwrap();
    let mut next = case(dir.path(), agreed());
    next.go_on().await;
    let version = read(dir.path()).version;
    assert!(version > far, "{version} would be taken for older than {far}");
}

#[tokio::test]
async fn who_goes_by_what_is_owned_hears_that_nothing_is_once_the_service_is_gone() {
    let dir = tempfile::tempdir().unwrap();
    let mut it = case(dir.path(), agreed());
    it.go_on().await;
    let told = it.seat.told();
    let first = told.borrow().clone().unwrap();
    assert_eq!(first.partitions.len(), 1);
    let mut state = agreed();
    let nodes = state.spec.nodes.clone();
    let expected = state.config_version;
    let spec = ClusterSpec { nodes, services: [].into() };
    let config = Box::new(Config { text: String::new(), spec });
    assert_eq!(state.apply(&Command::Configure { expected, config }), Applied::Changed);
    it.agreed.send_modify(|agreed| agreed.state = Arc::new(state));
    it.go_on().await;
    let last = told.borrow().clone().unwrap();
    assert!(last.partitions.is_empty() && last.version > first.version, "{last:?}");
    // Once, and put back it is told anew.
    it.go_on().await;
    assert_eq!(told.borrow().clone(), Some(last.clone()));
    it.agreed.send_modify(|it| it.state = Arc::new(agreed()));
    it.go_on().await;
    let again = told.borrow().clone().unwrap();
    assert_eq!(again.partitions, first.partitions);
    assert!(again.version > last.version);
}

#[tokio::test]
async fn inv15_a_copy_is_told_which_epochs_were_of_an_earlier_table() {
    let dir = tempfile::tempdir().unwrap();
    let mut state = agreed();
    let mut it = case(dir.path(), state.clone());
    it.go_on().await;
    let first = read(dir.path());
    assert_eq!((first.before, first.partitions[0].epoch), (Epoch(0), Epoch(1)));
    let with = state.spec.clone();
    for services in [BTreeMap::new(), with.services.clone()] {
        let spec = ClusterSpec { services, ..with.clone() };
        let config = Box::new(Config { text: String::new(), spec });
        let expected = state.config_version;
        assert_eq!(state.apply(&Command::Configure { expected, config }), Applied::Changed);
    }
    it.agreed.send_modify(|agreed| agreed.state = Arc::new(state));
    it.go_on().await;
    let back = read(dir.path());
    assert!(back.version > first.version, "{back:?}");
    assert_eq!(back.before, Epoch(1), "whoever owns any of it has a later one: {back:?}");
    assert_eq!(Divided::own(&*it.seat).map(|own| own.before), Some(Epoch(1)));
}
