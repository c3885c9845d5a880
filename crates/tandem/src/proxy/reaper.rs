//! Talks to open sessions when the routes change or expire: cuts those that may not stay.
//! In: `Routes`, the clock. Out: cuts.
//! Keeps: H2 and H41, no session outlives the proof that its primary is the primary, by more than
//! one `tick`; the clock counts through a suspend (H4). Should this task ever end, the door closes
//! with it: sessions without a reaper would be worse than none.
//! Not here: the rules (`routes.rs`).
//! Tested by: `tests/cut.rs`.

use super::Mode;
use super::listener::Shared;
use super::registry::Cut;
use super::routes::Verdict;
use crate::runtime::clock;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use tandem_core::ids::{NodeId, Term};
use tandem_core::time::Timestamp;
use tokio::time::{sleep, timeout};

/// Runs until the door stops.
pub(super) async fn run(shared: Arc<Shared>) {
    let _door_ends_with_this = shared.stop.clone().drop_guard();
    let mut reaper = Reaper { shared: &shared, missing: BTreeMap::new(), judged: None };
    let mut routes = shared.routes.clone();
    loop {
        routes.mark_unchanged();
        reaper.sweep(clock::now());
        let change = async {
            if let Ok(Err(_)) = timeout(shared.limits.tick, routes.changed()).await {
                sleep(shared.limits.tick).await;
            }
        };
        tokio::select! {
            biased;
            () = shared.stop.cancelled() => return shared.cut_all(),
            () = change => {}
        }
    }
}

struct Reaper<'a> {
    shared: &'a Shared,
    /// Nodes with sessions that are not listed, and since when.
    missing: BTreeMap<NodeId, Timestamp>,
    /// What the last verdicts rested on.
    judged: Option<Grounds>,
}

/// All that a verdict depends on besides the session: while it stays the same, so do the verdicts,
/// and thousands of sessions need no look at every heartbeat. New ones look for themselves.
#[derive(PartialEq)]
struct Grounds {
    term: Term,
    primary: Option<NodeId>,
    replicas: Vec<NodeId>,
    not_heard: bool,
}

impl Reaper<'_> {
    fn sweep(&mut self, now: Timestamp) {
        let shared = self.shared;
        let routes = Arc::clone(&shared.routes.borrow());
        let view = shared.view(&routes);
        let not_heard = routes.valid_until.is_some_and(|until| view.now >= until);
        let grounds = Grounds {
            term: view.term_seen,
            primary: routes.primary.as_ref().map(|target| target.node.clone()),
            replicas: routes.replicas.iter().map(|r| r.target.node.clone()).collect(),
            not_heard,
        };
        let same = self.judged.as_ref() == Some(&grounds);
        if same && !not_heard && self.missing.is_empty() {
            return;
        }
        self.judged = Some(grounds);
        let mut missing = BTreeMap::new();
        let mut cut = 0;
        shared.registry.for_each(|entry| {
            let node = &entry.claim.target.node;
            let reason = match view.judge(shared.config.mode, &entry.claim) {
                Verdict::Stay => return,
                Verdict::Cut if not_heard => Cut::NotHeard,
                Verdict::Cut => Cut::Moved,
                Verdict::Missing => {
                    let since = self.missing.get(node).copied().unwrap_or(now);
                    missing.insert(node.clone(), since);
                    if now.since(since) < shared.limits.replica_missing {
                        return;
                    }
                    if not_heard { Cut::NotHeard } else { Cut::ReplicaGone }
                }
            };
            cut += u64::from(entry.cut(reason));
        });
        self.missing = missing;
        if cut > 0 {
            shared.tally.cut.fetch_add(cut, Ordering::Relaxed);
            let (service, term) = (&shared.config.service, routes.term);
            let door = if shared.config.mode == Mode::Write { "write" } else { "read" };
            tracing::info!(%service, %term, door, cut, not_heard, "sessions cut");
        }
    }
}
