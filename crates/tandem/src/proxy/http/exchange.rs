//! Talks to endpoints about one request until it has a response, or until it may have none.
//! In: a request. Out: `After`, and a response at the client.
//! Keeps: H43 a request is sent again only if its connection broke before one byte of a response,
//! it is idempotent and has no body, or its endpoint says that it did nothing with it and nothing
//! of its body was taken; if the budget pays for it; three times in all, and never to an endpoint
//! that may have done it. What is turned away as somebody else's is asked for again while it is
//! held, beyond the budget at a slow pace, as is what a copy had that is proven gone.
//! Not here: the bytes (`transfer.rs`), the search (`reach.rs`).
//! Tested by: `tests/`.

mod over;

use super::h2::Refused;
use super::reach::{Nobody, Reached, Search};
use super::reply::{self, Failure, Manner};
use super::session::{Client, Order};
use super::transfer::{End, Terms, Transfer};
use super::tunnel::{Side, Tunnel};
use super::wire::request::{Method, Refusal};
use super::wire::rewrite;
use super::{Http, HttpConfig, Tally};
use crate::proxy::balancer::BalancerConfig;
use crate::proxy::balancer::member::progress::Progress;
use crate::proxy::balancer::member::{Claim, leaving};
use crate::proxy::balancer::session::Shared;
use over::Over;
use std::future::poll_fn;
use std::sync::atomic::Ordering;
use tandem_core::clustering::load_balanced::attempts::{Failure as Lost, Next};
use tandem_core::clustering::load_balanced::ejection::Event;
use tandem_core::clustering::load_balanced::key::part_of;
use tokio::time::Instant;

const BROKE: &str = "it closes connections before it has answered";

/// What an exchange needs of its balancer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Door<'a> {
    pub(super) shared: &'a Shared,
    pub(super) http: &'a Http,
    pub(super) config: &'a BalancerConfig,
    pub(super) requests: &'a HttpConfig,
}

/// What becomes of the client's connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum After {
    /// The next request may come.
    KeepAlive,
    /// It ends, after what was sent.
    Close,
    /// A reply is to be sent first.
    Reply { keep_alive: bool },
    /// The request is refused.
    Refused(Refusal),
    /// It ends at once.
    Cut,
    /// It ends by a reset: its end would say that the response is whole.
    Reset,
}

/// Serves one request, whose head is in `client.head`.
pub(super) async fn run(door: Door<'_>, client: &mut Client, order: Order) -> After {
    if let Some(failure) = refusal_of(door, order) {
        return failed(door, client, (order, failure));
    }
    let begun = Instant::now();
    let total = door.requests.total_timeout.map(|total| begun + total);
    let hold = begun + door.config.hold_max;
    door.http.budget(tandem_core::clustering::load_balanced::retry::Budget::request);
    let mut search = Search::new((door, order), (hold, total));
    loop {
        let Reached { claim, stream, of, is_reused, generation } = match search.reach(client).await
        {
            Ok(reached) => reached,
            Err(nobody) => return unserved(door, client, (order, nobody, begun)),
        };
        let cookie = cookie(door, client, &claim, order);
        if let Some(routed) = claim.1 {
            rewrite::routed(&mut client.head, order.head_end, routed);
        }
        let terms = Terms {
            config: door.requests,
            idle_timeout: door.config.idle_timeout,
            member: &claim.0,
            progress: &Progress::new(begun),
            order,
            cookie: cookie.as_deref(),
            routed: claim.1.map(|routed| (&*door.shared.group, routed)),
            total,
            closing: &door.shared.closing,
        };
        let mut transfer = Transfer::new(terms, client, stream);
        let end = tokio::select! {
            biased;
            end = poll_fn(|cx| transfer.poll(cx)) => end,
            why = claim.over(terms.progress) => {
                claim.0.was_cut();
                End::Cut(why)
            }
        };
        let over = Over {
            end,
            status: transfer.status,
            can_reply: transfer.can_reply(),
            ends_by_close: transfer.ends_by_close,
            has_spoken: transfer.endpoint_spoke,
            took_body: transfer.took_body,
            waited: transfer.waited(),
            has_waited_for_client: transfer.has_waited_for_client(),
            is_stale: end == End::Broke && (is_reused || transfer.endpoint.is_stale()),
            refused: transfer.endpoint.refused(),
        };
        let endpoint = transfer.into_endpoint();
        let next = next(&mut search, &claim, (order, over));
        if next != Next::Over {
            drop(claim);
            match search.goes_on(client, next).await {
                Ok(()) => continue,
                Err(nobody) => return unserved(door, client, (order, nobody, begun)),
            }
        }
        return match end {
            End::Switched => tunnel(door, client, (claim, endpoint)).await,
            End::Done { is_reusable: true, .. } => {
                door.http.pool.put((claim.0.address, of), (endpoint, generation), door.shared);
                finish(door, client, (&claim, order, over))
            }
            _ => finish(door, client, (&claim, order, over)),
        };
    }
}

