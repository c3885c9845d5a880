//! Tells what becomes of partitions: a round of moves begins, and ends.
//! In: looks at what is agreed. Out: `Draft`s; how often a node was given one, since when one has
//! been releasing.
//! States of a round: none → (a partition is asked back, or changes hands) under way → (every
//! partition has an owner that lives, and none is releasing) none.
//! Keeps: what is told is bounded: when a round begins, what was asked first; the rest when it
//! ends, or nothing has changed for a while: one event of each kind, however many moved.
//! Not here: who owns what (`divided.rs`), that a copy was ended for it (`driver/seats.rs`).
//! Tested by: `tests/divided.rs`, `tests/partitions`.

use super::super::seen::{Seen, ServiceSeen};
use crate::api::metrics::Moves;
use crate::telemetry::event_kind::EventKind;
use crate::telemetry::events::Draft;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use tandem_core::cluster::partitions::{Owner, Partition, Partitions};
use tandem_core::cluster::ranges::ranges;
use tandem_core::clustering::active_active::controller::is_lost;
use tandem_core::ids::{Epoch, NodeId, PartitionId, Revision, ServiceId};
use tandem_core::time::Timestamp;

/// A round in which nothing has changed for so long is told as far as it has come.
const QUIET: Duration = Duration::from_secs(1);
/// So is one in which something changes all the time.
const LONG: Duration = Duration::from_secs(10);
/// More ranges of partitions, or more pairs of nodes, in one event help nobody.
const NAMED_MAX: usize = 20;

/// What became of the partitions of every service.
#[derive(Debug, Default)]
pub(in crate::node::operations) struct Rounds(BTreeMap<ServiceId, Watched>);

#[derive(Debug)]
struct Watched {
    table: Partitions,
    revision: Revision,
    asked: BTreeMap<PartitionId, (Epoch, Timestamp)>,
    moves: BTreeMap<NodeId, Moves>,
    round: Option<Round>,
}

/// From whom, to whom.
type Way = (Option<NodeId>, NodeId);

#[derive(Debug)]
struct Round {
    began: Timestamp,
    changed: Timestamp,
    told: Timestamp,
    untold: BTreeMap<EventKind, BTreeMap<Way, BTreeSet<PartitionId>>>,
}

impl Rounds {
    /// What happened since the last look. The first look at a table tells nothing.
    pub(in crate::node::operations) fn look(&mut self, seen: &Seen) -> Vec<Draft> {
        let table = |name: &ServiceId| seen.agreed.services.get(name)?.partitions.as_ref();
        self.0.retain(|name, it| table(name).is_some_and(|is| is.since == it.table.since));
        let mut drafts = Vec::new();
        for service in seen.services() {
            let Some(table) = service.state.partitions.as_ref() else { continue };
            match self.0.get_mut(service.name) {
                Some(watched) => drafts.extend(watched.look(service, table)),
                None => {
                    self.0.insert(service.name.clone(), Watched::new(service, table));
                }
            }
        }
        drafts
    }

    /// What a node was given.
    pub(in crate::node::operations) fn moves(&self, service: &ServiceId, node: &NodeId) -> Moves {
        self.0.get(service).and_then(|it| it.moves.get(node)).copied().unwrap_or_default()
    }

    /// Since when it has been seen to be releasing, under that epoch.
    pub(in crate::node::operations) fn asked(
        &self,
        service: &ServiceId,
        (id, epoch): (PartitionId, Epoch),
    ) -> Option<Timestamp> {
        let (of, since) = self.0.get(service)?.asked.get(&id)?;
        (*of == epoch).then_some(*since)
    }
}

impl Watched {
    fn new(service: ServiceSeen<'_>, table: &Partitions) -> Self {
        let (now, revision) = (service.seen.now, service.state.revision);
        let releasing = table.iter().filter(|(_, it)| it.releasing.is_some());
        let asked = releasing.map(|(id, it)| (id, (it.epoch, now))).collect();
        Self { table: table.clone(), revision, asked, moves: BTreeMap::new(), round: None }
    }

