//! Talks about the configuration: a file on this machine, or the one that the cluster agreed on.
//! Tested by: `cli/tests/config.rs`.

mod edited;

use crate::api::operations::{Outcome, RunningConfig};
use crate::api::verbs::ConfigRequest;
use crate::cli::Error;
use crate::cli::client::Client;
use crate::cli::entry::Entry;
use crate::cli::operate::show;
use crate::cli::terminal::Terminal;
use crate::node::problem::of_file;
use crate::telemetry::codes;
use crate::telemetry::problem::Problem;
use clap::{Args, Subcommand};
use hyper::Method;
use std::path::{Path, PathBuf};
use tandem_core::ids::ConfigVersion;

/// Check, show or change the configuration
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Example:
  tandem config check tandem.toml
  tandem config show --running > tandem.toml
  tandem config edit
  tandem config apply tandem.toml --expect 3")]
pub struct Arguments {
    #[command(subcommand)]
    pub command: Command,
}

/// What to do with it.
#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// Check a file, without touching a cluster
    #[command(arg = crate::cli::no_api())]
    #[command(after_help = "Example:\n  tandem config check tandem.toml")]
    Check {
        /// Which
        #[arg(value_name = "FILE", default_value = "tandem.toml")]
        file: PathBuf,
    },
    /// Show every value of a file and where it comes from, or the agreed configuration
    #[command(after_help = "\
Example:
  tandem config show tandem.toml
  tandem config show --running")]
    Show {
        /// Which
        #[arg(value_name = "FILE", default_value = "tandem.toml")]
        file: PathBuf,
        /// What the cluster agreed on, as its owner wrote it
        #[arg(long, conflicts_with = "file")]
        running: bool,
    },
    /// Change what is running in an editor; refused if somebody else changes it meanwhile
    #[command(after_help = "\
Example:
  tandem config edit
  tandem config edit --editor nano")]
    Edit {
        /// With this program; left out, what VISUAL or EDITOR names, or vi
        #[arg(long, value_name = "PROGRAM")]
        editor: Option<String>,
    },
    /// Change the running cluster; refused where that is not safe
    ///
    /// The file replaces what is running as a whole, and with it what somebody else applied since
    /// the file was made: what it changed is said afterwards. --expect refuses that instead.
    #[command(after_help = "\
Example:
  tandem config apply tandem.toml
  tandem config apply tandem.toml --expect 3")]
    Apply {
        /// Which
        #[arg(value_name = "FILE", default_value = "tandem.toml")]
        file: PathBuf,
        /// Only if this version is the running one; left out, the one that is running when asked
        #[arg(long, value_name = "VERSION")]
        expect: Option<u64>,
    },
}

/// Does it.
///
/// # Errors
/// The file is not valid or cannot be read, the change was refused, no node answers.
pub async fn run(
    arguments: Arguments,
    client: &Client,
    terminal: &mut Terminal,
    entry: &dyn Entry,
) -> Result<(), Error> {
    match arguments.command {
        Command::Check { file } => entry.config_check(&read(&file).await?, terminal),
        Command::Show { running: false, file } => entry.config_show(&read(&file).await?, terminal),
        Command::Show { running: true, .. } => {
            let config = client.read::<RunningConfig>("/v1/config").await?;
            if terminal.wants_json() {
                terminal.json(&config)?;
            } else {
                terminal.line(config.text.trim_end())?;
            }
            Ok(())
        }
        Command::Apply { file, expect } => {
            let text = read(&file).await?.text;
            let expected = match expect {
                Some(version) => ConfigVersion(version),
                None => client.read::<RunningConfig>("/v1/config").await?.version,
            };
            show(&apply(client, text, expected).await?, terminal)
        }
        Command::Edit { editor } => edit(editor, client, terminal).await,
    }
}

async fn apply(client: &Client, text: String, expected: ConfigVersion) -> Result<Outcome, Problem> {
    let body = ConfigRequest { text, expected: Some(expected) };
    client.operate(Method::PUT, "/v1/config", &body).await
}

/// What is running, changed by its reader and nobody else.
async fn edit(
    editor: Option<String>,
    client: &Client,
    terminal: &mut Terminal,
) -> Result<(), Error> {
    let running = client.read::<RunningConfig>("/v1/config").await?;
    let version = running.version;
    let text = format!("nothing was changed: version {version} goes on");
    let Some(edited) = edited::edit(running, editor).await? else {
        let outcome = Outcome::done(text).field("version", version.0);
        return match terminal.wants_json() {
            true => show(&outcome, terminal),
            false => Ok(terminal.line(outcome.message)?),
        };
    };
    let outcome = apply(client, edited.text, version).await.map_err(|problem| {
        let path = edited.path.display();
        // Applied as it is, it would take back what somebody else has applied.
        let try_ = if problem.code == codes::CHANGED_MEANWHILE {
            format!("tandem config edit again, and bring over what you wrote, which is in {path}")
        } else {
            let apply = format!("tandem config apply {path} --expect {version}");
            format!("{}; what you wrote is kept: correct it, then {apply}", problem.try_)
        };
        Problem { try_, ..problem }
    })?;
    edited::discard(&edited.path);
    show(&outcome, terminal)
}

/// A file that was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    /// Where it is.
    pub path: PathBuf,
    /// What is in it.
    pub text: String,
}

async fn read(path: &Path) -> Result<Written, Problem> {
    let file = path.to_owned();
    let reading = tokio::task::spawn_blocking(move || crate::config::read_file(&file));
    let text = reading.await.map_err(|error| {
        Problem::caused_by(codes::UNEXPECTED, "cannot read the file", &error, "repeat it")
    })?;
    let text = text.map_err(|error| of_file(&error))?;
    Ok(Written { path: path.to_owned(), text })
}
