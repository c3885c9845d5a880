//! Talks to a service that is not PostgreSQL through a whole drill: its cluster, its endpoints,
//! every fault, every round.
//! In: `DrillArgs`. Out: lines while it runs, `RunReport`s.
//! Keeps: INV-12 is checked here from outside, by a ledger that the copies themselves write.
//! Not here: PostgreSQL (`drill/run.rs`), what the service does (`worker`).
//! Tested by: the tests of each file; `make drill`.

mod clients;
mod effect;
mod endpoints;
mod faults;
mod judge;
mod kit;
mod pieces;
mod pulse;
mod stage;
mod steps;
mod subject;
mod verdict;
mod view;

pub use subject::Subject;

use super::evidence::workload::Load;
use super::report::Omission;
use super::run::print;
use super::steps::with_causes;
use super::{DrillArgs, Error, Report};
use crate::dev::{self, DevCluster, DevConfig};
use crate::runtime::supervisor::Supervisor;
use endpoints::Endpoints;
use faults::Shape;
use kit::Kit;
use stage::Stage;
use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

/// The observer ends at once.
const STOP_MAX: Duration = Duration::from_secs(10);

/// Runs a drill on a cluster of its own.
///
/// # Errors
/// When there is no cluster to break, or nothing can be printed.
pub async fn run(
    args: &DrillArgs,
    report: &mut Report,
    out: &mut (dyn Write + Send),
) -> Result<(), Error> {
    let kit = Arc::new(Kit::new(args.subject, args.config.nodes, &args.wiring.exe)?);
    let starting = Endpoints::start(Arc::clone(&kit));
    let endpoints = dev::unless_interrupted(starting).await.ok_or(Error::Interrupted)??;
    let given = Some(kit.text(&Shape::default()));
    let spares = vec![kit.spare()];
    let config = DevConfig { given, spares, durability: None, ..args.config.clone() };
    let starting = DevCluster::start(&config, &args.wiring);
    let started = dev::unless_interrupted(starting).await.ok_or(Error::Interrupted)?;
    let cluster = Arc::new(started?);
    let tasks = Supervisor::new();
    let performing = async {
        cluster.answers().await?;
        let load = Load { writers: args.writers, ..Load::default() };
        let on_stage = (args.subject, Arc::clone(&kit), endpoints);
        let stage = Stage::new(on_stage, Arc::clone(&cluster), load, &tasks);
        rounds(args, &stage, report, out).await
    };
    let result = dev::unless_interrupted(performing).await.unwrap_or(Err(Error::Interrupted));
    tasks.stop(STOP_MAX).await;
    // The stage and the observer are gone, so this is the last handle; if not, dropping does it.
    if let Some(cluster) = Arc::into_inner(cluster) {
        cluster.stop().await;
    }
    result
}

async fn rounds(
    args: &DrillArgs,
    stage: &Stage,
    report: &mut Report,
    out: &mut (dyn Write + Send),
) -> Result<(), Error> {
    let all = args.subject.faults();
    let faults = if args.faults.is_empty() { all } else { &args.faults };
    for round in 1..=args.rounds.max(1) {
        for fault in faults {
            let line = match stage.run(*fault, round, args.seed).await {
                Ok(run) => {
                    if run.redundant_again_s.is_none() {
                        stage.mend().await;
                    }
                    let line = run.line();
                    report.runs.push(run);
                    line
                }
                Err(error) => {
                    let reason = with_causes(&error);
                    let line = format!("{fault:<18} not done: {reason}");
                    let omission = Omission { fault: fault.name(), round, reason };
                    if matches!(error, Error::Skipped { .. }) {
                        report.skipped.push(omission);
                    } else {
                        report.failed.push(omission);
                        stage.mend().await;
                    }
                    if matches!(error, Error::NotRedundant { .. }) {
                        // Every further fault would only wait for the same.
                        print(out, &line)?;
                        return Ok(());
                    }
                    line
                }
            };
            if !args.json {
                print(out, &line)?;
            }
        }
    }
    Ok(())
}
