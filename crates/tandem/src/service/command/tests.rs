//! What is run beside a command, what it is told, what is kept.

use super::*;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

mod needs;

fn config(dir: &std::path::Path) -> CommandConfig {
    CommandConfig {
        told: BTreeMap::new(),
        service: "jobs".into(),
        me: "a".into(),
        dir: dir.to_owned(),
        cwd: dir.to_owned(),
        command: Vec::new(),
        env: BTreeMap::from([("MODE".into(), "x".into())]),
        run_as: None,
        address: Some(([127, 0, 0, 1], 9000).into()),
        stop: Vec::new(),
        stop_max: Duration::from_secs(5),
        drain_max: Duration::ZERO,
        on_start: Vec::new(),
        on_stop: Vec::new(),
        on_partitions: Vec::new(),
        hook_max: Duration::from_secs(5),
        health: None,
        log_bytes_max: 1000,
    }
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(ToString::to_string).collect()
}

#[test]
fn a_command_is_told_where_it_runs() {
    let it = config("/x".as_ref());
    let filled = it.filled(&words(&["app", "--port={port}", "{bind}", "{node}", "{}"]));
    let bind = it.address.unwrap().ip().to_string();
    assert_eq!(filled, ["app", "--port=9000", bind.as_str(), "a", "{}"]);
    let it = CommandConfig {
        cwd: "/srv/{node}".into(),
        env: [("MODE".into(), "x".into()), ("URL".into(), "http://{node}:{port}".into())].into(),
        ..it
    };
    assert_eq!(it.folder(), std::path::Path::new("/srv/a"));
    let told = BTreeMap::from([("FILE".into(), "/x/{sitting}.json".into())]);
    let env = CommandConfig { told, ..it.clone() }.environment(Term(7), Term(5));
    assert_eq!(env["FILE"], "/x/5.json", "where it goes on in a later term, too");
    assert_eq!(env["URL"], "http://a:9000");
    assert_eq!((env["MODE"].as_str(), env["TANDEM_TERM"].as_str()), ("x", "7"));
    assert_eq!((env["TANDEM_PORT"].as_str(), env["TANDEM_NODE"].as_str()), ("9000", "a"));
    assert_eq!(env["TANDEM_BIND"], bind);
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
    for half in ["", "promised 9\n", "begun 8\n"] {
        std::fs::write(State::path(dir.path()), half).unwrap();
        assert!(State::load(dir.path()).is_err(), "{half:?} is not nothing promised");
    }
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
    let ask = async |answer, at| {
        let address = Some(server(answer).await);
        let it = CommandConfig { address, ..config(dir.path()) };
        it.check(&at, Duration::from_millis(300)).await
    };
    let http = || AtPort::Http("/healthz".into());
    assert_eq!(ask(Some("HTTP/1.1 204 No Content\r\n\r\n"), http()).await, Ok(()));
    let bad = ask(Some("HTTP/1.1 503 Sorry\r\n\r\n"), http()).await.unwrap_err();
    assert_eq!(bad, "GET /healthz is answered with 503");
    assert!(ask(Some("220 smtp here, hello\r\n"), http()).await.unwrap_err().contains("HTTP"));
    assert_eq!(ask(None, http()).await.unwrap_err(), "no answer within 300 ms");
    assert_eq!(ask(None, AtPort::Tcp).await, Ok(()));
    let closed = CommandConfig { address: Some(([127, 0, 0, 1], 1).into()), ..config(dir.path()) };
    let refused = closed.check(&AtPort::Tcp, Duration::from_secs(2)).await;
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

#[tokio::test]
async fn a_port_that_somebody_else_has_is_found_before_a_start() {
    let dir = tempfile::tempdir().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let it = CommandConfig { address: Some(address), ..config(dir.path()) };
    let why = it.finds_its_port_free().unwrap_err();
    assert!(why.contains(&format!("something else uses {address}")), "{why}");
    // What the last copy served may be in its last minute.
    let client = tokio::net::TcpStream::connect(address).await.unwrap();
    drop(listener.accept().await.unwrap());
    drop((listener, client));
    assert_eq!(it.finds_its_port_free(), Ok(()));
    assert_eq!(CommandConfig { address: None, ..it }.finds_its_port_free(), Ok(()));
}

#[test]
fn of_a_log_that_is_flooded_the_end_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    let it = config(dir.path());
    let text = "a".repeat(50_000) + "the end";
    std::fs::write(it.log_file(), &text).unwrap();
    assert!(it.bound_log().unwrap());
    let kept = std::fs::read_to_string(dir.path().join("output.log.1")).unwrap();
    assert!(kept.ends_with("the end") && kept.len() == 2000, "{}", kept.len());
}

#[test]
fn a_log_that_grows_while_it_is_moved_is_moved_all_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let it = config(dir.path());
    let mut open = std::fs::OpenOptions::new();
    let mut open = open.create(true).append(true).open(it.log_file()).unwrap();
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(std::sync::atomic::Ordering::Relaxed) {
                std::io::Write::write_all(&mut open, &[b'a'; 4096]).unwrap();
            }
        });
        while std::fs::metadata(it.log_file()).unwrap().len() <= 1000 {
            std::thread::yield_now();
        }
        let bounded = it.bound_log();
        done.store(true, std::sync::atomic::Ordering::Relaxed);
        assert!(bounded.unwrap());
    });
    assert!(std::fs::metadata(dir.path().join("output.log.1")).unwrap().len() <= 2000);
}

#[test]
fn what_is_printed_is_shown_a_piece_at_a_time_and_a_flood_by_its_end() {
    let dir = tempfile::tempdir().unwrap();
    let it = config(dir.path());
    let shown = |lines: &[&str], left_out_bytes, place| {
        let lines = lines.iter().map(ToString::to_string).collect();
        Printed { lines, left_out_bytes, place }
    };
    let say = |text: &str| {
        let mut open = std::fs::OpenOptions::new();
        let mut open = open.create(true).append(true).open(it.log_file()).unwrap();
        std::io::Write::write_all(&mut open, text.as_bytes()).unwrap();
    };
    assert_eq!(it.printed_since(None).unwrap(), Printed::default());
    say("of before\n");
    let begun = it.printed_since(None).unwrap();
    assert_eq!(begun, shown(&[], 0, 10));
    say("one\nt\u{1b}[31mwo\nhal");
    let two = it.printed_since(Some(begun.place)).unwrap();
    assert_eq!(two, shown(&["one", "t [31mwo"], 0, 23));
    say("f\n");
    assert_eq!(it.printed_since(Some(two.place)).unwrap(), shown(&["half"], 0, 28));
    say(&"line\n".repeat(10_000));
    let flood = it.printed_since(Some(28)).unwrap();
    assert_eq!((flood.lines.len(), flood.left_out_bytes, flood.place), (20, 49_900, 50_028));
    say(&"x".repeat(20_000));
    let endless = it.printed_since(Some(flood.place)).unwrap();
    assert_eq!((endless.lines.len(), endless.place), (1, 70_028));
    std::fs::write(it.log_file(), "anew\n").unwrap();
    assert_eq!(it.printed_since(Some(endless.place)).unwrap(), shown(&["anew"], 0, 5));
    std::fs::remove_file(it.log_file()).unwrap();
    std::os::unix::fs::symlink("/etc/passwd", it.log_file()).unwrap();
    assert_eq!(it.printed_since(Some(0)).unwrap(), Printed::default());
}
