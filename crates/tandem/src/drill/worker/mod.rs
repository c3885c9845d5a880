//! Talks as a service would that a drill runs: it beats, answers, and writes down all that it does.
//! In: `Arguments`. Out: lines of a ledger that all copies share; answers to requests.
//! States: Started → beating and answering → (SIGTERM; who started it is gone) Stopped.
//! It is in the product so that a drill needs nothing but the product.
//! Where its work is divided it works on what its node says that it owns.
//! Not here: what the lines prove (`service/judge.rs`, `service/pieces.rs`).
//! Tested by: below, `ledger.rs`, `http.rs`, `divided.rs`, the drill itself.

mod divided;
mod http;
mod ledger;

pub use http::{Behaviour, serve};
pub use ledger::{Does, Ledger, Line, end, read};

use crate::runtime::signals;
use crate::runtime::supervisor::{Supervisor, TaskKind};
use clap::Parser;
use divided::Works;
use http::Divided;
use std::ffi::OsString;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe::Receiver;

/// Often enough that a gap of 10 ms shows.
const BEAT: Duration = Duration::from_millis(5);
/// Sessions end at once.
const STOP_MAX: Duration = Duration::from_secs(2);

/// What `tandem drill-service` is told.
#[derive(Clone, Debug, Parser)]
pub struct Arguments {
    /// Where every copy writes what it does.
    #[arg(long)]
    pub ledger: PathBuf,
    /// Where it answers requests.
    #[arg(long)]
    pub listen: Option<SocketAddr>,
    /// Who it is.
    #[arg(long, env = "TANDEM_NODE", default_value = "none")]
    pub name: String,
    /// In which term it was started.
    #[arg(long, env = "TANDEM_TERM", default_value_t = 0)]
    pub term: u64,
    /// Whether its work is divided.
    #[arg(long)]
    pub divided: bool,
    /// Into how many partitions.
    #[arg(long, env = "TANDEM_PARTITIONS", default_value_t = 0)]
    pub partitions: u32,
    /// Of which service it is a copy.
    #[arg(long, env = "TANDEM_SERVICE", default_value = "none")]
    pub service: String,
    /// Where its node says what it owns.
    #[arg(long, env = "TANDEM_API", default_value = "")]
    pub api: String,
    /// Ends once its stdin does, a pipe of whoever started it.
    #[arg(long)]
    pub attended: bool,
}

/// Why it ended too early.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the messages say it")]
pub enum Error {
    #[error(transparent)]
    Arguments(#[from] clap::Error),
    #[error("cannot write {path}")]
    Ledger { path: PathBuf, source: std::io::Error },
    #[error("cannot listen on {address}")]
    Listen { address: SocketAddr, source: std::io::Error },
    #[error("TANDEM_API is {api:?}, which is no http://ADDRESS:PORT")]
    Api { api: String },
    #[error("stdin is no pipe")]
    Stdin { source: std::io::Error },
    #[error("cannot start")]
    Runtime { source: std::io::Error },
}

/// Works until it is asked to end.
///
/// # Errors
/// It cannot listen, or write down what it does.
pub fn run(arguments: &[OsString]) -> Result<(), Error> {
    let program = std::iter::once(OsString::from("drill-service"));
    let arguments = Arguments::try_parse_from(program.chain(arguments.iter().cloned()))?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|source| Error::Runtime { source })?;
    let stdin = arguments.attended.then(|| std::io::stdin().as_fd().try_clone_to_owned());
    let stdin = stdin.transpose().map_err(|source| Error::Stdin { source })?;
    runtime.block_on(work(arguments, stdin))
}

async fn work(arguments: Arguments, stdin: Option<OwnedFd>) -> Result<(), Error> {
    let Arguments { ledger: path, listen, name, term, divided, service, api, partitions, .. } =
        arguments;
    let stdin = stdin.map(Receiver::from_owned_fd).transpose();
    let mut stdin = stdin.map_err(|source| Error::Stdin { source })?;
    let unwritable = |source| Error::Ledger { path: path.clone(), source };
    let ledger = Arc::new(Ledger::open(&path, &name, term).map_err(unwritable)?);
    let (tasks, works) = (Supervisor::new(), Arc::new(Works::default()));
    if let Some(address) = listen {
        let listener = tokio::net::TcpListener::bind(address)
            .await
            .map_err(|source| Error::Listen { address, source })?;
        let own = divided.then(|| Divided { works: Arc::clone(&works), count: partitions });
        let serving = http::serve(listener, Arc::clone(&ledger), own, tasks.clone());
        tasks.spawn("drill service", TaskKind::Session, serving);
    }
    if divided {
        let place = api.strip_prefix("http://").and_then(|place| place.parse().ok());
        let place: SocketAddr = place.ok_or(Error::Api { api })?;
        let (works, stop) = (Arc::clone(&works), tasks.stopping());
        tasks.spawn("drill partitions", TaskKind::Session, async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = divided::follow(place, &service, &works) => {}
            }
        });
    }
    ledger.write(&[Does::Start]).map_err(unwritable)?;
    let beating = async {
        let mut beat = tokio::time::interval(BEAT);
        beat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            beat.tick().await;
            works.beat(&ledger)?;
        }
    };
    let beaten: Result<(), std::io::Error> = tokio::select! {
        () = signals::asked_to_stop() => Ok(()),
        () = left(stdin.as_mut()) => Ok(()),
        ended = beating => ended,
    };
    beaten.map_err(unwritable)?;
    // What is under way breaks off, as with a service that knows of no order: that nobody notices
    // is the work of those who send requests here.
    ledger.write(&[Does::Stop]).map_err(unwritable)?;
    tasks.stop(STOP_MAX).await;
    Ok(())
}

/// Once whoever started this is gone, however that ended: nobody else would end it, and it writes
/// as long as it runs.
async fn left(stdin: Option<&mut Receiver>) {
    let Some(stdin) = stdin else { return std::future::pending().await };
    let mut said = [0; 64];
    while stdin.read(&mut said).await.is_ok_and(|length| length > 0) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn it_ends_with_whoever_started_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ledger");
        let words = ["drill-service", "--attended", "--name", "x", "--ledger"];
        let words = words.into_iter().map(OsString::from).chain([path.clone().into()]);
        let arguments = Arguments::try_parse_from(words).unwrap();
        let (theirs, ours) = std::io::pipe().unwrap();
        let working = work(arguments, Some(theirs.into()));
        let watching = async {
            let is_at_work = || !read(&path, 0).unwrap().0.is_empty();
            super::super::testing::until("it works", is_at_work).await;
            drop(ours);
        };
        let both = async { tokio::join!(working, watching).0 };
        tokio::time::timeout(Duration::from_secs(20), both).await.unwrap().unwrap();
        let last = read(&path, 0).unwrap().0.pop().unwrap();
        assert_eq!(last.does, Does::Stop);
    }
}
