//! Runs the chores of the project: `tidy` checks, `gen` rewrites what is generated, `release`
//! closes a version, `load` is the client of the benchmarks. None is needed to build or use Tandem.

mod generate;
mod load;
mod release;
mod tidy;

use anyhow::{Context, Result, bail};
use std::env;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

const USAGE: &str = "\
cargo xtask tidy              check what compilers do not; writes nothing
cargo xtask gen               rewrite docs/configuration.md, shrink xtask/ratchet.txt
cargo xtask release VERSION   join docs/changes/unreleased into CHANGELOG.md, set the version
cargo xtask load rate to=ADDRESS rate=N seconds=N connections=N    requests at a fixed rate
cargo xtask load idle to=ADDRESS connections=N                     connections that only stay
cargo xtask load endpoint on=ADDRESS delay_ms=N                    answers after a while";

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match run(&words) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Nowhere is left to say that this cannot be written.
            let _ = writeln!(io::stderr(), "error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(words: &[&str]) -> Result<()> {
    match words {
        ["tidy"] => tidy::run(&root()?),
        ["gen"] => generate::run(&root()?),
        ["load", words @ ..] => load::run(words),
        ["release", version] => release::run(&root()?, version),
        [] | ["help" | "--help" | "-h"] => say(USAGE),
        _ => bail!("no such chore: {}\n{USAGE}", words.join(" ")),
    }
}

fn root() -> Result<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("xtask has no parent")?;
    Ok(root.to_owned())
}

fn say(text: &str) -> Result<()> {
    writeln!(io::stdout(), "{text}").context("cannot write the output")
}
