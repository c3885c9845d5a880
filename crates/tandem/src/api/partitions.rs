//! Talks to a copy of a command whose work is divided: what it owns, and that it has released.
//! In: a long poll, a confirmation. Out: `OwnPartitions`.
//! Keeps: INV-13 what is answered is what is known at that moment, and a word about another epoch
//! is refused.
//! Queues: a long poll is one of `Limits::streams_max` streams; a further one is refused.
//! Not here: what is owned, and what follows (the implementor of `Divided`).
//! Tested by: `tests/partitions.rs`; `partitions` of the crate, with real daemons.

use crate::api::Shared;
use crate::api::problem::{Answer, Rejection};
use crate::api::request::{JsonBody, Parameters, Path, bad};
use crate::api::verbs;
use crate::telemetry::codes;
use crate::telemetry::problem::Problem;
use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::time::Duration;
use tandem_core::clustering::active_active::holder::Refused;
use tandem_core::ids::{Epoch, NodeId, PartitionId, ServiceId, Term};
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

/// The longest wait for news: a proxy in between may close what is quiet for a minute.
const WAIT_MAX: Duration = Duration::from_secs(60);

/// The own copy of a service whose work is divided.
pub trait Divided: Send + Sync {
    /// What it may know now; none while that is not known.
    fn own(&self) -> Option<OwnPartitions>;

    /// Wakes when that may have changed.
    fn changed(&self) -> watch::Receiver<u64>;

    /// Its process says that it works on it no more.
    ///
    /// # Errors
    /// It was not asked to release that.
    fn confirm(&self, partition: PartitionId, epoch: Epoch) -> Result<(), Refused>;
}

/// What a copy owns.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OwnPartitions {
    /// Of which service.
    pub service: ServiceId,
    /// On which node.
    pub node: NodeId,
    /// The term that the copy runs for.
    pub term: Term,
    /// Grows with each change: an answer with a smaller one is older.
    pub version: u64,
    /// For how long the copy may run on what is proven now. Not in the file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease_ms: Option<u64>,
    /// What a door sends under this epoch, or a smaller one, it counted by what is over: it is
    /// turned away. An older release did not say it.
    #[serde(default)]
    pub before: Epoch,
    /// What it owns.
    pub partitions: Vec<OwnPartition>,
}

/// One of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OwnPartition {
    /// Which.
    pub id: PartitionId,
    /// Grows with each change of its owner.
    pub epoch: Epoch,
    /// What the copy shall do.
    pub state: Holds,
    /// For how long it may still work on what it shall release.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline_ms: Option<u64>,
}

/// What a copy shall do with a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Holds {
    /// Work on it.
    Owned,
    /// End what it does there, begin nothing, and say so.
    Releasing,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Look {
    after: Option<u64>,
    wait: Option<String>,
}

/// Body of a confirmation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReleaseRequest {
    /// Under which it was owned.
    pub epoch: Epoch,
}

/// What is answered to a confirmation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Confirmed {
    /// Which.
    pub id: PartitionId,
    /// Under which epoch.
    pub epoch: Epoch,
}

pub(crate) async fn show(
    State(shared): State<Shared>,
    Path(service): Path<ServiceId>,
    Parameters(Look { after, wait }): Parameters<Look>,
) -> Answer<Json<OwnPartitions>> {
    let divided = divided(&shared, &service)?;
    let wait = wait.map_or(Ok(Duration::ZERO), |text| duration(&text))?;
    let Ok(_place) = Arc::clone(&shared.streams).try_acquire_owned() else {
        return Err(Rejection(verbs::full("streams and long polls", shared.limits.streams_max)));
    };
    let until = Instant::now() + wait;
    let stopping = shared.supervisor.stopping();
    let mut changed = divided.changed();
    loop {
        changed.mark_unchanged();
        let own = divided.own();
        let is_new = own.as_ref().is_some_and(|own| Some(own.version) != after);
        let is_over = is_new || Instant::now() >= until || stopping.is_cancelled();
        if is_over {
            return own.map(Json).ok_or_else(|| unknown(&service).into());
        }
        tokio::select! {
            biased;
            () = stopping.cancelled() => {}
            _ = timeout_at(until, changed.changed()) => {}
        }
    }
}

pub(crate) async fn release(
    State(shared): State<Shared>,
    Path((service, id)): Path<(ServiceId, PartitionId)>,
    JsonBody(ReleaseRequest { epoch }): JsonBody<ReleaseRequest>,
) -> Answer<Json<Confirmed>> {
    let divided = divided(&shared, &service)?;
    match divided.confirm(id, epoch) {
        Ok(()) => Ok(Json(Confirmed { id, epoch })),
        Err(refused) => Err(Rejection(not_released((&service, id, epoch), refused))),
    }
}

fn divided(shared: &Shared, service: &ServiceId) -> Answer<Arc<dyn Divided>> {
    shared.operations.divided(service).ok_or_else(|| {
        Problem::new(
            codes::NO_SUCH_SERVICE,
            format!("cannot find partitions of service {service}"),
            "this node runs no copy of a service of that name whose work is divided",
            "TANDEM_SERVICE names it for its copies; tandem status lists the services",
        )
        .into()
    })
}

fn unknown(service: &ServiceId) -> Problem {
    Problem::new(
        codes::PARTITIONS_UNKNOWN,
        format!("cannot tell what this copy of {service} owns"),
        "its node has just started and does not know yet what was agreed last",
        "ask again; go on with what was told before",
    )
}

fn not_released(
    (service, id, epoch): (&ServiceId, PartitionId, Epoch),
    refused: Refused,
) -> Problem {
    let what = format!("cannot take partition {id} of {service} as released");
    let because = match refused {
        Refused::NotYet => {
            return Problem::new(
                codes::PARTITIONS_UNKNOWN,
                what,
                "that it is asked back is being written down at this moment",
                "say it again",
            );
        }
        Refused::NotItsOwn => format!("the copy here does not own it under epoch {epoch}"),
        Refused::NotAsked => "it was not asked to: it is the copy's own, and stays so".to_owned(),
    };
    Problem::new(
        codes::NOT_RELEASED,
        what,
        because,
        "look at its partitions again, and confirm only those that are \"releasing\"",
    )
}

/// `30s`, `500ms`, or seconds.
fn duration(text: &str) -> Answer<Duration> {
    let (number, unit) = match text.strip_suffix("ms") {
        Some(number) => (number, Duration::from_millis(1)),
        None => (text.strip_suffix('s').unwrap_or(text), Duration::from_secs(1)),
    };
    let wait = number.parse::<u32>().ok().and_then(|number| unit.checked_mul(number));
    wait.map(|wait| wait.min(WAIT_MAX)).ok_or_else(|| {
        bad("cannot wait so long", format!("\"{text}\" is no time"), "write wait=30s").into()
    })
}
