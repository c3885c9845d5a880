//! Talks to the person at the terminal, and to scripts: one file per command.
//! In: arguments. Out: text or `--json` on stdout, errors on stderr, an exit status.
//! `ask` and `operate` hold what talks to a running node, `run` what starts or makes something.
//! Not here: what those commands do inside a node (`entry.rs` calls it).
//! Tested by: `tests/`, every command's help and the ones that talk to a node against a made-up
//! one.

pub mod ask;
pub mod client;
pub mod config;
pub mod entry;
mod joining;
pub mod moment;
pub mod operate;
mod passwords;
mod recovering;
pub mod report;
pub mod run;
pub mod terminal;
mod wired;

#[cfg(test)]
mod tests;

use crate::cli::client::Client;
use crate::cli::entry::Entry;
use crate::cli::terminal::Terminal;
use crate::telemetry::logs;
use crate::telemetry::problem::Problem;
use crate::telemetry::{codes, problem};
use clap::{Args, Parser, Subcommand};
use std::ffi::OsString;
use std::io;
use std::process::ExitCode;

/// Why a command did not end well.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Something to report.
    #[error(transparent)]
    Problem(#[from] Problem),
    /// Nobody reads the output any more, or it cannot be written.
    #[error("cannot write the output")]
    Output(#[from] io::Error),
    /// The output itself says that it did not end well, as a drill's verdict does.
    #[error("the output says what is wrong")]
    Unsuccessful,
}

/// High availability for PostgreSQL and any other service, in one binary.
#[derive(Debug, Parser)]
#[command(name = "tandem", version, propagate_version = true, subcommand_required = true)]
#[command(
    arg_required_else_help = true,
    after_help = "\
Example:
  tandem dev                       a cluster of three on this machine
  tandem status --watch            what it does
  tandem explain TDM0104           what an error means

Exit status: 0 done, 1 failed, 2 asked wrongly, 3 refused (nothing was changed),
4 nobody answered or the outcome is not known."
)]
pub struct Arguments {
    #[command(flatten)]
    common: Common,
    #[command(subcommand)]
    command: Command,
}

/// What every command takes.
#[derive(Clone, Debug, Args)]
pub struct Common {
    /// A node's API; several, separated by commas, are tried in turn
    #[arg(long, global = true, env = "TANDEM_API", value_name = "URL", value_delimiter = ',')]
    #[arg(default_value = "http://127.0.0.1:7401")]
    pub api: Vec<String>,
    /// Print JSON, errors too
    #[arg(long, global = true)]
    pub json: bool,
    /// How log lines look; TANDEM_LOG says which (default: info)
    #[arg(long, global = true, env = "TANDEM_LOG_FORMAT", value_enum, default_value = "human")]
    pub log_format: logs::Format,
}

/// Stands in for `--api` where no node is asked: taken, since `TANDEM_API` may be set for all
/// commands alike, and not offered.
fn no_api() -> clap::Arg {
    clap::Arg::new("api")
        .long("api")
        .action(clap::ArgAction::Append)
        .value_delimiter(',')
        .hide(true)
}

#[derive(Debug, Subcommand)]
enum Command {
    Init(run::init::Arguments),
    Join(run::join::Arguments),
    Node(run::node::Arguments),
    Dev(run::dev::Arguments),
    #[command(alias = "demo")]
    Tour(run::tour::Arguments),
    Status(ask::status::Arguments),
    Events(ask::events::Arguments),
    Explain(ask::explain::Arguments),
    Switchover(operate::switchover::Arguments),
    Failover(operate::failover::Arguments),
    Pause(operate::pause::Arguments),
    Resume(operate::resume::Arguments),
    Restart(operate::restart::Arguments),
    Reload(operate::reload::Arguments),
    Reinit(operate::reinit::Arguments),
    Drain(operate::drain::Arguments),
    Undrain(operate::undrain::Arguments),
    Remove(operate::remove::Arguments),
    Token(operate::token::Arguments),
    Password(run::password::Arguments),
    Config(run::config::Arguments),
    Drill(run::drill::Arguments),
    Doctor(ask::doctor::Arguments),
    Recover(run::recover::Arguments),
}

/// Does what the arguments say.
pub fn run(arguments: impl IntoIterator<Item = OsString>, entry: &dyn Entry) -> ExitCode {
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    // A keeper is tiny and single-threaded: it must exist before any runtime does.
    match arguments.get(1).and_then(|word| word.to_str()) {
        Some("keeper") => return entry.keeper(arguments.get(2..).unwrap_or_default()),
        Some("drill-service") => {
            return entry.drill_service(arguments.get(2..).unwrap_or_default());
        }
        Some("keeper-exec") => return entry.keeper_exec(),
        _ => {}
    }
    // The arguments are not understood yet, but whoever wrote this reads JSON.
    let wants_json = arguments.iter().any(|word| word == "--json");
    let Arguments { common, command } = match Arguments::try_parse_from(arguments) {
        Ok(parsed) => parsed,
        Err(error) if wants_json && error.use_stderr() => {
            return report::report(&Error::Problem(misused(&error)), true);
        }
        Err(error) => {
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(1));
        }
    };
    let json = common.json;
    match start(common, command, entry) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => report::report(&error, json),
    }
}

