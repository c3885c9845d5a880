//! Talks to the parts of the product that a command starts: the one place that wires them.
//! In: a command's arguments. Out: its end, or a `Problem`.
//! Not here: commands that only talk to a running node (`ask`, `operate`).
//! Tested by: `cli/tests`, with an `Entry` that remembers what it was asked.

use crate::api::explain::Finding;
use crate::cli::Error;
use crate::cli::ask::doctor;
use crate::cli::run::config::Written;
use crate::cli::run::{dev, drill, init, join, node, password, recover, tour};
use crate::cli::terminal::Terminal;
use crate::cli::{joining, passwords, recovering, wired};
use crate::config::{self, Config};
use crate::drill::worker;
use crate::node::before::{self, Before};
use crate::node::{Error as NodeError, NodeArgs, problem};
use crate::telemetry::codes;
use crate::telemetry::problem::Problem;
use crate::{cli, fence, identity};
use futures::future::BoxFuture;
use serde_json::json;
use std::ffi::OsString;
use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;
use tandem_core::ids::NodeId;

/// A command at work. It writes its answer to the terminal; its error is reported by the caller.
pub type Running<'a> = BoxFuture<'a, Result<(), Error>>;

/// What a command may start. All but the keeper run inside a runtime with threads.
pub trait Entry: Sync {
    /// The parent of one instance; there is no runtime and no log. Gets what follows `keeper`.
    fn keeper(&self, arguments: &[OsString]) -> ExitCode;
    /// What a keeper becomes before it becomes the instance.
    fn keeper_exec(&self) -> ExitCode;
    /// The service that a drill drills. Gets what follows `drill-service`.
    fn drill_service(&self, arguments: &[OsString]) -> ExitCode;
    /// Makes the first node of a cluster.
    fn init<'a>(&'a self, arguments: init::Arguments, terminal: &'a mut Terminal) -> Running<'a>;
    /// Makes this machine a node of a cluster.
    fn join<'a>(&'a self, arguments: join::Arguments, terminal: &'a mut Terminal) -> Running<'a>;
    /// Runs a node until it is asked to end.
    fn node<'a>(&'a self, arguments: node::Arguments, terminal: &'a mut Terminal) -> Running<'a>;
    /// Runs a cluster on this machine.
    fn dev<'a>(&'a self, arguments: dev::Arguments, terminal: &'a mut Terminal) -> Running<'a>;
    /// Runs the tour.
    fn tour<'a>(&'a self, arguments: tour::Arguments, terminal: &'a mut Terminal) -> Running<'a>;
    /// Runs the drill; a failed verdict is `Error::Unsuccessful`.
    fn drill<'a>(&'a self, arguments: drill::Arguments, terminal: &'a mut Terminal) -> Running<'a>;
    /// Goes on after the loss of a majority.
    fn recover<'a>(
        &'a self,
        arguments: recover::Arguments,
        terminal: &'a mut Terminal,
    ) -> Running<'a>;
    /// Prints the password of a service's role.
    fn password(
        &self,
        arguments: &password::Arguments,
        terminal: &mut Terminal,
    ) -> Result<(), Error>;
    /// Checks this machine, without a node.
    fn doctor(&self, arguments: doctor::Arguments) -> BoxFuture<'_, Result<Vec<Finding>, Error>>;
    /// Checks a configuration file.
    fn config_check(&self, file: &Written, terminal: &mut Terminal) -> Result<(), Error>;
    /// Shows every value of a configuration file, with its origin.
    fn config_show(&self, file: &Written, terminal: &mut Terminal) -> Result<(), Error>;
}

/// The product itself.
#[derive(Clone, Copy, Debug, Default)]
pub struct Product;

