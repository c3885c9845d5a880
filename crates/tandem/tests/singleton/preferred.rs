//! Planned moves that nobody asks for by name: off a node that is emptied, back to one that is
//! preferred. Beside it one that has a long lease, whose daemon is restarted meanwhile.

use crate::clients::Clients;
use crate::ledger::{Ledger, Line, PATIENT_FILES, patients_user};
use crate::machines::Machines;
use crate::{doors, founded, serves};
use std::fs;
use std::time::Duration;
use tandem::runtime::process;

/// Its owner prefers it.
const PREFERRED: &str = "b";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_emptied_node_is_left_and_a_preferred_one_gets_it_back() {
    let mut machines = Machines::new(&crate::NODES);
    let ledger = Ledger::new(&machines);
    let services = ledger.service() + &ledger.patient();
    founded(&mut machines, &ledger, Some(PREFERRED), &services).await;
    let first = ledger.newest();
    assert_eq!(first.node, PREFERRED, "where it is preferred it begins");
    what_it_prints_is_in_the_nodes_log(&machines, &ledger).await;
    it_runs_as_its_owner_wrote(&machines, &ledger);
    let clients = Clients::start(&doors(&machines));
    let said = machines.tandem("a", &["drain", PREFERRED]).success();
    println!("{}", said.out);
    let away = ledger.grows(&first, |line| line.pid != first.pid).await;
    clients.end("an emptied node", &[PREFERRED, &away.node]);
    println!("an emptied node: {} ms", away.ms - ledger.last_of(&first).ms);
    assert_ne!(away.node, PREFERRED);
    assert!(ledger.text().contains(&format!("on_stop {PREFERRED} ")), "it was asked to end");
    serves(&machines, "a").await;
    machines.tandem("a", &["undrain", PREFERRED]).success();
    let back = ledger.grows_within(Duration::from_secs(150), &away, |line| line.node == PREFERRED);
    let back = back.await;
    println!("a preferred node: after {} ms", back.ms - away.ms);
    assert!(back.ms - away.ms >= 55_000, "it ran there for a minute first");
    a_restarted_daemon_goes_on_with_the_same_process(&mut machines, &ledger).await;
    its_own_words_ended_it(&ledger);
    a_node_that_is_removed_hands_it_over(&mut machines, &ledger).await;
    ledger.no_two_at_once();
}

/// What the kernel says of it: its user, its folder, how far it may go.
fn it_runs_as_its_owner_wrote(machines: &Machines, ledger: &Ledger) {
    let Line { node, pid, .. } = ledger.patient_starts().pop().unwrap();
    let proc = |file: &str| fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap();
    let uid = patients_user().uid;
    let uids = format!("Uid:\t{uid}\t{uid}\t{uid}\t{uid}");
    assert!(proc("status").lines().any(|line| line == uids), "{uids}: {}", proc("status"));
    let folder = fs::read_link(format!("/proc/{pid}/cwd")).unwrap();
    assert_eq!(folder, machines.dir(&node).join("services/patient/work").canonicalize().unwrap());
    let limits = proc("limits");
    for (name, most) in [("Max open files", PATIENT_FILES), ("Max core file size", 0)] {
        let line = limits.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        let words: Vec<&str> = line.split_whitespace().collect();
        assert_eq!(words[..2], [most.to_string(), most.to_string()], "{name}: {limits}");
    }
}

/// SIGTERM does nothing to it: wherever it was moved away from, `stop` ended it, as its user.
fn its_own_words_ended_it(ledger: &Ledger) {
    let mut left: Vec<String> =
        ledger.patient_starts().into_iter().map(|start| start.node).collect();
    left.pop();
    let stops = ledger.patient_stops();
    let by: Vec<(String, String)> =
        left.into_iter().map(|node| (node, patients_user().name)).collect();
    assert!(by.iter().any(|(node, _)| node == PREFERRED), "it left the emptied node: {by:?}");
    assert_eq!(stops, by);
}

/// In order, without being emptied by its owner first.
async fn a_node_that_is_removed_hands_it_over(machines: &mut Machines, ledger: &Ledger) {
    let before = ledger.newest();
    assert_eq!(before.node, PREFERRED);
    let gone = machines.of(PREFERRED).door.ip();
    let stay: Vec<_> = doors(machines).into_iter().filter(|door| door.ip() != gone).collect();
    let clients = Clients::start(&stay);
    let said = machines.tandem("a", &["remove", PREFERRED]).success();
    println!("{}", said.out);
    let away = ledger.grows(&before, |line| line.node != PREFERRED).await;
    clients.end("a removed node", &[PREFERRED, &away.node]);
    machines.ends(PREFERRED, "was removed from the cluster by configuration").await;
}

/// Both of its streams, marked with the service.
async fn what_it_prints_is_in_the_nodes_log(machines: &Machines, ledger: &Ledger) {
    machines.wait("it starts", PREFERRED, || !ledger.patient_starts().is_empty()).await;
    let Line { node, .. } = ledger.patient_starts().pop().unwrap();
    let logs = |words: &str| {
        let log = machines.log(&node);
        log.lines().any(|it| it.ends_with(&format!(" output: {words} service=patient")))
    };
    for words in ["patient is up", "patient complains"] {
        machines.wait("what it prints is in the log", &node, || logs(words)).await;
    }
}

/// An upgrade of the daemon within the lease, for which this one has time.
async fn a_restarted_daemon_goes_on_with_the_same_process(
    machines: &mut Machines,
    ledger: &Ledger,
) {
    let runs_at = |status: &serde_json::Value, node: &str| {
        let services = status["services"].as_array().unwrap();
        let patient = services.iter().find(|it| it["name"] == "patient").unwrap();
        patient["phase"] == "active" && patient["primary"] == node
    };
    // It is preferred there as well.
    machines.until("a", "it is back", |status| runs_at(status, PREFERRED)).await;
    let Line { node, pid, .. } = ledger.patient_starts().pop().unwrap();
    assert_eq!(node, PREFERRED);
    machines.stop(&node);
    assert!(process::is_alive(pid), "its keeper holds it");
    machines.start_joined(&node);
    machines.reachable(&node).await;
    let is_adopted = |machines: &Machines| {
        let events = machines.tandem(&node, &["events"]).out;
        events.lines().any(|it| it.contains(" patient/") && it.contains("was taken over"))
    };
    machines.wait("the copy is taken over", &node, || is_adopted(machines)).await;
    machines.until(&node, "it goes on", |status| runs_at(status, &node)).await;
    let starts = ledger.patient_starts();
    assert!(starts.last().is_some_and(|it| it.pid == pid), "started anew: {starts:?}");
    assert!(process::is_alive(pid), "the same process");
    let log = fs::read_to_string(machines.dir(&node).join("services/patient/output.log")).unwrap();
    // It may have been there before it was preferred elsewhere.
    let there = starts.iter().filter(|it| it.node == node).count();
    assert_eq!(log.matches("patient is up").count(), there, "{log}");
}
