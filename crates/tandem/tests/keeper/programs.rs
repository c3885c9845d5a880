//! A program beside an instance: it leaves nothing behind, whatever it does.

use crate::world::*;
use std::path::Path;
use std::time::{Duration, Instant};
use tandem::fence::program::{Error, run};
use tandem::fence::protocol::{Lease, Limit};
use tandem::fence::stub::Order;
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

/// Makes a session of its own, as a daemon does, notes itself and stays.
const ESCAPES: &str = "setsid sh -c 'echo $$ > child.new; mv child.new child; exec sleep 600' &";
const UNTIL_NOTED: &str = "while ! test -f child; do sleep 0.01; done";

#[tokio::test]
async fn what_a_program_leaves_behind_is_ended() {
    for leaves in ["sleep 600 & echo $! > child".to_owned(), format!("{ESCAPES} {UNTIL_NOTED}")] {
        let world = World::new();
        let ended = [("exit 0", ""), ("exit 3", "exit status: 3"), ("kill -9 $$", "signal: 9")];
        for (end, said) in ended {
            let spec = world.shell(&format!("rm -f child; {leaves}; {end}"), Lease::Unlimited);
            let ended = run(exe(), &spec, LIMIT, &CancellationToken::new()).await;
            let text = ended.map_err(|error| error.to_string()).err().unwrap_or_default();
            assert!(text.contains(said) && text.is_empty() == said.is_empty(), "{end}: {text}");
            assert!(!process::is_alive(noted(&world)), "{leaves}: it is gone by then");
        }
        let spec = world.shell(&format!("rm -f child; {leaves}; exec sleep 600"), Lease::Unlimited);
        let never = CancellationToken::new();
        let hangs = run(exe(), &spec, Duration::from_secs(2), &never).await;
        assert!(matches!(hangs, Err(Error::Hangs { .. })), "{hangs:?}");
        assert!(!process::is_alive(noted(&world)), "{leaves}: killed with it");
    }
}

/// A check by name finds what it looks for, and not who runs it.
#[tokio::test]
async fn a_program_that_looks_for_its_own_words_does_not_find_them() {
    let world = World::new();
    let looks = world.shell("env > env", Lease::Unlimited);
    let spec = world.spec(&["pgrep", "-f", "no-such-server-runs"], Lease::Unlimited);
    let never = CancellationToken::new();
    let ended = run(exe(), &spec, LIMIT, &never).await.unwrap_err().to_string();
    assert!(ended.contains("exit status: 1"), "{ended}");
    run(exe(), &looks, LIMIT, &never).await.unwrap();
    let env = std::fs::read_to_string(world.dir.path().join("env")).unwrap();
    assert!(!env.contains("TANDEM_KEEPER_ORDER"), "{env}");
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

/// H3: a daemon that is killed tells nobody.
#[tokio::test]
async fn a_program_and_what_it_started_end_with_their_daemon() {
    let world = World::new();
    let script = format!("{ESCAPES} {UNTIL_NOTED}; echo $$ > program; exec sleep 600");
    let order = Order::beside(&world.shell(&script, Lease::Unlimited), 0);
    let order = serde_json::to_string(&order).unwrap();
    let own = format!("\"keeper\":{}", std::process::id());
    assert!(order.contains(&own), "{order}");
    let file = world.dir.path().join("order");
    std::fs::write(&file, order.replace(&own, "\"keeper\":DAEMON")).unwrap();
    let daemon = "TANDEM_KEEPER_ORDER=\"$(sed s/DAEMON/$$/ \"$1\")\" \"$0\" keeper-exec & wait";
    let mut daemon = std::process::Command::new("sh")
        .args(["-c", daemon])
        .arg(exe())
        .arg(&file)
        .stdin(std::process::Stdio::null())
        .env("PATH", "/usr/bin:/bin")
        .spawn()
        .unwrap();
    let program = world.dir.path().join("program");
    let read = || std::fs::read_to_string(&program).unwrap_or_default();
    until(read, |it| it.contains('\n')).await;
    let program: i32 = read().trim().parse().unwrap();
    let escaped = noted(&world);
    assert!(process::is_alive(program) && process::is_alive(escaped));
    daemon.kill().unwrap();
    daemon.wait().unwrap();
    until(|| process::is_alive(program) || process::is_alive(escaped), |alive| !alive).await;
}
