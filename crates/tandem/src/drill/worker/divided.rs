//! Talks as a copy whose work is divided: it learns from its node what it owns, and works on that.
//! In: the node's long poll. Out: which partition is worked on under which epoch; confirmations.
//! States of a partition: owned → worked on → (asked back) over → its release said.
//! Keeps: INV-13's part of a worker: nothing is written of a partition once its release is said.
//! Not here: the ledger that it writes to (`ledger.rs`), what that proves (`service/pieces.rs`).
//! Tested by: below, the drill itself.

use super::ledger::{Does, Ledger};
use crate::drill::client::Http;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::{sleep, timeout};

/// How long an answer is waited for by the node, and by this.
const WAIT: &str = "5s";
const ANSWER_MAX: Duration = Duration::from_secs(8);
/// A node whose daemon is away, or does not know yet, is asked again after this.
const AGAIN: Duration = Duration::from_millis(5);

/// What it works on.
#[derive(Debug, Default)]
pub struct Works(Mutex<Own>);

#[derive(Debug, Default)]
struct Own {
    /// Under which epoch.
    all: BTreeMap<u32, u64>,
    /// What is sent under that epoch, or a smaller one, was counted by what is over.
    before: u64,
}

/// What a node says that its copy owns.
#[derive(Debug, Deserialize)]
pub(super) struct Told {
    version: u64,
    /// An older release does not say it.
    #[serde(default)]
    before: u64,
    partitions: Vec<ToldPartition>,
}

#[derive(Debug, Deserialize)]
struct ToldPartition {
    id: u32,
    epoch: u64,
    state: String,
}

impl Works {
    fn lock(&self) -> MutexGuard<'_, Own> {
        // Nothing panics while it holds the lock.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes down that it works, and on what. Nothing is released while a line is written.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn beat(&self, ledger: &Ledger) -> io::Result<()> {
        let works = self.lock();
        let pieces = works.all.iter().map(|(id, epoch)| Does::Work { id: *id, epoch: *epoch });
        let all: Vec<Does> = std::iter::once(Does::Beat).chain(pieces).collect();
        ledger.write(&all)
    }

    /// Whether that epoch is of an earlier table: whoever goes by it counts keys otherwise.
    pub fn is_over(&self, epoch: u64) -> bool {
        epoch <= self.lock().before
    }

    /// Writes down that it worked on a request of that partition, if it is its own under that epoch
    /// or a later one, and the epoch is one of the present table. Nothing is released meanwhile.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn serve(&self, (id, epoch): (u32, u64), request: &str, to: &Ledger) -> io::Result<bool> {
        let works = self.lock();
        let takes = |own: &u64| works.before < epoch && epoch <= *own;
        let Some(own) = works.all.get(&id).copied().filter(takes) else {
            return Ok(false);
        };
        to.write(&[Does::Work { id, epoch: own }, Does::Request(request.to_owned())])?;
        Ok(true)
    }

    /// Begins what is its own and ends all else; what it has to say that it released.
    pub(super) fn follow(&self, told: &Told) -> Vec<(u32, u64)> {
        let (owned, other): (Vec<_>, Vec<_>) =
            told.partitions.iter().partition(|it| it.state == "owned");
        let pair = |it: &&ToldPartition| (it.id, it.epoch);
        *self.lock() = Own { all: owned.iter().map(pair).collect(), before: told.before };
        other.iter().map(pair).collect()
    }
}

/// Asks the node again and again, for ever.
pub async fn follow(api: SocketAddr, service: &str, works: &Works) {
    let mut newest = 0;
    loop {
        if let Some(mut http) = Http::connect(api).await {
            let _ = converse(&mut http, service, (works, &mut newest)).await;
        }
        sleep(AGAIN).await;
    }
}

