//! Starting, reporting, adopting, refusing.

use crate::world::*;
use rustix::process::Signal as Posix;
use std::fs::Permissions;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;
use std::time::Duration;
use tandem::fence::client::{Error, KeeperEvent};
use tandem::fence::program;
use tandem::fence::protocol::{Cause, How, Lease, Refusal, SOCKET, Signal, State};
use tandem::runtime::{clock, process};

#[tokio::test]
async fn an_exit_is_reported_at_once_with_its_status() {
    let mut world = World::new();
    let mut it = world.attach().await;
    assert_eq!(it.status.state, State::Idle);
    it.start(world.shell("exit 7", Lease::Unlimited)).await;
    let end = it.exited().await;
    println!("exit seen after {:?}", clock::now().since(end.at));
    assert_eq!((end.how.clone(), end.cause), (How::Code(7), Cause::ByItself));
    assert!(!end.is_clean());
    let pid = it.start(world.spec(&["sleep", "600"], Lease::Unlimited)).await;
    let killed = clock::now();
    signal(pid, Posix::KILL);
    let end = it.exited().await;
    println!("kill to event: {:?}", clock::now().since(killed));
    assert_eq!((end.pid, end.how.clone(), end.cause), (pid, How::Signal(9), Cause::ByItself));
    assert_eq!(it.keeper.status().await.unwrap().last_end, Some(end));
}

#[tokio::test]
async fn what_cannot_run_says_why() {
    let mut world = World::new();
    let mut it = world.attach().await;
    it.keeper.start(world.spec(&["/no/such/program"], Lease::Unlimited)).await.unwrap();
    let How::NotStarted { why } = it.exited().await.how else { panic!() };
    assert!(why.contains("/no/such/program") && why.contains("No such file"), "{why}");
    let past = it.keeper.start(world.shell("exit 0", lease(0))).await;
    assert!(matches!(past, Err(Error::Refused(Refusal::LeasePassed))), "{past:?}");
    let renewed = it.keeper.unlimited().await;
    assert!(matches!(renewed, Err(Error::Refused(Refusal::NothingRuns))), "{renewed:?}");
}

#[tokio::test]
async fn the_program_gets_its_user_environment_log_and_no_privilege() {
    let mut world = World::new();
    let mut it = world.attach().await;
    std::fs::write(world.log(), "before\n").unwrap();
    let script = "id -u; id -G; env | grep -v PWD; pwd; nice; cat /proc/self/oom_score_adj; \
                  grep -E 'SigBlk|SigIgn' /proc/self/status; ls /proc/self/fd | wc -l; \
                  read line || echo empty; echo oops >&2";
    let mut spec = world.shell(script, Lease::Unlimited);
    spec.oom_score_adj = 123;
    it.start(spec).await;
    assert!(it.exited().await.is_clean());
    let log = std::fs::read_to_string(world.log()).unwrap();
    println!("{log}");
    let uid = postgres_user().map_or(rustix::process::geteuid().as_raw(), |user| user.uid);
    let lines: Vec<&str> = log.lines().collect();
    assert_eq!(lines[..2], ["before".to_owned(), uid.to_string()]);
    assert!(lines.contains(&"PATH=/usr/bin:/bin"));
    assert!(lines.contains(&"123"));
    assert!(log.contains("SigBlk:\t0000000000000000"), "signals reach it");
    // The test's own starter may ignore real-time signals; the usual 31 are at their default.
    let ignored = lines.iter().find_map(|line| line.strip_prefix("SigIgn:\t")).unwrap();
    assert_eq!(u64::from_str_radix(ignored, 16).unwrap() & 0x7fff_ffff, 0, "signals reach it");
    assert!(log.ends_with("4\nempty\noops\n"), "no descriptor but 0, 1, 2 and that of ls itself");
}

