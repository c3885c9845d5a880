//! Tells what happens to the cluster: records the differences between two looks as events.
//! In: looks at agreed state and facts. Out: `Draft`s, in the order of their causes.
//! Every class of failure has its event: postmaster (`instance.exited`), node (`node.died`),
//! silence (`node.silent`), hung (`instance.hung`), disk (`disk.stuck`, `disk.full`), connections
//! (`connections.used_up`), link (`link.cut`), planned (`switchover.started`); `failover.started`
//! and `failover.done` name the cause they acted on, as the planner judged it.
//! Each node tells what it sees itself, so one happening may be told by several nodes.
//! Keeps: a node that starts tells nothing of what was before it, nor of the log that it reads
//! after it joined: what was agreed long ago would be judged by what the others say today.
//! Not here: what only the driver of an instance knows (`driver/instance/told.rs`).
//! Tested by: `../tests/watcher.rs`.

mod agreed;
pub(super) mod endpoints;
mod failover;
mod instances;
mod nodes;

use super::NodeOperations;
use super::seen::Seen;
use crate::proxy::DoorCounters;
use crate::runtime::clock;
use crate::runtime::supervisor::TaskKind;
use crate::telemetry::event_kind::EventKind;
use crate::telemetry::events::Draft;
use endpoints::Endpoints;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::PoisonError;
use std::time::Duration;
use tandem_core::facts::NodeFacts;
use tandem_core::ids::{ConfigVersion, NodeId, ServiceId};
use tandem_core::time::Timestamp;
use tokio_util::sync::CancellationToken;

/// How often to look when nothing changes: silence has no other sign.
const TICK: Duration = Duration::from_millis(500);
/// Between two looks, however much changes.
const SPACING: Duration = Duration::from_millis(5);

/// What was seen at the last look, and what lasts over several.
#[derive(Debug, Default)]
pub(super) struct Watcher {
    before: Option<Seen>,
    /// When the first look was: older history is not told.
    since_unix_ms: u64,
    services: BTreeMap<ServiceId, failover::Memory>,
    cut: BTreeSet<(NodeId, NodeId)>,
    doors: BTreeMap<ServiceId, DoorCounters>,
    /// What of the configuration was not in force here.
    waits: Vec<String>,
}

impl Watcher {
    /// Something was looked at.
    pub(super) fn has_begun(&self) -> bool {
        self.before.is_some()
    }

    /// What happened since the last look.
    pub(super) fn look(&mut self, after: Seen) -> Vec<Draft> {
        let mut drafts = Vec::new();
        if self.before.is_none() && !has_caught_up(&after) {
            return drafts;
        }
        if let Some(before) = &self.before {
            drafts.extend(nodes::changes(before, &after));
            drafts.extend(instances::changes(before, &after));
            drafts.extend(agreed::changes(before, &after));
            drafts.extend(agreed::history(before, &after, self.since_unix_ms));
        } else {
            self.since_unix_ms = after.unix_ms.saturating_sub(1000);
        }
        for service in after.services() {
            let before = self.before.as_ref().and_then(|seen| seen.service(service.name));
            let memory = self.services.entry(service.name.clone()).or_default();
            drafts.extend(memory.look(before, service, self.since_unix_ms));
        }
        drafts.extend(nodes::cuts(&mut self.cut, &after));
        self.before = Some(after);
        drafts
    }

    /// What of the agreed configuration begins to wait here, and that nothing does any more.
    pub(super) fn look_at_waits(
        &mut self,
        version: ConfigVersion,
        now: Vec<String>,
    ) -> Option<Draft> {
        let before = std::mem::replace(&mut self.waits, now);
        let is_new = |it: &&String| !before.contains(it);
        let new: Vec<String> = self.waits.iter().filter(is_new).cloned().collect();
        let draft = |kind, message| {
            Draft::new(kind, message).field("config_version", version.0).field("waits", new.clone())
        };
        if !new.is_empty() {
            let message = format!("parts of the configuration wait here: {}", new.join("; "));
            return Some(draft(EventKind::ConfigHeldUp, message));
        }
        let is_over = !before.is_empty() && self.waits.is_empty();
        let message = "nothing of the configuration waits here any more".to_owned();
        is_over.then(|| draft(EventKind::ConfigCarriedOut, message))
    }

