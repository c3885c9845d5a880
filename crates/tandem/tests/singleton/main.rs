//! A command that runs once in a cluster of three real nodes, on loopback addresses: its process is
//! killed, its node, its daemon is frozen, it is moved. It keeps a ledger that all copies share, in
//! which every copy writes every few milliseconds: no two may be in it at once (INV-12).

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test's helpers fail the test")]
#![allow(clippy::print_stdout, reason = "times are reported")]

mod clients;
mod ledger;
#[allow(dead_code, reason = "shared with a test that needs more of it")]
#[path = "../common/machines.rs"]
mod machines;
mod preferred;
mod taken_out;

use clients::Clients;
use ledger::{Ledger, Line};
use machines::Machines;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};
use tandem::runtime::process;

/// What a status says of the one with the ledger.
fn jobs(status: &serde_json::Value) -> &serde_json::Value {
    let services = status["services"].as_array().unwrap();
    services.iter().find(|service| service["name"] == "jobs").unwrap()
}

const NODES: [&str; 3] = ["a", "b", "c"];

/// With room for a machine that does other things as well; what it took is printed.
const LENIENT: Duration = Duration::from_secs(6);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_singleton_runs_once_whatever_dies() {
    let mut machines = Machines::new(&NODES);
    let ledger = Ledger::new(&machines);
    let services = ledger.service() + &ledger.bad_services() + &ledger.saves();
    founded(&mut machines, &ledger, None, &services).await;
    what_hangs_or_is_sick_is_told(&machines, &ledger).await;
    let first = ledger.newest();
    through_the_door(&machines, &first).await;
    what_each_machine_has_is_told(&machines);
    a_killed_process_is_back_where_it_was(&machines, &ledger).await;
    an_operator_moves_it(&machines, &ledger).await;
    a_dead_node_is_replaced(&mut machines, &ledger).await;
    a_frozen_daemon_leaves_no_second_copy(&machines, &ledger).await;
    a_frozen_keeper_lets_no_copy_outlive_its_lease(&machines, &ledger).await;
    an_operator_restarts_it(&machines, &ledger).await;
    other_words_count_at_once(&machines, &ledger).await;
    its_door_moves_while_it_runs(&machines, &ledger).await;
    a_daemon_that_is_restarted_leaves_no_second_copy(&mut machines, &ledger).await;
    taken_out::it_ends_in_order_and_comes_back(&machines, &ledger).await;
    where_it_fails_it_does_not_stay(&machines, &ledger).await;
    ledger.no_two_at_once();
}

async fn founded(
    machines: &mut Machines,
    ledger: &Ledger,
    preferred: Option<&str>,
    services: &str,
) {
    machines.write_nodes(&NODES);
    let mut nodes = fs::read_to_string(machines.config_path()).unwrap();
    if let Some(node) = preferred {
        let table = format!("[nodes.{node}]\n");
        nodes = nodes.replace(&table, &format!("{table}priority = 200\n"));
    }
    fs::write(machines.config_path(), nodes + services).unwrap();
    machines.found(&NODES).await;
    ledger.grows(&Line::default(), |_| true).await;
    serves(machines, "a").await;
    let said = machines.tandem("b", &["status"]).success().out;
    assert!(said.contains("  active ") && !said.contains("primary"), "{said}");
    println!("{said}");
    let said = machines.tandem("b", &["explain", "jobs"]).success().out;
    assert!(said.contains("  active ") && !said.contains("rimar"), "{said}");
    println!("{said}");
}

