//! A configuration that changes under a copy.

use super::*;
use tandem_core::cluster::state::Switchover;

fn other(it: &Case, change: impl FnOnce(&mut CommandConfig)) -> Change {
    let mut config = it.driver.it.config.clone();
    change(&mut config);
    Change::Config(Box::new(config), BTreeMap::new())
}

#[tokio::test]
async fn other_words_start_the_copy_anew_and_other_limits_of_time_do_not() {
    let mut it = case(|_| {});
    it.runs().await;
    let change = other(&it, |config| config.stop_max = LONG / 2);
    it.driver.on_change(change);
    assert!(!it.go_on(Answer::Done).await.iter().any(is_signal), "it goes on");
    let change = other(&it, |config| config.command = vec!["another".into()]);
    it.driver.on_change(change);
    assert!(it.go_on(Answer::Done).await.iter().any(is_signal));
    assert!(matches!(it.driver.life, Life::Ending { why: Why::Planned, .. }));
    assert_eq!(it.told(EventKind::ServiceReloaded).len(), 1);
    it.hears(exited(Cause::Asked)).await;
    assert_eq!(it.driver.own.starts_failed, 0, "that was no failure");
    it.go_on(Answer::Done).await;
    let asked = it.written(Answer::Done).await;
    let [Command::Start(spec)] = &asked[..] else { panic!("{asked:?}") };
    assert_eq!(spec.argv, ["another"]);
    it.hears(KeeperEvent::Started { pid: 8 }).await;
    it.go_on(Answer::Done).await;
    assert_eq!(it.driver.life, Life::Runs, "once");
}

#[tokio::test]
async fn one_that_moves_while_its_configuration_changes_is_not_said_to_start_anew() {
    let mut it = case(|_| {});
    it.runs().await;
    it.agreed.send_modify(|agreed| {
        let services = &mut Arc::make_mut(&mut agreed.state).services;
        let to_another = Switchover { to: "b".into(), deadline_unix_ms: u64::MAX };
        services.values_mut().for_each(|it| it.switchover = Some(to_another.clone()));
    });
    let change = other(&it, |config| config.command = vec!["another".into()]);
    it.driver.on_change(change);
    assert!(it.go_on(Answer::Done).await.iter().any(is_signal));
    assert!(matches!(it.driver.life, Life::Ending { why: Why::Planned, .. }));
    assert_eq!(it.told(EventKind::ServiceReloaded).len(), 0);
}

#[tokio::test]
async fn a_change_that_came_while_no_daemon_was_there_counts() {
    let mut before = case(|_| {});
    before.runs().await;
    let kept = before.kept();
    for (words, goes_on) in [("job", true), ("another", false)] {
        let mut next = case(|config| {
            config.command = vec![words.into()];
            config.cwd = before.driver.it.config.cwd.clone();
        });
        next.driver.durable = kept;
        next.hears(running()).await;
        assert_eq!(next.driver.life, Life::Runs);
        next.go_on(Answer::Done).await;
        assert_eq!(next.driver.life == Life::Runs, goes_on, "{words}");
    }
}

#[tokio::test]
async fn who_waits_for_its_turn_is_not_asked_what_only_its_successor_can_answer() {
    let mut before = case(|config| config.health = exec(&["true"]));
    before.runs().await;
    let both = |config: &mut CommandConfig| {
        config.command = vec!["another".into()];
        config.health = exec(&["false"]);
    };
    // Found by the daemon after, which never knew the old check.
    let mut next = case(|config| {
        both(config);
        config.cwd = before.driver.it.config.cwd.clone();
    });
    next.driver.durable = before.kept();
    next.hears(running()).await;
    assert!(next.driver.is_outdated() && next.driver.asked().is_none());
    assert!(next.driver.own.serving.is_some(), "it works as it did");
    // The same daemon, which only lost its keeper's line for a moment.
    let change = other(&before, both);
    before.driver.on_change(change);
    before.hears(running()).await;
    assert_eq!(before.driver.asked().cloned(), exec(&["true"]));
}

#[tokio::test]
async fn what_failed_is_tried_at_once_with_other_words() {
    let mut it = case(|_| {});
    it.runs().await;
    it.hears(exited(Cause::ByItself)).await;
    it.driver.own.starts_failed = FAILURES_MAX;
    it.driver.retry_at = clock::now().plus(LONG);
    let change = other(&it, |config| config.command = vec!["mended".into()]);
    it.driver.on_change(change);
    it.go_on(Answer::Done).await;
    assert_eq!((it.driver.own.starts_failed, it.driver.own.process), (0, Process::Starting));
}

#[tokio::test]
async fn who_is_asked_no_more_is_well() {
    let mut it = case(|config| config.health = exec(&["false"]));
    it.runs().await;
    assert_eq!(it.driver.own.serving, None);
    let change = other(&it, |config| config.health = None);
    it.driver.on_change(change);
    assert_eq!(it.driver.own.serving, Some(it.driver.own.promoted));
}

#[tokio::test]
async fn a_copy_is_asked_as_when_it_was_started_until_its_successor_is_there() {
    let mut it = case(|config| config.health = exec(&["old"]));
    it.runs().await;
    let before = it.driver.it.config.clone();
    let asked = |it: &Case| match &it.driver.asked().unwrap().probe {
        Probe::Exec(words) => words[0].clone(),
        Probe::Port(at) => panic!("{at:?}"),
    };
    it.driver.on_change(other(&it, |config| config.health = exec(&["mended"])));
    assert_eq!(asked(&it), "mended", "the same process is asked otherwise at once");
    for another in ["another", "a third"] {
        it.driver.on_change(other(&it, |config| {
            config.command = vec![another.into()];
            config.health = exec(&[another]);
        }));
        assert_eq!(asked(&it), "mended", "it knows nothing of {another}");
    }
    it.driver.on_change(Change::Config(Box::new(before), BTreeMap::new()));
    assert_eq!(asked(&it), "old", "taken back");
}

const fn is_signal(command: &Command) -> bool {
    matches!(command, Command::Signal { .. })
}

/// The copy would be ended once more for a configuration that it runs as.
#[tokio::test]
async fn what_changes_while_a_start_is_noted_is_noted_before_it_runs() {
    let mut it = case(|_| {});
    it.hears(idle()).await;
    assert_eq!(it.go_on(Answer::Done).await, []);
    let change = other(&it, |config| config.command = vec!["another".into()]);
    it.driver.on_change(change);
    assert_eq!(it.written(Answer::Done).await, [], "nothing yet");
    let asked = it.written(Answer::Done).await;
    let [Command::Start(spec)] = &asked[..] else { panic!("{asked:?}") };
    assert_eq!(spec.argv, ["another"]);
    assert_eq!(it.kept().recipe, it.driver.recipe());
    it.hears(KeeperEvent::Started { pid: 7 }).await;
    assert!(!it.go_on(Answer::Done).await.iter().any(is_signal), "it is as it should be");
}
