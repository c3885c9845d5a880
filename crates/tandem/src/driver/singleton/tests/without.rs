//! What the driver does where something is missing: its keeper, its user, its own promises.

use super::*;

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
        assert!(hub.own().instances.is_empty(), "who tells no facts speaks for no lease");
        State { promised: Term(9), begun: Term(8), ..State::default() }.store(&dir).unwrap();
    };
    let both = async { tokio::join!(it.driver.is_ready(&stop), is_mended) };
    let (is_ready, ()) = tokio::time::timeout(LIMIT, both).await.unwrap();
    assert!(is_ready);
    assert_eq!((it.driver.own.promised, it.driver.own.promoted), (Term(9), Term(8)));
    assert_eq!(it.told(EventKind::InstanceRecovered).len(), 1);
}
