//! The file that tells a copy what it owns: each worker reads it all the time, beside the API, and
//! notes what it says and what is wrong with it.

use crate::divided::said;
use crate::ledger::{Ledger, Workers};
use crate::machines::Machines;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{ErrorKind, Read as _, Seek as _, Write as _};
use std::path::Path;
use std::time::Duration;

const EVERY: Duration = Duration::from_millis(1);

/// What one version of it says.
struct Seen {
    file: File,
    text: String,
    version: u64,
}

impl Seen {
    /// None where it is not there yet.
    fn open(path: &str) -> Result<Option<Self>, String> {
        let mut file = match File::open(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            found => found.map_err(|error| error.to_string())?,
        };
        let text = whole(&mut file)?;
        let told: Value = serde_json::from_str(&text).map_err(|why| format!("{why}: {text:?}"))?;
        let version = told["version"].as_u64().filter(|_| text.ends_with("}\n"));
        let version = version.ok_or_else(|| format!("not whole: {text:?}"))?;
        Ok(Some(Self { file, text, version }))
    }

    /// It was replaced: whoever opened the one before still reads what that said.
    fn is_as_it_was(&mut self) -> Result<(), String> {
        self.file.rewind().map_err(|error| error.to_string())?;
        let now = whole(&mut self.file)?;
        if now == self.text { Ok(()) } else { Err(format!("{:?} became {now:?}", self.text)) }
    }

    /// `4/1 7/2`: which, under which epoch; none that are to be released.
    fn owned(&self) -> String {
        let told: Value = serde_json::from_str(&self.text).unwrap();
        let all = told["partitions"].as_array().unwrap().iter();
        let owned = all.filter(|it| it["state"] == "owned");
        owned.map(|it| format!("{}/{}", it["id"], it["epoch"])).collect::<Vec<_>>().join(" ")
    }
}

fn whole(file: &mut File) -> Result<String, String> {
    let mut text = String::new();
    file.read_to_string(&mut text).map_err(|error| error.to_string())?;
    Ok(text)
}

/// For ever, in a worker.
pub fn read() {
    let (path, pid) = (said("TANDEM_PARTITIONS_FILE"), std::process::id());
    let notes = format!("{}.file.{}", said("LEDGER"), said("TANDEM_NODE"));
    let mut notes = fs::OpenOptions::new().append(true).create(true).open(notes).unwrap();
    let mut before: Option<Seen> = None;
    loop {
        let note = match (look(&path, before.as_mut()), &before) {
            (Ok(Some(seen)), _) => {
                let note = format!("{pid} {} {}", seen.version, seen.owned());
                before = Some(seen);
                Some(note)
            }
            (Ok(None), _) => None,
            (Err(why), _) => Some(format!("{pid} wrong: {why}")),
        };
        if let Some(note) = note {
            // At once: a line is whole even where the process is killed.
            notes.write_all(format!("{note}\n").as_bytes()).unwrap();
        }
        std::thread::sleep(EVERY);
    }
}

/// Another version, if there is one.
fn look(path: &str, before: Option<&mut Seen>) -> Result<Option<Seen>, String> {
    let seen = Seen::open(path)?;
    let Some(before) = before else { return Ok(seen) };
    let seen = seen.ok_or("it went away")?;
    before.is_as_it_was()?;
    match seen.version {
        version if version < before.version => {
            Err(format!("version {version} after {}", before.version))
        }
        version if version > before.version => Ok(Some(seen)),
        _ if seen.text != before.text => Err(format!("{:?} was {:?}", seen.text, before.text)),
        _ => Ok(None),
    }
}

/// By process, what it read in order.
fn notes(ledger: &Path, node: &str) -> BTreeMap<i32, Vec<(u64, String)>> {
    let text = fs::read_to_string(format!("{}.file.{node}", ledger.display())).unwrap_or_default();
    let mut by: BTreeMap<i32, Vec<(u64, String)>> = BTreeMap::new();
    for line in text.split_inclusive('\n').filter_map(|line| line.strip_suffix('\n')) {
        assert!(!line.contains("wrong"), "{node}: {line}\n{text}");
        let words: Vec<&str> = line.splitn(3, ' ').collect();
        let [pid, version, owned] = words[..] else { panic!("{line}") };
        let seen = (version.parse().unwrap(), owned.to_owned());
        by.entry(pid.parse().unwrap()).or_default().push(seen);
    }
    by
}

/// What each worker's file says now is what it works on, under the same epochs.
pub async fn says_what_is_worked_on(machines: &Machines, ledger: &Ledger, workers: &Workers) {
    let nodes: BTreeSet<&str> = workers.values().map(|line| line.node.as_str()).collect();
    for node in nodes {
        let its: Vec<_> = workers.values().filter(|line| line.node == node).collect();
        let works: Vec<String> = its.iter().map(|it| format!("{}/{}", it.id, it.epoch)).collect();
        let (pid, works) = (its[0].pid, works.join(" "));
        let says = || {
            let notes = notes(ledger.path(), node);
            notes.get(&pid).and_then(|all| all.last()).is_some_and(|(_, owned)| *owned == works)
        };
        machines.wait(&format!("its file says {works}"), node, says).await;
    }
}

/// Of all that was read, nothing was torn, nothing older came after, no file changed once written.
pub fn was_whole_and_never_older(ledger: &Ledger, nodes: &[&str]) {
    let all = nodes.iter().flat_map(|node| notes(ledger.path(), node)).collect::<Vec<_>>();
    let versions: usize = all.iter().map(|(_, read)| read.len()).sum();
    println!("{} workers read {versions} versions of their files", all.len());
    assert!(versions > all.len() * 2, "they changed while they were read: {all:?}");
    for (pid, read) in all {
        assert!(read.windows(2).all(|pair| pair[0].0 < pair[1].0), "{pid}: {read:?}");
    }
}
