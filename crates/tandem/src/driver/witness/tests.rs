//! A witness promises at once, and votes once no lease can rest on what it answered.

use super::*;
use std::time::Duration;
use tandem_core::cluster::state::{Appointment, ClusterState, Phase, ServiceState};
use tandem_core::pairing::{Clustering, Kind, Pairing, Replication};
use tandem_core::spec::{ClusterSpec, Durability, ServiceSpec, Timing};

const LIMIT: Duration = Duration::from_secs(20);
const LOSSY: Durability = Durability::Async { lag_bytes_max: 1, lag_max: Duration::MAX };
const LEASE: Duration = Duration::from_millis(400);
const MARGIN: Duration = Duration::from_millis(50);

fn agreed(durability: Durability) -> Agreed {
    let pairing =
        Pairing::new(Kind::Postgres, Clustering::ActivePassive, Replication::PrimaryReplica)
            .unwrap();
    let timing = Timing { lease: LEASE, drift_margin: MARGIN, ..Timing::default() };
    let spec = ServiceSpec::new(pairing, durability, timing);
    let appointment =
        Appointment { term: Term(3), primary: "a".into(), rules: Vec::new(), phase: Phase::Active };
    let service = ServiceState { appointment: Some(appointment), ..ServiceState::default() };
    let spec = ClusterSpec { services: [("orders".into(), spec)].into(), ..ClusterSpec::default() };
    let state = ClusterState {
        spec,
        services: [("orders".into(), service)].into(),
        ..ClusterState::default()
    };
    Agreed { state: Arc::new(state), index: 1 }
}

struct Running {
    hub: Arc<Hub>,
    asks: mpsc::Sender<Term>,
    agreed: watch::Sender<Agreed>,
    _dir: tempfile::TempDir,
    stop: CancellationToken,
    task: futures::future::RemoteHandle<()>,
}

fn start(durability: Option<Durability>, kept: Option<u64>) -> Running {
    use futures::FutureExt as _;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("promised");
    if let Some(term) = kept {
        save(&path, Term(term)).unwrap();
    }
    let none = Agreed { state: Arc::default(), index: 0 };
    let (agreed, watch_agreed) = watch::channel(durability.map_or(none, super::tests::agreed));
    let (asks, receiver) = mpsc::channel(4);
    let hub = Arc::new(Hub::new("w".into()));
    let witness = Witness {
        service: "orders".into(),
        hub: hub.clone(),
        agreed: watch_agreed,
        path,
        asks: receiver,
    };
    let stop = CancellationToken::new();
    let (work, task) = witness.run(stop.clone()).remote_handle();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(work);
    });
    Running { hub, asks, agreed, _dir: dir, stop, task }
}

impl Running {
    async fn until(&self, holds: impl Fn(&InstanceFacts) -> bool) -> Timestamp {
        let mut changed = self.hub.changed();
        let wait = async {
            loop {
                let own = self.hub.own().instances.get(&ServiceId::from("orders")).cloned();
                if own.as_ref().is_some_and(&holds) {
                    return clock::now();
                }
                changed.changed().await.unwrap();
            }
        };
        tokio::time::timeout(LIMIT, wait).await.unwrap()
    }

    async fn end(self) {
        self.stop.cancel();
        self.task.await;
    }
}

fn voted(own: &InstanceFacts) -> bool {
    own.ballot.is_some_and(|ballot| ballot.term == own.promised)
}

#[tokio::test]
async fn an_async_ballot_comes_after_the_lease_and_the_promise_before() {
    let witness = start(Some(LOSSY), None);
    witness.until(|own| own.outlives == Some(Term(3))).await;
    let answered = clock::now();
    witness.hub.answered(&"a".into());
    witness.asks.send(Term(4)).await.unwrap();
    witness.until(|own| own.promised == Term(4)).await;
    assert!(clock::now() < answered.plus(LEASE), "the promise was told late, or the machine hangs");
    let at = witness.until(voted).await;
    assert!(at >= answered.plus(LEASE).plus(MARGIN), "voted {:?} after", at.since(answered));
    witness.end().await;
}

#[tokio::test]
async fn a_restarted_witness_waits_for_what_it_may_have_answered() {
    let began = clock::now();
    let witness = start(Some(LOSSY), Some(7));
    let at = witness.until(voted).await;
    assert!(at >= began.plus(LEASE).plus(MARGIN), "voted {:?} after", at.since(began));
    witness.end().await;
}

#[tokio::test]
async fn where_promises_fence_it_votes_at_once_but_not_before_anything_is_agreed() {
    let witness = start(None, Some(7));
    witness.until(|own| own.promised == Term(7) && own.ballot.is_none()).await;
    witness.agreed.send_replace(agreed(Durability::Quorum { acks: 1 }));
    witness.until(voted).await;
    witness.end().await;
}
