//! What the driver does where something is missing: its keeper, its user, its own promises.

use super::*;
use crate::runtime::process;
use std::process::{Child, Command, Stdio};

#[tokio::test]
async fn a_promise_needs_no_keeper() {
    let mut it = case(|_| {});
    it.runs().await;
    it.hears(KeeperEvent::KeeperGone).await;
    assert!(it.driver.keeper_lost);
    it.driver.asked = Some(Term(9));
    it.go_on(Answer::Done).await;
    loop {
        let finished = tokio::time::timeout(LIMIT, it.driver.finished.1.recv()).await;
        it.driver.on_finished(finished.unwrap().unwrap()).await;
        if it.driver.own.promised == Term(9) {
            break;
        }
    }
    assert_eq!(it.driver.own.process, Process::Stopping, "what became of it is not known");
}

/// A daemon that was started again beside a keeper that has not said a word yet.
fn unheard() -> Case {
    let mut it = case(|_| {});
    it.driver.keeper_lost = true;
    // It is being looked for, which takes its time.
    it.driver.attaching = true;
    it
}

/// A process of an earlier daemon's copy, noted as such.
struct Left(Child);

impl Drop for Left {
    fn drop(&mut self) {
        // Already gone where the test is good.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn left_behind(dir: &std::path::Path) -> Left {
    std::fs::create_dir_all(dir).unwrap();
    let mut setsid = Command::new("setsid");
    setsid.args(["sleep", "600"]).stdin(Stdio::null()).stdout(Stdio::null());
    let mut left = Left(setsid.stderr(Stdio::null()).spawn().unwrap());
    let pid = left.0.id().cast_signed();
    let leads = || process::read(pid).filter(|it| it.session == pid);
    while leads().is_none() {
        assert_eq!(left.0.try_wait().unwrap(), None, "setsid failed");
        std::thread::yield_now();
    }
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    let note = format!("{} {pid} {}\n", boot.trim(), leads().unwrap().started);
    std::fs::write(dir.join("instance.session"), note).unwrap();
    left
}

impl Case {
    /// What was killed beside its keeper.
    async fn swept(&mut self) -> Vec<i32> {
        loop {
            let finished = tokio::time::timeout(LIMIT, self.driver.finished.1.recv()).await;
            let finished = finished.unwrap().unwrap();
            if let Finished::Swept { pids, .. } = &finished {
                let pids = pids.clone();
                self.driver.on_finished(finished).await;
                return pids;
            }
            self.driver.on_finished(finished).await;
        }
    }
}

#[tokio::test]
async fn inv12_who_has_not_heard_its_keeper_promises_and_does_not_vote() {
    let mut it = unheard();
    it.driver.asked = Some(Term(9));
    it.go_on(Answer::Done).await;
    assert_eq!(it.written(Answer::Done).await, []);
    assert_eq!(it.driver.own.promised, Term(9));
    for _ in 0..3 {
        it.go_on(Answer::Done).await;
        assert_eq!(it.driver.own.process, Process::Stopping, "nobody says that it ended");
        assert_eq!(it.driver.own.ballot, None, "the holder's own word would be proof");
    }
    it.driver.keeper_lost = false;
    it.hears(idle()).await;
    it.go_on(Answer::Done).await;
    assert_eq!(it.driver.own.ballot.map(|it| it.term), Some(Term(9)));
}

#[tokio::test]
async fn inv12_what_an_earlier_daemon_left_ends_with_its_lease_though_its_keeper_is_frozen() {
    let mut it = unheard();
    let mut left = left_behind(&it.driver.it.config.run_dir());
    it.driver.unheard = Some(clock::now());
    it.go_on(Answer::Done).await;
    let due = it.driver.outlives_at().unwrap();
    let lease = it.agreed.borrow().state.spec.services[&"jobs".into()].timing.lease;
    assert!(due >= it.driver.unheard.unwrap().plus(lease), "it may run for as long");
    assert_eq!(left.0.try_wait().unwrap(), None);
    it.driver.fence_beside_keeper(due);
    assert_eq!(it.swept().await, [left.0.id().cast_signed()]);
    assert!(!left.0.wait().unwrap().success());
    assert_eq!(it.told(EventKind::InstanceFenced).len(), 1);
    assert_eq!(it.driver.own.process, Process::Stopping, "its keeper has not said so");
}

#[tokio::test]
async fn inv12_what_an_earlier_daemon_left_where_another_may_run_ends_at_once() {
    let mut it = unheard();
    let mut left = left_behind(&it.driver.it.config.run_dir());
    it.agreed.send_modify(|agreed| {
        let state = Arc::make_mut(&mut agreed.state).services.get_mut(&"jobs".into()).unwrap();
        state.appointment.as_mut().unwrap().primary = "b".into();
    });
    it.go_on(Answer::Done).await;
    assert_eq!(it.swept().await, [left.0.id().cast_signed()]);
    assert!(!left.0.wait().unwrap().success());
}

#[tokio::test]
async fn inv12_a_keeper_that_does_not_answer_is_no_fence() {
    let mut it = case(|_| {});
    it.runs().await;
    assert!(it.driver.lease > clock::now());
    // Confirmed until a moment ago; what is proven since was never confirmed.
    it.driver.lease = clock::now();
    let confirmed = it.driver.lease;
    it.driver.go_on().await;
    assert_eq!(it.driver.lease, confirmed, "no answer is no lease");
    let due = it.driver.outlives_at().unwrap();
    it.driver.fence_beside_keeper(due);
    assert!(matches!(it.driver.life, Life::Ending { why: Why::Fenced, .. }));
    assert_eq!(it.driver.own.process, Process::Stopping);
    it.driver.on_swept(it.driver.lives, &[7]);
    it.driver.on_swept(it.driver.lives, &[7]);
    assert_eq!(it.told(EventKind::InstanceFenced).len(), 1);
}

/// A start that was sent to a keeper which did not answer, and was forgotten since.
#[tokio::test]
async fn inv12_what_runs_unasked_is_ended() {
    let mut it = case(|_| {});
    it.hears(idle()).await;
    assert_eq!((it.driver.life, it.driver.own.process), (Life::Nothing, Process::Stopped));
    it.hears(KeeperEvent::Started { pid: 7 }).await;
    assert!(matches!(it.driver.life, Life::Ending { why: Why::Fenced, .. }));
    assert_eq!(it.driver.own.process, Process::Stopping, "nobody else may start one");
}

#[tokio::test]
async fn a_user_who_does_not_exist_is_told_and_looked_for_again() {
    let mut it = case(|config| config.run_as = Some("no_such_user_here".into()));
    it.hears(idle()).await;
    it.go_on(Answer::Done).await;
    assert_eq!(it.written(Answer::Done).await, []);
    assert_eq!(it.written(Answer::Done).await, [], "nothing is started");
    assert_eq!((it.driver.own.process, it.driver.own.starts_failed), (Process::Stopped, 1));
    let told = it.told(EventKind::InstanceExited);
    assert!(told[0].contains("no_such_user_here does not exist"), "{told:?}");
}

#[tokio::test]
async fn who_was_its_user_is_none_any_more_once_it_is_said_so() {
    let mut it = case(|config| config.run_as = Some("no_such_user_here".into()));
    it.hears(idle()).await;
    it.go_on(Answer::Done).await;
    it.written(Answer::Done).await;
    it.written(Answer::Done).await;
    assert_eq!(it.driver.own.starts_failed, 1);
    it.driver.it.config.run_as = None;
    it.driver.retry_at = Timestamp(0);
    it.go_on(Answer::Done).await;
    let asked = it.written(Answer::Done).await;
    assert!(matches!(asked[..], [super::Command::Start(_)]), "{asked:?}");
    assert_eq!(it.driver.user, Ok(None));
}

#[tokio::test]
async fn a_copy_is_not_unwell_since_nobody_knows_its_user() {
    let mut it = case(|config| config.health = exec(&["false"]));
    it.runs().await;
    let is_asked = |it: &mut Case| {
        it.driver.checks.next = Timestamp(0);
        it.driver.check_health();
        it.driver.checks.asking
    };
    let late = it.driver.lives;
    let unknown = || Err("there is no such user, or nobody who knows".to_owned());
    it.driver.on_found(late, unknown());
    assert!(!is_asked(&mut it) && !it.driver.looks_up, "not at once again");
    it.driver.look_at = Timestamp(0);
    assert!(!is_asked(&mut it) && it.driver.looks_up);
    assert!(!is_asked(&mut it), "one question at a time");
    it.written(Answer::Done).await;
    assert_eq!((&it.driver.user, it.driver.unanswered_since), (&Ok(None), None));
    assert!(is_asked(&mut it));
    it.driver.checks.asking = false;
    it.driver.on_found(late + 1, unknown());
    assert_eq!(it.driver.unanswered_since, None, "of another copy");
    // Not for ever: somebody else may run it.
    it.driver.on_found(late, unknown());
    it.driver.unanswered_since = Some(Timestamp(0));
    assert!(is_asked(&mut it), "and its check fails");
}

#[tokio::test]
async fn inv2_a_promise_that_cannot_be_read_keeps_the_copy_alone_from_running() {
    let mut it = case(|_| {});
    let dir = it.driver.it.config.dir.clone();
    std::fs::write(State::path(&dir), "promised much\n").unwrap();
    let (events, hub) = (it.driver.it.events.clone(), it.driver.it.hub.clone());
    let stop = CancellationToken::new();
    let is_mended = async {
        while events.since(0).is_empty() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let told = &events.since(0)[0];
        assert_eq!(told.kind, EventKind::InstanceQuarantined);
        assert!(told.message.contains("it is damaged"), "{told:?}");
        let own = hub.own().instances.remove(&"jobs".into()).unwrap();
        assert!(matches!(own.data, Data::Quarantined { .. }), "the others pass it over: {own:?}");
        assert_eq!((own.outlives, own.ballot), (None, None), "it speaks for no lease");
        State { promised: Term(9), begun: Term(8), ..State::default() }.store(&dir).unwrap();
    };
    let both = async { tokio::join!(it.driver.is_ready(&stop), is_mended) };
    let (is_ready, ()) = tokio::time::timeout(LIMIT, both).await.unwrap();
    assert!(is_ready);
    assert_eq!((it.driver.own.promised, it.driver.own.promoted), (Term(9), Term(8)));
    assert_eq!(it.driver.own.data, Data::Present);
    assert_eq!(it.told(EventKind::InstanceRecovered).len(), 1);
}
