//! The command line: its help, and its commands against a made-up node.

mod config;
mod doctor;
mod events;
mod explain;
mod operate;
mod status;

use crate::api::explain::{Finding, Severity};
use crate::api::tests::Served;
use crate::cli::client::Client;
use crate::cli::entry::{Entry, Running};
use crate::cli::run::config::Written;
use crate::cli::run::{dev, drill, init, join, node, password, recover, tour};
use crate::cli::terminal::Terminal;
use crate::cli::terminal::tests::Paper;
use crate::cli::{Arguments, Error, ask, dispatch, misused, run};
use crate::telemetry::codes;
use crate::telemetry::problem::Problem;
use clap::{CommandFactory as _, Parser as _};
use futures::future::{BoxFuture, ready};
use std::ffi::OsString;
use std::process::ExitCode;
use std::sync::Mutex;

/// Remembers what it was asked.
#[derive(Debug, Default)]
struct Remembers(Mutex<Vec<String>>);

impl Remembers {
    fn note(&self, what: impl std::fmt::Debug) {
        self.0.lock().unwrap().push(format!("{what:?}"));
    }

    fn noted(&self, what: impl std::fmt::Debug) -> Running<'static> {
        self.note(what);
        Box::pin(ready(Ok(())))
    }
}

impl Entry for Remembers {
    fn keeper(&self, arguments: &[OsString]) -> ExitCode {
        self.note(arguments);
        ExitCode::from(7)
    }

    fn keeper_exec(&self) -> ExitCode {
        self.note([""; 0]);
        ExitCode::from(8)
    }

    fn drill_service(&self, arguments: &[OsString]) -> ExitCode {
        self.note(arguments);
        ExitCode::from(9)
    }

    fn init<'a>(&'a self, arguments: init::Arguments, _: &'a mut Terminal) -> Running<'a> {
        self.noted(arguments)
    }

    fn join<'a>(&'a self, arguments: join::Arguments, _: &'a mut Terminal) -> Running<'a> {
        self.noted(arguments)
    }

    fn node<'a>(&'a self, arguments: node::Arguments, _: &'a mut Terminal) -> Running<'a> {
        self.noted(arguments)
    }

    fn dev<'a>(&'a self, arguments: dev::Arguments, _: &'a mut Terminal) -> Running<'a> {
        self.noted(arguments)
    }

    fn tour<'a>(&'a self, arguments: tour::Arguments, _: &'a mut Terminal) -> Running<'a> {
        self.noted(arguments)
    }

    fn drill<'a>(&'a self, arguments: drill::Arguments, _: &'a mut Terminal) -> Running<'a> {
        self.noted(arguments)
    }

    fn recover<'a>(&'a self, arguments: recover::Arguments, _: &'a mut Terminal) -> Running<'a> {
        self.noted(arguments)
    }

    fn password(&self, arguments: &password::Arguments, _: &mut Terminal) -> Result<(), Error> {
        self.note(arguments);
        Ok(())
    }

    fn doctor(
        &self,
        arguments: ask::doctor::Arguments,
    ) -> BoxFuture<'_, Result<Vec<Finding>, Error>> {
        self.note(arguments);
        Box::pin(ready(Ok(vec![Finding::new(Severity::Warning, "disk", "small")])))
    }

    fn config_check(&self, file: &Written, _: &mut Terminal) -> Result<(), Error> {
        self.note(&file.text);
        Ok(())
    }

    fn config_show(&self, file: &Written, _: &mut Terminal) -> Result<(), Error> {
        self.note(&file.text);
        Ok(())
    }
}

fn words(line: &str) -> Vec<OsString> {
    std::iter::once("tandem").chain(line.split_whitespace()).map(OsString::from).collect()
}

/// Runs a command line against an API; what it wrote and how it ended.
async fn tandem(api: &str, line: &str) -> (String, Result<(), Error>) {
    let Arguments { mut common, command } = Arguments::try_parse_from(words(line)).unwrap();
    common.api = vec![api.to_owned()];
    let paper = Paper::default();
    let mut terminal = paper.terminal(common.json);
    let client = Client::new(&common.api).unwrap();
    let outcome = dispatch(command, &client, &mut terminal, &Remembers::default()).await;
    (paper.text(), outcome)
}

async fn ok(served: &Served, line: &str) -> String {
    let (text, outcome) = tandem(&served.url(), line).await;
    outcome.unwrap_or_else(|error| panic!("{line}: {error}"));
    text
}

async fn refused(served: &Served, line: &str) -> Problem {
    match tandem(&served.url(), line).await {
        (_, Err(Error::Problem(problem))) => problem,
        (text, other) => panic!("{line}: {other:?}, {text}"),
    }
}

