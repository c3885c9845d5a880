//! The ledger that all copies write to: who worked on what, when.

use crate::machines::Machines;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tandem::runtime::clock;

const LIMIT: Duration = Duration::from_secs(60);
/// Whoever has written nothing for so long works on it no more, or is frozen.
const LATELY_MS: u64 = 100;

/// One line: somebody works on a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    pub id: u32,
    pub epoch: u64,
    pub node: String,
    pub pid: i32,
    pub ms: u64,
}

impl Line {
    fn parse(text: &str) -> Option<Self> {
        let words: Vec<&str> = text.split(' ').collect();
        let [id, epoch, node, pid, ms] = words[..] else { return None };
        let (pid, ms) = (pid.parse().ok()?, ms.parse().ok()?);
        let (id, epoch) = (id.parse().ok()?, epoch.parse().ok()?);
        Some(Self { id, epoch, node: node.to_owned(), pid, ms })
    }

    pub fn kill(&self) {
        kill(Pid::from_raw(self.pid), Signal::SIGKILL).unwrap();
    }
}

/// Who works on each partition.
pub type Workers = BTreeMap<u32, Line>;

/// How many each node works on.
pub fn shares(workers: &Workers) -> BTreeMap<&str, usize> {
    let mut shares = BTreeMap::new();
    for line in workers.values() {
        *shares.entry(line.node.as_str()).or_default() += 1;
    }
    shares
}

pub struct Ledger {
    path: PathBuf,
    partitions: usize,
}

impl Ledger {
    pub fn new(machines: &Machines, partitions: usize) -> Self {
        let root = PathBuf::from(machines.config_path());
        Self { path: root.parent().unwrap().join("ledger"), partitions }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The service, as its owner writes it.
    pub fn service(&self) -> String {
        let worker = std::env::current_exe().unwrap();
        let (worker, ledger) = (worker.display(), self.path.display());
        format!(
            "\n[services.work]\nkind = \"command\"\nclustering = \"active-active\"\n\
             replication = \"none\"\n\
             command = [\"{worker}\", \"--ignored\", \"--exact\", \"worker::work\"]\n\
             env = {{ LEDGER = \"{ledger}\" }}\n\
             partitions = {}\nrelease_max = \"1s\"\nstop_max = \"1s\"\n",
            self.partitions
        )
    }

    /// Where nothing is released from now on.
    pub fn stubborn_on(&self, node: &str) {
        fs::write(format!("{}.stubborn", self.path.display()), node).unwrap();
    }

    fn lines(&self) -> Vec<Line> {
        let text = fs::read_to_string(&self.path).unwrap_or_default();
        // The last line may be half written.
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        whole.lines().map(|line| Line::parse(line).unwrap()).collect()
    }

    /// Who works on what now.
    pub fn workers(&self) -> Workers {
        let now = clock::now().0 / 1000;
        let lately = |line: &Line| line.ms + LATELY_MS >= now;
        let lines = self.lines().into_iter().filter(lately);
        lines.map(|line| (line.id, line)).collect()
    }

    /// Waits until every partition is worked on, and it is so.
    pub async fn until(
        &self,
        what: &str,
        machines: &Machines,
        is_so: impl Fn(&Workers) -> bool,
    ) -> Workers {
        let limit = Instant::now() + LIMIT;
        loop {
            let workers = self.workers();
            if workers.len() == self.partitions && is_so(&workers) {
                return workers;
            }
            if Instant::now() > limit {
                for node in ["a", "b", "c"] {
                    println!("{}", machines.tandem(node, &["explain", "work"]).out);
                    println!("{}", machines.tandem(node, &["events"]).out);
                }
                panic!("{what}: {:?}", shares(&workers));
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// For how long nobody worked on a partition after that line.
    pub fn gap_ms(&self, after: &Line) -> u64 {
        let lines = self.lines();
        let of = |line: &&Line| line.id == after.id;
        let last = lines.iter().filter(of).rfind(|line| line.pid == after.pid).unwrap();
        let next = lines.iter().filter(of).find(|line| line.pid != after.pid && line.ms > last.ms);
        next.unwrap().ms - last.ms
    }

    /// Whoever began under a later epoch did so after the last word of the one before, and under
    /// one epoch one process works at a time (INV-13).
    pub fn nobody_works_twice(&self) {
        let mut newest: BTreeMap<u32, Line> = BTreeMap::new();
        let mut gone: BTreeMap<(u32, u64), Vec<i32>> = BTreeMap::new();
        let lines = self.lines();
        for line in &lines {
            if let Some(before) = newest.insert(line.id, line.clone()) {
                assert!(before.epoch <= line.epoch, "{line:?} after {before:?}");
                if before.pid != line.pid {
                    gone.entry((line.id, before.epoch)).or_default().push(before.pid);
                }
            }
            let gone = gone.get(&(line.id, line.epoch));
            assert!(gone.is_none_or(|gone| !gone.contains(&line.pid)), "{line:?} after another");
        }
        println!("{} lines, and nobody worked on what another did", lines.len());
    }
}
