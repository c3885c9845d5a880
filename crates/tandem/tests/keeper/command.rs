//! Any command: it forks and exits, it is limited, it does not obey.

use crate::world::*;
use std::time::Duration;
use tandem::fence::protocol::{Cause, How, Lease, Limit, Signal, WhenOrphaned};
use tandem::runtime::process;

#[tokio::test]
async fn what_a_command_leaves_behind_as_it_forks_and_exits_is_ended_before_it_counts_as_gone() {
    let mut world = World::new();
    let mut it = world.attach().await;
    // A daemon of the old kind: two forks, a session of its own, the first process gone at once;
    // beside it one that ignores what could be asked of it.
    let script = "setsid sh -c 'sh -c \"trap : TERM HUP INT; while :; do sleep 600; done\" &' & \
                  (sleep 600 &) ; echo forked; exit 0";
    let mut spec = world.shell(script, Lease::Unlimited);
    spec.when_orphaned = WhenOrphaned::Kill;
    it.start(spec).await;
    let end = it.exited().await;
    assert_eq!((end.how.clone(), end.cause), (How::Code(0), Cause::ByItself));
    assert_eq!(process::descendants(it.status.keeper), [0; 0], "nothing is left of it");
}

#[tokio::test]
async fn a_command_has_the_limits_it_was_given() {
    let mut world = World::new();
    let mut it = world.attach().await;
    let mut spec = world.shell("ulimit -n; ulimit -Hn; ulimit -c; ulimit -f", Lease::Unlimited);
    spec.limits = [(Limit::Nofile, 77), (Limit::Core, 0), (Limit::Fsize, 512 * 1024)].into();
    it.start(spec).await;
    assert!(it.exited().await.is_clean());
    let log = std::fs::read_to_string(world.log()).unwrap();
    assert_eq!(log.lines().collect::<Vec<_>>(), ["77", "77", "0", "1024"], "{log}");
    if !rustix::process::geteuid().is_root() {
        let mut spec = world.shell("exit 0", Lease::Unlimited);
        spec.limits = [(Limit::Nofile, u64::from(u32::MAX))].into();
        it.keeper.start(spec).await.unwrap();
        let How::NotStarted { why } = it.exited().await.how else { panic!() };
        assert!(why.contains("cannot limit Nofile"), "{why}");
    }
}

#[tokio::test]
async fn a_command_that_does_not_stop_when_asked_is_killed() {
    let mut world = World::new();
    let mut it = world.attach().await;
    let script = "trap 'echo deaf' TERM; echo up; while :; do sleep 0.01; done";
    let mut spec = world.shell(script, lease(60_000));
    spec.when_orphaned = WhenOrphaned::Kill;
    it.start(spec).await;
    let log = world.log();
    let said = |word: &'static str| {
        let log = log.clone();
        move || std::fs::read_to_string(&log).unwrap_or_default().contains(word)
    };
    until(said("up"), |up| *up).await;
    it.keeper.signal(Signal::Smart).await.unwrap();
    until(said("deaf"), |deaf| *deaf).await;
    it.keeper.kill().await.unwrap();
    let end = it.exited().await;
    assert_eq!((end.how.clone(), end.cause), (How::Signal(9), Cause::Asked));
    assert!(end.gone.since(end.at) < Duration::from_secs(5));
}
