//! Talks to PostgreSQL's programs as child processes: each in its own process group, gone when the
//! caller gives up.
//! In: a program and its arguments. Out: what it printed, line by line.
//! Not here: the postmaster, whose parent is the keeper.

use super::super::{Error, Postgres, RunAs};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use tokio::io::{AsyncBufReadExt as _, AsyncRead, AsyncWriteExt as _, BufReader};
use tokio::process::Command;

/// Output that is kept for an error.
const OUTPUT_BYTES_MAX: usize = 16 * 1024;

/// The whole environment of everything of PostgreSQL: its messages are parsed, so they must not be
/// translated, and PGHOST and the like of the daemon's own must not lead it elsewhere.
pub(in super::super) fn environment() -> Vec<(OsString, OsString)> {
    let mut env = vec![("LC_ALL".into(), "C".into())];
    for name in ["PATH", "LD_LIBRARY_PATH", "TZ", "TZDIR", "TMPDIR"] {
        env.extend(std::env::var_os(name).map(|value| (name.into(), value)));
    }
    env
}

/// What a program left behind.
pub(in super::super) struct Finished {
    pub(super) status: ExitStatus,
    pub(super) output: String,
}

impl Finished {
    pub(in super::super) fn ok(self, tool: &'static str) -> Result<String, Error> {
        if self.status.success() {
            return Ok(self.output);
        }
        let start = self.output.len().saturating_sub(2000);
        let start = (start..=self.output.len()).find(|i| self.output.is_char_boundary(*i));
        let tail = self.output.get(start.unwrap_or(0)..).unwrap_or_default().trim();
        Err(Error::Tool { tool, output: tail.lines().collect::<Vec<_>>().join("; ") })
    }
}

/// Kills the whole group: pg_basebackup has a child of its own that receives WAL.
struct Group(Option<Pid>);

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(group) = self.0 {
            let _ = killpg(group, Signal::SIGKILL);
        }
    }
}

impl Postgres {
    /// Runs a program to its end, or until this future is dropped.
    pub(in super::super) async fn run<I>(
        &self,
        tool: &'static str,
        arguments: I,
    ) -> Result<Finished, Error>
    where
        I: IntoIterator<Item: AsRef<OsStr>>,
    {
        self.run_watched(tool, arguments, "", |_| {}).await
    }

    /// As `run`, with something on standard input and each line of output shown to `watch`.
    pub(super) async fn run_watched<I, W>(
        &self,
        tool: &'static str,
        arguments: I,
        input: &str,
        mut watch: W,
    ) -> Result<Finished, Error>
    where
        I: IntoIterator<Item: AsRef<OsStr>>,
        W: FnMut(&str),
    {
        let path = self.config().binaries.tool(tool);
        let mut command = command(&path, &self.config().dir, self.config().run_as);
        let mut child = command.args(arguments).spawn().map_err(Error::file("run", &path))?;
        let mut group = Group(child.id().and_then(|id| i32::try_from(id).ok()).map(Pid::from_raw));
        let (stdin, stdout, stderr) =
            (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let mut output = String::new();
        let mut lines = Vec::new();
        let feed = async {
            if let Some(mut stdin) = stdin {
                // A program that does not read its input says why by its exit status.
                let _ = stdin.write_all(input.as_bytes()).await;
            }
        };
        let mut keep = |line: String| {
            watch(&line);
            if output.len() + line.len() < OUTPUT_BYTES_MAX {
                output.push_str(&line);
                output.push('\n');
            } else {
                lines.push(line);
                // Of what is too long, the end says why it failed.
                let excess = lines.len().saturating_sub(40);
                lines.drain(..excess);
            }
        };
        let (sender, mut receiver) = tokio::sync::mpsc::channel(64);
        let read = async {
            tokio::join!(feed, forward(stdout, sender.clone()), forward(stderr, sender));
        };
        let collect = async {
            while let Some(line) = receiver.recv().await {
                keep(line);
            }
        };
        tokio::join!(read, collect);
        let status = child.wait().await.map_err(Error::file("wait for", &path))?;
        group.0 = None;
        output.extend(lines.iter().flat_map(|line| [line.as_str(), "\n"]));
        Ok(Finished { status, output })
    }
}

async fn forward(source: Option<impl AsyncRead + Unpin>, lines: tokio::sync::mpsc::Sender<String>) {
    let Some(source) = source else { return };
    let mut reader = BufReader::new(source);
    let mut line = Vec::new();
    // pg_basebackup ends a line of progress with either of the two.
    while let Ok(1..) = reader.read_until(b'\n', &mut line).await {
        for part in String::from_utf8_lossy(&line).split(['\r', '\n']).filter(|p| !p.is_empty()) {
            if lines.send(part.to_owned()).await.is_err() {
                return;
            }
        }
        line.clear();
    }
}

fn command(path: &Path, cwd: &Path, run_as: Option<RunAs>) -> Command {
    let mut command = Command::new(path);
    command
        .env_clear()
        .envs(environment())
        .current_dir(cwd)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true);
    if let Some(RunAs { uid, gid }) = run_as {
        command.uid(uid).gid(gid);
    }
    command
}
