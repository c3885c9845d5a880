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
            // What could not be healed may look whole: a node that came half way, a copy that lies.
            if run.redundant_again_s.is_none() || !run.problems.is_empty() {
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

#[cfg(test)]
mod tests {
    use super::super::Subject;
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use tandem_core::ids::NodeId;

    /// Each run comes to what is given.
    struct StandIn {
        run: RunReport,
        mended: AtomicUsize,
    }

    impl Breaks for StandIn {
        async fn run(&self, _: Fault, _: u32, _: u64) -> Result<RunReport, Error> {
            Ok(self.run.clone())
        }

        async fn mend(&self) {
            self.mended.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn run(fault: Fault) -> RunReport {
        RunReport {
            fault: fault.name(),
            round: 1,
            node: NodeId::new("a"),
            outage_s: 0.0,
            errors: 0,
            acked: 100,
            lost: 0,
            duplicated: 0,
            indeterminate: 0,
            dual_primary_instants: 0,
            primary_after: None,
            redundant_again_s: Some(0.1),
            latency_p50_ms: 1.0,
            latency_p99_ms: 2.0,
            stall_max_s: 0.0,
            phantoms: 0,
            canary_acked: 0,
            canary_lost: 0,
            canary_duplicated: 0,
            errors_per_session_max: 0,
            problems: Vec::new(),
        }
    }

    async fn mended(run: RunReport) -> usize {
        let stage = StandIn { run, mended: AtomicUsize::new(0) };
        let mut report = Report::new(Subject::Copies, 1);
        let (_, next) = step(&stage, (Fault::Scale, 1, 1), &mut report).await;
        assert_eq!((next, report.runs.len()), (Next::GoOn, 1));
        stage.mended.into_inner()
    }

    #[tokio::test]
    async fn what_did_not_end_well_is_mended_though_it_looks_whole() {
        let well = run(Fault::Scale);
        assert_eq!(mended(well.clone()).await, 0);
        assert_eq!(mended(RunReport { redundant_again_s: None, ..well.clone() }).await, 1);
        let problems = vec!["tandem drain d: it is no node".to_owned()];
        assert_eq!(mended(RunReport { problems, ..well }).await, 1);
    }
}
