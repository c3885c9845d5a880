//! Talks to operators about replacing a primary that does not serve: checks, asks, waits.
//! In: a service, perhaps a target, whether loss is accepted. Out: `Outcome`, or why not.
//! Keeps: H1 what may be lost is said before and after; without `accept_loss` nothing may be.
//! Not here: the election (`tandem_core::clustering::active_passive`).
//! Tested by: `tests/candidates.rs`, `tests/outcomes.rs`.

use super::super::{NodeOperations, candidates, refusals};
use super::switchover::{Move, busy};
use crate::api::explain::{FailoverNow, Safety};
use crate::api::operations::{Outcome, Refused};
use crate::runtime::clock;
use crate::telemetry::codes;
use crate::telemetry::problem::Problem;
use tandem_core::cluster::command::ServiceCommand;
use tandem_core::cluster::state::{Forced, ServiceState};
use tandem_core::clustering::active_passive::verdict::{self, Verdict};
use tandem_core::ids::{NodeId, ServiceId};
use tandem_core::spec::NodeRole;

/// Given up by the planner after this.
const PATIENCE_MS: u64 = 15_000;

/// What a failover that was let through may cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::node::operations) struct Price {
    pub safe: bool,
    pub may_lose_bytes: Option<u64>,
}

/// Refuses a failover that cannot be, or that may lose what nobody accepted to lose.
pub(in crate::node::operations) fn check(
    service: super::super::seen::ServiceSeen<'_>,
    to: Option<&NodeId>,
    accept_loss: bool,
) -> Result<Price, Problem> {
    let name = service.name;
    let what = format!("cannot fail {name} over");
    let Some(appointment) = service.appointment() else {
        return Err(refusals::no_primary(name, &what));
    };
    if let Some(to) = to {
        let spec = service.seen.agreed.spec.nodes.get(to);
        let spec = spec.ok_or_else(|| refusals::no_such_node(to))?;
        if spec.role == NodeRole::Witness {
            return Err(refusals::witness(to, &what));
        }
        if appointment.primary == *to {
            let because = format!("{to} is the {} of {name} already", service.holder_word());
            return Err(Problem::new(codes::ALREADY_SO, what, because, "name another node"));
        }
    }
    let verdict = verdict::judge(&service.view(), appointment, service.seen.now);
    if verdict == Verdict::Serving && !accept_loss {
        // A failover makes clients wait for an election, and costs the old primary a rewind.
        return Err(Problem::new(
            codes::PRIMARY_SERVES,
            what,
            format!("{} serves", appointment.primary),
            format!(
                "tandem switchover {name} moves it and loses nothing; to fail over \
                 all the same, add --accept-loss"
            ),
        ));
    }
    let now = candidates::failover_now(service);
    let advice = format!("tandem explain {name} lists every candidate");
    if let Some(candidate) = now.candidates.iter().find(|it| Some(&it.node) == to && !it.eligible) {
        let because = format!("{}: {}", candidate.node, candidate.because);
        return Err(Problem::new(codes::TARGET_NOT_ELIGIBLE, what, because, advice));
    }
    price(&what, &now, to, accept_loss, service)
}

fn price(
    what: &str,
    now: &FailoverNow,
    to: Option<&NodeId>,
    accept_loss: bool,
    service: super::super::seen::ServiceSeen<'_>,
) -> Result<Price, Problem> {
    let name = service.name;
    if now.safety == Safety::Impossible {
        let because = now.because.text.clone();
        let advice = "bring a node with data back; tandem status shows them";
        return Err(Problem::new(codes::TARGET_NOT_ELIGIBLE, what, because, advice));
    }
    let behind = |node: &NodeId| service.instance(node).map(|own| (own.data_term, own.flushed));
    let (to_holds, best_holds) = (to.and_then(behind), now.would_choose.as_ref().and_then(behind));
    if let (Some(to), Some(to_holds), Some(best_holds)) = (to, to_holds, best_holds)
        && to_holds < best_holds
        && !accept_loss
    {
        let because = format!(
            "{to} is at {}, and another node is at {}: what lies between would be lost",
            to_holds.1, best_holds.1
        );
        let advice = "leave --to out, or add --accept-loss";
        return Err(Problem::new(codes::MAY_LOSE, what, because, advice));
    }
    let is_async = matches!(service.spec.durability, tandem_core::spec::Durability::Async { .. });
    if now.safety != Safety::Safe && !is_async && !accept_loss {
        let lost = now.may_lose_bytes;
        let bytes = lost.map_or("unknown".to_owned(), |bytes| format!("at most {bytes} bytes"));
        return Err(Problem::new(
            codes::MAY_LOSE,
            what,
            format!("{} (loss: {bytes})", now.because.text),
            format!("bring a standby back, or tandem failover {name} --accept-loss"),
        ));
    }
    Ok(Price { safe: now.safety == Safety::Safe, may_lose_bytes: now.may_lose_bytes })
}

impl NodeOperations {
    /// Replaces the primary.
    pub(in crate::node::operations) async fn failover(
        &self,
        service: ServiceId,
        to: Option<NodeId>,
        accept_loss: bool,
    ) -> Result<Outcome, Refused> {
        let what = format!("cannot fail {service} over");
        let began = clock::now();
        let before = self.service_state(&service)?;
        let price = {
            let seen = self.seen();
            let seen_service =
                seen.service(&service).ok_or_else(|| refusals::no_such_service(&service))?;
            check(seen_service, to.as_ref(), accept_loss)?
        };
        let term = before.term();
        let make = |state: &ServiceState| {
            if state.switchover.is_some() || state.forced.is_some() || state.term() != term {
                return Err(busy(&what, &service));
            }
            let deadline_unix_ms = clock::unix_ms().saturating_add(PATIENCE_MS);
            let forced = Forced { to: to.clone(), accept_loss, deadline_unix_ms };
            Ok(ServiceCommand::RequestFailover { forced })
        };
        let asked = self.change(&service, &what, &make).await?;
        let end = self.outcome(&service, (asked, term), to.as_ref()).await;
        let took_ms = u64::try_from(clock::now().since(began).as_millis()).unwrap_or(u64::MAX);
        let Move::Done(line) = &end else {
            return Err(self.not_moved(&service, &what, &end, took_ms));
        };
        let primary = &line.primary;
        let message = if price.safe {
            format!("{primary} is the primary of {service}; no acknowledged commit was lost")
        } else {
            let bytes =
                price.may_lose_bytes.map_or("an unknown number of".into(), |it| it.to_string());
            format!("{primary} is the primary of {service}; at most {bytes} bytes were lost")
        };
        Ok(Outcome::done(message)
            .field("service", service.as_str())
            .field("primary", primary.as_str())
            .field("term", line.term.0)
            .field("took_ms", took_ms)
            .field("may_lose_bytes", price.may_lose_bytes))
    }
}