/// Until the connection is of no more use.
async fn converse(
    http: &mut Http,
    service: &str,
    (works, newest): (&Works, &mut u64),
) -> Option<()> {
    let path = format!("/v1/services/{service}/partitions");
    // All of it anew: what was to be confirmed may have got lost with the last connection.
    let mut after = 0;
    loop {
        let asked = format!("{path}?after={after}&wait={WAIT}");
        let answer = timeout(ANSWER_MAX, http.ask("GET", &asked)).await.ok()??;
        if answer.status != 200 {
            sleep(AGAIN).await;
            continue;
        }
        let told: Told = serde_json::from_str(&answer.body).ok()?;
        after = told.version;
        if told.version < *newest {
            // It is older than what is known.
            continue;
        }
        *newest = told.version;
        for (id, epoch) in works.follow(&told) {
            let json = format!("{{\"epoch\":{epoch}}}");
            let path = format!("{path}/{id}/release");
            timeout(ANSWER_MAX, http.say("POST", &path, &json)).await.ok()??;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::ledger;
    use super::*;

    fn told(version: u64, partitions: &[(u32, u64, &str)]) -> Told {
        let all = partitions.iter().map(|(id, epoch, state)| ToldPartition {
            id: *id,
            epoch: *epoch,
            state: (*state).to_owned(),
        });
        Told { version, before: 0, partitions: all.collect() }
    }

    #[test]
    fn what_is_asked_back_is_over_before_that_is_said() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ledger");
        let (own, works) = (Ledger::open(&path, "a", 1).unwrap(), Works::default());
        let first = told(1, &[(0, 1, "owned"), (3, 7, "owned")]);
        assert_eq!(works.follow(&first), []);
        works.beat(&own).unwrap();
        let second = told(2, &[(0, 1, "releasing"), (3, 7, "owned")]);
        assert_eq!(works.follow(&second), [(0, 1)]);
        works.beat(&own).unwrap();
        let did: Vec<Does> =
            ledger::read(&path, 0).unwrap().0.into_iter().map(|it| it.does).collect();
        let work = |id, epoch| Does::Work { id, epoch };
        assert_eq!(did, [Does::Beat, work(0, 1), work(3, 7), Does::Beat, work(3, 7)]);
    }

    #[test]
    fn only_what_is_its_own_is_served() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ledger");
        let (own, works) = (Ledger::open(&path, "a", 1).unwrap(), Works::default());
        let serves = |id, epoch| works.serve((id, epoch), "r.1.1", &own).unwrap();
        works.follow(&told(1, &[(0, 2, "owned"), (1, 1, "owned")]));
        assert!(serves(0, 2) && serves(0, 1), "an earlier epoch was its own, or another's");
        assert!(!serves(0, 3), "its door knows more than it does");
        assert!(!serves(5, 1));
        works.follow(&told(2, &[(0, 2, "releasing"), (1, 1, "owned")]));
        assert!(!serves(0, 2) && serves(1, 1));
        works.follow(&Told { before: 4, ..told(3, &[(1, 6, "owned")]) });
        assert!(!serves(1, 4), "its door counts as before");
        let lines = ledger::read(&path, 0).unwrap().0;
        assert_eq!(lines.len(), 6, "a piece of work and a request each: {lines:?}");
        assert_eq!(lines[0].does, Does::Work { id: 0, epoch: 2 });
        assert_eq!(lines[1].does, Does::Request("r.1.1".into()));
    }

    #[test]
    fn what_a_node_says_is_read() {
        let text = r#"{"service":"work","node":"a","term":3,"version":12,"lease_ms":812,
            "before":1,"partitions":[{"id":7,"epoch":2,"state":"releasing","deadline_ms":9200}]}"#;
        let told: Told = serde_json::from_str(text).unwrap();
        assert_eq!((told.version, told.before), (12, 1));
        assert_eq!(Works::default().follow(&told), [(7, 2)]);
        let of_an_older_release: Told =
            serde_json::from_str(&text.replace("\"before\":1,", "")).unwrap();
        assert_eq!(of_an_older_release.before, 0, "none is refused");
    }
}