/// Why a request is sent to nobody.
fn refusal_of(door: Door<'_>, order: Order) -> Option<Failure> {
    if let Err(wait) = door.shared.rates.take(order.client) {
        return Some(Failure::Limited(wait));
    }
    door.config.partitions?;
    let source = || door.requests.hash_key.clone();
    let doubt = order.doubt.map(|doubt| Failure::TwoKeys(source(), doubt));
    doubt.or_else(|| order.key.is_none().then(|| Failure::NoKey(source())))
}

/// What comes next for a request that ended so.
fn next(search: &mut Search<'_>, claim: &Claim, (order, over): (Order, Over)) -> Next {
    match over.end {
        End::Misdirected => turned_away(search, claim),
        _ if over.may_repeat(order) => again(search, claim, over),
        _ => Next::Over,
    }
}

/// A request that was turned away waits for its owner to be known, or to know it.
fn turned_away(search: &mut Search<'_>, claim: &Claim) -> Next {
    claim.0.retried();
    search.anew = false;
    let pay = || search.door.http.may_retry();
    search.attempts.failed(claim.0.address, Lost::Misdirected, pay)
}

/// What comes next for a request whose connection broke, or was cut, before an answer.
fn again(search: &mut Search<'_>, claim: &Claim, over: Over) -> Next {
    let door = search.door;
    let how = match over.refused {
        Some(Refused::Request | Refused::NewConnection) => Lost::Declined,
        Some(Refused::Connection) => Lost::Stale,
        None if over.is_stale => Lost::Stale,
        None if over.end == End::Cut(leaving::Over::Gone) => Lost::Gone,
        // Only its owner can do it, here or wherever that is next; what is repeated is done once.
        None if claim.1.is_some() => Lost::Stale,
        None => Lost::Broke,
    };
    let pay = || door.http.may_retry();
    let next = search.attempts.failed(claim.0.address, how, pay);
    if next == Next::Over {
        return next;
    }
    claim.0.retried();
    search.anew = how == Lost::Stale;
    // It had found somebody: what it waits from here on is another wait.
    search.hold = Instant::now() + door.config.hold_max;
    if over.is_fault() {
        claim.0.failed_because(BROKE);
        door.shared.group.note(&claim.0, Event::WorkFailed);
    }
    next
}

/// Takes note of how it went, and says what the client gets.
fn finish(
    door: Door<'_>,
    client: &mut Client,
    (claim, order, over): (&Claim, Order, Over),
) -> After {
    let count = |counter: &std::sync::atomic::AtomicU64| counter.fetch_add(1, Ordering::Relaxed);
    if let Some(status) = over.status {
        door.http.answered(status);
    }
    let is_error = door.requests.errors_count && over.status.is_some_and(blames);
    let cut = if over.ends_by_close { After::Reset } else { After::Cut };
    let failure = match over.end {
        End::Done { keep_alive, .. } => {
            if let (true, Some(status)) = (is_error, over.status) {
                claim.0.failed_because(format!("it answered {status}"));
            }
            let event = if is_error { Event::WorkFailed } else { Event::WorkSucceeded };
            door.shared.group.note(&claim.0, event);
            return if keep_alive { After::KeepAlive } else { After::Close };
        }
        End::Left | End::Switched => {
            count(&door.http.tally.abandoned);
            return After::Cut;
        }
        End::Late | End::Overdue if over.status.is_some() => {
            // A stream of events may be silent for long: no fault, but nobody may keep it for ever.
            count(&door.http.tally.timed_out);
            return cut;
        }
        End::Refused(refusal) if over.can_reply => return After::Refused(refusal),
        End::Refused(_) => return cut,
        End::Broke | End::Misdirected => Failure::Broken,
        End::Nonsense(why) | End::Unfit(why) => Failure::Nonsense(why),
        End::Late | End::Overdue => Failure::Late,
        End::Cut(why) => Failure::Cut(why),
    };
    match failure {
        Failure::Late => _ = count(&door.http.tally.timed_out),
        // Counted as cut, at its endpoint.
        Failure::Cut(_) => {}
        _ => _ = count(&door.http.tally.broken),
    }
    if over.is_fault() {
        claim.0.failed_because(match failure {
            Failure::Late => "no response in time".to_owned(),
            Failure::Nonsense(why) => format!("its response is not understood: {why}"),
            Failure::Broken
            | Failure::Declined
            | Failure::Expired(_)
            | Failure::Unserved(_)
            | Failure::Crowded
            | Failure::Closing
            | Failure::NoKey(_)
            | Failure::TwoKeys(..)
            | Failure::Unowned(..)
            | Failure::Cut(_)
            | Failure::Limited(_) => BROKE.to_owned(),
        });
        door.shared.group.note(&claim.0, Event::WorkFailed);
    }
    if over.end == End::Late {
        // The worst news that there is of its latency.
        claim.0.took(over.waited);
    }
    if let (Failure::Nonsense(why), Some(before)) = (&failure, door.http.says_nonsense()) {
        let (service, address) = (&door.config.service, claim.0.address);
        tracing::warn!(%service, %address, why, before, "an endpoint's response is not understood");
    }
    if over.can_reply { told(door, client, (order, over, failure)) } else { cut }
}

