//! Talks about errors to the person at the terminal: the only place that prints one.
//! In: `Error`. Out: what, because, try on stderr (one JSON object with `--json`), and the exit
//! status that its code stands for.
//! Tested by: below.

use crate::cli::Error;
use crate::telemetry::codes;
use crate::telemetry::problem::{Problem, chain};
use std::io::{self, Write as _};
use std::process::ExitCode;

/// Prints an error; the exit status that stands for it.
pub fn report(error: &Error, json: bool) -> ExitCode {
    let problem = match error {
        Error::Problem(problem) => problem.clone(),
        Error::Unsuccessful => return ExitCode::from(1),
        // Whoever read our output has seen enough.
        Error::Output(error) if error.kind() == io::ErrorKind::BrokenPipe => {
            return ExitCode::SUCCESS;
        }
        Error::Output(_) => Problem::new(
            codes::UNEXPECTED,
            "cannot write the output",
            chain(error),
            "check where the output goes, and whether there is room",
        ),
    };
    // With stderr gone there is nobody left to tell.
    let _ = writeln!(io::stderr(), "{}", text(&problem, json));
    ExitCode::from(problem.exit().status())
}

fn text(problem: &Problem, json: bool) -> String {
    if json && let Ok(text) = serde_json::to_string(problem) {
        return text;
    }
    let Problem { code, what, because, try_ } = problem;
    format!("error[{code}]: {what}\n  because: {because}\n  try: {try_}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::codes::Exit;

    #[test]
    fn what_because_try() {
        let problem = Problem::new(
            codes::CANNOT_LISTEN,
            "cannot listen on 127.0.0.1:6432",
            "address in use",
            "set proxy.listen",
        );
        assert_eq!(
            text(&problem, false),
            "error[TDM0104]: cannot listen on 127.0.0.1:6432\n  \
             because: address in use\n  try: set proxy.listen"
        );
        assert!(text(&problem, true).starts_with(r#"{"code":"TDM0104","what":"#));
    }

    #[test]
    fn exit_statuses_follow_the_code() {
        let exit = |code| Problem::new(code, "", "", "").exit().status();
        assert_eq!(exit(codes::OPERATION_FAILED), 1);
        assert_eq!(exit(codes::ARGUMENT), 2);
        assert_eq!(exit(codes::MAY_LOSE), 3);
        assert_eq!(exit(codes::API_UNREACHABLE), 4);
        assert_eq!(exit(codes::OUTCOME_UNKNOWN), Exit::Unknown.status());
    }

    #[test]
    fn a_reader_that_left_is_no_error() {
        let left = Error::Output(io::ErrorKind::BrokenPipe.into());
        assert_eq!(report(&left, false), ExitCode::SUCCESS);
    }
}