impl Entry for Product {
    fn keeper(&self, arguments: &[OsString]) -> ExitCode {
        let [flag, dir] = arguments else {
            return ExitCode::from(codes::Exit::Usage.status());
        };
        if flag != "--dir" {
            return ExitCode::from(codes::Exit::Usage.status());
        }
        match fence::keeper::run(Path::new(dir)) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                let _ = writeln!(std::io::stderr(), "tandem keeper: {error}");
                ExitCode::from(codes::Exit::Failed.status())
            }
        }
    }

    fn keeper_exec(&self) -> ExitCode {
        fence::stub::run()
    }

    fn drill_service(&self, arguments: &[OsString]) -> ExitCode {
        match worker::run(arguments) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                let _ = writeln!(std::io::stderr(), "tandem drill-service: {error}");
                ExitCode::from(codes::Exit::Failed.status())
            }
        }
    }

    fn init<'a>(&'a self, arguments: init::Arguments, terminal: &'a mut Terminal) -> Running<'a> {
        Box::pin(async move {
            let init::Arguments { config, node, dir } = arguments;
            let text = config::read_file(&config)
                .map_err(|error| Error::Problem(NodeError::Unreadable(error).into()))?;
            let parsed = Config::parse(&text, &config.display().to_string())
                .map_err(|problems| Error::Problem(problem::of_config(&problems)))?;
            let node = NodeId::new(node);
            if !parsed.nodes.contains_key(&node) {
                let known: Vec<&str> = parsed.nodes.keys().map(NodeId::as_str).collect();
                let error = NodeError::NoSuchNode { node, known: known.join(", ") };
                return Err(Error::Problem(error.into()));
            }
            let identity = identity::create_cluster(&dir, &parsed.cluster, &node)
                .map_err(|error| Error::Problem(problem::of_identity(&error)))?;
            let cluster = identity.cluster();
            if terminal.wants_json() {
                let (cluster, name, dir) = (cluster.as_str(), &parsed.cluster, &dir);
                let made = json!({ "cluster": cluster, "name": name, "node": node, "dir": dir });
                return Ok(terminal.json(&made)?);
            }
            terminal.line(format_args!(
                "made cluster {} ({cluster}) with node {node} in {}",
                parsed.cluster,
                dir.display()
            ))?;
            Ok(())
        })
    }

    fn join<'a>(&'a self, arguments: join::Arguments, terminal: &'a mut Terminal) -> Running<'a> {
        Box::pin(joining::join(arguments, terminal))
    }

    fn node<'a>(&'a self, arguments: node::Arguments, _: &'a mut Terminal) -> Running<'a> {
        Box::pin(async move {
            let node::Arguments { config, node, dir, routes } = arguments;
            let args = NodeArgs { config, node: NodeId::new(node), dir, routes };
            crate::node::run(args, crate::runtime::signals::asked_to_stop())
                .await
                .map_err(|error| Error::Problem(error.into()))
        })
    }

    fn dev<'a>(&'a self, arguments: dev::Arguments, terminal: &'a mut Terminal) -> Running<'a> {
        Box::pin(wired::dev(arguments, terminal))
    }

    fn tour<'a>(&'a self, arguments: tour::Arguments, terminal: &'a mut Terminal) -> Running<'a> {
        Box::pin(wired::tour(arguments, terminal))
    }

    fn drill<'a>(&'a self, arguments: drill::Arguments, terminal: &'a mut Terminal) -> Running<'a> {
        Box::pin(wired::drill(arguments, terminal))
    }

    fn recover<'a>(
        &'a self,
        arguments: recover::Arguments,
        terminal: &'a mut Terminal,
    ) -> Running<'a> {
        Box::pin(recovering::recover(arguments, terminal))
    }

    fn password(
        &self,
        arguments: &password::Arguments,
        terminal: &mut Terminal,
    ) -> Result<(), Error> {
        passwords::password(arguments, terminal)
    }

    fn doctor(&self, arguments: doctor::Arguments) -> BoxFuture<'_, Result<Vec<Finding>, Error>> {
        let doctor::Arguments { config, dir, node, before: _ } = arguments;
        Box::pin(async move {
            Ok(before::examine(&Before { config, dir, node: node.map(NodeId::new) }).await)
        })
    }

    fn config_check(&self, file: &Written, terminal: &mut Terminal) -> Result<(), Error> {
        print_config(cli::config::check, file, terminal)?;
        // What is said of the text is the same everywhere; files are this machine's.
        let config = Config::parse(&file.text, &file.path.display().to_string())
            .map_err(|problems| Error::Problem(problem::of_config(&problems)))?;
        before::certificates(&config).map_err(|error| Error::Problem(error.into()))
    }

    fn config_show(&self, file: &Written, terminal: &mut Terminal) -> Result<(), Error> {
        print_config(cli::config::show, file, terminal)
    }
}

fn print_config(
    print: fn(&str, &str, cli::config::Format) -> cli::config::Outcome,
    file: &Written,
    terminal: &mut Terminal,
) -> Result<(), Error> {
    let format = match terminal.wants_json() {
        true => cli::config::Format::Json,
        false => cli::config::Format::Text,
    };
    let outcome = print(&file.text, &file.path.display().to_string(), format);
    terminal.line(outcome.text.trim_end())?;
    if outcome.usable { Ok(()) } else { Err(Error::Unsuccessful) }
}

pub(super) fn failed(what: &str, error: &dyn std::error::Error) -> Error {
    let mut because = error.to_string();
    let mut source = error.source();
    while let Some(next) = source {
        because = format!("{because}: {next}");
        source = next.source();
    }
    Error::Problem(Problem::new(
        codes::UNEXPECTED,
        format!("cannot {what}"),
        because,
        "tandem doctor, and the node's log",
    ))
}