    fn look(&mut self, service: ServiceSeen<'_>, table: &Partitions) -> Vec<Draft> {
        let now = service.seen.now;
        let is_new = self.round.is_none();
        // This is asked all the time, and there may be thousands of them.
        if self.revision != service.state.revision {
            self.revision = service.state.revision;
            let was = std::mem::replace(&mut self.table, table.clone());
            for ((id, was), (_, is)) in was.iter().zip(table.iter()) {
                self.note(service, id, (was, is));
            }
        }
        let Some(round) = &mut self.round else { return Vec::new() };
        let view = service.view();
        let is_settled = |it: &Partition| {
            it.releasing.is_none() && it.owner.as_ref().is_some_and(|it| !is_lost(&view, it))
        };
        let is_over = table.iter().all(|(_, it)| is_settled(it));
        let mut drafts = Vec::new();
        if is_new {
            drafts.extend(round.tell(service, EventKind::PartitionsAsked));
        }
        let is_quiet = now.since(round.changed) >= QUIET;
        if is_over || is_quiet || now.since(round.told) >= LONG {
            let kinds: Vec<EventKind> = round.untold.keys().copied().collect();
            drafts.extend(kinds.into_iter().filter_map(|kind| round.tell(service, kind)));
            round.told = now;
        }
        if is_over {
            self.round = None;
        }
        drafts
    }

    fn note(&mut self, service: ServiceSeen<'_>, id: PartitionId, pair: (&Partition, &Partition)) {
        let (was, is) = pair;
        let now = service.seen.now;
        if is.releasing.is_none() {
            self.asked.remove(&id);
        } else if was.releasing.is_none() || was.epoch != is.epoch {
            self.asked.insert(id, (is.epoch, now));
        }
        let from = was.owner.as_ref().map(|owner| owner.node.clone());
        let mut changes = Vec::new();
        if let Some(owner) = is.owner.as_ref().filter(|_| was.owner != is.owner) {
            let kind = self.count(service, was.owner.as_ref(), owner);
            changes.push((kind, (from, owner.node.clone())));
        } else if let (Some(owner), Some(_), None) = (&is.owner, &was.releasing, &is.releasing) {
            changes.push((EventKind::PartitionsKept, (from, owner.node.clone())));
        }
        if let Some(to) = is.releasing.as_ref().filter(|to| was.releasing.as_ref() != Some(to)) {
            let owner = is.owner.as_ref().map(|owner| owner.node.clone());
            changes.push((EventKind::PartitionsAsked, (owner, to.clone())));
        }
        for (kind, way) in changes {
            let round = self.round.get_or_insert_with(|| Round {
                began: now,
                changed: now,
                told: now,
                untold: BTreeMap::new(),
            });
            round.changed = now;
            round.untold.entry(kind).or_default().entry(way).or_default().insert(id);
        }
    }

    fn count(&mut self, service: ServiceSeen<'_>, was: Option<&Owner>, owner: &Owner) -> EventKind {
        let moves = self.moves.entry(owner.node.clone()).or_default();
        match was {
            Some(before) if is_lost(&service.view(), before) => {
                moves.lost += 1;
                EventKind::PartitionsTaken
            }
            Some(_) => {
                moves.released += 1;
                EventKind::PartitionsMoved
            }
            None => {
                moves.first += 1;
                EventKind::PartitionsMoved
            }
        }
    }
}

impl Round {
    /// One event of what was not told yet; none where that is nothing.
    fn tell(&mut self, service: ServiceSeen<'_>, kind: EventKind) -> Option<Draft> {
        let ways = self.untold.remove(&kind)?;
        let count: usize = ways.values().map(BTreeSet::len).sum();
        let way = |((from, to), ids): (&Way, &BTreeSet<PartitionId>)| {
            let named = ranges(ids.iter().copied(), NAMED_MAX);
            match from {
                Some(from) if from != to => format!("{from} to {to} ({named})"),
                Some(_) | None => format!("{to} ({named})"),
            }
        };
        let mut named: Vec<String> = ways.iter().take(NAMED_MAX).map(way).collect();
        if let Some(more) = ways.len().checked_sub(NAMED_MAX).filter(|more| *more > 0) {
            named.push(format!("and between {more} more pairs of nodes"));
        }
        let message = format!("{count} {}: {}", head(kind), named.join(", "));
        let took = service.seen.now.since(self.began).as_millis();
        let field = |((from, to), ids): (&Way, &BTreeSet<PartitionId>)| -> Value {
            let named = ranges(ids.iter().copied(), NAMED_MAX);
            json!({ "from": from, "to": to, "count": ids.len(), "partitions": named })
        };
        let moves: Vec<Value> = ways.iter().take(NAMED_MAX).map(field).collect();
        let draft = Draft::new(kind, message).service(service.name).field("count", count);
        let draft = draft.field("moves", moves);
        Some(match kind {
            EventKind::PartitionsAsked => draft,
            _ => draft.field("took_ms", u64::try_from(took).unwrap_or(u64::MAX)),
        })
    }
}

const fn head(kind: EventKind) -> &'static str {
    match kind {
        EventKind::PartitionsAsked => "partitions are to be released",
        EventKind::PartitionsKept => "partitions stay where they are after all",
        EventKind::PartitionsTaken => "partitions have new owners, the copies of the old are gone",
        _ => "partitions have new owners",
    }
}
