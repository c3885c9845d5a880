//! A program beside an instance: it leaves nothing behind, whatever it does.

use crate::world::*;
use std::path::Path;
use std::time::{Duration, Instant};
use tandem::fence::program::{Error, run};
use tandem::fence::protocol::{Lease, Limit};
use tandem::runtime::process;
use tokio_util::sync::CancellationToken;

fn exe() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_tandem"))
}

/// The process that it noted.
fn noted(world: &World) -> i32 {
    let text = std::fs::read_to_string(world.dir.path().join("child")).unwrap();
    text.trim().parse().unwrap()
}

#[tokio::test]
async fn h50_a_program_that_hangs_is_killed_with_all_that_it_started() {
    let world = World::new();
    let spec = world.shell("sleep 600 & echo $! > child; sleep 600", Lease::Unlimited);
    let (began, never) = (Instant::now(), CancellationToken::new());
    let hangs = run(exe(), &spec, Duration::from_secs(2), &never).await;
    assert!(matches!(hangs, Err(Error::Hangs { .. })), "{hangs:?}");
    assert!(began.elapsed() < LIMIT);
    assert!(!process::is_alive(noted(&world)), "it is gone by then");
}

#[tokio::test]
async fn what_a_program_leaves_behind_is_ended() {
    let world = World::new();
    let spec = world.shell("sleep 600 & echo $! > child; exit 0", Lease::Unlimited);
    run(exe(), &spec, LIMIT, &CancellationToken::new()).await.unwrap();
    assert!(!process::is_alive(noted(&world)), "it is gone by then");
}

#[tokio::test]
async fn a_program_that_nobody_needs_any_more_is_killed() {
    let world = World::new();
    let spec = world.shell("echo $$ > child; exec sleep 600", Lease::Unlimited);
    let cancel = CancellationToken::new();
    let child = world.dir.path().join("child");
    let wait = async {
        until(|| std::fs::read_to_string(&child).unwrap_or_default(), |it| it.contains('\n')).await;
        cancel.cancel();
    };
    let (cancelled, ()) = tokio::join!(run(exe(), &spec, LIMIT, &cancel), wait);
    assert!(matches!(cancelled, Err(Error::Cancelled { .. })), "{cancelled:?}");
    assert!(!process::is_alive(noted(&world)), "it is gone by then");
}

#[tokio::test]
async fn a_program_has_the_limits_of_its_instance_and_ends_with_its_parent() {
    let world = World::new();
    let never = CancellationToken::new();
    let mut spec = world.shell("ulimit -n; cat /proc/self/oom_score_adj", Lease::Unlimited);
    spec.limits = [(Limit::Nofile, 77)].into();
    spec.oom_score_adj = 7;
    run(exe(), &spec, LIMIT, &never).await.unwrap();
    let log = std::fs::read_to_string(world.log()).unwrap();
    assert_eq!(log.lines().collect::<Vec<_>>(), ["77", "7"], "{log}");
    assert!(!world.run_dir().join("instance.session").exists(), "it is not the instance");
    let failed = run(exe(), &world.shell("exit 3", Lease::Unlimited), LIMIT, &never).await;
    assert!(failed.unwrap_err().to_string().contains("exit status: 3"));
    let none = run(exe(), &world.spec(&["/no/such"], Lease::Unlimited), LIMIT, &never).await;
    assert!(none.unwrap_err().to_string().contains("cannot run /no/such"));
}
