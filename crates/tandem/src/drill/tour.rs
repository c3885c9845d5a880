//! Talks to someone who sees this for the first time: starts a cluster, breaks it, shows what it
//! cost.
//! In: `TourArgs`. Out: text, with a live line while something happens; `Verdict`.
//! Tested by: `make demo`; the live line below.

use super::evidence::workload::Load;
use super::rounds::{Next, print, step};
use super::stage::{Bounds, Progress, Stage};
use super::{Cluster, Error, Fault, Report, Subject, Verdict};
use crate::dev::{self, DevCluster, DevConfig, Wiring};
use crate::runtime::supervisor::Supervisor;
use std::io::Write;
use std::sync::Arc;
use std::time::Duration;
use tandem_core::ids::NodeId;
use tokio::sync::watch;

const FAULTS: [Fault; 4] =
    [Fault::PostmasterKill, Fault::NodeKill, Fault::NodeCut, Fault::Switchover];
/// Fast enough to look alive, slow enough to read.
const REFRESH: Duration = Duration::from_millis(200);
const STOP_MAX: Duration = Duration::from_secs(10);

/// What `make demo` was asked for.
#[derive(Clone, Debug)]
pub struct TourArgs {
    /// What kind of cluster.
    pub config: DevConfig,
    /// Its parts.
    pub wiring: Wiring,
    /// Chooses the standbys.
    pub seed: u64,
    /// Show a line that changes while something happens: for terminals.
    pub live: bool,
    /// Print the report as JSON in the end, and nothing else.
    pub json: bool,
    /// Keep the cluster up afterwards until Ctrl-C.
    pub stay: bool,
}

/// Gives the tour.
///
/// # Errors
/// When there is no cluster to show, or nothing can be printed.
pub async fn tour(args: &TourArgs, out: &mut (dyn Write + Send)) -> Result<Verdict, Error> {
    tell(args, out, &format!("starting {} nodes on this machine", args.config.nodes))?;
    let starting = DevCluster::start(&args.config, &args.wiring);
    let started = dev::unless_interrupted(starting).await.ok_or(Error::Interrupted)?;
    let cluster = Arc::new(started?);
    dev::unless_interrupted(cluster.answers()).await.ok_or(Error::Interrupted)??;
    let tasks = Supervisor::new();
    let showing = show(args, &cluster, &tasks, out);
    let result = dev::unless_interrupted(showing).await.unwrap_or(Err(Error::Interrupted));
    tasks.stop(STOP_MAX).await;
    if result.is_ok() && args.stay {
        tell(args, out, "\nThe cluster stays up. Ctrl-C ends it and leaves nothing behind.")?;
        dev::interrupted().await;
    }
    // The stage and the observer are gone, so this is the last handle; if not, dropping does it.
    if let Some(cluster) = Arc::into_inner(cluster) {
        cluster.stop().await;
    }
    result
}

async fn show(
    args: &TourArgs,
    cluster: &Arc<DevCluster>,
    tasks: &Supervisor,
    out: &mut (dyn Write + Send),
) -> Result<Verdict, Error> {
    if !args.json {
        dev::write_how_to_connect(cluster, out)?;
    }
    let on_stage: Arc<dyn Cluster> = Arc::<DevCluster>::clone(cluster);
    let stage = Stage::new(on_stage, Load::default(), Bounds::default(), tasks)?;
    perform(args, &stage, out).await
}

async fn perform(
    args: &TourArgs,
    stage: &Stage,
    out: &mut (dyn Write + Send),
) -> Result<Verdict, Error> {
    let mut report = Report::new(Subject::Postgres, args.seed);
    tell(args, out, "\nwaiting until every node has its copy of the data")?;
    let version = stage.prepare().await?;
    report.postgres = Some(version.clone());
    report.durability = stage.view().durability.unwrap_or_else(|| "unknown".into());
    let load = Load::default();
    tell(
        args,
        out,
        &format!(
            "PostgreSQL {}, durability {}, primary {}; {} writers go through the front doors and \
             keep their own ledger\n",
            version,
            report.durability,
            stage.view().primary.as_ref().map_or("none", NodeId::as_str),
            load.writers
        ),
    )?;
    for fault in FAULTS {
        let (line, next) = {
            let performing = step(stage, (fault, 1, args.seed), &mut report);
            let mut progress = (args.live && !args.json).then(|| stage.progress());
            watched(performing, progress.as_mut(), out).await?
        };
        tell(args, out, &line)?;
        if next == Next::GiveUp {
            break;
        }
    }
    report.conclude();
    let text = if args.json { report.json()? } else { format!("\n{}", report.conclusion()) };
    print(out, &text)?;
    Ok(report.verdict)
}

/// For people only.
fn tell(args: &TourArgs, out: &mut (dyn Write + Send), text: &str) -> Result<(), Error> {
    if args.json { Ok(()) } else { print(out, text) }
}

/// Waits for something and shows meanwhile how it goes.
async fn watched<T>(
    performing: impl Future<Output = T>,
    mut progress: Option<&mut watch::Receiver<Progress>>,
    out: &mut (dyn Write + Send),
) -> Result<T, Error> {
    let mut performing = std::pin::pin!(performing);
    let mut refresh = tokio::time::interval(REFRESH);
    loop {
        tokio::select! {
            biased;
            done = &mut performing => {
                if progress.is_some() {
                    write!(out, "\r\x1b[2K").map_err(|source| Error::Print { source })?;
                }
                return Ok(done);
            }
            _ = refresh.tick() => {
                if let Some(progress) = &mut progress {
                    let line = live_line(&progress.borrow_and_update());
                    write!(out, "\r\x1b[2K{line}")
                        .and_then(|()| out.flush())
                        .map_err(|source| Error::Print { source })?;
                }
            }
        }
    }
}

fn live_line(progress: &Progress) -> String {
    let primary = progress.primary.as_ref().map_or("none", NodeId::as_str);
    format!(
        "  {}   {} acknowledged, last {:.1} s ago, primary {primary}",
        progress.step,
        progress.acked,
        progress.silence.as_secs_f64()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_live_line_comes_and_goes() {
        let (sender, mut progress) = watch::channel(Progress {
            step: "node-kill: breaking".into(),
            acked: 12,
            silence: Duration::from_millis(340),
            primary: Some(NodeId::new("b")),
        });
        let mut out = Vec::new();
        let short = tokio::time::sleep(REFRESH * 2);
        watched(short, Some(&mut progress), &mut out).await.unwrap();
        drop(sender);
        let text = String::from_utf8(out).unwrap();
        let line = "  node-kill: breaking   12 acknowledged, last 0.3 s ago, primary b";
        assert!(text.contains(line), "{text:?}");
        assert!(text.ends_with("\r\x1b[2K"), "the line is wiped in the end");
        let mut out = Vec::new();
        assert_eq!(watched(async { 5 }, None, &mut out).await.unwrap(), 5);
        assert!(out.is_empty(), "nothing where there is no terminal");
    }
}
