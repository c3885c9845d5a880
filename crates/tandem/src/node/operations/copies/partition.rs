//! Talks about one partition of divided work: whose it is, what it waits for, where doors send it.
//! In: `ServiceSeen`. Out: `OnePartition`, or why there is none.
//! Keeps: INV-13, what is said here decides nothing.
//! Not here: all of them (`divided.rs`), the judgement (`active_active/standing.rs`).
//! Tested by: `tests/divided.rs`, `tests/partitions`.

use super::super::NodeOperations;
use super::super::seen::ServiceSeen;
use super::divided;
use super::rounds::Rounds;
use crate::api::explain::{OnePartition, PartitionState, Reason};
use crate::api::operations::{PartitionOf, Refused};
use crate::api::problem::no_such_service;
use crate::telemetry::codes;
use crate::telemetry::problem::Problem;
use std::sync::PoisonError;
use std::time::Duration;
use tandem_core::clustering::active_active::routing::{Held, Route, RoutingView, routes};
use tandem_core::clustering::active_active::standing::{self, Standing, State};
use tandem_core::clustering::load_balanced::key;
use tandem_core::ids::{PartitionId, ServiceId};
use tandem_core::spec::Seat;

/// So many plans for its owner's copy are told.
const PLANS_MAX: usize = 5;

impl NodeOperations {
    /// Where one partition stands, with what was planned last for its owner's copy.
    pub(in crate::node::operations) async fn one_partition(
        &self,
        service: &ServiceId,
        of: PartitionOf,
    ) -> Result<OnePartition, Refused> {
        let mut found = self.one_now(service, of.clone())?;
        if let Some(owner) = &found.owner {
            let mut plans = self.plans_everywhere(&Seat::name(service, owner)).await;
            plans.truncate(PLANS_MAX);
            // Asking took a while.
            found = OnePartition { plans, ..self.one_now(service, of)? };
        }
        Ok(found)
    }

    fn one_now(&self, service: &ServiceId, of: PartitionOf) -> Result<OnePartition, Refused> {
        let seen = self.seen();
        let found = seen.service(service).ok_or_else(|| no_such_service(service))?;
        let Some(count) = divided::count(found) else { return Err(not_divided(service)) };
        let rounds = self.inner.rounds.lock().unwrap_or_else(PoisonError::into_inner);
        one(found, of.clone(), &rounds).ok_or_else(|| beyond(service, &of, count))
    }
}

fn not_divided(service: &ServiceId) -> Problem {
    Problem::new(
        codes::BAD_REQUEST,
        format!("cannot tell who owns a partition of {service}"),
        "its work is not divided: it has no partitions",
        format!("tandem explain {service}"),
    )
}

fn beyond(service: &ServiceId, of: &PartitionOf, count: u32) -> Problem {
    let id = match of {
        PartitionOf::Number(id) => id.to_string(),
        PartitionOf::Key(key) => format!("of {key:?}"),
    };
    Problem::new(
        codes::BAD_REQUEST,
        format!("cannot find partition {id} of {service}"),
        format!("it has {count}, which are counted from 0"),
        format!("ask for one from 0 to {}", count.saturating_sub(1)),
    )
}

/// The same without plans; none if there is none of that number.
pub(in crate::node::operations) fn one(
    service: ServiceSeen<'_>,
    of: PartitionOf,
    rounds: &Rounds,
) -> Option<OnePartition> {
    let count = divided::count(service)?;
    let partition = match &of {
        PartitionOf::Number(id) => *id,
        PartitionOf::Key(key) => PartitionId(key::part(key.as_bytes(), count)),
    };
    let now = service.seen.now;
    let standing = standing::standing(&service.view(), partition, now)?;
    let Standing { epoch, state, owner, to, wait, because } = standing;
    let command = service.seen.config.commands.get(service.name);
    let partitions = command.and_then(|it| it.partitions.as_ref());
    let since = rounds.asked(service.name, (partition, epoch));
    let ms = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    let (key, hash) = match of {
        PartitionOf::Number(_) => (None, None),
        PartitionOf::Key(key) => {
            let hash = format!("{:#018x}", key::hash(key.as_bytes()));
            (Some(key), Some(hash))
        }
    };
    let has_door = partitions.is_some_and(|it| it.door.is_some());
    Some(OnePartition {
        service: service.name.clone(),
        partition,
        count,
        key,
        hash,
        epoch,
        state: word(state),
        owner,
        to,
        waits_for: wait.node().cloned(),
        releasing_ms: since.filter(|_| state == State::Releasing).map(|it| ms(now.since(it))),
        release_max_ms: partitions.map_or(0, |it| ms(it.release_max)),
        because: Reason::from(&because),
        route: route(service, partition).filter(|_| has_door),
        plans: Vec::new(),
    })
}

const fn word(state: State) -> PartitionState {
    match state {
        State::Owned => PartitionState::Owned,
        State::Releasing => PartitionState::Releasing,
        State::Lost => PartitionState::Lost,
        State::Unowned => PartitionState::Unowned,
    }
}

/// Where this node's door sends what belongs to it.
fn route(service: ServiceSeen<'_>, partition: PartitionId) -> Option<String> {
    let seen = service.seen;
    let view = RoutingView {
        service: service.name,
        nodes: &seen.agreed.spec.nodes,
        services: &seen.agreed.services,
        facts: &seen.facts,
        suspicion: service.spec.timing.suspicion,
    };
    let index = usize::try_from(partition.0).ok()?;
    Some(match routes(&view, seen.now).into_iter().nth(index)? {
        Route::To(node, _) => format!("requests go to {node}"),
        Route::Held(Held::Unowned) => "requests are held: nobody owns it".to_owned(),
        Route::Held(Held::Releasing) => "requests are held: it is being released".to_owned(),
        Route::Held(Held::Silent) => "requests are held: its owner is not heard".to_owned(),
        Route::Held(Held::Down) => {
            "requests are held: its owner's copy does not run, or is not well".to_owned()
        }
    })
}
