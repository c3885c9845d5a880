//! Talks to the clusters that run on this machine: what `dev`, `tour` and `drill` start.
//! In: arguments. Out: a dev cluster, a verdict.
//! Not here: clusters on real machines (`entry.rs`).

use crate::cli::run::{dev, drill, tour};
use crate::cli::terminal::Terminal;
use crate::cli::{Error, entry};
use crate::config;
use crate::dev::{DevArgs, DevConfig, Wiring};
use crate::drill::{self as drills, DrillArgs, Fault, Subject, TourArgs, Verdict};
use crate::identity::{self, Identity};
use crate::node::{Error as NodeError, problem};
use crate::service::postgres::Binaries;
use crate::telemetry::codes;
use crate::telemetry::problem::Problem;
use std::path::PathBuf;
use std::sync::Arc;
use tandem_core::ids::ServiceId;

fn wiring() -> Result<Wiring, Error> {
    let exe =
        std::env::current_exe().map_err(|error| entry::failed("find this program", &error))?;
    Ok(Wiring {
        exe,
        identities: Arc::new(|root, nodes| {
            identity::create_many(root, "dev", nodes).map(drop).map_err(Into::into)
        }),
        password: Arc::new(|dir, service, role| {
            Ok(Identity::load(dir)?.password(&ServiceId::new(service), role))
        }),
    })
}

/// PostgreSQL's programs, where neither an argument nor the configuration names them.
fn bin_dir(given: Option<PathBuf>) -> Option<PathBuf> {
    given.or_else(|| std::env::var_os("TANDEM_BIN_DIR").map(PathBuf::from))
}

/// Before anything is made: each node would say so in its own log only.
async fn check_programs(config: &DevConfig) -> Result<(), Error> {
    match Binaries::find(config.bin_dir.as_deref()).await {
        Ok(_) => Ok(()),
        Err(error) => {
            let advice = "install PostgreSQL 15 to 18 (apt install postgresql), or name the \
                          folder of its programs with --postgres";
            let found = problem::of_postgres(&error);
            Err(Error::Problem(Problem { try_: advice.to_owned(), ..found }))
        }
    }
}

pub(super) async fn dev(args: dev::Arguments, terminal: &mut Terminal) -> Result<(), Error> {
    let dev::Arguments { nodes, config, dir, keep, postgres, durability, delay } = args;
    let given = config.map(|path| config::read_file(&path)).transpose();
    let given = given.map_err(|error| Error::Problem(NodeError::Unreadable(error).into()))?;
    let config = DevConfig {
        given,
        nodes: nodes.into(),
        root: dir,
        keep,
        bin_dir: bin_dir(postgres),
        durability: Some(durability),
        delay,
        ..DevConfig::default()
    };
    if config.given.is_none() {
        check_programs(&config).await?;
    }
    let args = DevArgs { config, wiring: wiring()?, json: terminal.wants_json() };
    crate::dev::run(&args, terminal.writer()).await.map_err(|error| cluster_failed(&error))
}

pub(super) async fn tour(args: tour::Arguments, terminal: &mut Terminal) -> Result<(), Error> {
    let tour::Arguments { once, nodes, dir, postgres } = args;
    let config = DevConfig {
        nodes: nodes.into(),
        root: dir,
        bin_dir: bin_dir(postgres),
        ..DevConfig::default()
    };
    check_programs(&config).await?;
    let live = terminal.is_interactive();
    let args = TourArgs {
        config,
        wiring: wiring()?,
        seed: rand::random(),
        live,
        json: terminal.wants_json(),
        stay: live && !once,
    };
    let verdict = drills::tour(&args, terminal.writer())
        .await
        .map_err(|error| drill_failed("give the tour", &error))?;
    judged(verdict)
}

pub(super) async fn drill(args: drill::Arguments, terminal: &mut Terminal) -> Result<(), Error> {
    let drill::Arguments { rounds, seed, strict, writers, nodes, durability, .. } = args;
    let (delay, dir, postgres) = (args.delay, args.dir, args.postgres);
    let what = "run the drill";
    let subject = args.service.parse::<Subject>().map_err(|error| drill_failed(what, &error))?;
    let faults: Result<Vec<Fault>, _> = args.faults.iter().map(|fault| fault.parse()).collect();
    let config = DevConfig {
        nodes: nodes.into(),
        root: dir,
        bin_dir: bin_dir(postgres),
        durability: Some(durability),
        delay,
        ..DevConfig::default()
    };
    let faults = faults.map_err(|error| drill_failed(what, &error))?;
    if subject == Subject::Postgres {
        check_programs(&config).await?;
    }
    let args = DrillArgs {
        subject,
        config,
        wiring: wiring()?,
        faults,
        rounds,
        seed: seed.unwrap_or_else(rand::random),
        writers: writers.into(),
        json: terminal.wants_json(),
        strict,
    };
    let verdict =
        drills::run(&args, terminal.writer()).await.map_err(|error| drill_failed(what, &error))?;
    judged(verdict)
}

fn cluster_failed(error: &crate::dev::Error) -> Error {
    let try_ = "tandem doctor --before, another --dir, or --postgres with the programs' folder";
    let what = "the cluster on this machine does not start";
    Error::Problem(Problem::caused_by(codes::DEV_CLUSTER, what, error, try_))
}

/// A fault that does not exist was asked for wrongly; a cluster that does not start is its own
/// case.
fn drill_failed(what: &str, error: &drills::Error) -> Error {
    let (code, try_) = match error {
        drills::Error::UnknownFault { .. }
        | drills::Error::UnknownSubject { .. }
        | drills::Error::ForeignFault { .. } => (codes::ARGUMENT, "tandem drill --help"),
        drills::Error::Cluster(error) => return cluster_failed(error),
        _ => (codes::DRILL_STOPPED, "what was measured until then is in the report above"),
    };
    Error::Problem(Problem::caused_by(code, format!("cannot {what}"), error, try_))
}

fn judged(verdict: Verdict) -> Result<(), Error> {
    match verdict {
        Verdict::Pass => Ok(()),
        Verdict::Fail => Err(Error::Unsuccessful),
    }
}
