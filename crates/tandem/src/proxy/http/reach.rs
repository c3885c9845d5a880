//! Talks to endpoints until one takes a request: chooses, waits for one, connects.
//! In: what the request asks. Out: `Reached`, or that nobody did in time.
//! States: → (nobody serves, all full) Held → (somebody does) Connecting → Reached; Held → Expired.
//! Keeps: a connect that fails carried nothing and may be tried elsewhere (H43), at once as long as
//! the budget pays for it, after that at a slow pace. A request that must not be sent twice takes
//! no connection that its endpoint may be about to close. Nothing here lasts longer than the
//! client waits.
//! Not here: who is chosen, and who may be asked again (`tandem_core`).
//! Tested by: `tests/`.

use super::exchange::Door;
use super::h2::Opening;
use super::session::{Client, Ends, Order};
use super::stream::Stream;
use super::{HTTP2, Protocol};
use crate::proxy::balancer::ProxyVersion;
use crate::proxy::balancer::group::{Picked, Wish};
use crate::proxy::balancer::member::Claim;
use crate::proxy::balancer::session::{HeldCount, goes_elsewhere};
use std::future::poll_fn;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tandem_core::clustering::load_balanced::attempts::{Attempts, Failure, Next, PACE};
use tandem_core::clustering::load_balanced::ejection::Event;
use tokio::time::{Instant, sleep, sleep_until, timeout};

/// A connection used so shortly ago is not about to be closed for being idle.
const FRESH: Duration = Duration::from_secs(1);

/// An endpoint that takes a request.
pub(super) struct Reached {
    pub(super) claim: Claim,
    pub(super) stream: Stream,
    /// The client that the connection belongs to; none: to whoever needs one.
    pub(super) of: Option<Ends>,
    /// It carried requests before.
    pub(super) is_reused: bool,
    /// Of its connection.
    pub(super) generation: u64,
}

/// Why there is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Nobody {
    /// The client went away.
    Left,
    /// Nobody came into service in time.
    Expired,
    /// More wait than may.
    Crowded,
    /// The request took too long in all.
    Late,
    /// All who serve had it, and none answered.
    Tried,
    /// The balancer closes.
    Closing,
}

/// A request's search for an endpoint.
pub(super) struct Search<'a> {
    pub(super) door: Door<'a>,
    pub(super) order: Order,
    /// When it is told that nobody took it.
    pub(super) hold: Instant,
    /// When everything has to be over.
    pub(super) total: Option<Instant>,
    pub(super) attempts: Attempts<SocketAddr>,
    /// No connection that was used before: one was closed, and so may be the others.
    pub(super) anew: bool,
    /// A connect has failed.
    has_failed: bool,
}

