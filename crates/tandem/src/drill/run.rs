//! Talks to a dev cluster through a whole drill: every fault, every round, one report.
//! In: `DrillArgs`. Out: lines while it runs, a table or JSON in the end, `Verdict`.
//! Not here: its rounds (`rounds.rs`), one single fault (`steps.rs`).
//! Tested by: below; `make drill`.

use super::evidence::workload::Load;
use super::report::Omission;
use super::rounds::{self, print};
use super::stage::{Bounds, Stage};
use super::steps::with_causes;
use super::{Error, Fault, Report, Subject, Verdict, service};
use crate::dev::{DevCluster, DevConfig, Wiring};
use std::io::Write;

/// Room for a small database, its WAL and a copy under way; small enough to fill at once.
const SMALL_DISK_BYTES: u64 = 512 << 20;

/// What `tandem drill` was asked for.
#[derive(Clone, Debug)]
pub struct DrillArgs {
    /// What to break.
    pub subject: Subject,
    /// What kind of cluster it is in.
    pub config: DevConfig,
    /// Its parts.
    pub wiring: Wiring,
    /// What to do to it, in this order; empty for everything.
    pub faults: Vec<Fault>,
    /// How often.
    pub rounds: u32,
    /// Chooses the standbys.
    pub seed: u64,
    /// Concurrent writers.
    pub writers: usize,
    /// Print JSON and nothing else.
    pub json: bool,
    /// Fail where a fault costs more than it may.
    pub strict: bool,
}

/// Runs a drill on a cluster of its own.
///
/// # Errors
/// When there is no cluster to break, or nothing can be printed. What faults cost is in the
/// verdict.
pub async fn run(args: &DrillArgs, out: &mut (dyn Write + Send)) -> Result<Verdict, Error> {
    let (subject, known) = (args.subject, args.subject.faults());
    if let Some(fault) = args.faults.iter().copied().find(|fault| !known.contains(fault)) {
        let known: Vec<&str> = known.iter().map(|fault| fault.name()).collect();
        return Err(Error::ForeignFault { fault, subject, known: known.join(", ") });
    }
    let mut report = Report { strict: args.strict, ..Report::new(subject, args.seed) };
    let outcome = match subject {
        Subject::Postgres => postgres(args, &mut report, out).await,
        _ => service::run(args, &mut report, out).await,
    };
    // What was measured before something went wrong is worth as much as before.
    report.stopped = outcome.as_ref().err().map(|error| with_causes(error));
    report.conclude();
    if outcome.is_ok() || args.json || !report.runs.is_empty() {
        let text = if args.json { report.json()? } else { report.table() };
        print(out, &text)?;
    }
    outcome.map(|()| report.verdict)
}

async fn postgres(
    args: &DrillArgs,
    report: &mut Report,
    out: &mut (dyn Write + Send),
) -> Result<(), Error> {
    // Asked for, so known even where the drill ends before the cluster has said so.
    report.durability = args.config.durability.clone().unwrap_or_else(|| "quorum".into());
    let all = || Fault::OF_POSTGRES.to_vec();
    let faults = if args.faults.is_empty() { all() } else { args.faults.clone() };
    // A disk that can be filled is in memory, and would flatter every other fault.
    let (disk, usual): (Vec<Fault>, Vec<Fault>) =
        faults.into_iter().partition(|fault| *fault == Fault::DiskFull);
    both(args, (&usual, &disk), report, out).await
}

async fn both(
    args: &DrillArgs,
    (usual, disk): (&[Fault], &[Fault]),
    report: &mut Report,
    out: &mut (dyn Write + Send),
) -> Result<(), Error> {
    if !usual.is_empty() {
        on_cluster(args, &args.config, usual, report, out).await?;
    }
    if !disk.is_empty() {
        match DevCluster::small_disks_allowed() {
            Ok(()) => {
                let disk_bytes = Some(SMALL_DISK_BYTES);
                let config = DevConfig { disk_bytes, ..args.config.clone() };
                on_cluster(args, &config, disk, report, out).await?;
            }
            Err(error) => {
                let reason = with_causes(&error);
                report.skipped.push(Omission { fault: Fault::DiskFull.name(), round: 1, reason });
            }
        }
    }
    Ok(())
}

async fn on_cluster(
    args: &DrillArgs,
    config: &DevConfig,
    faults: &[Fault],
    report: &mut Report,
    out: &mut (dyn Write + Send),
) -> Result<(), Error> {
    rounds::on_cluster(args, config, |cluster, tasks| async move {
        let load = Load { writers: args.writers, ..Load::default() };
        let stage = Stage::new(cluster, load, Bounds::default(), &tasks)?;
        report.postgres = Some(stage.prepare().await?);
        if let Some(durability) = stage.view().durability {
            report.durability = durability;
        }
        rounds::rounds(args, &stage, faults, (report, out)).await
    })
    .await
}
