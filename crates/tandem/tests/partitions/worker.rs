//! The command that the test has run: works on the partitions that its node's API tells it, and
//! writes into a ledger that all copies share what it works on, every few milliseconds.

use crate::divided::{self, Told, said};
use crate::file;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tandem::runtime::clock;

const EVERY: Duration = Duration::from_millis(5);
/// What it works on, and under which epoch.
type Works = Arc<Mutex<BTreeMap<u64, u64>>>;

#[test]
#[ignore = "the command that the other test has run"]
fn work() {
    let works = Works::default();
    let writes = works.clone();
    std::thread::spawn(move || write(&writes));
    std::thread::spawn(file::read);
    divided::follow(|told, _| follow(&works, told), || {});
}

/// Begins what is its own, ends all else; what it has to confirm.
fn follow(works: &Works, told: &[Told]) -> Vec<(u64, u64)> {
    let stubborn = fs::read_to_string(format!("{}.stubborn", said("LEDGER")));
    let stubborn = stubborn.is_ok_and(|node| node == said("TANDEM_NODE"));
    let (mut now, mut released) = (BTreeMap::new(), Vec::new());
    let mut works = works.lock().unwrap();
    for it in told {
        if !it.releasing || (stubborn && works.contains_key(&it.id)) {
            now.insert(it.id, it.epoch);
        } else {
            released.push((it.id, it.epoch));
        }
    }
    *works = now;
    released
}

/// While a line is written, nothing is released.
fn write(works: &Works) {
    let (path, node, pid) = (said("LEDGER"), said("TANDEM_NODE"), std::process::id());
    let mut ledger = fs::OpenOptions::new().append(true).create(true).open(path).unwrap();
    loop {
        let works = works.lock().unwrap();
        let (mut lines, ms) = (String::new(), clock::now().0 / 1000);
        for (id, epoch) in works.iter() {
            let _ = writeln!(lines, "{id} {epoch} {node} {pid} {ms}");
        }
        ledger.write_all(lines.as_bytes()).unwrap();
        drop(works);
        std::thread::sleep(EVERY);
    }
}
