//! The driver beside a keeper that the test plays: one node, whose lease is always proven.

use super::*;
use crate::fence::client::Asked as Calls;
use crate::fence::protocol::{Answer, Cause, Command, End, Event, How, Refusal, Status};
use crate::service::command::{Health, Probe, Runs};
use crate::telemetry::event_kind::EventKind;
use tandem_core::cluster::state::{Appointment, ClusterState, Phase};
use tandem_core::clustering::active_passive::singleton::{FAILURES_MAX, RAN_WELL_AFTER};
use tandem_core::pairing::{Clustering, Kind, Pairing, Replication};
use tandem_core::spec::{ClusterSpec, Durability, NodeRole, NodeSpec, Timing};

mod beside;
mod changes;
mod divided;
mod limits;
mod starts;
mod withdrawn;
mod without;

const LIMIT: Duration = Duration::from_secs(30);
const LONG: Duration = Duration::from_secs(600);

fn agreed() -> Agreed {
    let pairing = Pairing::new(Kind::Command, Clustering::ActivePassive, Replication::None);
    let durability = Durability::Async { lag_bytes_max: 0, lag_max: Duration::ZERO };
    let spec = ServiceSpec::new(pairing.unwrap(), durability, Timing::of_command());
    let node = NodeSpec { role: NodeRole::Data, zone: None, priority: 100, capacity: 1 };
    let appointment =
        Appointment { term: Term(3), primary: "a".into(), rules: Vec::new(), phase: Phase::Active };
    let service = ServiceState { appointment: Some(appointment), ..ServiceState::default() };
    let state = ClusterState {
        cluster: Some("test".into()),
        spec: ClusterSpec {
            nodes: [("a".into(), node)].into(),
            services: [("jobs".into(), spec)].into(),
        },
        services: [("jobs".into(), service)].into(),
        ..ClusterState::default()
    };
    Agreed { state: Arc::new(state), index: 1 }
}

fn config(dir: &std::path::Path) -> CommandConfig {
    CommandConfig {
        told: BTreeMap::new(),
        service: "jobs".into(),
        me: "a".into(),
        dir: dir.to_owned(),
        cwd: dir.to_owned(),
        command: vec!["job".into()],
        env: BTreeMap::new(),
        run_as: None,
        address: None,
        stop: Vec::new(),
        stop_max: LONG,
        drain_max: LONG,
        on_start: Vec::new(),
        on_stop: Vec::new(),
        on_partitions: Vec::new(),
        hook_max: LONG,
        health: None,
        log_bytes_max: 1000,
    }
}

type Senders =
    (mpsc::Sender<KeeperEvent>, mpsc::Sender<Term>, mpsc::Sender<Asked>, mpsc::Sender<Change>);

/// A driver, its keeper, and what it is told.
struct Case {
    driver: SingletonDriver,
    calls: Calls,
    agreed: watch::Sender<Agreed>,
    _dir: tempfile::TempDir,
    _rest: Senders,
}

fn case(change: impl FnOnce(&mut CommandConfig)) -> Case {
    let dir = tempfile::tempdir().unwrap();
    let mut config = config(dir.path());
    change(&mut config);
    let (keeper, calls) = Keeper::for_test();
    let (agreed, watched) = watch::channel(agreed());
    let (said, keeper_events) = mpsc::channel(8);
    let (ask, asks) = mpsc::channel(8);
    let (wish, wishes) = mpsc::channel(8);
    let (change, changes) = mpsc::channel(8);
    let mut driver = SingletonDriver::new(Wiring {
        config,
        limits: BTreeMap::new(),
        exe: "/nowhere".into(),
        hub: Arc::new(Hub::new("a".into())),
        explanations: Arc::default(),
        supervisor: Supervisor::new(),
        agreed: watched,
        asks,
        wishes,
        changes,
        events: EventLog::new("a".into()),
        beside: None,
        divided: None,
    });
    driver.keeper = keeper;
    driver.keeper_events = keeper_events;
    driver.keeper_lost = false;
    Case { driver, calls, agreed, _dir: dir, _rest: (said, ask, wish, change) }
}

fn idle() -> KeeperEvent {
    let state = crate::fence::protocol::State::Idle;
    KeeperEvent::Status(Status { keeper: 1, state, lease: None, last_end: None })
}

fn running() -> KeeperEvent {
    let state = crate::fence::protocol::State::Running { pid: 7 };
    KeeperEvent::Status(Status { keeper: 1, state, lease: None, last_end: None })
}

fn exited(cause: Cause) -> KeeperEvent {
    let now = clock::now();
    let how = How::Code(1);
    KeeperEvent::from(Event::Exited(End { pid: 7, how, cause, at: now, gone: now }))
}

impl Case {
    /// Plans and acts once, and answers whatever the keeper is asked meanwhile.
    async fn go_on(&mut self, answer: Answer) -> Vec<Command> {
        let mut asked = Vec::new();
        let mut turn = Box::pin(self.driver.go_on());
        loop {
            tokio::select! {
                biased;
                call = self.calls.answer(answer.clone()) => asked.extend(call),
                _ = &mut turn => return asked,
            }
        }
    }

