//! Runs the simulator: `--seeds 10000`, or one seed with its story.

use std::process::ExitCode;
use tandem_sim::mutation::Mutation;
use tandem_sim::options::{Options, Shape};
use tandem_sim::runner::{self, Failure};
use tandem_sim::singleton::{self, What};

const USAGE: &str = "usage: tandem-sim [--seeds N] [--start N] [--seed N] [--nodes 3|2+w|5] \
    [--trace] [--lines N] [--mutate NAME] [--threads N] [--failures N] \
    [--singleton | --partitions | --copies | --keys]";

/// A command, and how it is clustered; without one it is PostgreSQL.
#[derive(Clone, Copy)]
enum Of {
    Singleton,
    Partitions,
    Copies,
    /// Work that is divided, with doors by key.
    Keys,
}

impl Of {
    fn from_word(word: &str) -> Option<Self> {
        [Self::Singleton, Self::Partitions, Self::Copies, Self::Keys]
            .into_iter()
            .find(|of| of.word() == word)
    }

    const fn word(self) -> &'static str {
        match self {
            Self::Singleton => "--singleton",
            Self::Partitions => "--partitions",
            Self::Copies => "--copies",
            Self::Keys => "--keys",
        }
    }

    fn options(self, seed: u64) -> singleton::Options {
        let what = match self {
            Self::Singleton => What::Alone,
            Self::Partitions | Self::Keys => What::Divided(singleton::partitions_of(seed)),
            Self::Copies => What::Beside,
        };
        let keyed = matches!(self, Self::Keys);
        singleton::Options { what, keyed, ..singleton::Options::default() }
    }
}

struct Arguments {
    start: u64,
    seeds: u64,
    one: Option<u64>,
    trace: bool,
    of: Option<Of>,
    lines: usize,
    threads: usize,
    failures: usize,
    options: Options,
}

#[allow(clippy::print_stdout, reason = "this is what the program is for")]
fn say(line: &str) {
    println!("{line}");
}

fn main() -> ExitCode {
    let Some(arguments) = parse(std::env::args().skip(1)) else {
        say(USAGE);
        return ExitCode::from(2);
    };
    match arguments.one {
        Some(seed) => one(seed, &arguments),
        None => many(&arguments),
    }
}

fn parse(mut words: impl Iterator<Item = String>) -> Option<Arguments> {
    let mut arguments = Arguments {
        start: 0,
        seeds: 1000,
        one: None,
        trace: false,
        of: None,
        lines: 60,
        threads: 2,
        failures: 1,
        options: Options::default(),
    };
    while let Some(word) = words.next() {
        if word == "--trace" {
            arguments.trace = true;
            continue;
        }
        if let Some(of) = Of::from_word(&word) {
            arguments.of = Some(of);
            continue;
        }
        let value = words.next()?;
        match word.as_str() {
            "--seeds" => arguments.seeds = value.parse().ok()?,
            "--start" => arguments.start = value.parse().ok()?,
            "--seed" => arguments.one = Some(value.parse().ok()?),
            "--lines" => arguments.lines = value.parse().ok()?,
            "--threads" => arguments.threads = value.parse().ok()?,
            "--failures" => arguments.failures = value.parse().ok()?,
            "--nodes" => arguments.options.shape = Some(Shape::from_word(&value)?),
            "--mutate" => arguments.options.mutation = Some(Mutation::from_word(&value)?),
            _ => return None,
        }
    }
    Some(arguments)
}

fn tell(seed: u64, arguments: &Arguments, lines: usize) -> (Option<Failure>, Vec<String>) {
    if let Some(of) = arguments.of {
        return singleton::tell(seed, singleton::Options { trace: lines, ..of.options(seed) });
    }
    runner::tell(seed, arguments.options, lines)
}

fn one(seed: u64, arguments: &Arguments) -> ExitCode {
    let lines = if arguments.trace { 1_000_000 } else { arguments.lines };
    let (failure, lines) = tell(seed, arguments, lines);
    if arguments.trace && failure.is_none() {
        lines.iter().for_each(|line| say(line));
    }
    match failure {
        Some(failure) => {
            lines.iter().for_each(|line| say(line));
            report(&failure, arguments);
            say("0 passed, 1 failed");
            ExitCode::FAILURE
        }
        None => {
            say("1 passed, 0 failed");
            ExitCode::SUCCESS
        }
    }
}

fn many(arguments: &Arguments) -> ExitCode {
    let end = arguments.start + arguments.seeds;
    let progress = |done: u64| {
        if done.is_multiple_of(1000) {
            say(&format!("{done} of {} seeds", arguments.seeds));
        }
    };
    let limits = (arguments.threads, arguments.failures);
    let outcome = if let Some(of) = arguments.of {
        let run = |seed| singleton::run(seed, of.options(seed));
        runner::run_each(arguments.start..end, &run, limits, &progress)
    } else {
        runner::run_many(arguments.start..end, arguments.options, limits, &progress)
    };
    if let Some(first) = outcome.failures.first() {
        let (_, lines) = tell(first.seed, arguments, arguments.lines);
        lines.iter().for_each(|line| say(line));
    }
    for failure in &outcome.failures {
        report(failure, arguments);
    }
    say(&format!("{} passed, {} failed", outcome.passed, outcome.failures.len()));
    if outcome.failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn report(failure: &Failure, arguments: &Arguments) {
    say(&format!(
        "seed {} failed at step {} ({} ms): {}",
        failure.seed, failure.step, failure.at_ms, failure.violation
    ));
    if let Some(of) = arguments.of.map(Of::word) {
        let seed = failure.seed;
        let name = of.trim_start_matches('-');
        return say(&format!(
            "repeat: make sim SEED={seed} OF={name}   or: \
             cargo run -p tandem-sim -- --seed {seed} {of} --trace"
        ));
    }
    let nodes = arguments.options.shape.map_or(String::new(), |s| format!(" --nodes {}", s.word()));
    let mutate =
        arguments.options.mutation.map_or(String::new(), |m| format!(" --mutate {}", m.word()));
    say(&format!(
        "repeat: make sim SEED={}   or: \
         cargo run -p tandem-sim -- --seed {}{nodes}{mutate} --trace",
        failure.seed, failure.seed
    ));
}
