//! A copy that a plan ends while doors lead to it.

use super::*;
use crate::driver::hub::DoorWords;
use tandem_core::facts::DoorUse;
use tandem_core::facts::withdrawal::Wish as OwnWish;

/// What the door of this node says of its copy.
fn says(it: &Served, uses: Option<DoorUse>) {
    let uses = uses.map(|uses| (NodeId::from("a"), uses)).into_iter().collect();
    it.words.say(uses);
}

/// A copy, and the one door that leads to it.
struct Served {
    case: Case,
    words: DoorWords,
}

impl std::ops::Deref for Served {
    type Target = Case;

    fn deref(&self) -> &Case {
        &self.case
    }
}

impl std::ops::DerefMut for Served {
    fn deref_mut(&mut self) -> &mut Case {
        &mut self.case
    }
}

fn asks_to_end(asked: &[Command]) -> bool {
    asked.iter().any(|it| matches!(it, Command::Signal { .. }))
}

async fn served() -> Served {
    let mut case = case(|config| config.drain_max = LONG);
    case.runs().await;
    let words = DoorWords::open(&case.driver.it.hub, &"jobs".into());
    Served { case, words }
}

#[tokio::test]
async fn inv14_a_restart_waits_until_the_doors_have_let_go() {
    let mut it = served().await;
    it.driver.wish = OwnWish::Restart;
    assert!(!asks_to_end(&it.go_on(Answer::Done).await), "the door does not know yet");
    let obeys = it.driver.own.withdrawn.unwrap();
    assert_eq!(it.told(EventKind::InstanceWithdrawn).len(), 1);
    assert_eq!((it.driver.life, it.driver.own.process), (Life::Runs, Process::Primary));
    says(&it, Some(DoorUse { obeys, in_flight: 1 }));
    assert!(!asks_to_end(&it.go_on(Answer::Done).await), "somebody is served");
    says(&it, Some(DoorUse { obeys, in_flight: 0 }));
    assert!(asks_to_end(&it.go_on(Answer::Done).await));
    assert!(matches!(it.driver.life, Life::Ending { why: Why::Planned, .. }));
    it.hears(exited(Cause::Asked)).await;
    assert_eq!(it.driver.own.withdrawn, None);
    it.go_on(Answer::Done).await;
    it.written(Answer::Done).await;
    it.hears(KeeperEvent::Started { pid: 8 }).await;
    assert!(!asks_to_end(&it.go_on(Answer::Done).await));
    assert_eq!((it.driver.life, it.driver.own.withdrawn), (Life::Runs, None), "once");
}

#[tokio::test]
async fn what_lasts_longer_than_it_may_is_cut_and_told() {
    let mut it = served().await;
    it.driver.wish = OwnWish::Restart;
    it.go_on(Answer::Done).await;
    let obeys = it.driver.own.withdrawn.unwrap();
    says(&it, Some(DoorUse { obeys, in_flight: 2 }));
    it.driver.it.config.drain_max = Duration::ZERO;
    assert!(asks_to_end(&it.go_on(Answer::Done).await));
    let told = it.told(EventKind::InstanceWithdrawn);
    assert!(told.last().unwrap().contains("drain_max has passed, and 2 are cut"), "{told:?}");
}

#[tokio::test]
async fn a_change_that_is_taken_back_in_time_ends_nothing() {
    let mut it = served().await;
    let before = it.driver.it.config.clone();
    let mut other = before.clone();
    other.command = vec!["another".into()];
    it.driver.on_change(Change::Config(Box::new(other), BTreeMap::new()));
    it.go_on(Answer::Done).await;
    assert!(it.driver.own.withdrawn.is_some());
    it.driver.on_change(Change::Config(Box::new(before), BTreeMap::new()));
    assert!(!asks_to_end(&it.go_on(Answer::Done).await));
    assert_eq!((it.driver.life, it.driver.own.withdrawn), (Life::Runs, None));
    assert_eq!(it.told(EventKind::ServiceReloaded).len(), 0);
}

#[tokio::test]
async fn inv12_a_copy_that_waits_for_doors_ends_at_once_where_it_may_not_run() {
    let mut it = served().await;
    it.driver.wish = OwnWish::Restart;
    it.go_on(Answer::Done).await;
    assert!(it.driver.own.withdrawn.is_some());
    it.driver.own.promised = Term(9);
    assert!(it.go_on(Answer::Done).await.contains(&Command::Kill));
    assert!(matches!(it.driver.life, Life::Ending { why: Why::Fenced, .. }));
}
