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
use super::{DrillArgs, Error, Report, rounds};
use crate::dev::{self, DevConfig};
use endpoints::Endpoints;
use faults::Shape;
use kit::Kit;
use stage::Stage;
use std::io::Write;
use std::sync::Arc;

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
    let all = args.subject.faults();
    let faults = if args.faults.is_empty() { all } else { &args.faults };
    rounds::on_cluster(args, &config, |cluster, tasks| async move {
        let load = Load { writers: args.writers, ..Load::default() };
        let about = (args.subject, kit, endpoints);
        let stage = Stage::new(about, faults, cluster, load, &tasks);
        rounds::rounds(args, &stage, faults, (report, out)).await
    })
    .await
}
