//! The command that the test has run: works on the partitions that its node's API tells it, and
//! writes into a ledger that all copies share what it works on, every few milliseconds.

use serde_json::Value;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tandem::runtime::clock;

const EVERY: Duration = Duration::from_millis(5);
/// What it works on, and under which epoch.
type Works = Arc<Mutex<BTreeMap<u64, u64>>>;

fn said(name: &str) -> String {
    std::env::var(name).unwrap_or_default()
}

#[test]
#[ignore = "the command that the other test has run"]
fn work() {
    let works = Works::default();
    let writes = works.clone();
    std::thread::spawn(move || write(&writes));
    let mut version = 0;
    loop {
        let path = format!("/v1/services/{}/partitions", said("TANDEM_SERVICE"));
        let asked = ask("GET", &format!("{path}?after={version}&wait=5s"), "");
        let Some(told) = asked.filter(|told| told["version"].as_u64() > Some(version)) else {
            std::thread::sleep(EVERY);
            continue;
        };
        version = told["version"].as_u64().unwrap();
        for (id, epoch) in follow(&works, &told) {
            // What it does not work on any more it may work on never again under that epoch.
            let done =
                ask("POST", &format!("{path}/{id}/release"), &format!("{{\"epoch\":{epoch}}}"));
            println!("released {id} of epoch {epoch}: {done:?}");
        }
    }
}

/// Begins what is its own, ends all else; what it has to confirm.
fn follow(works: &Works, told: &Value) -> Vec<(u64, u64)> {
    let stubborn = fs::read_to_string(format!("{}.stubborn", said("LEDGER")));
    let stubborn = stubborn.is_ok_and(|node| node == said("TANDEM_NODE"));
    let (mut now, mut released) = (BTreeMap::new(), Vec::new());
    let mut works = works.lock().unwrap();
    for it in told["partitions"].as_array().unwrap() {
        let (id, epoch) = (it["id"].as_u64().unwrap(), it["epoch"].as_u64().unwrap());
        match it["state"].as_str().unwrap() {
            "owned" => _ = now.insert(id, epoch),
            "releasing" if stubborn && works.contains_key(&id) => _ = now.insert(id, epoch),
            "releasing" => released.push((id, epoch)),
            other => panic!("{other}"),
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

fn ask(method: &str, path: &str, body: &str) -> Option<Value> {
    let api = said("TANDEM_API");
    let place = api.strip_prefix("http://").unwrap_or_default();
    let mut stream = TcpStream::connect(place).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(10))).ok()?;
    let length = body.len();
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: {place}\r\nConnection: close\r\n\
         Content-Length: {length}\r\n\r\n{body}"
    );
    stream.write_all(request.as_bytes()).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    head.starts_with("HTTP/1.1 200").then(|| serde_json::from_str(body).ok())?
}
