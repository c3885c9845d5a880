//! Talks to stderr: log lines for people, or one JSON object per line for programs.
//! In: `TANDEM_LOG` (which lines, default `info`) and a format. Out: a global subscriber.
//! Not here: what is logged; each module logs where it handles a thing, never where it passes it
//! on.
//! Tested by: below.

use clap::ValueEnum;
use std::io::{self, IsTerminal as _};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::ParseError;

/// The variable that says which lines are written, as in `TANDEM_LOG=info,tandem::peers=debug`.
pub const VARIABLE: &str = "TANDEM_LOG";

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people.
    #[default]
    Human,
    /// One JSON object per line.
    Json,
}

/// Logs cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The variable cannot be understood.
    #[error("{VARIABLE} is {value:?}")]
    Filter {
        /// What it is.
        value: String,
        /// Why not.
        #[source]
        source: ParseError,
    },
    /// Some other part of the process set logs up before.
    #[error("logs are set up already")]
    AlreadySet,
}

/// Sets up logs for the whole process, once.
///
/// # Errors
/// The variable cannot be understood, or logs are set up already.
pub fn set_up(format: Format) -> Result<(), Error> {
    let wanted = std::env::var(VARIABLE).ok().filter(|value| !value.is_empty());
    let filter = filter(wanted.as_deref())?;
    let colours = io::stderr().is_terminal()
        && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(colours && format == Format::Human);
    let outcome = match format {
        Format::Human => lines.try_init(),
        Format::Json => lines.json().flatten_event(true).try_init(),
    };
    outcome.map_err(|_| Error::AlreadySet)
}

fn filter(wanted: Option<&str>) -> Result<EnvFilter, Error> {
    let value = wanted.unwrap_or("info");
    EnvFilter::builder()
        .parse(value)
        .map_err(|source| Error::Filter { value: value.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_is_info() {
        assert_eq!(filter(None).unwrap().to_string(), "info");
    }

    #[test]
    fn a_wrong_filter_is_named() {
        let error = filter(Some("info,=x=")).unwrap_err();
        assert_eq!(error.to_string(), "TANDEM_LOG is \"info,=x=\"");
    }
}