    /// Until something was written: then what follows from it.
    async fn written(&mut self, answer: Answer) -> Vec<Command> {
        let finished = loop {
            let finished = tokio::time::timeout(LIMIT, self.driver.finished.1.recv()).await;
            match finished.unwrap().unwrap() {
                // What it prints is looked at beside everything else.
                Finished::Looked(place) => self.driver.on_looked(place),
                finished => break finished,
            }
        };
        let mut asked = Vec::new();
        let mut turn = Box::pin(self.driver.on_finished(finished));
        loop {
            tokio::select! {
                biased;
                call = self.calls.answer(answer.clone()) => asked.extend(call),
                () = &mut turn => return asked,
            }
        }
    }

    async fn hears(&mut self, event: KeeperEvent) {
        tokio::select! {
            biased;
            () = self.driver.on_keeper(event) => {}
            _ = self.calls.answer(Answer::Done) => panic!("nothing is asked of the keeper yet"),
        }
    }

    /// Idle, then started: it runs.
    async fn runs(&mut self) {
        self.hears(idle()).await;
        assert_eq!(self.go_on(Answer::Done).await, []);
        let asked = self.written(Answer::Done).await;
        assert!(matches!(asked[..], [Command::Start(_)]), "{asked:?}");
        assert!(matches!(self.driver.life, Life::Launching(_)));
        self.hears(KeeperEvent::Started { pid: 7 }).await;
        assert_eq!(self.driver.life, Life::Runs);
    }

    fn told(&self, kind: EventKind) -> Vec<String> {
        let events = self.driver.it.events.since(0).into_iter();
        events.filter(|it| it.kind == kind).map(|it| it.message).collect()
    }

    fn kept(&self) -> State {
        State::load(&self.driver.it.config.dir).unwrap()
    }
}

fn exec(words: &[&str]) -> Option<Health> {
    Some(Health {
        probe: Probe::Exec(words.iter().map(ToString::to_string).collect()),
        interval: LONG,
        timeout: Duration::from_secs(1),
        fall: 3,
        rise: 1,
        grace: Duration::from_secs(10),
    })
}

#[tokio::test]
async fn what_was_never_healthy_did_not_run_well() {
    let mut it = case(|config| config.health = exec(&["false"]));
    it.runs().await;
    it.driver.own.starts_failed = 3;
    let later = clock::now().plus(RAN_WELL_AFTER * 2);
    let state = it.agreed.borrow().state.services[&"jobs".into()].clone();
    it.driver.note_progress(Some(&state), later);
    assert_eq!(it.driver.own.starts_failed, 3, "nobody saw it well");
    let life = it.driver.lives;
    it.driver.on_checked(life, Ok(())).await;
    it.driver.note_progress(Some(&state), later);
    assert_eq!(it.driver.own.starts_failed, 0);
}

#[tokio::test]
async fn a_hook_after_the_end_is_noted_before_it_runs_and_never_taken_over() {
    let mut it = case(|config| config.on_stop = vec!["tidy up".into()]);
    it.runs().await;
    assert_eq!(it.kept().runs, Runs::Command);
    it.driver.life = Life::Ending { kill_at: clock::now().plus(LONG), why: Why::Planned };
    it.driver.own.process = Process::Stopping;
    it.hears(exited(Cause::Asked)).await;
    assert_eq!(it.driver.own.process, Process::Stopping, "it is not over");
    let asked = it.written(Answer::Done).await;
    assert_eq!(it.kept().runs, Runs::Hook);
    let [Command::Start(spec)] = &asked[..] else { panic!("{asked:?}") };
    assert_eq!(spec.argv, ["tidy up"]);
    assert!(matches!(it.driver.life, Life::Closing(_)));
    // A daemon that is started now finds something that runs.
    let state = it.kept();
    let mut next = case(|_| {});
    next.driver.durable = state;
    next.driver.own.promoted = state.begun;
    next.hears(running()).await;
    assert!(matches!(next.driver.life, Life::Ending { .. }), "{:?}", next.driver.life);
    assert_eq!(next.driver.own.process, Process::Stopping);
}

#[tokio::test]
async fn a_promise_in_between_leaves_the_hook_out() {
    let mut it = case(|config| config.on_stop = vec!["tidy up".into()]);
    it.runs().await;
    it.driver.life = Life::Ending { kill_at: clock::now().plus(LONG), why: Why::Planned };
    it.driver.own.process = Process::Stopping;
    it.hears(exited(Cause::Asked)).await;
    it.driver.own.promised = Term(9);
    assert_eq!(it.go_on(Answer::Done).await, []);
    assert_eq!(it.driver.own.process, Process::Stopped);
    assert_eq!(it.written(Answer::Done).await, [], "no hook");
    assert_eq!(it.driver.own.process, Process::Stopped);
}

