//! The lease and the death of the keeper, with plain processes.

use crate::world::*;
use rustix::process::Signal as Posix;
use std::cell::RefCell;
use std::io::{BufRead as _, BufReader};
use std::os::unix::net::UnixStream;
use std::time::Duration;
use tandem::fence::client::{Error, KeeperEvent};
use tandem::fence::protocol::{Cause, Event, FromKeeper, How, Lease, Message};
use tandem::fence::protocol::{Refusal, SOCKET, State, WhenOrphaned};
use tandem::runtime::{clock, process, supervisor::Supervisor};
use tandem_core::time::Timestamp;

/// Processes in the background, in a session of their own, adopted, and deaf to polite signals.
const FAMILY: &str = "trap '' TERM INT HUP QUIT; setsid sh -c 'sleep 601 & sleep 602' & \
                      (setsid sleep 603 &); sleep 604";

/// So many processes, the same at two looks: a shell forks some that live for a moment only, and
/// whose end wakes a group that was stopped.
async fn family(keeper: i32, count: usize) -> Vec<i32> {
    let before = RefCell::new(Vec::new());
    until(
        || process::descendants(keeper),
        |pids| alive(pids).len() == count && before.replace(pids.clone()) == *pids,
    )
    .await
}

#[tokio::test]
async fn a_passed_lease_kills_everything_even_what_is_stopped() {
    let mut world = World::new();
    let mut it = world.attach().await;
    let pid = it.start(world.shell(FAMILY, lease(60_000))).await;
    let pids = family(it.status.keeper, 6).await;
    let stop = || {
        pids.iter().for_each(|pid| signal(*pid, Posix::STOP));
        process::read(pid).map(|it| it.state)
    };
    until(stop, |state| *state == Some('T')).await;
    let end_of_lease = after(Duration::from_millis(300));
    it.keeper.limit(end_of_lease).await.unwrap();
    assert_eq!(alive(&pids).len(), 6);
    let end = it.exited().await;
    assert_eq!((end.how, end.cause), (How::Signal(9), Cause::LeaseExpired));
    assert!(end.at >= end_of_lease, "not before its time");
    assert_eq!(alive(&pids), [0; 0]);
    println!(
        "lease passed: first process dead after {:?}, all six after {:?}",
        end.at.since(end_of_lease),
        end.gone.since(end_of_lease)
    );
}

#[tokio::test]
async fn a_renewed_lease_keeps_it_and_only_moves_forward() {
    let mut world = World::new();
    let mut it = world.attach().await;
    let started = clock::now();
    let pid = it.start(world.spec(&["sleep", "600"], lease(4_000))).await;
    // Past the first lease by renewals; each is far ahead of the next.
    while clock::now().since(started) < Duration::from_millis(5_000) {
        it.keeper.renew(after(Duration::from_millis(4_000))).await.unwrap();
        let next = after(Duration::from_millis(100));
        until(clock::now, |now| *now > next).await;
    }
    let long = after(Duration::from_secs(100));
    it.keeper.renew(long).await.unwrap();
    it.keeper.renew(after(Duration::ZERO)).await.unwrap();
    let status = it.keeper.status().await.unwrap();
    assert_eq!((status.state, status.lease), (State::Running { pid }, Some(Lease::Until(long))));

    it.keeper.unlimited().await.unwrap();
    it.keeper.renew(Timestamp(u64::MAX)).await.unwrap();
    assert_eq!(it.keeper.status().await.unwrap().lease, Some(Lease::Unlimited));
    it.keeper.limit(Timestamp(u64::MAX)).await.unwrap();
    assert_eq!(it.keeper.status().await.unwrap().state, State::Running { pid });
    it.keeper.revoke().await.unwrap();
    let end = it.exited().await;
    assert_eq!((end.pid, end.cause), (pid, Cause::LeaseExpired));
}

/// A daemon gave up a keeper that was frozen, and comes again while it still is.
#[tokio::test]
async fn what_was_sent_before_is_done_before_anybody_hears_that_nothing_runs() {
    let mut world = World::new();
    let before = world.attach().await;
    let keeper = before.status.keeper;
    signal(keeper, Posix::STOP);
    until_stopped(keeper).await;
    let unanswered = before.keeper.start(world.spec(&["sleep", "600"], lease(60_000))).await;
    assert!(unanswered.is_err(), "it is frozen");
    drop(before);
    let again = UnixStream::connect(world.run_dir().join(SOCKET)).unwrap();
    signal(keeper, Posix::CONT);
    let mut line = String::new();
    BufReader::new(again).read_line(&mut line).unwrap();
    let said: FromKeeper = serde_json::from_str(&line).unwrap();
    let Message::Event(Event::Status(status)) = said.message else { panic!("{line}") };
    assert_ne!(status.state, State::Idle, "its lease holds, so it was started");
}