/// A loader that is told to list what it would load runs nothing: with a program's environment,
/// what starts it would end there, and as root obey what a user could have put in a folder.
#[tokio::test]
async fn what_a_program_is_given_is_not_obeyed_by_what_starts_it() {
    let mut world = World::new();
    let mut it = world.attach().await;
    let mut spec = world.spec(&["/bin/sh", "-c", "exit 0"], Lease::Unlimited);
    spec.env.insert("LD_TRACE_LOADED_OBJECTS".into(), "1".into());
    let exe = Path::new(env!("CARGO_BIN_EXE_tandem"));
    program::run(exe, &spec, LIMIT, &<_>::default()).await.unwrap();
    let log = || std::fs::read_to_string(world.log()).unwrap();
    assert!(log().contains("libc.so"), "of the program: {}", log());
    std::fs::remove_file(world.log()).unwrap();
    it.start(spec).await;
    assert!(it.exited().await.is_clean());
    assert!(log().contains("libc.so"), "of the instance: {}", log());
}

#[tokio::test]
async fn a_stop_that_was_asked_for_is_called_so() {
    let mut world = World::new();
    let mut it = world.attach().await;
    let script = "trap 'exit 0' INT; trap 'echo again' HUP; echo up; while :; do sleep 0.01; done";
    it.start(world.shell(script, Lease::Unlimited)).await;
    let log = world.log();
    let read = || std::fs::read_to_string(&log).unwrap();
    until(read, |text| text.contains("up")).await;
    it.keeper.signal(Signal::Reload).await.unwrap();
    until(read, |text| text.contains("again")).await;
    it.keeper.signal(Signal::Fast).await.unwrap();
    let end = it.exited().await;
    assert!(end.is_clean() && end.cause == Cause::Asked, "{end:?}");
}

#[tokio::test]
async fn a_restarted_daemon_takes_the_instance_over() {
    let mut world = World::new();
    let mut it = world.attach().await;
    let lease = lease(600_000);
    let pid = it.start(world.spec(&["sleep", "600"], lease)).await;
    assert!(world.supervisor.stop(LIMIT).await);
    // The keeper is not gone, this daemon is: nobody may take the one for the other.
    assert_eq!(it.events.recv().await, None);
    assert!(matches!(it.keeper.kill().await, Err(Error::Gone)));

    world.supervisor = tandem::runtime::supervisor::Supervisor::new();
    let first_keeper = it.status.keeper;
    let mut it = world.attach().await;
    assert_eq!(it.status.keeper, first_keeper);
    assert_eq!((it.status.state, it.status.lease), (State::Running { pid }, Some(lease)));
    let again = it.keeper.start(world.shell("exit 0", Lease::Unlimited)).await;
    assert!(matches!(again, Err(Error::Refused(Refusal::StillRuns { pid: p })) if p == pid));

    // What happens while nobody listens is told to the next daemon.
    drop((it.keeper, it.events));
    world.supervisor.stop(LIMIT).await;
    signal(pid, Posix::KILL);
    world.supervisor = tandem::runtime::supervisor::Supervisor::new();
    until(|| process::read(pid), Option::is_none).await;
    it = world.attach().await;
    assert_eq!(it.status.last_end.unwrap().how, How::Signal(9));
}

#[tokio::test]
async fn one_keeper_per_directory_and_only_a_closed_one() {
    let mut world = World::new();
    let _it = world.attach().await;
    let run = |dir: &Path| {
        let mut keeper = Command::new(env!("CARGO_BIN_EXE_tandem"));
        let output = keeper.args(["keeper", "--dir"]).arg(dir).output().unwrap();
        assert_eq!(output.status.code(), Some(1));
        String::from_utf8(output.stderr).unwrap()
    };
    let said = run(&world.run_dir());
    assert!(said.contains("another keeper serves"), "{said}");
    let open = world.dir.path().join("open");
    std::fs::create_dir(&open).unwrap();
    std::fs::set_permissions(&open, Permissions::from_mode(0o777)).unwrap();
    let said = run(&open);
    assert!(said.contains("can be written by others"), "{said}");
}

fn raw(run_dir: &Path) -> BufReader<UnixStream> {
    let stream = UnixStream::connect(run_dir.join(SOCKET)).unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    stream.set_write_timeout(Some(LIMIT)).unwrap();
    BufReader::new(stream)
}

