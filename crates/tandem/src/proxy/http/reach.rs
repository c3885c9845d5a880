//! Talks to endpoints until one takes a request: chooses, waits for one, connects.
//! In: what the request asks. Out: `Reached`, or that nobody did in time.
//! States: → (nobody serves, all full) Held → (somebody does) Connecting → Reached; Held → Expired.
//! Keeps: a connect that fails carried nothing and may be tried elsewhere (H43), at once as long as
//! the budget pays for it, after that at a slow pace. A request that must not be sent twice takes
//! no connection that its endpoint may be about to close.
//! Not here: who is chosen (`tandem_core`).
//! Tested by: `tests/`.

use super::Protocol;
use super::exchange::Door;
use super::h2::Opening;
use super::session::{Client, Order};
use super::stream::Stream;
use crate::proxy::balancer::group::Wish;
use crate::proxy::balancer::member::Claim;
use crate::proxy::balancer::session::{HeldCount, wait};
use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tandem_core::clustering::load_balanced::ejection::Event;
use tokio::time::{Instant, sleep_until, timeout};

/// Between two rounds over endpoints that all failed.
const PACE: Duration = Duration::from_millis(100);
/// A connection used so shortly ago is not about to be closed for being idle.
const FRESH: Duration = Duration::from_secs(1);

/// An endpoint that takes a request.
pub(super) struct Reached {
    pub(super) claim: Claim,
    pub(super) stream: Stream,
    /// It carried requests before.
    pub(super) is_reused: bool,
}

/// Why there is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Nobody {
    /// The client went away.
    Left,
    /// Nobody came into service in time.
    Expired,
    /// The balancer closes.
    Closing,
}

/// A request's search for an endpoint.
pub(super) struct Search<'a> {
    pub(super) door: Door<'a>,
    pub(super) order: Order,
    pub(super) until: Instant,
    /// Endpoints that failed it already.
    pub(super) failed: Vec<SocketAddr>,
    /// So often an endpoint said that it did nothing with it.
    pub(super) refusals: u32,
}

impl Search<'_> {
    /// Finds an endpoint.
    pub(super) async fn reach(&mut self, client: &mut Client) -> Result<Reached, Nobody> {
        let group = &self.door.shared.group;
        loop {
            let claim = self.place(client).await?;
            let address = claim.0.address;
            if self.failed.contains(&address) {
                // Everyone was tried.
                drop(claim);
                self.pause(client).await?;
                continue;
            }
            match self.connection(address).await {
                Ok((stream, is_reused)) => return Ok(Reached { claim, stream, is_reused }),
                Err(why) => {
                    claim.0.failed_because(why);
                    group.note(&claim.0, Event::WorkFailed);
                    let may_retry = self.door.http.may_retry();
                    if may_retry {
                        claim.0.retried();
                    }
                    drop(claim);
                    self.failed.push(address);
                    if !may_retry {
                        self.pause(client).await?;
                    }
                }
            }
        }
    }

    /// A connection, and whether it carried requests before.
    async fn connection(&self, address: SocketAddr) -> Result<(Stream, bool), String> {
        let Door { shared, http, config, requests } = self.door;
        if requests.upstream_protocol == Protocol::Http2 {
            if let Some(stream) = http.links.take(address) {
                // What becomes of it tells whether it was stale.
                return Ok((stream, false));
            }
            let opening = || {
                let (dialer, host) = (Arc::clone(&shared.dialer), shared.group.host(address));
                Opening {
                    supervisor: shared.supervisor.clone(),
                    connect: async move { dialer.dial(address, host.as_deref()).await },
                    within: config.connect_timeout,
                    head_bytes_max: requests.head_bytes_max,
                }
            };
            return http.links.open(address, opening).await.map(|stream| (stream, false));
        }
        let age_max = if self.order.is_repeatable() { Duration::MAX } else { FRESH };
        if let Some(stream) = http.pool.take(address, age_max) {
            return Ok((stream, true));
        }
        let host = if shared.dialer.is_encrypted() { shared.group.host(address) } else { None };
        let connect = shared.dialer.dial(address, host.as_deref());
        match timeout(config.connect_timeout, connect).await {
            Ok(Ok(stream)) => Ok((stream, false)),
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err("no answer in time".to_owned()),
        }
    }

    /// Nobody is asked for a moment, then everybody may be.
    async fn pause(&mut self, client: &mut Client) -> Result<(), Nobody> {
        self.failed.clear();
        let next = Instant::now() + PACE;
        self.hold(client, async move { sleep_until(next).await }).await
    }

    async fn place(&self, client: &mut Client) -> Result<Claim, Nobody> {
        let group = &self.door.shared.group;
        let wish = Wish {
            key: self.order.key,
            avoid: &self.failed,
            token: self.order.token,
            in_flight_max: self.door.requests.in_flight_max,
        };
        if let Some(claim) = group.pick(wish) {
            return Ok(claim);
        }
        let mut changed = group.changed();
        loop {
            let mut freed = pin!(group.freed().notified());
            freed.as_mut().enable();
            changed.mark_unchanged();
            if let Some(claim) = group.pick(wish) {
                return Ok(claim);
            }
            let either = async {
                tokio::select! {
                    () = freed => {}
                    () = wait(self.door.shared, &mut changed) => {}
                }
            };
            self.hold(client, either).await?;
        }
    }

    /// Waits for something while the client waits.
    async fn hold(
        &self,
        client: &mut Client,
        something: impl Future<Output = ()>,
    ) -> Result<(), Nobody> {
        let _held = HeldCount::new(&self.door.shared.tally.held);
        tokio::select! {
            biased;
            () = self.door.shared.closing.cancelled() => Err(Nobody::Closing),
            () = poll_fn(|cx| client.poll_left(cx)) => Err(Nobody::Left),
            () = something => Ok(()),
            () = sleep_until(self.until) => Err(Nobody::Expired),
        }
    }
}