/// H50: a hook or a check that hangs is killed and counts as failed; what is not well is started
/// anew; what goes to the background is ended with what it left there, and is a crash loop.
async fn what_hangs_or_is_sick_is_told(machines: &Machines, ledger: &Ledger) {
    let limit = Instant::now() + Duration::from_secs(30);
    let told = |text: &str, word: &str| text.contains(word);
    loop {
        let events: Vec<String> =
            NODES.map(|node| machines.tandem(node, &["events"]).success().out).into();
        let events = events.concat();
        let all = told(&events, "on_start did not end within its limit")
            && told(&events, "3 checks in a row failed, so it is started anew")
            && told(&events, "sleep did not end within 200ms and was killed")
            && told(&events, "ended by itself (exit code 0), 5 times in a row: crash loop");
        let of_slow =
            |word: &str| events.lines().any(|line| line.contains(" slow/") && line.contains(word));
        assert!(!of_slow("lease.expired") && !of_slow("hook.failed"), "{events}");
        if all && of_slow("runs in term") && ledger.sick_starts() > 1 {
            break;
        }
        assert!(ledger.left_behind() <= 1, "what went to the background lives on");
        assert!(Instant::now() < limit, "{events}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Any node's door leads to the copy.
async fn through_the_door(machines: &Machines, runs: &Line) {
    let status = machines.status("a").unwrap();
    for endpoint in jobs(&status)["endpoints"].as_array().unwrap() {
        let (node, door) = (&endpoint["node"], endpoint["listen"].as_str().unwrap());
        let limit = Instant::now() + LENIENT;
        loop {
            let mut answer = String::new();
            let asked = TcpStream::connect(door).and_then(|mut stream| {
                stream.set_read_timeout(Some(LENIENT))?;
                stream.write_all(b"who\n")?;
                stream.read_to_string(&mut answer)
            });
            if asked.is_ok() && answer.trim() == runs.node {
                break;
            }
            assert!(Instant::now() < limit, "{node}: {asked:?} {answer:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

fn what_each_machine_has_is_told(machines: &Machines) {
    let said = machines.tandem("a", &["doctor"]).out;
    let is_told = |node: &str| {
        let mut of_node = said.lines().filter(|line| line.contains(&format!("jobs on {node}")));
        of_node.any(|line| line.contains("what it needs on this machine is there"))
    };
    assert!(NODES.into_iter().all(is_told), "{said}");
}

async fn a_killed_process_is_back_where_it_was(machines: &Machines, ledger: &Ledger) {
    let before = ledger.newest();
    before.kill();
    let after = ledger.grows(&before, |line| line.pid != before.pid).await;
    println!("a killed process: {} ms", after.ms - ledger.last_of(&before).ms);
    assert_eq!((&after.node, after.term), (&before.node, before.term));
    serves(machines, "a").await;
}

/// It is healthy again, so that an operator may move it.
async fn serves(machines: &Machines, at: &str) {
    let runs = |it: &serde_json::Value| it["state"] == "running";
    machines
        .until(at, "it serves", |status| {
            let service = &jobs(status);
            let instances = service["instances"].as_array();
            service["phase"] == "active" && instances.is_some_and(|all| all.iter().any(runs))
        })
        .await;
}

/// Its own, and those of another service that leads to it.
fn doors(machines: &Machines) -> Vec<SocketAddr> {
    let status = machines.status("a").unwrap();
    let balanced = status["balanced"].as_array().unwrap();
    let front = balanced.iter().find(|it| it["name"] == "front").unwrap();
    let own = jobs(&status)["endpoints"].as_array().unwrap();
    let doors = own.iter().chain(front["doors"].as_array().unwrap());
    doors.map(|it| it["listen"].as_str().unwrap().parse().unwrap()).collect()
}

/// INV-14: who is being served then is served, who comes while nobody serves is held and answered,
/// at the first try.
async fn an_operator_moves_it(machines: &Machines, ledger: &Ledger) {
    let before = ledger.newest();
    let clients = Clients::start(&doors(machines));
    let to = NODES.into_iter().find(|node| *node != before.node).unwrap();
    let said = machines.tandem("a", &["switchover", "jobs", "--to", to]).success();
    println!("{}", said.out);
    let after = ledger.grows(&before, |line| line.pid != before.pid).await;
    println!("a planned move: {} ms", after.ms - ledger.last_of(&before).ms);
    assert!(after.node == to && after.term > before.term);
    let text = ledger.text();
    assert!(text.contains(&format!("on_stop {} ", before.node)), "its hook: {text}");
    assert!(text.contains(&format!("on_start {to} ")), "its hook");
    let told = clients.end("a planned move", &[&before.node, to]);
    // A moment later than that file can tell: the copy was gone by then, and nobody at its port.
    let gone_ms = ledger.closed_ms(&before.node) + 10;
    let held: Vec<_> =
        told.iter().filter(|it| it.came_ms > gone_ms && it.came_ms < after.ms).collect();
    let longest = held.iter().map(|it| it.left_ms - it.came_ms).max();
    println!("{} clients were held, {longest:?} ms at most", held.len());
    assert!(!held.is_empty(), "nobody came meanwhile: {gone_ms} to {} {told:?}", after.ms);
    let failed: Vec<_> =
        told.iter().filter(|it| it.came_ms > gone_ms && it.answer.as_deref() != Ok(to)).collect();
    assert!(failed.is_empty(), "{failed:?}");
}

async fn a_dead_node_is_replaced(machines: &mut Machines, ledger: &Ledger) {
    let before = ledger.newest();
    machines.kill(&before.node);
    let after = ledger.grows(&before, |line| line.pid != before.pid).await;
    println!("a dead node: {} ms", after.ms - ledger.last_of(&before).ms);
    assert!(after.node != before.node && after.term > before.term);
    machines.start_joined(&before.node);
    machines.reachable(&before.node).await;
}

async fn a_frozen_daemon_leaves_no_second_copy(machines: &Machines, ledger: &Ledger) {
    let before = ledger.newest();
    machines.freeze(&before.node, Signal::SIGSTOP);
    let after = ledger.grows(&before, |line| line.pid != before.pid).await;
    println!("a frozen daemon: {} ms", after.ms - ledger.last_of(&before).ms);
    assert_ne!(after.node, before.node);
    machines.freeze(&before.node, Signal::SIGCONT);
    machines.reachable(&before.node).await;
    ledger.no_two_at_once();
}

/// Its daemon, which lives, ends the copy in its place; then another node takes over.
async fn a_frozen_keeper_lets_no_copy_outlive_its_lease(machines: &Machines, ledger: &Ledger) {
    serves(machines, "a").await;
    let before = ledger.newest();
    let keeper = process::read(before.pid).unwrap().parent;
    let signal = |signal| kill(Pid::from_raw(keeper), signal).unwrap();
    signal(Signal::SIGSTOP);
    let is_gone = || !process::is_alive(before.pid);
    machines.wait("the daemon ends the copy", &before.node, is_gone).await;
    println!("a frozen keeper: {} ms", ledger.last_of(&before).ms - before.ms);
    let after = ledger.grows(&before, |line| line.pid != before.pid).await;
    assert_ne!(after.node, before.node);
    println!("a frozen keeper: {} ms to the next copy", after.ms - ledger.last_of(&before).ms);
    let events = machines.tandem(&before.node, &["events"]).success().out;
    assert!(events.contains("so the daemon killed"), "{events}");
    signal(Signal::SIGCONT);
    let is_back = |status: &serde_json::Value| {
        let instances = jobs(status)["instances"].as_array().unwrap().iter();
        let mut own = instances.filter(|it| it["node"] == before.node.as_str());
        own.any(|it| it["state"] == "stopped")
    };
    machines.until("a", "it may take it over again", is_back).await;
    ledger.no_two_at_once();
}

async fn an_operator_restarts_it(machines: &Machines, ledger: &Ledger) {
    serves(machines, "a").await;
    let before = ledger.newest();
    let doors = doors(machines);
    let clients = Clients::start(&doors);
    let said = machines.tandem("a", &["restart", "jobs", "--node", &before.node]).success();
    println!("{}", said.out);
    assert!(said.out.contains("was restarted"), "{said:?}");
    let after = ledger.grows(&before, |line| line.pid != before.pid).await;
    assert_eq!(after.node, before.node, "where it was");
    clients.end("a restart", &[&before.node]);
    what_lasts_longer_than_a_drain_may_is_cut(machines, ledger, doors[0]).await;
    machines.tandem("a", &["pause", "jobs"]).success();
    machines.tandem("a", &["resume", "jobs"]).success();
}

/// A client whose request never ends has `drain_max`, which is 2 s; that it was cut is told.
async fn what_lasts_longer_than_a_drain_may_is_cut(
    machines: &Machines,
    ledger: &Ledger,
    door: SocketAddr,
) {
    serves(machines, "a").await;
    let before = ledger.newest();
    let mut client = TcpStream::connect(door).unwrap();
    client.write_all(b"never\n").unwrap();
    client.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    assert!(client.read(&mut [0; 100]).unwrap() > 0, "it is served");
    let asked = Instant::now();
    machines.tandem("a", &["restart", "jobs", "--node", &before.node]).success();
    let end = client.read(&mut [0; 100]);
    assert!(!matches!(end, Ok(1..)), "nothing comes: {end:?}");
    assert!(asked.elapsed() >= Duration::from_millis(1900), "its time: {:?}", asked.elapsed());
    let events = machines.tandem(&before.node, &["events"]).success().out;
    assert!(events.contains("drain_max has passed, and 1 are cut"), "{events}");
}

/// No daemon is restarted: the copy is, where it runs.
async fn other_words_count_at_once(machines: &Machines, ledger: &Ledger) {
    serves(machines, "a").await;
    let before = ledger.newest();
    let text = fs::read_to_string(machines.config_path()).unwrap();
    let changed = text.replace("env = { LEDGER", "env = { MODE = \"other\", LEDGER");
    let changed = changed.replace("on_start = [\"sleep\", \"601\"]", "on_start = [\"/no/such\"]");
    assert_ne!(text, changed);
    fs::write(machines.config_path(), changed).unwrap();
    let clients = Clients::start(&doors(machines));
    let said = machines.apply("a").success();
    assert!((said.out.clone() + &said.err).contains("is started anew"), "{said:?}");
    for node in NODES {
        let told = format!("hangs on {node}: /no/such is not there");
        assert!((said.out.clone() + &said.err).contains(&told), "{said:?}");
    }
    let after = ledger.grows(&before, |line| line.pid != before.pid).await;
    println!("other words: {} ms", after.ms - ledger.last_of(&before).ms);
    clients.end("other words", &[&before.node]);
    assert_eq!((&after.node, after.term), (&before.node, before.term), "where it was");
    assert!(fs::read_to_string(format!("/proc/{}/environ", after.pid)).unwrap().contains("other"));
    serves(machines, "a").await;
}

/// No daemon is restarted, nor the copy.
async fn its_door_moves_while_it_runs(machines: &Machines, ledger: &Ledger) {
    serves(machines, "a").await;
    let before = ledger.newest();
    let of_jobs = |machines: &Machines| -> Vec<SocketAddr> {
        let status = machines.status("a").unwrap();
        let endpoints = jobs(&status)["endpoints"].as_array().unwrap().clone();
        endpoints.iter().map(|it| it["listen"].as_str().unwrap().parse().unwrap()).collect()
    };
    let old = of_jobs(machines);
    let text = fs::read_to_string(machines.config_path()).unwrap();
    let (was, is) = (old[0].port(), ledger::free_port());
    fs::write(
        machines.config_path(),
        text.replace(&format!("listen = {was}\n"), &format!("listen = {is}\n")),
    )
    .unwrap();
    machines.applies("a").await;
    through_the_door(machines, &before).await;
    assert!(of_jobs(machines).iter().all(|door| door.port() == is), "{is}");
    let refused = || old.iter().all(|door| TcpStream::connect(door).is_err());
    machines.wait("the old doors are closed", "a", refused).await;
    assert_eq!(ledger.last_of(&before).pid, ledger.newest().pid, "the same copy");
}

/// An upgrade of the daemon alone: no copy runs twice, whoever goes on with it. That it is the same
/// process where the lease allows it: `preferred.rs`.
async fn a_daemon_that_is_restarted_leaves_no_second_copy(
    machines: &mut Machines,
    ledger: &Ledger,
) {
    serves(machines, "a").await;
    let before = ledger.newest();
    machines.stop(&before.node);
    machines.start_joined(&before.node);
    let after = ledger.grows(&before, |line| line.ms > before.ms + 3000).await;
    println!("a restarted daemon: {} to {}", before.node, after.node);
    machines.reachable(&before.node).await;
    serves(machines, &after.node).await;
    ledger.no_two_at_once();
}

/// It ends soon after each start on one node: another one takes over, and status says so.
async fn where_it_fails_it_does_not_stay(machines: &Machines, ledger: &Ledger) {
    let before = ledger.newest();
    ledger.fail_on(&before.node);
    let after = ledger.grows(&before, |line| line.node != before.node).await;
    println!("a crash loop: {} ms", after.ms - ledger.last_of(&before).ms);
    let is_shown = |status: &serde_json::Value| {
        let instances = jobs(status)["instances"].as_array().unwrap().iter();
        let states = instances.map(|it| (&it["node"], &it["role"], &it["state"]));
        states.collect::<Vec<_>>().contains(&(
            &before.node.clone().into(),
            &"passive".into(),
            &"crash-loop".into(),
        ))
    };
    machines.until("a", "the crash loop is a state", is_shown).await;
    let is_told = |status: &serde_json::Value| {
        let warnings = jobs(status)["warnings"].as_array();
        let words = format!("crash loop: it failed 5 times in a row on {}", before.node);
        warnings.is_some_and(|all| all.iter().any(|it| it.as_str().unwrap().contains(&words)))
    };
    machines.until("a", "the crash loop is told", is_told).await;
    serves(machines, "a").await;
    let refused = machines.tandem("a", &["switchover", "jobs", "--to", &before.node]);
    assert!(refused.err.contains("failed 5 times in a row"), "{refused:?}");
    ledger.fail_on("nowhere");
    machines.tandem("a", &["restart", "jobs", "--node", &before.node]).success();
    machines.until("a", "it is forgotten", |status| !is_told(status)).await;
    serves(machines, "a").await;
    machines.tandem("a", &["switchover", "jobs", "--to", &before.node]).success();
}
