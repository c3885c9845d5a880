//! The Redis that runs once: it is asked through every door while its process and its node die, and
//! an operator moves it.

use super::cluster::{Running, example};
use std::process::{Command, Stdio};
use tandem_core::ids::NodeId;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::time::{Duration, timeout};

const SERVICE: &str = "cache";
/// A door holds a client while it moves, so one answer may take that long.
const ANSWER_MAX: Duration = Duration::from_secs(10);

/// One command in Redis's inline form; the last line of its answer.
async fn say(running: &Running, node: &NodeId, line: &str) -> Option<String> {
    let talk = async {
        let stream = TcpStream::connect(running.door(node, SERVICE)).await.ok()?;
        let mut stream = BufReader::new(stream);
        stream.get_mut().write_all(format!("{line}\r\n").as_bytes()).await.ok()?;
        let mut answer = String::new();
        stream.read_line(&mut answer).await.ok()?;
        if answer.starts_with('$') && !answer.starts_with("$-1") {
            answer.clear();
            stream.read_line(&mut answer).await.ok()?;
        }
        let answer = answer.trim_end().to_owned();
        (!answer.is_empty()).then_some(answer)
    };
    timeout(ANSWER_MAX, talk).await.ok()?
}

async fn says(running: &Running, node: &NodeId, line: &str, expected: &str) {
    let what = format!("{line} at {node} is {expected}");
    let answers = async || say(running, node, line).await.filter(|it| it == expected);
    running.until(&what, answers).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_runs_once_and_any_door_leads_to_it() {
    let there = Command::new("redis-server")
        .arg("--version")
        .stdout(Stdio::null())
        .status()
        .is_ok_and(|status| status.success());
    if !there {
        assert!(std::env::var_os("CI").is_none(), "CI has a redis-server: see scripts/setup-redis");
        println!("\n*** SKIPPED: there is no redis-server here; run scripts/setup-redis ***\n");
        return;
    }
    let running = Running::start(example("redis")).await;
    let nodes = running.nodes();
    let first = running.runs_at(SERVICE, None).await;
    running.took("founded");
    for node in &nodes {
        says(&running, node, &format!("SET {node} hello"), "+OK").await;
    }
    running.dev().kill_command(&first).unwrap();
    for node in &nodes {
        says(&running, &nodes[0], &format!("GET {node}"), "hello").await;
    }
    assert_eq!(running.runs_at(SERVICE, None).await, first, "back where its data is");
    running.took("its process died");

    running.dev().kill_node(&first).await.unwrap();
    let second = running.runs_at(SERVICE, Some(&first)).await;
    for node in nodes.iter().filter(|node| **node != first) {
        says(&running, node, "SET after yes", "+OK").await;
    }
    running.took("its node died");
    running.dev().restore_node(&first).unwrap();

    let moved = async || {
        let said = running.tandem(&["switchover", SERVICE, "--to", first.as_str()]);
        (said.contains(&format!("{first} runs")) || said.contains("already")).then_some(()).or(
            match running.dev().status(&second).await {
                Ok(status) => (status.service(SERVICE)?.primary.as_ref()? == &first).then_some(()),
                Err(_) => None,
            },
        )
    };
    running.until("an operator moves it back", moved).await;
    assert_eq!(running.runs_at(SERVICE, Some(&second)).await, first);
    says(&running, &second, &format!("GET {second}"), "hello").await;
    running.took("moved back to its data");
    running.stop().await;
}
