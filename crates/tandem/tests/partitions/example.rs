//! The example's worker, as somebody would copy it: it works on what is its own, and others work on
//! what a dead node did.

use crate::machines::Machines;
use crate::{NODES, started};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

const WORKER: &str = "/srv/worker.sh";
const OUT: &str = "/var/tmp/work.log";

/// Who worked on a partition last, by the file that all workers write to.
fn last(out: &Path) -> BTreeMap<u32, (u64, String)> {
    let text = fs::read_to_string(out).unwrap_or_default();
    let mut last: BTreeMap<u32, (u64, String)> = BTreeMap::new();
    for line in text.lines() {
        let words: Vec<&str> = line.split(' ').collect();
        let [id, epoch, node] = words[..] else { continue };
        let (id, epoch) = (id.parse().unwrap(), epoch.parse().unwrap());
        let before = last.insert(id, (epoch, node.to_owned()));
        assert!(before.is_none_or(|(before, _)| before <= epoch), "{line}: {text}");
    }
    last
}

/// How many each node works on, in the order of their names.
fn shares(out: &Path) -> Vec<usize> {
    let last = last(out);
    let of = |node: &str| last.values().filter(|(_, by)| by == node).count();
    NODES.iter().map(|node| of(node)).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_examples_worker_works_on_what_is_its_own() {
    let mut machines = Machines::new(&NODES);
    let root = PathBuf::from(machines.config_path());
    let out = root.parent().unwrap().join("work.log");
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/active-active-none");
    let worker = example.join("worker.sh").canonicalize().unwrap();
    let text = fs::read_to_string(example.join("tandem.toml")).unwrap();
    let (_, service) = text.split_once("[services.work]").unwrap();
    assert!(service.contains(WORKER) && service.contains(OUT), "{service}");
    let service =
        service.replace(WORKER, worker.to_str().unwrap()).replace(OUT, out.to_str().unwrap());
    started(&mut machines, &format!("\n[services.work]{service}")).await;
    machines.wait("all is shared out", "a", || shares(&out) == [4, 4, 4]).await;
    machines.kill("c");
    machines.wait("the others took it over", "a", || shares(&out) == [6, 6, 0]).await;
    machines.start_joined("c");
    machines.wait("it has its share again", "a", || shares(&out) == [4, 4, 4]).await;
    machines.tandem("a", &["drain", "b"]).success();
    machines.wait("another one is emptied", "a", || shares(&out) == [6, 0, 6]).await;
    let workers: BTreeSet<String> = last(&out).into_values().map(|(_, node)| node).collect();
    assert_eq!(workers, ["a", "c"].map(str::to_owned).into());
}
