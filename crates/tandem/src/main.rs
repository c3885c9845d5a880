//! The one binary: parse, run, report, exit status.

use std::process::ExitCode;

fn main() -> ExitCode {
    tandem::cli::run(std::env::args_os(), &tandem::cli::entry::Product)
}