#[test]
fn every_command_has_help_with_an_example_that_parses() {
    fn check(path: &str, command: &clap::Command) {
        let help = command.clone().render_long_help().to_string();
        let (_, examples) = help.split_once("Example:").unwrap_or_else(|| panic!("{path}: {help}"));
        let about = command.get_about().map(ToString::to_string).unwrap_or_default();
        assert!(!about.is_empty(), "{path} says nothing of itself");
        for example in examples.lines().filter_map(|line| line.trim().strip_prefix("tandem ")) {
            let example = example.split(['|', '>']).next().unwrap_or_default();
            // What follows three spaces is a remark.
            let example = example.split("   ").next().unwrap_or_default();
            let parsed = Arguments::try_parse_from(words(example));
            assert!(parsed.is_ok(), "tandem {example}: {}", parsed.unwrap_err());
        }
        for inner in command.get_subcommands().filter(|inner| inner.get_name() != "help") {
            check(&format!("{path} {}", inner.get_name()), inner);
        }
    }
    let command = Arguments::command();
    command.clone().debug_assert();
    check("tandem", &command);
    let names: Vec<&str> = command.get_subcommands().map(clap::Command::get_name).collect();
    for name in "init join node dev status events explain switchover failover pause resume restart \
                 reload reinit drain config drill doctor recover password"
        .split_whitespace()
    {
        assert!(names.contains(&name), "{name}");
    }
}

#[test]
fn a_keeper_is_made_before_anything_else_and_gets_its_arguments_untouched() {
    let entry = Remembers::default();
    assert_eq!(run(words("keeper --help -x"), &entry), ExitCode::from(7));
    assert_eq!(run(words("keeper-exec"), &entry), ExitCode::from(8));
    assert_eq!(run(words("drill-service"), &entry), ExitCode::from(9));
    assert_eq!(*entry.0.lock().unwrap(), [r#"["--help", "-x"]"#, "[]", "[]"]);
}

#[test]
fn what_starts_something_reaches_the_entry() {
    let entry = Remembers::default();
    for (line, noted) in [
        ("init --node a --dir /d", r#"config: "tandem.toml", node: "a", dir: "/d""#),
        ("dev --nodes 5", "nodes: 5"),
        ("demo --once", "once: true"),
        ("drill --fault node-cut,node-kill --seed 7", r#"faults: ["node-cut", "node-kill"]"#),
        ("drill --strict --rounds 5", "strict: true"),
        ("recover --dir /d --accept-loss", "accept_loss: true"),
        ("password orders --dir /d --role superuser", "role: Superuser"),
        ("join --node d --dir /d --to x:1 --token s3cret", "token: Some(Secret(…))"),
    ] {
        assert_eq!(run(words(line), &entry), ExitCode::SUCCESS, "{line}");
        let last = entry.0.lock().unwrap().pop().unwrap();
        assert!(last.contains(noted), "{line}: {last}");
    }
}

#[test]
fn a_fault_that_does_not_exist_is_status_2() {
    let product = crate::cli::entry::Product;
    assert_eq!(run(words("drill --fault node-kil"), &product), ExitCode::from(2));
}

#[test]
fn what_the_parser_refuses_is_told_as_json_where_json_is_asked_for() {
    for (line, because, try_) in [
        ("--json bogus", "unrecognized subcommand 'bogus'", "Usage: tandem"),
        ("drill --rounds 0 --json", "0 is not in 1..=1000", "--help"),
        ("init --json --node a", "were not provided: --dir <DIR>", "Usage: tandem init"),
        ("--json statsu", "unrecognized subcommand", "similar subcommand exists: 'status'"),
    ] {
        let error = Arguments::try_parse_from(words(line)).unwrap_err();
        let problem = misused(&error);
        assert_eq!(problem.code, codes::ARGUMENT);
        assert!(problem.because.contains(because), "{line}: {problem:?}");
        assert!(!problem.because.contains('\n') && !problem.because.starts_with("error"));
        assert!(problem.try_.contains(try_), "{line}: {problem:?}");
        assert_eq!(run(words(line), &Remembers::default()), ExitCode::from(2), "{line}");
    }
    assert_eq!(run(words("--json --help"), &Remembers::default()), ExitCode::SUCCESS);
}

#[test]
fn the_address_of_a_node_is_offered_only_where_a_node_is_asked() {
    let help = |line: &str| {
        let error = Arguments::try_parse_from(words(&format!("{line} --help"))).unwrap_err();
        error.to_string()
    };
    for line in ["init", "join", "node", "dev", "tour", "drill", "recover", "config check"] {
        assert!(!help(line).contains("--api"), "{line}");
        assert!(help(line).contains("--json"), "{line}");
    }
    for line in ["status", "switchover", "config show", "config apply", "explain"] {
        assert!(help(line).contains("--api"), "{line}");
    }
    let parsed = Arguments::try_parse_from(words("dev --api http://x:1")).unwrap();
    assert_eq!(parsed.common.api, ["http://x:1"]);
    let parsed = Arguments::try_parse_from(words("status --api http://x:1,http://y:1")).unwrap();
    assert_eq!(parsed.common.api.len(), 2);
    assert!(help("").contains("any other service"));
}

#[test]
fn wrong_usage_is_status_2() {
    let entry = Remembers::default();
    for line in [
        "",
        "statsu",
        "init --node a",
        "dev --nodes 0",
        "join --node d --dir /d --to x:1",
        "switchover --at tomorrow",
        "switchover --cancel --to b",
        "drill --rounds 0",
        "drill --delay 2s",
    ] {
        assert_eq!(run(words(line), &entry), ExitCode::from(2), "{line}");
    }
    assert!(entry.0.lock().unwrap().is_empty());
}