impl<'a> Search<'a> {
    pub(super) fn new(
        (door, order): (Door<'a>, Order),
        (hold, total): (Instant, Option<Instant>),
    ) -> Self {
        let attempts = Attempts::default();
        Self { door, order, hold, total, attempts, anew: false, has_failed: false }
    }

    /// Finds an endpoint.
    pub(super) async fn reach(&mut self, client: &mut Client) -> Result<Reached, Nobody> {
        loop {
            let claim = self.place(client).await?;
            let address = claim.0.address;
            if !self.attempts.is_first_round() && self.has_failed && !claim.0.pays_again() {
                drop(claim);
                self.attempts.pass_over(address);
                self.may_go_on()?;
                continue;
            }
            let generation = self.door.http.pool.generation();
            // After that: what is made by what counted before is kept for nobody.
            let said = self.said(client);
            let of = said.map(|(_, ends)| ends);
            let connection = tokio::select! {
                biased;
                connection = self.connection(client, address, said) => connection?,
                // Nothing was sent there: whoever waits goes where work goes now.
                () = goes_elsewhere(self.door.shared, &claim) => {
                    drop(claim);
                    self.may_go_on()?;
                    continue;
                }
            };
            let why = match connection {
                Ok((stream, is_reused)) => {
                    if std::mem::take(&mut self.has_failed) && !is_reused {
                        claim.0.worked_again();
                    }
                    return Ok(Reached { claim, stream, of, is_reused, generation });
                }
                Err(why) => why,
            };
            // How it is spoken to may have changed meanwhile: that is not its fault.
            if generation == self.door.http.pool.generation() {
                claim.0.failed_because(why);
                self.door.shared.group.note(&claim.0, Event::WorkFailed);
            }
            let pay = || self.door.http.may_retry();
            let next = self.attempts.failed(address, Failure::Refused, pay);
            self.has_failed = true;
            if next == Next::AtOnce {
                claim.0.retried();
            }
            drop(claim);
            self.may_go_on()?;
            self.goes_on(client, next).await?;
        }
    }

    fn may_go_on(&self) -> Result<(), Nobody> {
        if self.door.shared.closing.is_cancelled() { Err(Nobody::Closing) } else { Ok(()) }
    }

    /// Whom an endpoint is told that the client is, and how: as it is now, for a request may have
    /// waited for long.
    fn said(&self, client: &Client) -> Option<(ProxyVersion, Ends)> {
        self.door.shared.config.borrow().send_proxy.zip(client.ends)
    }

    /// A connection, and whether it carried requests before; or why there is none.
    async fn connection(
        &self,
        client: &mut Client,
        address: SocketAddr,
        said: Option<(ProxyVersion, Ends)>,
    ) -> Result<Result<(Stream, bool), String>, Nobody> {
        let http = self.door.http;
        if self.speaks_http2(address) {
            // What becomes of it tells whether it was stale.
            if let Some(stream) = http.links.take(address) {
                return Ok(Ok((stream, false)));
            }
        } else if !self.anew {
            let age_max = if self.order.is_repeatable() { Duration::MAX } else { FRESH };
            let of = said.map(|(_, ends)| ends);
            if let Some(stream) = http.pool.take((address, of), age_max) {
                return Ok(Ok((stream, true)));
            }
        }
        tokio::select! {
            biased;
            connected = self.connect(address, said) => Ok(connected.map(|stream| (stream, false))),
            nobody = self.over(client) => Err(nobody),
        }
    }

    fn speaks_http2(&self, address: SocketAddr) -> bool {
        let Door { shared, http, .. } = self.door;
        // As it is now: a request may have waited for long, and connections are made by this.
        let protocol = shared.config.borrow().http.as_ref().map(|http| http.upstream_protocol);
        match protocol {
            Some(Protocol::Http1) | None => false,
            Some(Protocol::Http2) => true,
            // Until it has said something else.
            Some(Protocol::Auto) => !http.links.is_old(address),
        }
    }

    async fn connect(
        &self,
        address: SocketAddr,
        said: Option<(ProxyVersion, Ends)>,
    ) -> Result<Stream, String> {
        if self.speaks_http2(address)
            && let Some(stream) = self.open(address).await?
        {
            return Ok(stream);
        }
        let Door { shared, http, config, .. } = self.door;
        let host = if shared.dialer.is_encrypted() { shared.group.host(address) } else { None };
        let connect = shared.dialer.dial(address, host.as_deref(), said);
        let stream = match timeout(config.connect_timeout, connect).await {
            Ok(connected) => connected.map_err(|error| error.to_string())?,
            Err(_) => return Err("no answer in time".to_owned()),
        };
        if stream.protocol() == Some(HTTP2) {
            // It did not when it was asked before; the next request finds it so.
            http.links.ask_again(address);
            return Err("it speaks HTTP/2 from now on".to_owned());
        }
        Ok(stream)
    }

    /// A stream of HTTP/2; none if the endpoint speaks HTTP/1.1.
    async fn open(&self, address: SocketAddr) -> Result<Option<Stream>, String> {
        let Door { shared, http, config, requests } = self.door;
        let opening = || {
            let (dialer, host) = (Arc::clone(&shared.dialer), shared.group.host(address));
            Opening {
                supervisor: shared.supervisor.clone(),
                connect: async move { dialer.dial(address, host.as_deref(), None).await },
                within: config.connect_timeout,
                head_bytes_max: requests.head_bytes_max,
            }
        };
        http.links.open(address, opening).await
    }

    /// Nobody is asked for a moment, unless it may go on at once.
    pub(super) async fn goes_on(&self, client: &mut Client, next: Next) -> Result<(), Nobody> {
        if next == Next::AtOnce { Ok(()) } else { self.hold(client, sleep(PACE)).await }
    }

    async fn place(&mut self, client: &mut Client) -> Result<Claim, Nobody> {
        let mut picked = self.ask();
        loop {
            picked = match picked {
                Picked::Place(claim) => return Ok(claim),
                Picked::Tried => {
                    self.next_round(client).await?;
                    self.ask()
                }
                Picked::Wait(waiting) => self.hold(client, waiting.turn(self.door.shared)).await?,
                Picked::Full => return Err(Nobody::Crowded),
            };
        }
    }

    async fn next_round(&mut self, client: &mut Client) -> Result<(), Nobody> {
        match self.attempts.next_round() {
            Next::Over => Err(Nobody::Tried),
            next => self.goes_on(client, next).await,
        }
    }

    fn ask(&self) -> Picked {
        self.door.shared.group.ask(Wish {
            key: self.order.key,
            attempts: &self.attempts,
            token: self.order.token,
            in_flight_max: self.door.requests.in_flight_max,
            held_max: self.door.config.held_max,
        })
    }

    /// Waits for something while the client waits.
    async fn hold<T>(
        &self,
        client: &mut Client,
        something: impl Future<Output = T>,
    ) -> Result<T, Nobody> {
        let _held = HeldCount::new(&self.door.shared.tally.held);
        tokio::select! {
            biased;
            () = self.door.shared.closing.cancelled() => Err(Nobody::Closing),
            nobody = self.over(client) => Err(nobody),
            something = something => Ok(something),
        }
    }

    /// Ready once nobody waits for the request any more. A door that closes still lets a connect
    /// end that has begun.
    async fn over(&self, client: &mut Client) -> Nobody {
        let (until, then) = match self.total {
            Some(total) if total < self.hold => (total, Nobody::Late),
            Some(_) | None => (self.hold, Nobody::Expired),
        };
        tokio::select! {
            biased;
            () = poll_fn(|cx| client.poll_left(cx)) => Nobody::Left,
            () = sleep_until(until) => then,
        }
    }
}
