//! The job that runs every night, each second here: one run for each beat, whoever dies. And the
//! server beside it, through every door.

use super::app;
use super::cluster::{Running, example};
use super::traffic::{Asks, Traffic};
use std::fs;
use std::path::Path;
use tandem_core::ids::NodeId;

const SERVICE: &str = "nightly";

/// One run of the job.
#[derive(Debug, PartialEq, Eq)]
struct Run {
    beat: u64,
    node: String,
}

/// The file that every job writes to.
struct Ledger<'a>(&'a Path);

impl Ledger<'_> {
    fn runs(&self) -> Vec<Run> {
        let text = fs::read_to_string(self.0).unwrap_or_default();
        let parse = |line: &str| {
            let (beat, node) = line.split_once(' ')?;
            Some(Run { beat: beat.parse().ok()?, node: node.to_owned() })
        };
        text.lines().filter_map(parse).collect()
    }

    /// Until it ran that often on a node.
    async fn runs_on(&self, running: &Running, node: &NodeId, times: usize) {
        let of_node = |run: &Run| run.node == node.as_str();
        let often =
            async || (self.runs().iter().filter(|run| of_node(run)).count() >= times).then_some(());
        running.until(&format!("it runs {times} times on {node}"), often).await;
    }

    /// Each beat is in it once, and those of a node are not among another's: never two writers.
    fn is_one_after_the_other(&self, nodes: &[&NodeId]) {
        let runs = self.runs();
        for pair in runs.windows(2) {
            assert!(pair[0].beat < pair[1].beat, "{pair:?} in {runs:?}");
        }
        let mut writers: Vec<&str> = runs.iter().map(|run| run.node.as_str()).collect();
        writers.dedup();
        let nodes: Vec<&str> = nodes.iter().map(|node| node.as_str()).collect();
        assert_eq!(writers, nodes, "{runs:?}");
    }
}

/// The example with programs that are there, and seconds for nights.
fn given(folder: &Path, ledger: &Path) -> String {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/active-passive-none");
    let scheduler = beside.join("scheduler.sh").canonicalize().unwrap();
    let (program, ledger) = (std::env::current_exe().unwrap(), ledger.display());
    let hook = |word: &str| {
        let file = folder.join("hooks");
        format!("\"/bin/sh\", \"-c\", \"echo {word} $TANDEM_NODE >> {}\"", file.display())
    };
    let mut text = example("active-passive-none");
    for (was, is) in [
        ("\"/srv/scheduler.sh\"", format!("{scheduler:?}")),
        ("\"/srv/report\"", format!("\"/bin/sh\", \"-c\", \"echo $BEAT $2 >> {ledger}\", \"job\"")),
        ("run_as = \"shop\"\n", String::new()),
        ("EVERY = \"86400\", AT = \"7200\"", "EVERY = \"1\"".to_owned()),
        (
            "\"/srv/counter\", \"--listen\", \"{port}\"]",
            format!(
                "{program:?}, \"--ignored\", \"--exact\", \"app::serve\"]\nenv = {{ MODE = \"x\" }}"
            ),
        ),
        ("\"/srv/attach-volume\"", hook("attached")),
        ("\"/srv/detach-volume\"", hook("detached")),
    ] {
        assert!(text.contains(was), "{was} in\n{text}");
        text = text.replace(was, &is);
    }
    text
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_nightly_job_runs_once_each_night_whoever_dies() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ledger");
    let ledger = Ledger(&path);
    let running = Running::start(given(folder.path(), &path)).await;
    let first = running.runs_at(SERVICE, None).await;
    ledger.runs_on(&running, &first, 2).await;
    let counts = running.runs_at("counter", None).await;
    let doors: Vec<_> = running.nodes().iter().map(|it| running.door(it, "counter")).collect();
    let traffic = Traffic::start(&doors, Asks::Gets);
    traffic.more(30).await;
    let by = traffic.end("the server beside it").await;
    assert!(by.keys().all(|who: &app::Who| who.node == counts.as_str()), "{by:?}");
    let hooks = fs::read_to_string(folder.path().join("hooks")).unwrap();
    assert_eq!(hooks, format!("attached {counts}\n"));
    running.took("founded");

    running.dev().kill_node(&first).await.unwrap();
    let second = running.runs_at(SERVICE, Some(&first)).await;
    ledger.runs_on(&running, &second, 2).await;
    ledger.is_one_after_the_other(&[&first, &second]);
    running.took("its node died, and another goes on");
    running.stop().await;
    println!("{:?}", ledger.runs());
}
