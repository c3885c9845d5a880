//! Tells what happens to endpoints, as this node's own balancers see them.
//! In: looks at balancers, once a second; what they cut. Out: `Draft`s.
//! Keeps: what flaps does not flood: of one endpoint two changes are told at once, and after that
//! one in `QUIET`, with the number of those between; endpoints that change together are one event.
//! Not here: why an endpoint is out (`operations/balanced.rs`).
//! Tested by: `../tests/endpoints.rs`.

use super::super::balanced::{is_unserved, reason};
use crate::proxy::balancer::{Cut, EndpointSnapshot, Snapshot};
use crate::telemetry::event_kind::EventKind;
use crate::telemetry::events::Draft;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;
use tandem_core::clustering::load_balanced::ejection::Condition;
use tandem_core::ids::ServiceId;
use tandem_core::time::Timestamp;

/// Between two looks.
pub(super) const LOOK: Duration = Duration::from_secs(1);
/// For what has changed twice of late.
const QUIET: Duration = Duration::from_secs(60);
/// What comes and goes with each client is told only if it is so at so many looks in a row.
const STEADY: u32 = 3;
/// More names in one event help nobody.
const NAMES_MAX: usize = 5;

/// What is told of an endpoint.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
enum State {
    #[default]
    Well,
    Full,
    Down,
    Ejected,
}

impl State {
    /// None: it is out by somebody's word, or nothing is known yet.
    fn of(endpoint: &EndpointSnapshot) -> Option<Self> {
        match endpoint.condition? {
            Condition::Unknown | Condition::Draining => None,
            Condition::Down => Some(Self::Down),
            Condition::Ejected(_) => Some(Self::Ejected),
            Condition::Up | Condition::Starting if endpoint.is_full => Some(Self::Full),
            Condition::Up | Condition::Starting => Some(Self::Well),
        }
    }

    const fn kind(self) -> EventKind {
        match self {
            Self::Well => EventKind::EndpointReturned,
            Self::Full => EventKind::EndpointFull,
            Self::Down => EventKind::EndpointDown,
            Self::Ejected => EventKind::EndpointEjected,
        }
    }

    const fn words(self) -> &'static str {
        match self {
            Self::Well => "work again",
            Self::Full => "are full: more waits for them",
            Self::Down => "do not answer their checks",
            Self::Ejected => "are left out for a while",
        }
    }
}

/// What was told of something, and what it came to since.
#[derive(Debug, Default)]
struct Told<T> {
    told: T,
    last: T,
    /// Changes that were not told.
    changes: u32,
    /// When it was told the last two times.
    at: [Option<Timestamp>; 2],
    /// For so many looks it has been what is told only if it lasts.
    lasted: u32,
}

impl<T: Copy + PartialEq> Told<T> {
    /// How many changes there were, if they are told now.
    fn look(&mut self, is: T, now: Timestamp) -> Option<u32> {
        if is != self.last {
            self.last = is;
            self.changes += 1;
        }
        let is_early = self.at[0].is_some_and(|at| now.since(at) < QUIET);
        if self.changes == 0 || is_early {
            return None;
        }
        self.told = is;
        self.at = [self.at[1], Some(now)];
        Some(std::mem::take(&mut self.changes))
    }

    /// The same, where `brief` counts only if it lasts.
    fn steady(&mut self, is: T, brief: T) -> T {
        self.lasted = if is == brief { self.lasted.saturating_add(1) } else { 0 };
        if is == brief && self.lasted < STEADY { self.last } else { is }
    }
}

#[derive(Debug, Default)]
struct Service {
    is_unserved: Told<bool>,
    endpoints: BTreeMap<SocketAddr, Told<State>>,
}

/// What was told of every endpoint.
#[derive(Debug, Default)]
pub(in crate::node::operations) struct Endpoints(BTreeMap<ServiceId, Service>);

impl Endpoints {
    /// What happened since the last look.
    pub(in crate::node::operations) fn look(
        &mut self,
        now: Timestamp,
        doors: &[Snapshot],
    ) -> Vec<Draft> {
        self.0.retain(|service, _| doors.iter().any(|door| door.service == *service));
        let mut drafts = Vec::new();
        for door in doors {
            let known = self.0.entry(door.service.clone()).or_default();
            drafts.extend(known.look(now, door));
        }
        drafts
    }
}

impl Service {
    fn look(&mut self, now: Timestamp, door: &Snapshot) -> Vec<Draft> {
        self.endpoints.retain(|address, _| door.endpoints.iter().any(|it| it.address == *address));
        let mut changed: BTreeMap<State, Vec<(&EndpointSnapshot, u32)>> = BTreeMap::new();
        for endpoint in &door.endpoints {
            let known = self.endpoints.entry(endpoint.address).or_default();
            let Some(state) = State::of(endpoint) else {
                // Whoever said so knows it; it begins anew when it is used again.
                (known.told, known.last, known.changes) = (State::Well, State::Well, 0);
                continue;
            };
            let state = known.steady(state, State::Full);
            if let Some(changes) = known.look(state, now) {
                changed.entry(state).or_default().push((endpoint, changes));
            }
        }
        let mut drafts: Vec<Draft> =
            changed.iter().map(|(state, of)| draft(*state, of).service(&door.service)).collect();
        let is_unserved = self.is_unserved.steady(is_unserved(door), true);
        if self.is_unserved.look(is_unserved, now).is_some() {
            let (kind, message) = match is_unserved {
                true => (EventKind::DoorUnserved, "no endpoint takes work: clients wait"),
                false => (EventKind::DoorServed, "an endpoint takes work"),
            };
            drafts.push(Draft::new(kind, message).service(&door.service));
        }
        drafts
    }
}

fn draft(state: State, of: &[(&EndpointSnapshot, u32)]) -> Draft {
    let names: Vec<String> = of.iter().take(NAMES_MAX).map(|(it, _)| name(it)).collect();
    let changes: u32 = of.iter().map(|(_, changes)| *changes).max().unwrap_or(1);
    let mut message = match of {
        [(one, _)] => match (state, reason(one)) {
            (State::Full, _) => format!("{} is full: more waits for it", name(one)),
            (State::Down | State::Ejected, Some(why)) => format!("{}: {why}", name(one)),
            (State::Well | State::Down | State::Ejected, _) => {
                format!("{} works again", name(one))
            }
        },
        many => {
            let more = many.len() - names.len();
            let more = if more > 0 { format!(" and {more} more") } else { String::new() };
            format!("{}{more} {}", names.join(", "), state.words())
        }
    };
    if changes > 1 {
        message.push_str(&format!(" (it changed {changes} times since this was told last)"));
    }
    Draft::new(state.kind(), message)
        .field("upstreams", names)
        .field("count", of.len())
        .field("changes", changes)
}

fn name(of: &EndpointSnapshot) -> String {
    let address = of.address.to_string();
    match of.upstream.as_str() {
        "" => address,
        same if same == address => address,
        other => format!("{address} ({other})"),
    }
}

/// What an endpoint had that gets no more work.
pub(super) fn cut(service: &ServiceId, cut: &Cut) -> Draft {
    let Cut { address, upstream, count } = cut;
    let message = format!(
        "{count} left at {upstream} were cut: they had their time, or who had them is gone"
    );
    Draft::new(EventKind::EndpointCut, message)
        .service(service)
        .field("address", address.to_string())
        .field("upstream", upstream.as_str())
        .field("count", *count)
}
