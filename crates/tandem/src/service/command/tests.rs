//! What is run beside a command, what it is told, what is kept.

use super::*;
use crate::runtime::process;
use std::time::Instant;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

fn config(dir: &std::path::Path) -> CommandConfig {
    CommandConfig {
        service: "jobs".into(),
        me: "a".into(),
        dir: dir.to_owned(),
        cwd: dir.to_owned(),
        command: Vec::new(),
        env: BTreeMap::from([("MODE".into(), "x".into())]),
        user: None,
        address: Some(([127, 0, 0, 1], 9000).into()),
        stop: Vec::new(),
        stop_max: Duration::from_secs(5),
        on_start: Vec::new(),
        on_stop: Vec::new(),
        hook_max: Duration::from_secs(5),
        health: None,
        log_bytes_max: 1000,
    }
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(ToString::to_string).collect()
}

fn health(probe: Probe, timeout: Duration) -> Health {
    let (interval, grace) = (Duration::from_secs(1), Duration::ZERO);
    Health { probe, interval, timeout, fall: 3, rise: 1, grace }
}

#[test]
fn a_command_is_told_where_it_runs() {
    let it = config("/x".as_ref());
    let filled = it.filled(&words(&["app", "--port={port}", "{node}", "{}"]));
    assert_eq!(filled, ["app", "--port=9000", "a", "{}"]);
    let env = it.environment(Term(7));
    assert_eq!((env["MODE"].as_str(), env["TANDEM_TERM"].as_str()), ("x", "7"));
    assert_eq!(env["TANDEM_ADDRESS"], "127.0.0.1:9000");
    assert_eq!((env["TANDEM_PORT"].as_str(), env["TANDEM_NODE"].as_str()), ("9000", "a"));
}

#[test]
fn what_was_promised_is_found_again_and_a_strange_file_is_no_promise() {
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(State::load(dir.path()).unwrap(), State::default());
    let state = State { promised: Term(9), begun: Term(8), runs: Runs::Hook, recipe: 7 };
    state.store(dir.path()).unwrap();
    state.store(dir.path()).unwrap();
    assert_eq!(State::load(dir.path()).unwrap(), state);
    std::fs::write(dir.path().join("singleton"), "promised much\n").unwrap();
    assert!(State::load(dir.path()).is_err());
}

#[tokio::test]
async fn h50_a_program_that_hangs_is_killed_with_all_that_it_started() {
    let dir = tempfile::tempdir().unwrap();
    let it = config(dir.path());
    let script = "echo $TANDEM_TERM $MODE; sleep 600 & echo $! > child; sleep 600";
    let began = Instant::now();
    let hangs = it.run(&words(&["sh", "-c", script]), Term(3), Duration::from_secs(1)).await;
    assert!(matches!(hangs, Err(Error::Hangs { .. })), "{hangs:?}");
    assert!(began.elapsed() < Duration::from_secs(10));
    let child = std::fs::read_to_string(dir.path().join("child")).unwrap();
    let child: i32 = child.trim().parse().unwrap();
    while process::is_alive(child) {
        assert!(began.elapsed() < Duration::from_secs(10));
        tokio::task::yield_now().await;
    }
    assert_eq!(std::fs::read_to_string(it.log_file()).unwrap(), "3 x\n");
    let failed = it.run(&words(&["sh", "-c", "exit 3"]), Term(3), Duration::from_secs(5)).await;
    assert!(failed.unwrap_err().to_string().contains("exit status: 3"));
    let none = it.run(&words(&["/no/such/program"]), Term(3), Duration::from_secs(5)).await;
    assert!(matches!(none, Err(Error::Run { .. })), "{none:?}");
}

/// Answers each connection with these bytes, or never.
async fn server(answer: Option<&'static str>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let supervisor = crate::runtime::supervisor::Supervisor::new();
    let kind = crate::runtime::supervisor::TaskKind::Session;
    supervisor.spawn("a command", kind, async move {
        let mut open = Vec::new();
        while let Ok((mut stream, _)) = listener.accept().await {
            if let Some(answer) = answer {
                let _ = stream.read(&mut [0; 1000]).await;
                let _ = stream.write_all(answer.as_bytes()).await;
            }
            open.push(stream);
        }
    });
    address
}

#[tokio::test]
async fn each_way_to_ask_tells_well_from_not_well() {
    let dir = tempfile::tempdir().unwrap();
    let ask = async |answer, probe| {
        let address = Some(server(answer).await);
        let it = CommandConfig { address, ..config(dir.path()) };
        it.check(&health(probe, Duration::from_millis(300)), Term(1)).await
    };
    let http = || Probe::Http("/healthz".into());
    assert_eq!(ask(Some("HTTP/1.1 204 No Content\r\n\r\n"), http()).await, Ok(()));
    let bad = ask(Some("HTTP/1.1 503 Sorry\r\n\r\n"), http()).await.unwrap_err();
    assert_eq!(bad, "GET /healthz is answered with 503");
    assert!(ask(Some("220 smtp here, hello\r\n"), http()).await.unwrap_err().contains("HTTP"));
    assert_eq!(ask(None, http()).await.unwrap_err(), "no answer within 300 ms");
    assert_eq!(ask(None, Probe::Tcp).await, Ok(()));
    assert_eq!(ask(None, Probe::Exec(words(&["true"]))).await, Ok(()));
    let hangs = ask(None, Probe::Exec(words(&["sleep", "600"]))).await.unwrap_err();
    assert!(hangs.contains("did not end within"), "{hangs}");
    let closed = CommandConfig { address: Some(([127, 0, 0, 1], 1).into()), ..config(dir.path()) };
    let refused = closed.check(&health(Probe::Tcp, Duration::from_secs(2)), Term(1)).await;
    assert!(refused.unwrap_err().contains("cannot connect"));
}

#[test]
fn a_log_that_grew_too_long_is_moved_aside_and_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let it = config(dir.path());
    assert!(!it.bound_log().unwrap());
    let mut open = std::fs::OpenOptions::new();
    let mut open = open.create(true).append(true).open(it.log_file()).unwrap();
    std::io::Write::write_all(&mut open, &[b'a'; 1001]).unwrap();
    assert!(it.bound_log().unwrap());
    std::io::Write::write_all(&mut open, b"after").unwrap();
    assert_eq!(std::fs::read_to_string(it.log_file()).unwrap(), "after");
    assert_eq!(std::fs::metadata(dir.path().join("output.log.1")).unwrap().len(), 1001);
    assert!(!it.bound_log().unwrap());
}
