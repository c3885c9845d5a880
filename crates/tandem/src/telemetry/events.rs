//! Talks about what happened on this node: a bounded memory, and a stream for those who follow.
//! In: `Draft`s. Out: `Event`s, each logged once, kept among the last `KEPT`, and broadcast.
//! Queues: memory full, the oldest goes; a follower that is `FOLLOWER_BEHIND_MAX` behind loses its
//! place, is told so by its receiver, and starts again from its last number.
//! Not here: what may happen (`event_kind.rs`), how events travel (`api/events.rs`).
//! Tested by: below.

use crate::runtime::clock;
use crate::telemetry::event_kind::{EventKind, Level};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use tandem_core::ids::{NodeId, ServiceId, Term};
use tokio::sync::broadcast;

/// How many events are kept: days of a quiet cluster, and every step of the last few failovers.
pub const KEPT: usize = 1_000;

/// How far a follower may be behind.
pub const FOLLOWER_BEHIND_MAX: usize = 256;

/// Something that happened, as seen by one node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// Grows with each event of a node, also over restarts of its daemon.
    pub seq: u64,
    /// When, milliseconds since 1970 on the node's clock.
    pub unix_ms: u64,
    /// The node that says so.
    pub node: NodeId,
    /// The service it is about, if it is about one.
    pub service: Option<ServiceId>,
    /// The term of that service, where known.
    pub term: Option<Term>,
    /// What happened.
    pub kind: EventKind,
    /// How loud it is.
    pub level: Level,
    /// The same in words.
    pub message: String,
    /// Its numbers and names.
    pub fields: BTreeMap<String, Value>,
}

/// An event to be: without the number and the time that the log gives it.
#[derive(Clone, Debug, PartialEq)]
#[must_use = "a draft is recorded by EventLog::record"]
pub struct Draft {
    kind: EventKind,
    service: Option<ServiceId>,
    term: Option<Term>,
    message: String,
    fields: BTreeMap<String, Value>,
}

impl Draft {
    /// An event of this kind, in words.
    pub fn new(kind: EventKind, message: impl Into<String>) -> Self {
        let message = message.into();
        Self { kind, service: None, term: None, message, fields: BTreeMap::new() }
    }

    /// The service it is about.
    pub fn service(mut self, service: &ServiceId) -> Self {
        self.service = Some(service.clone());
        self
    }

    /// The term of that service.
    pub const fn term(mut self, term: Term) -> Self {
        self.term = Some(term);
        self
    }

    /// One of its numbers or names.
    pub fn field(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.fields.insert(name.to_owned(), value.into());
        self
    }
}

/// The events of one node. Clones share them.
#[derive(Clone, Debug)]
pub struct EventLog {
    node: NodeId,
    kept: Arc<Mutex<Kept>>,
    followers: broadcast::Sender<Event>,
}

#[derive(Debug)]
struct Kept {
    events: VecDeque<Event>,
    next: u64,
}

impl EventLog {
    /// An empty log for a node.
    pub fn new(node: NodeId) -> Self {
        // Numbers start at the time: they grow over restarts without being stored. A clock that
        // was set back is handled in `since`.
        Self::starting_at(node, clock::unix_ms().saturating_mul(1_000))
    }

    fn starting_at(node: NodeId, next: u64) -> Self {
        let kept = Kept { events: VecDeque::with_capacity(KEPT), next };
        let (followers, _) = broadcast::channel(FOLLOWER_BEHIND_MAX);
        Self { node, kept: Arc::new(Mutex::new(kept)), followers }
    }

    /// Keeps, logs and broadcasts one event; its number.
    pub fn record(&self, draft: Draft) -> u64 {
        let Draft { kind, service, term, message, fields } = draft;
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let event = Event {
            seq: kept.next,
            unix_ms: clock::unix_ms(),
            node: self.node.clone(),
            service,
            term,
            kind,
            level: kind.level(),
            message,
            fields,
        };
        kept.next += 1;
        if kept.events.len() == KEPT {
            kept.events.pop_front();
        }
        kept.events.push_back(event.clone());
        // Sent under the lock, so that followers see the order of the numbers.
        let _ = self.followers.send(event.clone());
        drop(kept);
        write_log(&event);
        event.seq
    }

    /// The kept events after number `seq`, oldest first. A number that was never given here is of
    /// another life with a clock ahead of ours: it gets everything.
    pub fn since(&self, seq: u64) -> Vec<Event> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let after = if seq >= kept.next { 0 } else { seq };
        kept.events.iter().filter(|event| event.seq > after).cloned().collect()
    }

    /// What happens from now on.
    pub fn subscribe(&self) -> broadcast::Receiver<Event> {
        self.followers.subscribe()
    }
}

fn write_log(event: &Event) {
    let Event { seq, kind, message, .. } = event;
    let service = event.service.as_ref().map(ServiceId::as_str);
    let term = event.term.map(|term| term.0);
    let fields = serde_json::to_string(&event.fields).unwrap_or_default();
    let node = event.node.as_str();
    match event.level {
        Level::Info => {
            tracing::info!(seq, event = %kind, node, service, term, %fields, "{message}")
        }
        Level::Warn => {
            tracing::warn!(seq, event = %kind, node, service, term, %fields, "{message}")
        }
        Level::Error => {
            tracing::error!(seq, event = %kind, node, service, term, %fields, "{message}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log() -> EventLog {
        EventLog::starting_at("a".into(), 1)
    }

    fn draft(count: usize) -> Draft {
        Draft::new(EventKind::NodeSilent, "b is silent").field("count", count)
    }

    #[test]
    fn an_event_carries_what_its_draft_said() {
        let log = log();
        let draft = Draft::new(EventKind::PrimaryPromoted, "b is primary")
            .service(&"orders".into())
            .term(Term(4))
            .field("lsn", "0/3000060");
        assert_eq!(log.record(draft), 1);
        let events = log.since(0);
        let json = serde_json::to_value(&events).unwrap();
        assert_eq!(json[0]["kind"], "primary.promoted");
        assert_eq!(json[0]["service"], "orders");
        assert_eq!(json[0]["term"], 4);
        assert_eq!(json[0]["fields"]["lsn"], "0/3000060");
        assert_eq!(serde_json::from_value::<Vec<Event>>(json).unwrap(), events);
    }

    #[test]
    fn the_oldest_goes_first() {
        let log = log();
        for count in 0..KEPT + 5 {
            log.record(draft(count));
        }
        let events = log.since(0);
        assert_eq!((events.len(), events[0].seq), (KEPT, 6));
        assert_eq!(log.since(KEPT as u64 + 3).len(), 2);
        assert!(log.since(KEPT as u64 + 5).is_empty());
    }

    #[test]
    fn a_number_of_another_life_gets_everything() {
        let log = log();
        log.record(draft(0));
        assert_eq!(log.since(99).len(), 1);
    }

    #[test]
    fn a_follower_sees_the_same_order_and_is_told_when_it_is_too_slow() {
        let log = log();
        let mut follower = log.subscribe();
        log.record(draft(0));
        assert_eq!(follower.try_recv().map(|event| event.seq), Ok(1));
        for count in 0..=FOLLOWER_BEHIND_MAX {
            log.record(draft(count));
        }
        assert!(matches!(follower.try_recv(), Err(broadcast::error::TryRecvError::Lagged(1))));
    }

    #[test]
    fn numbers_grow_over_a_restart() {
        let first = EventLog::new("a".into()).record(draft(0));
        assert!(first > 1_700_000_000_000_000);
    }
}