/// The client is told; if nobody did anything with its request, and what is gone of it here keeps
/// it from going elsewhere, then that it is safe to send it again.
fn told(
    door: Door<'_>,
    client: &mut Client,
    (order, over, failure): (Order, Over, Failure),
) -> After {
    if failure != Failure::Broken || !over.is_unseen() {
        return failed(door, client, (order, failure));
    }
    if client.stream.refuse() {
        return After::Cut;
    }
    failed(door, client, (order, Failure::Declined))
}

/// What says that the endpoint is at fault: not that it has no such method, or version.
const fn blames(status: u16) -> bool {
    status >= 500 && !matches!(status, 501 | 505)
}

/// Nobody took the request.
fn unserved(
    door: Door<'_>,
    client: &mut Client,
    (order, nobody, begun): (Order, Nobody, Instant),
) -> After {
    let Tally { abandoned, expired, timed_out, broken, .. } = &door.http.tally;
    let (counter, failure) = match nobody {
        Nobody::Left => (Some(abandoned), None),
        Nobody::Closing => (None, Some(Failure::Closing)),
        Nobody::Expired => (Some(expired), Some(expired_failure(door, order))),
        Nobody::Crowded => (Some(expired), Some(Failure::Crowded)),
        Nobody::Late => (Some(timed_out), Some(Failure::Unserved(begun.elapsed()))),
        Nobody::Tried => (Some(broken), Some(Failure::Broken)),
    };
    if let Some(counter) = counter {
        counter.fetch_add(1, Ordering::Relaxed);
    }
    failure.map_or(After::Cut, |failure| failed(door, client, (order, failure)))
}

/// Nobody took it while it was held.
fn expired_failure(door: Door<'_>, order: Order) -> Failure {
    let held = door.config.hold_max;
    match (door.config.partitions, order.key) {
        (Some(count), Some(key)) => Failure::Unowned(part_of(key, count), held),
        _ => Failure::Expired(held),
    }
}

/// The client is told, and may go on if the end of its request is known.
fn failed(door: Door<'_>, client: &mut Client, (order, failure): (Order, Failure)) -> After {
    let keep_alive =
        order.keep_alive && !order.framing.has_content() && !door.shared.closing.is_cancelled();
    let manner =
        Manner { keep_alive, is_head: order.kind == Method::Head, is_old: order.minor == 0 };
    client.out.clear();
    let status = reply::failure(&mut client.out, failure, &door.config.service, manner);
    door.http.answered(status);
    After::Reply { keep_alive }
}

/// From here on nobody looks at the bytes.
async fn tunnel(
    door: Door<'_>,
    client: &mut Client,
    (claim, mut endpoint): (Claim, super::Stream),
) -> After {
    door.http.answered(101);
    door.http.tally.upgraded.fetch_add(1, Ordering::Relaxed);
    door.shared.group.note(&claim.0, Event::WorkSucceeded);
    // Until they were told an end, theirs is none, whatever ends this.
    client.stream.reset_when_dropped();
    endpoint.reset_when_dropped();
    let Client { stream, input, spare, timer, .. } = client;
    let client = Side { stream, input };
    let endpoint = Side { stream: &mut endpoint, input: spare };
    let progress = Progress::new(Instant::now());
    let mut tunnel = Tunnel::new(client, endpoint, timer, (door.config.idle_timeout, &progress));
    let is_cut = tokio::select! {
        biased;
        is_whole = poll_fn(|cx| tunnel.poll(cx)) => !is_whole,
        _ = claim.over(&progress) => {
            claim.0.was_cut();
            true
        }
    };
    if is_cut {
        tunnel.endpoint.stream.reset_when_dropped();
        return After::Reset;
    }
    After::Cut
}

/// The cookie to set, if the client is not where its own one says.
fn cookie(door: Door<'_>, client: &Client, claim: &Claim, order: Order) -> Option<String> {
    let name = door.requests.sticky.as_deref()?;
    let token = claim.0.token();
    let secure = if client.origin.is_encrypted { "; Secure" } else { "" };
    let is_new = order.token != Some(token);
    is_new.then(|| format!("{name}={token:016x}; Path=/; HttpOnly; SameSite=Lax{secure}"))
}