#[tokio::test]
async fn garbage_is_harmless() {
    let mut world = World::new();
    let mut it = world.attach().await;
    let pid = it.start(world.spec(&["sleep", "600"], Lease::Unlimited)).await;
    let mut said = String::new();
    for garbage in [&b"\xff\xfe\x00\n"[..], b"{\"v\":1}\n", b"{}{}{}\n\n\n", b"[1,2,3]\n"] {
        let mut client = raw(&world.run_dir());
        client.get_mut().write_all(garbage).unwrap();
        said.clear();
        // Ends because the keeper closes; unread garbage makes that a reset.
        let _ = client.read_to_string(&mut said);
        assert!(said.contains("malformed"), "{said}");
    }
    let mut endless = raw(&world.run_dir());
    let flood = vec![b'x'; 1 << 20];
    assert!(endless.get_mut().write_all(&flood).is_err(), "closed long before its end");

    let mut other_version = raw(&world.run_dir());
    other_version.get_mut().write_all(b"{\"v\":2,\"id\":3,\"command\":\"kill\"}\n").unwrap();
    said.clear();
    other_version.read_line(&mut said).unwrap();
    said.clear();
    other_version.read_line(&mut said).unwrap();
    assert!(said.contains("\"id\":3") && said.contains("\"version\":{\"keeper\":1}"), "{said}");

    // In pieces, it is a message all the same.
    for piece in [&b"{\"v\":1,\"id\":4,"[..], b"\"command\":\"sta", b"tus\"}\n"] {
        other_version.get_mut().write_all(piece).unwrap();
        tokio::task::yield_now().await;
    }
    said.clear();
    other_version.read_line(&mut said).unwrap();
    assert!(said.contains(&format!("{{\"running\":{{\"pid\":{pid}}}}}")), "{said}");
    assert_eq!(it.keeper.status().await.unwrap().state, State::Running { pid });
}

#[tokio::test]
async fn a_client_that_does_not_read_delays_nobody() {
    let mut world = World::new();
    let mut it = world.attach().await;
    let pid = it.start(world.spec(&["sleep", "600"], lease(60_000))).await;
    // As a stopped daemon: it asks, and does not read the answers, until it is dropped.
    let mut frozen = raw(&world.run_dir());
    let ask = b"{\"v\":1,\"id\":1,\"command\":\"status\"}\n";
    let (mut asked, mut slowest) = (0, Duration::ZERO);
    while frozen.get_mut().write_all(ask).is_ok() {
        asked += 1;
        if asked % 200 == 0 {
            let before = clock::now();
            it.keeper.renew(after(Duration::from_secs(60))).await.unwrap();
            slowest = slowest.max(clock::now().since(before));
        }
        assert!(asked < 1_000_000, "never dropped");
    }
    println!("dropped after {asked} questions; slowest renewal beside it {slowest:?}");
    let another = [raw(&world.run_dir()), raw(&world.run_dir()), raw(&world.run_dir())];
    let mut one_too_many = raw(&world.run_dir());
    let mut said = String::new();
    assert_eq!(one_too_many.read_to_string(&mut said).unwrap(), 0, "{said}");
    drop(another);
    it.keeper.revoke().await.unwrap();
    assert_eq!(it.exited().await.pid, pid);
}

#[tokio::test]
async fn it_ignores_signals_stays_small_and_ends_when_released() {
    let mut world = World::new();
    let mut it = world.attach().await;
    let pid = it.start(world.spec(&["sleep", "600"], Lease::Unlimited)).await;
    for posix in [Posix::TERM, Posix::INT, Posix::HUP, Posix::USR1, Posix::PIPE] {
        signal(it.status.keeper, posix);
    }
    assert!(matches!(
        it.keeper.release().await,
        Err(Error::Refused(Refusal::StillRuns { pid: p })) if p == pid
    ));
    let status = std::fs::read_to_string(format!("/proc/{}/status", it.status.keeper)).unwrap();
    for line in status.lines().filter(|l| {
        ["VmRSS", "RssAnon", "RssFile", "VmLck", "Threads", "VmData"]
            .iter()
            .any(|key| l.starts_with(key))
    }) {
        println!("keeper {line}");
    }
    assert!(status.contains("Threads:\t1\n"));
    it.keeper.kill().await.unwrap();
    assert_eq!(it.exited().await.cause, Cause::Asked);
    it.keeper.release().await.unwrap();
    assert_eq!(it.event().await, KeeperEvent::KeeperGone);
    until(|| process::is_alive(it.status.keeper), |alive| !alive).await;
    assert!(!world.run_dir().join(SOCKET).exists());
}
