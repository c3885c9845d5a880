//! Talks to the parts of the product that a command starts: the one place that wires them.
//! In: a command's arguments. Out: its end, or a `Problem`.
//! Not here: commands that only talk to a running node (`ask`, `operate`).
//! Tested by: `cli/tests`, with an `Entry` that remembers what it was asked.

use crate::api::explain::Finding;
use crate::cli::Error;
use crate::cli::ask::doctor;
use crate::cli::run::config::Written;
use crate::cli::run::{dev, drill, init, join, node, recover, tour};
use crate::cli::terminal::Terminal;
use crate::telemetry::codes;
use crate::telemetry::problem::Problem;
use futures::future::{BoxFuture, ready};
use std::ffi::OsString;
use std::process::ExitCode;

/// A command at work. It writes its answer to the terminal; its error is reported by the caller.
pub type Running<'a> = BoxFuture<'a, Result<(), Error>>;

/// What a command may start. All but the keeper run inside a runtime with threads.
pub trait Entry: Sync {
    /// The parent of one instance; there is no runtime and no log. Gets what follows `keeper`.
    fn keeper(&self, arguments: &[OsString]) -> ExitCode;
    /// What a keeper becomes before it becomes the instance. Gets what follows `keeper-exec`.
    fn keeper_exec(&self, arguments: &[OsString]) -> ExitCode;
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
    fn keeper(&self, _: &[OsString]) -> ExitCode {
        ExitCode::from(codes::Exit::Failed.status())
    }

    fn keeper_exec(&self, _: &[OsString]) -> ExitCode {
        ExitCode::from(codes::Exit::Failed.status())
    }

    fn init<'a>(&'a self, _: init::Arguments, _: &'a mut Terminal) -> Running<'a> {
        Box::pin(ready(Err(not_wired("init"))))
    }

    fn join<'a>(&'a self, _: join::Arguments, _: &'a mut Terminal) -> Running<'a> {
        Box::pin(ready(Err(not_wired("join"))))
    }

    fn node<'a>(&'a self, _: node::Arguments, _: &'a mut Terminal) -> Running<'a> {
        Box::pin(ready(Err(not_wired("node"))))
    }

    fn dev<'a>(&'a self, _: dev::Arguments, _: &'a mut Terminal) -> Running<'a> {
        Box::pin(ready(Err(not_wired("dev"))))
    }

    fn tour<'a>(&'a self, _: tour::Arguments, _: &'a mut Terminal) -> Running<'a> {
        Box::pin(ready(Err(not_wired("tour"))))
    }

    fn drill<'a>(&'a self, _: drill::Arguments, _: &'a mut Terminal) -> Running<'a> {
        Box::pin(ready(Err(not_wired("drill"))))
    }

    fn recover<'a>(&'a self, _: recover::Arguments, _: &'a mut Terminal) -> Running<'a> {
        Box::pin(ready(Err(not_wired("recover"))))
    }

    fn doctor(&self, _: doctor::Arguments) -> BoxFuture<'_, Result<Vec<Finding>, Error>> {
        Box::pin(ready(Err(not_wired("doctor"))))
    }

    fn config_check(&self, _: &Written, _: &mut Terminal) -> Result<(), Error> {
        Err(not_wired("config check"))
    }

    fn config_show(&self, _: &Written, _: &mut Terminal) -> Result<(), Error> {
        Err(not_wired("config show"))
    }
}

fn not_wired(command: &str) -> Error {
    Error::Problem(Problem::new(
        codes::UNEXPECTED,
        format!("cannot run tandem {command}"),
        "this build is not wired to it",
        "use a complete build",
    ))
}
