//! A program that hears of each change of a copy's partitions.

use super::*;
use crate::fence::program;
use tandem_core::clustering::active_active::holder::Holding;
use tandem_core::ids::{Epoch, PartitionId};

fn own(version: u64, owned: &[u32], releasing: &[u32]) -> Own {
    let holding = |releasing: Option<Timestamp>| {
        move |id: &u32| Holding { partition: PartitionId(*id), epoch: Epoch(1), releasing }
    };
    let owned = owned.iter().map(holding(None));
    let partitions = owned.chain(releasing.iter().map(holding(Some(Timestamp(5))))).collect();
    let lease = Timestamp(0);
    let (term, since, before) = (Term(3), Term(3), Epoch(0));
    Own { version, term, since, lease, before, partitions, durable: None }
}

/// With a hook that cannot be run: what would run it is not there.
fn hooked() -> (Case, watch::Sender<Option<Own>>) {
    let mut it = case(|config| config.on_partitions = vec!["hear".into()]);
    let (tell, told) = watch::channel(None);
    it.driver.it.divided = Some(told);
    (it, tell)
}

/// The version that it was told, once that is over.
async fn heard(it: &mut Case) -> (u64, Result<(), program::Error>) {
    loop {
        let finished = tokio::time::timeout(LIMIT, it.driver.finished.1.recv()).await;
        match finished.unwrap().unwrap() {
            Finished::ToldOfPartitions { version, answer } => return (version, answer),
            other => it.driver.on_finished(other).await,
        }
    }
}

#[tokio::test]
async fn a_hook_is_told_one_state_at_a_time_and_the_last_one_wins() {
    let (mut it, tell) = hooked();
    it.driver.tell_of_partitions();
    tell.send_replace(Some(own(7, &[0, 4], &[9])));
    it.driver.tell_of_partitions();
    for version in 8..=10 {
        tell.send_replace(Some(own(version, &[0], &[])));
        it.driver.tell_of_partitions();
    }
    assert_eq!(heard(&mut it).await.0, 7);
    it.driver.on_told_of_partitions(7, Ok(()));
    it.driver.tell_of_partitions();
    assert_eq!(heard(&mut it).await.0, 10, "what came in between is old");
    it.driver.on_told_of_partitions(10, Ok(()));
    it.driver.tell_of_partitions();
    assert!(it.driver.finished.1.try_recv().is_err(), "it knows that");
    assert_eq!(it.told(EventKind::HookFailed), [""; 0]);
}

#[tokio::test]
async fn a_hook_that_fails_is_told_and_forgotten_once_it_does_not() {
    let (mut it, tell) = hooked();
    tell.send_replace(Some(own(7, &[0], &[])));
    it.driver.tell_of_partitions();
    let (version, answer) = heard(&mut it).await;
    it.driver.on_told_of_partitions(version, answer);
    let told = it.told(EventKind::HookFailed);
    assert!(told[0].contains("on_partitions failed, told of version 7: cannot run"), "{told:?}");
    assert!(it.driver.own.hook_failed);
    it.driver.on_told_of_partitions(8, Ok(()));
    assert!(!it.driver.own.hook_failed);
}

#[test]
fn a_hook_is_told_what_is_owned_and_what_is_to_be_released() {
    let told = super::super::divided::environment(&own(7, &[0, 4], &[9]));
    let told = told.map(|(name, value)| format!("{name}={value}"));
    assert_eq!(told, ["TANDEM_OWNED=0 4", "TANDEM_RELEASING=9", "TANDEM_VERSION=7"]);
}