fn start(common: Common, command: Command, entry: &dyn Entry) -> Result<(), Error> {
    // Commands that answer on stdout stay silent on stderr unless asked.
    if matches!(command, Command::Node(_)) || std::env::var_os(logs::VARIABLE).is_some() {
        logs::set_up(common.log_format).map_err(|error| cannot_log(&error))?;
    }
    let mut builder = match command {
        Command::Init(_)
        | Command::Join(_)
        | Command::Node(_)
        | Command::Dev(_)
        | Command::Tour(_)
        | Command::Drill(_)
        | Command::Recover(_) => tokio::runtime::Builder::new_multi_thread(),
        _ => tokio::runtime::Builder::new_current_thread(),
    };
    let runtime = builder.enable_all().build().map_err(|error| {
        Problem::caused_by(codes::UNEXPECTED, "cannot start", &error, "look at ulimit -a")
    })?;
    let mut terminal = Terminal::stdout(common.json);
    runtime.block_on(async {
        let client = Client::new(&common.api)?;
        dispatch(command, &client, &mut terminal, entry).await
    })
}

async fn dispatch(
    command: Command,
    client: &Client,
    terminal: &mut Terminal,
    entry: &dyn Entry,
) -> Result<(), Error> {
    match command {
        Command::Init(arguments) => entry.init(arguments, terminal).await,
        Command::Join(arguments) => entry.join(arguments, terminal).await,
        Command::Node(arguments) => entry.node(arguments, terminal).await,
        Command::Dev(arguments) => entry.dev(arguments, terminal).await,
        Command::Tour(arguments) => entry.tour(arguments, terminal).await,
        Command::Drill(arguments) => entry.drill(arguments, terminal).await,
        Command::Recover(arguments) => entry.recover(arguments, terminal).await,
        Command::Password(arguments) => entry.password(&arguments, terminal),
        Command::Config(arguments) => run::config::run(arguments, client, terminal, entry).await,
        Command::Doctor(arguments) => ask::doctor::run(arguments, client, terminal, entry).await,
        Command::Status(arguments) => ask::status::run(arguments, client, terminal).await,
        Command::Events(arguments) => ask::events::run(arguments, client, terminal).await,
        Command::Explain(arguments) => ask::explain::run(arguments, client, terminal).await,
        Command::Switchover(arguments) => {
            operate::switchover::run(arguments, client, terminal).await
        }
        Command::Failover(arguments) => operate::failover::run(arguments, client, terminal).await,
        Command::Pause(arguments) => operate::pause::run(arguments, client, terminal).await,
        Command::Resume(arguments) => operate::resume::run(arguments, client, terminal).await,
        Command::Restart(arguments) => operate::restart::run(arguments, client, terminal).await,
        Command::Reload(arguments) => operate::reload::run(arguments, client, terminal).await,
        Command::Reinit(arguments) => operate::reinit::run(arguments, client, terminal).await,
        Command::Drain(arguments) => operate::drain::run(arguments, client, terminal).await,
        Command::Undrain(arguments) => operate::undrain::run(arguments, client, terminal).await,
        Command::Remove(arguments) => operate::remove::run(arguments, client, terminal).await,
        Command::Token(arguments) => operate::token::run(arguments, client, terminal).await,
    }
}

/// What the parser says over several lines, as what, because, try.
fn misused(error: &clap::Error) -> Problem {
    let text = error.render().to_string();
    let mut parts = text.split("\n\n").map(str::trim).filter(|part| !part.is_empty());
    let because = parts.next().unwrap_or_default().trim_start_matches("error: ");
    let one_line = |part: &str| part.split_whitespace().collect::<Vec<_>>().join(" ");
    let tips: Vec<String> = parts
        .filter(|part| part.starts_with("tip:") || part.starts_with("Usage:"))
        .map(one_line)
        .chain(["tandem --help, or --help after the command".to_owned()])
        .collect();
    let what = "cannot understand the command line";
    Problem::new(codes::ARGUMENT, what, one_line(because), tips.join("; "))
}

fn cannot_log(error: &logs::Error) -> Problem {
    Problem::new(
        codes::LOGS,
        "cannot set up logs",
        problem::chain(error),
        "set TANDEM_LOG to a list such as info,tandem::peers=debug, or unset it",
    )
}
