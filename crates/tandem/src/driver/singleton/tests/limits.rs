//! Which failed checks count and how many it takes; what follows where a hook hangs.

use super::*;
use crate::service::command::AtPort;

impl Case {
    /// A check that answers so; what the keeper is asked because of it.
    async fn checked(&mut self, answer: Result<(), String>) -> Vec<Command> {
        let mut asked = Vec::new();
        let life = self.driver.lives;
        let mut turn = Box::pin(self.driver.on_checked(life, answer));
        loop {
            tokio::select! {
                biased;
                call = self.calls.answer(Answer::Done) => asked.extend(call),
                () = &mut turn => return asked,
            }
        }
    }

    /// As many failures in a row as are borne at most.
    async fn is_ill_but_borne(&mut self) {
        for _ in 0..2 {
            assert_eq!(self.checked(ill()).await, []);
            assert_eq!(self.driver.life, Life::Runs);
        }
    }

    /// One more: it is ended, which counts as a failure, and that is told.
    async fn is_ended_as_unwell(&mut self) {
        let asked = self.checked(ill()).await;
        assert!(matches!(asked[..], [Command::Signal { .. }]), "{asked:?}");
        assert!(matches!(self.driver.life, Life::Ending { why: Why::Unwell, .. }));
        assert_eq!(self.driver.own.serving, None, "no door leads there any more");
        let told = self.told(EventKind::InstanceHung);
        let [told] = &told[..] else { panic!("{told:?}") };
        assert_eq!(told, "a: 3 checks in a row failed, so it is started anew: ill");
    }
}

fn ill() -> Result<(), String> {
    Err("ill".into())
}

/// A copy that is asked, failed checks of which are borne for so long after its start.
async fn with_grace(grace: Duration) -> Case {
    let mut it = case(|config| {
        config.health = exec(&["true"]).map(|health| Health { grace, ..health });
    });
    it.runs().await;
    it
}

#[tokio::test]
async fn failed_checks_do_not_count_within_the_grace_of_a_start() {
    let mut it = with_grace(LONG).await;
    for _ in 0..10 {
        assert_eq!(it.checked(ill()).await, []);
    }
    assert_eq!((it.driver.life, it.driver.own.serving), (Life::Runs, None));
    assert_eq!(it.told(EventKind::InstanceHung), Vec::<String>::new());
    // It passes: what was borne until then does not count either.
    it.driver.it.config.health.as_mut().unwrap().grace = Duration::ZERO;
    it.is_ill_but_borne().await;
    it.is_ended_as_unwell().await;
}

#[tokio::test]
async fn the_grace_of_a_start_is_over_once_it_was_well() {
    let mut it = with_grace(LONG).await;
    assert_eq!(it.checked(Ok(())).await, []);
    assert_eq!(it.driver.own.serving, Some(Term(3)));
    it.is_ill_but_borne().await;
    // One good answer in between: it begins to count anew.
    assert_eq!(it.checked(Ok(())).await, []);
    it.is_ill_but_borne().await;
    it.is_ended_as_unwell().await;
}

#[tokio::test]
async fn it_is_well_after_so_many_good_answers_in_a_row() {
    let mut it = case(|config| {
        config.health = exec(&["true"]).map(|health| Health { rise: 3, ..health });
    });
    it.runs().await;
    for answers in [&[true, true, false][..], &[true, false], &[true, true]] {
        for good in answers {
            it.checked(if *good { Ok(()) } else { ill() }).await;
            assert_eq!(it.driver.own.serving, None, "not three in a row");
        }
    }
    assert_eq!(it.told(EventKind::InstanceRecovered), Vec::<String>::new());
    it.checked(Ok(())).await;
    assert_eq!(it.driver.own.serving, Some(Term(3)));
    it.checked(Ok(())).await;
    assert_eq!(it.told(EventKind::InstanceRecovered), ["a: its checks succeed"], "told once");
}

/// Its copy is gone: where the hook after it hangs, the service goes on all the same.
#[tokio::test]
async fn h50_an_on_stop_that_hangs_is_killed_and_told_and_the_copy_counts_as_ended() {
    let mut it = case(|config| config.on_stop = vec!["tidy up".into()]);
    it.runs().await;
    it.driver.life = Life::Ending { kill_at: clock::now().plus(LONG), why: Why::Planned };
    it.driver.own.process = Process::Stopping;
    it.hears(exited(Cause::Asked)).await;
    let asked = it.written(Answer::Done).await;
    assert!(matches!(asked[..], [Command::Start(_)]), "{asked:?}");
    let Life::Closing(until) = it.driver.life else { panic!("{:?}", it.driver.life) };
    assert!(until > clock::now(), "it has its time");
    it.driver.enforce(clock::now()).await;
    assert_eq!(it.told(EventKind::HookFailed), Vec::<String>::new());
    for _ in 0..3 {
        it.driver.life = Life::Closing(clock::now());
        let asked = it.go_on(Answer::Done).await;
        assert!(asked.contains(&Command::Kill), "{asked:?}");
        assert_eq!(it.driver.own.process, Process::Stopping, "its hook is part of it");
    }
    let told = it.told(EventKind::HookFailed);
    assert_eq!(told, ["a: on_stop did not end within its limit and is killed"], "told once");
    it.hears(exited(Cause::Asked)).await;
    assert_eq!((it.driver.life, it.driver.own.process), (Life::Nothing, Process::Stopped));
    assert_eq!(it.driver.own.starts_failed, 0, "the copy itself did not fail");
}

/// What asks the copy before would be told by the next one, or stand in its way.
#[tokio::test]
async fn a_check_ends_with_the_copy_that_it_asks() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut it = case(|config| {
        let probe = Probe::Port(AtPort::Http("/".to_owned()));
        config.health = exec(&[]).map(|health| Health { probe, timeout: LONG, ..health });
    });
    it.runs().await;
    it.driver.it.config.address = Some(listener.local_addr().unwrap());
    it.driver.check_health();
    let (mut asks, _) = tokio::time::timeout(LIMIT, listener.accept()).await.unwrap().unwrap();
    it.driver.life = Life::Ending { kill_at: clock::now().plus(LONG), why: Why::Planned };
    it.driver.own.process = Process::Stopping;
    it.go_on(Answer::Done).await;
    let mut asked = Vec::new();
    let read = tokio::io::AsyncReadExt::read_to_end(&mut asks, &mut asked);
    let _ = tokio::time::timeout(LIMIT, read).await.expect("it asks no more");
}
