//! Keeps a witness's promises: it votes and holds no data.
//! In: terms that controllers ask to promise. Out: ballots without a position.
//! Keeps: INV-2 a promise is durable before it is told.

use super::hub::Hub;
use crate::runtime::clock;
use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tandem_core::facts::{Ballot, Data, InstanceFacts};
use tandem_core::ids::{ServiceId, Term};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// The witness of one service.
#[derive(Debug)]
pub struct Witness {
    /// Which service.
    pub service: ServiceId,
    /// What this node knows.
    pub hub: Arc<Hub>,
    /// Where the promise is kept.
    pub path: PathBuf,
    /// Terms that controllers ask to promise.
    pub asks: mpsc::Receiver<Term>,
}

impl Witness {
    /// Promises until `stop`.
    pub async fn run(mut self, stop: CancellationToken) {
        let promised = match load(&self.path) {
            Ok(term) => term,
            Err(error) => {
                // Without its memory it must not vote; the cluster goes on without this vote.
                tracing::error!(service = %self.service, %error, "its promise cannot be read");
                return;
            }
        };
        let mut own = InstanceFacts { data: Data::Witness, promised, ..InstanceFacts::default() };
        own.ballot = (promised > Term(0)).then_some(Ballot { term: promised, position: None });
        self.hub.publish(&self.service, &own, clock::now());
        loop {
            let term = tokio::select! {
                biased;
                () = stop.cancelled() => return,
                term = self.asks.recv() => match term { Some(term) => term, None => return },
            };
            if term > own.promised {
                if let Err(error) = save(&self.path, term) {
                    tracing::error!(service = %self.service, %error, "a promise cannot be kept");
                    continue;
                }
                own.promised = term;
                own.ballot = Some(Ballot { term, position: None });
            }
            self.hub.publish(&self.service, &own, clock::now());
        }
    }
}

fn load(path: &Path) -> std::io::Result<Term> {
    match fs::read_to_string(path) {
        Ok(text) => {
            let invalid = |_| std::io::Error::other("the promise file does not hold a number");
            text.trim().parse().map(Term).map_err(invalid)
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Term(0)),
        Err(error) => Err(error),
    }
}

fn save(path: &Path, term: Term) -> std::io::Result<()> {
    let temporary = path.with_extension("new");
    let mut file = File::create(&temporary)?;
    writeln!(file, "{term}")?;
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    path.parent().map_or(Ok(()), |folder| File::open(folder)?.sync_all())
}