#[tokio::test]
async fn h50_a_start_that_hangs_is_killed_and_counts_as_failed() {
    let mut it = case(|_| {});
    it.hears(idle()).await;
    it.go_on(Answer::Done).await;
    it.written(Answer::Done).await;
    assert!(matches!(it.driver.life, Life::Launching(until) if until > clock::now()));
    it.driver.life = Life::Launching(clock::now());
    assert_eq!(it.go_on(Answer::Done).await, [Command::Kill]);
    assert_eq!(it.driver.own.process, Process::Stopping);
    assert_eq!(it.told(EventKind::HookFailed).len(), 1);
    it.hears(exited(Cause::Asked)).await;
    assert_eq!((it.driver.own.process, it.driver.own.starts_failed), (Process::Stopped, 1));
}

#[tokio::test]
async fn h50_what_does_not_die_counts_as_hung_and_is_told_once() {
    let mut it = case(|_| {});
    it.runs().await;
    let now = clock::now();
    it.driver.life = Life::Ending { kill_at: now.plus(LONG), why: Why::Planned };
    it.driver.own.process = Process::Stopping;
    it.go_on(Answer::Done).await;
    assert_eq!(it.driver.own.stalled, Duration::ZERO, "it may take its time");
    for _ in 0..3 {
        it.driver.life = Life::Ending { kill_at: clock::now(), why: Why::Planned };
        assert_eq!(it.go_on(Answer::Done).await, [Command::Kill]);
    }
    assert_eq!(it.told(EventKind::HookFailed).len(), 1);
    let state = it.agreed.borrow().state.services[&"jobs".into()].clone();
    it.driver.note_progress(Some(&state), clock::now().plus(LONG));
    assert!(it.driver.own.stalled >= LONG / 2, "{:?}", it.driver.own.stalled);
}

#[tokio::test]
async fn a_disk_that_takes_no_state_is_a_crash_loop() {
    let mut it = case(|config| config.dir = "/proc/no/such/folder".into());
    it.hears(idle()).await;
    for failures in 1..=FAILURES_MAX {
        it.driver.retry_at = Timestamp(0);
        it.go_on(Answer::Done).await;
        assert_eq!(it.written(Answer::Done).await, []);
        assert_eq!(it.driver.own.starts_failed, failures);
        assert_eq!(it.driver.own.process, Process::Stopped);
    }
    let told = it.told(EventKind::InstanceExited);
    assert!(told[0].contains("takes no state"), "{told:?}");
}

#[tokio::test]
async fn a_holder_that_waits_for_its_next_try_goes_on_proving_its_lease() {
    let mut it = case(|_| {});
    it.runs().await;
    it.hears(exited(Cause::ByItself)).await;
    it.driver.failed();
    it.go_on(Answer::Done).await;
    assert_eq!(it.driver.own.process, Process::Stopped);
    assert!(it.driver.it.hub.rests_on_answers(), "its lease would pass meanwhile");
    let timing = Timing::of_command();
    let state = it.agreed.borrow().state.services[&"jobs".into()].clone();
    let past = Some(clock::now());
    assert!(it.driver.ask_for_proof(timing, &state, past).is_some(), "a lease that passed is none");
    let far = Some(clock::now().plus(timing.lease));
    assert!(it.driver.ask_for_proof(timing, &state, far).is_none());
}

#[tokio::test]
async fn a_start_that_the_keeper_refuses_is_told() {
    let mut it = case(|_| {});
    it.hears(idle()).await;
    it.go_on(Answer::Done).await;
    let why = "no memory".to_owned();
    it.written(Answer::Refused(Refusal::CannotStart { why })).await;
    assert_eq!((it.driver.own.process, it.driver.own.starts_failed), (Process::Stopped, 1));
    let told = it.told(EventKind::InstanceExited);
    assert!(told[0].contains("no memory"), "{told:?}");
}

#[tokio::test]
async fn a_stop_that_fails_becomes_a_signal() {
    let mut it = case(|config| config.stop = vec!["/no/such/program".into()]);
    it.runs().await;
    it.driver.stop(Why::Planned).await;
    let asked = it.written(Answer::Done).await;
    assert!(matches!(asked[..], [Command::Signal { .. }]), "{asked:?}");
    it.hears(exited(Cause::ByItself)).await;
    assert_eq!(it.told(EventKind::InstanceExited), Vec::<String>::new(), "it was asked to");
    assert_eq!(it.told(EventKind::InstanceStopped).len(), 1);
}

#[tokio::test]
async fn what_asks_it_to_end_is_gone_before_its_end_is_told() {
    let mut it = case(|config| config.stop = vec!["/no/such/program".into()]);
    it.runs().await;
    // One that still runs.
    let stopper = CancellationToken::new();
    it.driver.stopper = Some(stopper.clone());
    it.driver.life = Life::Ending { kill_at: clock::now().plus(LONG), why: Why::Planned };
    it.driver.own.process = Process::Stopping;
    it.hears(exited(Cause::ByItself)).await;
    assert!(stopper.is_cancelled());
    assert_eq!(it.driver.own.process, Process::Stopping, "not yet");
    it.driver.on_asked_to_stop(Ok(())).await;
    assert_eq!((it.driver.own.process, it.driver.life), (Process::Stopped, Life::Nothing));
}
