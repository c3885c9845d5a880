//! Carries out what a witness decides: it promises and votes, and holds no data.
//! In: terms that controllers ask to promise. Out: ballots without a position.
//! Keeps: INV-2 a promise is durable before it is told; INV-1 a ballot waits until no lease can
//! rest on what this node answered before it promised.
//! Not here: the decisions (`tandem_core::clustering::active_passive::witness`).
//! Tested by: `witness/tests.rs`.

use super::hub::Hub;
use crate::consensus::Agreed;
use crate::runtime::clock;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tandem_core::cluster::lease;
use tandem_core::cluster::memory::Memory;
use tandem_core::cluster::state::ClusterState;
use tandem_core::clustering::active_passive::witness::{Next, WitnessView, plan};
use tandem_core::facts::{Data, InstanceFacts};
use tandem_core::ids::{NodeId, ServiceId, Term};
use tandem_core::time::Timestamp;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

#[cfg(test)]
mod tests;

/// The witness of one service.
#[derive(Debug)]
pub struct Witness {
    /// Which service.
    pub service: ServiceId,
    /// What this node knows.
    pub hub: Arc<Hub>,
    /// What is agreed.
    pub agreed: watch::Receiver<Agreed>,
    /// Where the promise is kept.
    pub path: PathBuf,
    /// Terms that controllers ask to promise.
    pub asks: mpsc::Receiver<Term>,
}

impl Witness {
    /// Promises until `stop`.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut memory = Memory::new(clock::now());
        let promised = match load(&self.path) {
            Ok(term) => term,
            Err(error) => {
                // Without its memory it must not vote; the cluster goes on without this vote.
                tracing::error!(service = %self.service, %error, "its promise cannot be read");
                return;
            }
        };
        let mut own = InstanceFacts { data: Data::Witness, promised, ..InstanceFacts::default() };
        let mut answered = self.hub.answered_all();
        let mut asked = None;
        loop {
            let agreed = self.agreed.borrow_and_update().clone();
            if memory.learn(&agreed.state, &self.service, clock::now()) {
                answered = self.hub.answered_all();
                own.ballot = None;
                asked = None;
            }
            let counts_from = self.counts_from(&agreed.state, (&answered, &memory), &mut own);
            self.hub.publish(&self.service, &own, clock::now());
            self.hub.goes_by(&self.service, agreed.state.config_version, own.is_leaving);
            let (promised, ballot) = (own.promised, own.ballot);
            let view = WitnessView { asked, promised, ballot, counts_from };
            let again = match plan(&view, clock::now()) {
                Next::Promise { term } => {
                    if let Err(error) = save(&self.path, term) {
                        tracing::error!(service = %self.service, %error, "no promise can be kept");
                        asked = None;
                        continue;
                    }
                    own.promised = term;
                    // Told first: whatever is answered from now on supports no older lease.
                    self.hub.publish(&self.service, &own, clock::now());
                    answered = self.hub.answered_all();
                    continue;
                }
                Next::Vote(ballot) => {
                    own.ballot = Some(ballot);
                    continue;
                }
                Next::Wait(again) => again,
            };
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                term = self.asks.recv() => match term {
                    Some(term) => asked = asked.max(Some(term)),
                    None => return,
                },
                result = self.agreed.changed() => if result.is_err() { return },
                () = until(again) => {}
            }
        }
    }

    /// From when on a ballot counts, by what was answered before the promise; also takes over what
    /// is agreed. For good where nothing is agreed yet: whom it supported is not known.
    fn counts_from(
        &self,
        agreed: &ClusterState,
        (answered, memory): (&BTreeMap<NodeId, Timestamp>, &Memory),
        own: &mut InstanceFacts,
    ) -> Option<Timestamp> {
        let spec = agreed.spec.services.get(&self.service);
        let state = agreed.services.get(&self.service);
        own.outlives = memory.outlives();
        own.is_leaving = memory.leaving().is_some();
        let (Some(spec), Some(state)) = (spec, state) else { return Some(Timestamp(u64::MAX)) };
        own.revision = state.revision;
        own.outlives = lease::outlives(spec, state);
        lease::counts_from(spec, state, answered, memory.since())
    }
}

/// Sleeps until that moment of the own clock; for good if there is none.
async fn until(moment: Option<Timestamp>) {
    match moment {
        Some(moment) => tokio::time::sleep(moment.since(clock::now())).await,
        None => std::future::pending().await,
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