    /// What happened at this node's front doors.
    pub(super) fn look_at_doors(&mut self, now: BTreeMap<ServiceId, DoorCounters>) -> Vec<Draft> {
        let mut drafts = Vec::new();
        for (service, counters) in &now {
            let before = self.doors.get(service).copied().unwrap_or_default();
            let draft = |kind, message: String| Draft::new(kind, message).service(service);
            match (before.held, counters.held) {
                (0, 1..) => drafts.push(
                    draft(EventKind::DoorHeld, "sessions wait for a primary".to_owned())
                        .field("held", counters.held),
                ),
                (1.., 0) => {
                    let message = "no session waits any more".to_owned();
                    drafts.push(draft(EventKind::DoorReleased, message));
                }
                (_, _) => {}
            }
            let cut = counters.cut.saturating_sub(before.cut);
            if cut > 0 {
                let message = format!("{cut} sessions were cut: their server is not the right one");
                drafts.push(draft(EventKind::DoorCut, message).field("sessions", cut));
            }
        }
        self.doors = now;
        drafts
    }
}

/// Whether this node knows all that was agreed, as far as the leader and the others tell. Asked
/// until it is so once: later on everybody lags behind for moments.
fn has_caught_up(seen: &Seen) -> bool {
    let agreed = &seen.agreed;
    let hears_leader =
        seen.leadership.leader.as_ref().is_some_and(|leader| seen.fresh(leader).is_some());
    let is_behind = |facts: &NodeFacts| {
        facts.config_version > agreed.config_version
            || facts.instances.iter().any(|(service, own)| {
                let known = agreed.services.get(service).map(|state| state.revision);
                known.unwrap_or_default() < own.revision
            })
    };
    agreed.config_version > ConfigVersion(0)
        && hears_leader
        && !seen.facts.keys().filter_map(|node| seen.fresh(node)).any(is_behind)
}

impl NodeOperations {
    /// Records what happens, until the node stops.
    pub(in crate::node) fn watch(&self) {
        let message = format!("the daemon of {} runs", self.ground().me);
        let version = env!("CARGO_PKG_VERSION");
        let started = Draft::new(EventKind::DaemonStarted, message).field("version", version);
        self.ground().events.record(started);
        let stop = self.ground().supervisor.stopping();
        let watching = self.clone().keep_watching(stop);
        self.ground().supervisor.spawn("events", TaskKind::Essential, watching);
    }

    async fn keep_watching(self, stop: CancellationToken) {
        let ground = self.ground();
        let mut changed = ground.hub.changed();
        let mut agreed = ground.consensus.state();
        let mut leadership = ground.consensus.leadership();
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let (mut watcher, mut doors) = (Watcher::default(), Endpoints::default());
        let mut looked_at = Timestamp(0);
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                result = changed.changed() => if result.is_err() { break },
                result = agreed.changed() => if result.is_err() { break },
                result = leadership.changed() => if result.is_err() { break },
                _ = ticks.tick() => {}
            }
            let seen = self.seen();
            let is_draining = seen.agreed.draining.contains(&ground.me);
            let applied = ground.applied.borrow().clone();
            ground.hub.configured(applied.version, is_draining);
            let waits = watcher.look_at_waits(seen.agreed.config_version, applied.waits);
            // Before that, what is agreed is old: it is read after a start.
            let moves = if watcher.has_begun() { self.look_at_rounds(&seen) } else { Vec::new() };
            let drafts = watcher.look(seen);
            for draft in drafts
                .into_iter()
                .chain(moves)
                .chain(waits)
                .chain(watcher.look_at_doors(self.door_counters()))
            {
                ground.events.record(draft);
            }
            let now = clock::now();
            if now.since(looked_at) >= endpoints::LOOK {
                looked_at = now;
                self.look_at_endpoints(&mut doors, now);
            }
            tokio::time::sleep(SPACING).await;
        }
        let message = format!("the daemon of {} ends", ground.me);
        ground.events.record(Draft::new(EventKind::DaemonStopping, message));
    }

    /// What became of partitions.
    fn look_at_rounds(&self, seen: &Seen) -> Vec<Draft> {
        self.inner.rounds.lock().unwrap_or_else(PoisonError::into_inner).look(seen)
    }

    /// What happened at the doors that spread their work.
    fn look_at_endpoints(&self, doors: &mut Endpoints, now: Timestamp) {
        let ground = self.ground();
        let drafts = doors.look(now, &ground.doors_of_endpoints());
        let cuts = ground.balancers.cuts();
        let cuts = cuts.iter().map(|(service, cut)| endpoints::cut(service, cut));
        for draft in drafts.into_iter().chain(cuts) {
            ground.events.record(draft);
        }
    }

    fn door_counters(&self) -> BTreeMap<ServiceId, DoorCounters> {
        let mut all: BTreeMap<ServiceId, DoorCounters> = BTreeMap::new();
        for (service, door) in self.ground().doors.iter() {
            let (sum, more) = (all.entry(service.clone()).or_default(), door.counters());
            sum.held += more.held;
            sum.cut += more.cut;
        }
        all
    }
}
