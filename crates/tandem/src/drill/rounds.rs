//! Talks to a cluster through a whole drill, the same for every service: starts it, breaks it fault
//! by fault, files what came of each, and leaves nothing behind.
//! In: something that can be broken. Out: lines while it runs; runs and omissions in `Report`.
//! Not here: one single fault (`steps.rs`, `service/steps.rs`).
//! Tested by: `steps_tests.rs`; `make drill`.

use super::report::{Omission, RunReport};
use super::steps::with_causes;
use super::{DrillArgs, Error, Fault, Report};
use crate::dev::{self, DevCluster, DevConfig};
use crate::runtime::supervisor::Supervisor;
use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

/// Sessions and the observer end at once; a writer may wait for its last statement.
const STOP_MAX: Duration = Duration::from_secs(10);

/// Something that can be broken again and again.
pub(super) trait Breaks {
    /// Breaks it once.
    ///
    /// # Errors
    /// When it is not whole to begin with, or the fault cannot be done here.
    async fn run(&self, fault: Fault, round: u32, seed: u64) -> Result<RunReport, Error>;
    /// Ends every fault, for the next run to begin with something that can become whole.
    async fn mend(&self);
}

/// Does something with a cluster of its own; Ctrl-C ends it.
///
/// # Errors
/// When there is no cluster to break, or what is done says so.
pub(super) async fn on_cluster<Done>(
    args: &DrillArgs,
    config: &DevConfig,
    perform: impl FnOnce(Arc<DevCluster>, Supervisor) -> Done,
) -> Result<(), Error>
where
    Done: Future<Output = Result<(), Error>>,
{
    let starting = DevCluster::start(config, &args.wiring);
    let started = dev::unless_interrupted(starting).await.ok_or(Error::Interrupted)?;
    let cluster = Arc::new(started?);
    let tasks = Supervisor::new();
    let performing = async {
        cluster.answers().await?;
        perform(Arc::clone(&cluster), tasks.clone()).await
    };
    let result = dev::unless_interrupted(performing).await.unwrap_or(Err(Error::Interrupted));
    tasks.stop(STOP_MAX).await;
    // The stage and the observer are gone, so this is the last handle; if not, dropping does it.
    if let Some(cluster) = Arc::into_inner(cluster) {
        cluster.stop().await;
    }
    result
}

/// Every fault, every round.
///
/// # Errors
/// When nothing can be printed.
pub(super) async fn rounds(
    args: &DrillArgs,
    stage: &impl Breaks,
    faults: &[Fault],
    (report, out): (&mut Report, &mut (dyn Write + Send)),
) -> Result<(), Error> {
    for round in 1..=args.rounds.max(1) {
        for fault in faults {
            let (line, next) = step(stage, (*fault, round, args.seed), report).await;
            if !args.json {
                print(out, &line)?;
            }
            if next == Next::GiveUp {
                return Ok(());
            }
        }
    }
    Ok(())
}

/// Whether a drill can go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// With the next fault.
    GoOn,
    /// The cluster does not become whole any more; every further fault would only wait for that.
    GiveUp,
}

/// Runs one fault and files what came of it; one line for people.
pub(super) async fn step(
    stage: &impl Breaks,
    (fault, round, seed): (Fault, u32, u64),
    report: &mut Report,
) -> (String, Next) {
    match stage.run(fault, round, seed).await {
        Ok(run) => {
            if run.redundant_again_s.is_none() {
                stage.mend().await;
            }
            let line = run.line();
            report.runs.push(run);
            (line, Next::GoOn)
        }
        Err(error) => {
            let reason = with_causes(&error);
            let omission = Omission { fault: fault.name(), round, reason: reason.clone() };
            if matches!(error, Error::Skipped { .. }) {
                report.skipped.push(omission);
                return (format!("{fault:<18} skipped: {reason}"), Next::GoOn);
            }
            stage.mend().await;
            report.failed.push(omission);
            let stuck = matches!(error, Error::NotRedundant { .. });
            let next = if stuck { Next::GiveUp } else { Next::GoOn };
            (format!("{fault:<18} failed: {reason}"), next)
        }
    }
}

pub(super) fn print(out: &mut (dyn Write + Send), text: &str) -> Result<(), Error> {
    writeln!(out, "{text}").and_then(|()| out.flush()).map_err(|source| Error::Print { source })
}
