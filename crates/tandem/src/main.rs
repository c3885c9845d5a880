//! The one binary: parse, run, report, exit status.

use std::io::Write;
use std::path::Path;
use std::process::ExitCode;
use tandem::fence::{keeper, stub};

fn main() -> ExitCode {
    let mut args = std::env::args().skip(1);
    // Before anything else: a keeper has one thread, no runtime, and as little memory as it can.
    match args.next().as_deref() {
        Some(keeper::SUBCOMMAND) => run_keeper(args),
        Some(stub::SUBCOMMAND) => {
            // Said to the keeper already, over its pipe.
            let _failure = stub::run(&args.next().unwrap_or_default());
            ExitCode::from(126)
        }
        _ => ExitCode::SUCCESS,
    }
}

fn run_keeper(mut args: impl Iterator<Item = String>) -> ExitCode {
    let (Some("--dir"), Some(dir)) = (args.next().as_deref(), args.next()) else {
        return ExitCode::from(2);
    };
    match keeper::run(Path::new(&dir)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "tandem keeper: {error}");
            ExitCode::FAILURE
        }
    }
}
