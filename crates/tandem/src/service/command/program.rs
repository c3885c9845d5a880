//! Talks to programs that are run beside a command: its checks, and what asks it to end.
//! In: words, a limit. Out: how it ended.
//! Keeps: H50 past its limit it is killed, with all that it started.
//! Not here: the command and its hooks, whose parent is the keeper.
//! Tested by: `tests.rs`.

use super::CommandConfig;
use crate::runtime::process;
use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt as _;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;
use tandem_core::ids::Term;
use tokio::process::{Child, Command};
use tokio::time::timeout;

/// Why a program did not do it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It cannot be run.
    #[error("cannot run {program}: {source}")]
    Run {
        /// Which.
        program: String,
        /// The system's reason.
        source: std::io::Error,
    },
    /// It hangs, and was killed.
    #[error("{program} did not end within {limit:?} and was killed")]
    Hangs {
        /// Which.
        program: String,
        /// Its limit.
        limit: Duration,
    },
    /// It ended otherwise than with 0.
    #[error("{program} ended with {status}")]
    Failed {
        /// Which.
        program: String,
        /// How.
        status: ExitStatus,
    },
}

/// Kills it whole, however this ends.
struct Tree(Option<i32>);

impl Drop for Tree {
    fn drop(&mut self) {
        if let Some(pid) = self.0 {
            process::kill_tree(pid);
        }
    }
}

impl CommandConfig {
    /// Runs a program to its end, with the user, folder, environment and log of the command.
    pub(super) async fn run(
        &self,
        words: &[String],
        term: Term,
        limit: Duration,
    ) -> Result<(), Error> {
        let words = self.filled(words);
        let Some((program, arguments)) = words.split_first() else { return Ok(()) };
        let failed = |source| Error::Run { program: program.clone(), source };
        let mut child = self.spawn(program, arguments, term).map_err(failed)?;
        let mut tree = Tree(child.id().and_then(|pid| i32::try_from(pid).ok()));
        let Ok(ended) = timeout(limit, child.wait()).await else {
            return Err(Error::Hangs { program: program.clone(), limit });
        };
        // Its id may be another's from here on.
        tree.0 = None;
        let status = ended.map_err(failed)?;
        let program = program.clone();
        if status.success() { Ok(()) } else { Err(Error::Failed { program, status }) }
    }

    fn spawn(
        &self,
        program: &str,
        arguments: &[String],
        term: Term,
    ) -> Result<Child, std::io::Error> {
        let mut options = OpenOptions::new();
        options.create(true).append(true).mode(0o640);
        let out = options.custom_flags(rustix::fs::OFlags::NOFOLLOW.bits() as i32);
        let out = out.open(self.log_file())?;
        let err = out.try_clone()?;
        let mut command = Command::new(program);
        command.args(arguments).current_dir(&self.cwd).env_clear().envs(self.environment(term));
        command.stdin(Stdio::null()).stdout(out).stderr(err).process_group(0);
        if let Some((uid, gid)) = self.user {
            // Also drops root's other groups.
            command.uid(uid).gid(gid);
        }
        command.spawn()
    }

    /// Asks the command to end by its own program.
    ///
    /// # Errors
    /// Why that did not work; the command may end all the same.
    pub async fn ask_to_stop(&self, term: Term) -> Result<(), Error> {
        self.run(&self.stop, term, self.stop_max).await
    }
}