/// H3: the daemon is not needed for it.
#[tokio::test]
async fn a_lease_passes_without_any_daemon() {
    let mut world = World::new();
    let mut it = world.attach().await;
    let pid = it.start(world.spec(&["sleep", "600"], lease(60_000))).await;
    it.keeper.limit(after(Duration::from_millis(300))).await.unwrap();
    assert!(world.supervisor.stop(LIMIT).await);
    until_dead(vec![pid]).await;
    world.supervisor = Supervisor::new();
    let it = world.attach().await;
    assert_eq!(it.status.last_end.unwrap().cause, Cause::LeaseExpired);
}

/// H4: what a frozen keeper finds at its thaw, a renewal too, comes after the look at the lease.
#[tokio::test]
async fn a_keeper_frozen_past_the_lease_kills_before_it_reads() {
    let mut world = World::new();
    let mut it = world.attach().await;
    let pid = it.start(world.spec(&["sleep", "600"], lease(60_000))).await;
    let end_of_lease = after(Duration::from_millis(500));
    it.keeper.limit(end_of_lease).await.unwrap();
    signal(it.status.keeper, Posix::STOP);
    until_stopped(it.status.keeper).await;
    assert!(clock::now() < end_of_lease, "the machine was too slow for this test");
    let renewal = it.keeper.clone();
    let renewing = async { renewal.renew(after(Duration::from_secs(60))).await };
    let thawing = async {
        until(clock::now, |now| *now > end_of_lease.plus(Duration::from_millis(200))).await;
        assert!(process::is_alive(pid), "nobody else fences");
        let thawed = clock::now();
        signal(it.status.keeper, Posix::CONT);
        thawed
    };
    let (renewed, thawed) = tokio::join!(renewing, thawing);
    let refused =
        matches!(renewed, Err(Error::Refused(Refusal::LeasePassed | Refusal::NothingRuns)));
    assert!(refused, "{renewed:?}");
    let end = it.exited().await;
    assert_eq!(end.cause, Cause::LeaseExpired);
    println!("thaw to nothing left: {:?}", end.gone.since(thawed));
}

/// H3: nobody fences what has no keeper, so it must not live on.
#[tokio::test]
async fn an_instance_does_not_outlive_its_keeper() {
    let mut world = World::new();
    let mut it = world.attach().await;
    let pid = it.start(world.spec(&["sleep", "600"], Lease::Unlimited)).await;
    signal(it.status.keeper, Posix::KILL);
    let killed = clock::now();
    assert_eq!(it.event().await, KeeperEvent::KeeperGone);
    until_dead(vec![pid]).await;
    println!("instance dead {:?} after its keeper", clock::now().since(killed));
    let mut it = world.attach().await;
    assert_eq!(it.status.state, State::Idle);
    let next = it.start(world.spec(&["sleep", "600"], Lease::Unlimited)).await;
    it.keeper.kill().await.unwrap();
    assert_eq!(it.exited().await.pid, next);
}

/// H3: the kernel ends the first process only; the next keeper ends the rest of its session.
#[tokio::test]
async fn what_a_killed_keeper_leaves_behind_its_successor_ends() {
    let mut world = World::new();
    let mut it = world.attach().await;
    let script = "trap '' HUP QUIT TERM; (sleep 601; sleep 602) & sleep 603 & sleep 604";
    let mut spec = world.shell(script, Lease::Unlimited);
    spec.when_orphaned = WhenOrphaned::Kill;
    let pid = it.start(spec).await;
    let pids = family(it.status.keeper, 5).await;
    signal(it.status.keeper, Posix::KILL);
    assert_eq!(it.event().await, KeeperEvent::KeeperGone);
    until_dead(vec![pid]).await;
    assert_eq!(alive(&pids).len(), 4);
    let mut it = world.attach().await;
    if it.status.state != State::Idle {
        assert!(matches!(it.status.state, State::Ending { .. }), "{:?}", it.status.state);
        assert_eq!(it.exited().await.pid, pid);
    }
    assert_eq!(alive(&pids), [0; 0], "gone when it is said to be");
    assert_eq!(it.keeper.status().await.unwrap().state, State::Idle);
}

#[tokio::test]
async fn what_the_first_process_leaves_behind_dies_before_the_end_is_told() {
    let mut world = World::new();
    let mut it = world.attach().await;
    let pid = it.start(world.shell(FAMILY, Lease::Unlimited)).await;
    let pids = family(it.status.keeper, 6).await;
    signal(pid, Posix::KILL);
    let end = it.exited().await;
    assert_eq!(alive(&pids), [0; 0]);
    assert_eq!((end.how, end.cause), (How::Signal(9), Cause::ByItself));
    println!("left behind for {:?}", end.gone.since(end.at));
}

#[tokio::test]
async fn one_that_forks_without_end_is_ended() {
    let mut world = World::new();
    let mut it = world.attach().await;
    let script = "while :; do (setsid sh -c 'sleep 600 & sleep 600' &) ; sleep 0.01; done";
    it.start(world.shell(script, Lease::Unlimited)).await;
    let keeper = it.status.keeper;
    until(|| process::descendants(keeper).len(), |count| *count > 30).await;
    let asked = clock::now();
    it.keeper.kill().await.unwrap();
    let end = it.exited().await;
    println!("forking family of more than 30 gone after {:?}", end.gone.since(asked));
    assert_eq!(process::descendants(keeper), [0; 0]);
}
