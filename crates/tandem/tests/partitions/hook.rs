//! The hook that hears of partitions: what it is told is so, and one that hangs delays nothing.

use crate::ledger::{Ledger, Workers};
use crate::machines::Machines;
use crate::{NODES, is_even, without};
use std::fs;
use std::path::PathBuf;

/// What the hook writes, a line each time; it hangs where a file says so.
pub fn service(machines: &Machines) -> String {
    let (heard, hangs) = (path(machines, "heard"), path(machines, "hangs"));
    let script = format!(
        "test -e {} && sleep 600; echo \\\"$TANDEM_OWNED/$TANDEM_RELEASING\\\" >> {}.$TANDEM_NODE",
        hangs.display(),
        heard.display()
    );
    format!("on_partitions = [\"/bin/sh\", \"-c\", \"{script}\"]\nhook_max = \"500ms\"\n")
}

fn path(machines: &Machines, name: &str) -> PathBuf {
    PathBuf::from(machines.config_path()).with_file_name(name)
}

/// The last word that the hook of a node heard.
fn heard(machines: &Machines, node: &str) -> String {
    let path = path(machines, &format!("heard.{node}"));
    let text = fs::read_to_string(path).unwrap_or_default();
    text.lines().last().unwrap_or_default().to_owned()
}

/// As the hook is told it.
fn owned(workers: &Workers, node: &str) -> String {
    let its = workers.values().filter(|line| line.node == node);
    format!("{}/", its.map(|line| line.id.to_string()).collect::<Vec<_>>().join(" "))
}

async fn all_hear(machines: &Machines, ledger: &Ledger) {
    let workers = ledger.until("even", machines, is_even).await;
    for node in NODES {
        let is_so = || heard(machines, node) == owned(&workers, node);
        machines.wait("its hook heard of it", node, is_so).await;
    }
}

pub async fn a_hook_hears_of_each_change_and_delays_none(machines: &Machines, ledger: &Ledger) {
    all_hear(machines, ledger).await;
    let hangs = path(machines, "hangs");
    fs::write(&hangs, "").unwrap();
    machines.tandem("a", &["drain", "b"]).success();
    ledger.until("it has nothing, all the same", machines, |it| without(it, "b")).await;
    let said = "on_partitions failed, told of version";
    let is_told = || machines.tandem("b", &["events"]).out.contains(said);
    machines.wait("it hung and was ended", "b", is_told).await;
    let events = machines.tandem("b", &["events"]).success().out;
    assert!(events.contains("did not end within 500ms and was killed"), "{events}");
    let status = || machines.tandem("a", &["status"]).out;
    let warns = || status().contains("b: on_partitions failed last time");
    machines.wait("status says so", "a", warns).await;
    fs::remove_file(&hangs).unwrap();
    machines.tandem("a", &["undrain", "b"]).success();
    all_hear(machines, ledger).await;
    machines.wait("status is well again", "a", || !status().contains("on_partitions")).await;
}
