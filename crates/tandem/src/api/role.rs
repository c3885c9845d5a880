//! Talks to load balancers: is this node the primary, or a replica that is fresh enough?
//! In: a path, and `?lag=` in bytes or as `16MB`. Out: 200 or 503, and why as JSON.
//! Keeps: H41, what is not known (no lease, lag not measured) is a 503, never a guess.
//! Not here: what the node is (`Operations::role`).
//! Tested by: `tests/role.rs`, and every check against every role below.

use crate::api::Shared;
use crate::api::problem::Answer;
use crate::api::request::{Parameters, Path, bad};
use crate::api::status::{InstanceRole, InstanceState};
use axum::extract::State;
use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get};
use axum::{Json, Router};
use serde::{Deserialize, Serialize};
use tandem_core::ids::{NodeId, ServiceId, Term, TimelineId};
use tandem_core::lsn::Lsn;

/// What a node is for a service at one moment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RoleCheck {
    /// The node that was asked.
    pub node: NodeId,
    /// The service; none where it was not named and there is not exactly one.
    pub service: Option<ServiceId>,
    /// What the instance is; none where there is no instance or it is not known.
    pub role: Option<InstanceRole>,
    /// What it does.
    pub state: InstanceState,
    /// A primary: its lease holds and clients are let in, at this moment. A replica: it runs and
    /// answers reads.
    pub serves: bool,
    /// The term it knows of.
    pub term: Term,
    /// The timeline of its data.
    pub timeline: Option<TimelineId>,
    /// End of what is flushed there.
    pub lsn: Option<Lsn>,
    /// Bytes behind the primary, where known from fresh facts.
    pub lag_bytes: Option<u64>,
    /// The daemon itself makes progress.
    pub live: bool,
    /// Why it is not as it should be.
    pub reason: Option<String>,
}

/// What a load balancer asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Check {
    Primary,
    Replica,
    ReadOnly,
    Health,
    Liveness,
    Readiness,
}

impl Check {
    fn holds(self, check: &RoleCheck, lag_bytes_max: Option<u64>) -> bool {
        let is = |role| check.role == Some(role);
        let is_replica = is(InstanceRole::Standby) || is(InstanceRole::Replica);
        let is_near = lag_bytes_max.is_none_or(|max| check.lag_bytes.is_some_and(|lag| lag <= max));
        let leads = is(InstanceRole::Primary) || is(InstanceRole::Active);
        let primary = leads && check.serves;
        let replica = is_replica && check.serves && is_near;
        match self {
            Self::Primary => primary,
            Self::Replica => replica,
            Self::ReadOnly | Self::Readiness => primary || replica,
            // A witness has nothing to run: it is healthy when its daemon is.
            Self::Health => check.serves || (is(InstanceRole::Witness) && check.live),
            Self::Liveness => check.live,
        }
    }
}

/// The paths, for the only service and by name.
pub(crate) fn routes() -> Router<Shared> {
    let names: [(Check, &[&str]); 6] = [
        (Check::Primary, &["primary", "master", "read-write", "leader"]),
        (Check::Replica, &["replica"]),
        (Check::ReadOnly, &["read-only"]),
        (Check::Health, &["health"]),
        (Check::Liveness, &["liveness"]),
        (Check::Readiness, &["readiness"]),
    ];
    let mut router = Router::new();
    for (check, names) in names {
        for name in names {
            router = router
                .route(&format!("/{name}"), only_service(check))
                .route(&format!("/{{service}}/{name}"), named_service(check));
        }
    }
    router
}

#[derive(Debug, Deserialize)]
struct Freshness {
    lag: Option<String>,
}

fn only_service(check: Check) -> MethodRouter<Shared> {
    let handler = move |State(shared): State<Shared>,
                        method: Method,
                        Parameters(freshness): Parameters<Freshness>| async move {
        answer(check, &shared, None, &(method, freshness))
    };
    get(handler).options(handler)
}

fn named_service(check: Check) -> MethodRouter<Shared> {
    let handler = move |State(shared): State<Shared>,
                        Path(service): Path<ServiceId>,
                        method: Method,
                        Parameters(freshness): Parameters<Freshness>| async move {
        answer(check, &shared, Some(&service), &(method, freshness))
    };
    get(handler).options(handler)
}

fn answer(
    check: Check,
    shared: &Shared,
    service: Option<&ServiceId>,
    (method, freshness): &(Method, Freshness),
) -> Answer<Response> {
    let lag_bytes_max = match &freshness.lag {
        None => None,
        Some(text) => Some(bytes(text).ok_or_else(|| {
            bad(
                "cannot check the lag",
                format!("lag={text} is neither bytes nor a size such as 16MB"),
                "lag=16MB, or lag=16777216",
            )
        })?),
    };
    let role = shared.operations.role(service);
    let holds = check.holds(&role, lag_bytes_max);
    let status = if holds { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    Ok(if *method == Method::OPTIONS {
        status.into_response()
    } else {
        (status, Json(role)).into_response()
    })
}

/// A number of bytes as PostgreSQL writes sizes: units are powers of 1024, whatever their case.
fn bytes(text: &str) -> Option<u64> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let shift = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        "t" | "tb" | "tib" => 40,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(1 << shift)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(role: InstanceRole, serves: bool, lag_bytes: Option<u64>) -> RoleCheck {
        RoleCheck {
            node: "a".into(),
            service: Some("orders".into()),
            role: Some(role),
            state: InstanceState::Running,
            serves,
            term: Term(3),
            timeline: None,
            lsn: None,
            lag_bytes,
            live: true,
            reason: None,
        }
    }

    #[test]
    fn every_check_against_every_role() {
        let all = [
            Check::Primary,
            Check::Replica,
            Check::ReadOnly,
            Check::Health,
            Check::Liveness,
            Check::Readiness,
        ];
        let row = |role, serves, lag, max| -> String {
            let of = check(role, serves, lag);
            all.iter().map(|check| if check.holds(&of, max) { 'y' } else { '-' }).collect()
        };
        assert_eq!(row(InstanceRole::Primary, true, Some(0), None), "y-yyyy");
        assert_eq!(row(InstanceRole::Standby, true, Some(10), None), "-yyyyy");
        assert_eq!(row(InstanceRole::Standby, true, Some(10), Some(10)), "-yyyyy");
        assert_eq!(row(InstanceRole::Replica, true, Some(11), Some(10)), "---yy-");
        assert_eq!(row(InstanceRole::Witness, false, None, None), "---yy-");
    }

    #[test]
    fn h41_a_claim_that_is_not_proven_now_is_refused() {
        let primary = check(InstanceRole::Primary, false, Some(0));
        assert!(!Check::Primary.holds(&primary, None));
        let replica = check(InstanceRole::Standby, true, None);
        assert!(Check::Replica.holds(&replica, None));
        assert!(!Check::Replica.holds(&replica, Some(u64::MAX)), "lag not known");
    }

    #[test]
    fn sizes() {
        assert_eq!(bytes("16MB"), Some(16 << 20));
        assert_eq!(bytes("16 mib"), Some(16 << 20));
        assert_eq!(bytes("1024"), Some(1024));
        for text in ["", "MB", "16XB", "-1", "1.5MB", "99999999999999TB"] {
            assert_eq!(bytes(text), None, "{text}");
        }
    }
}
