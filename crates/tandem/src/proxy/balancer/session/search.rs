//! Talks to endpoints until one takes a connection: chooses, waits for one, connects.
//! In: who the client is, and where it came to. Out: a connection to an endpoint.
//! States: → (nobody serves, all full) waits → (somebody does) Connecting → found; Connecting →
//! (refused) the next endpoint, at once where that one pays for it, else after a moment; (all were
//! asked) whoever pays for it.
//! Keeps: H43 a connect that fails carried nothing, and may be tried again. Once every endpoint
//! refuses, thousands of clients that are held would be the load that keeps a service from coming
//! back: what is tried again is paid for by the endpoint, and what goes well there pays for others.
//! Not here: who is chosen, and what pays (`tandem_core`).
//! Tested by: `../tests/limits.rs`.

use super::{LOOK, Shared, wrong};
use crate::proxy::balancer::BalancerConfig;
use crate::proxy::balancer::dial::connect;
use crate::proxy::balancer::group::{Picked, Wish};
use crate::proxy::balancer::header;
use crate::proxy::balancer::member::Claim;
use crate::proxy::http::Stream;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::atomic::Ordering;
use tandem_core::clustering::load_balanced::attempts::{Attempts, Failure, PACE};
use tandem_core::clustering::load_balanced::ejection::Event;
use tandem_core::clustering::load_balanced::rendezvous;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::error::Elapsed;
use tokio::time::{Instant, sleep, timeout, timeout_at};

/// A connection's search for an endpoint.
pub(super) struct Search<'a> {
    shared: &'a Shared,
    config: &'a BalancerConfig,
    client: &'a TcpStream,
    who: SocketAddr,
    key: u64,
    attempts: Attempts<SocketAddr>,
    /// A connect has failed.
    has_failed: bool,
    /// It has waited for the next one.
    has_waited: bool,
}

impl<'a> Search<'a> {
    pub(super) fn new(
        shared: &'a Shared,
        config: &'a BalancerConfig,
        (client, who): (&'a TcpStream, SocketAddr),
    ) -> Self {
        let key = rendezvous::hash_of(who.ip().to_canonical());
        let attempts = Attempts::default();
        Self { shared, config, client, who, key, attempts, has_failed: false, has_waited: false }
    }

    /// None if more wait than may. `picked`: what there was at first; none where that took nothing.
    pub(super) async fn go_on(mut self, mut picked: Option<Picked>) -> Option<(Claim, Stream)> {
        loop {
            picked = match picked {
                None => Some(self.ask()),
                Some(Picked::Place(claim)) if !self.may_connect(&claim) => {
                    let address = claim.0.address;
                    drop(claim);
                    if self.attempts.is_first_round() {
                        sleep(PACE).await;
                        self.has_waited = true;
                    } else {
                        self.attempts.pass_over(address);
                    }
                    None
                }
                Some(Picked::Place(claim)) => match self.connect(claim).await {
                    Some(found) => return Some(found),
                    None => None,
                },
                Some(Picked::Tried) => {
                    // Once more, after a pause: nothing was sent to anybody.
                    self.attempts.next_round();
                    sleep(PACE).await;
                    None
                }
                Some(Picked::Wait(waiting)) => Some(waiting.turn(self.shared).await),
                Some(Picked::Full) => return None,
            };
        }
    }

    pub(super) fn ask(&self) -> Picked {
        self.shared.group.ask(Wish {
            key: Some(self.key),
            attempts: &self.attempts,
            token: None,
            in_flight_max: self.config.connections_max,
            held_max: self.config.held_max,
        })
    }

    /// The first connect costs nothing; another one in the first round waits at most for a moment.
    fn may_connect(&self, claim: &Claim) -> bool {
        !self.has_failed || self.has_waited || claim.0.pays_again()
    }

    /// None: the endpoint does not take it.
    pub(super) async fn connect(&mut self, claim: Claim) -> Option<(Claim, Stream)> {
        let address = claim.0.address;
        let begun = Instant::now();
        let why = match self.dial_in_time(&claim, begun).await? {
            Ok(Ok(server)) => {
                claim.0.connected_in(begun.elapsed());
                if self.has_failed {
                    claim.0.worked_again();
                }
                return Some((claim, server));
            }
            Ok(Err(error)) => error.to_string(),
            Err(_) => "no answer in time".to_owned(),
        };
        claim.0.failed_because(why);
        self.shared.group.note(&claim.0, Event::WorkFailed);
        self.shared.tally.retried.fetch_add(1, Ordering::Relaxed);
        claim.0.retried();
        // What pays is asked at the next endpoint.
        self.attempts.failed(address, Failure::Refused, || true);
        (self.has_failed, self.has_waited) = (true, false);
        None
    }

    /// None where the wait is for nothing.
    async fn dial_in_time(
        &self,
        claim: &Claim,
        begun: Instant,
    ) -> Option<Result<io::Result<Stream>, Elapsed>> {
        let max = self.shared.config.borrow().connect_timeout;
        let soon = LOOK.min(max);
        let mut dial = pin!(self.dial(claim.0.address));
        // Most take a connection at once: what guards a longer wait costs more than that.
        match timeout_at(begun + soon, &mut dial).await {
            Err(_) if soon < max => {}
            dialed => return Some(dialed),
        }
        // Every connection would have room for it.
        Box::pin(async {
            tokio::select! {
                biased;
                dialed = timeout(max.saturating_sub(soon), dial) => Some(dialed),
                // Nothing was sent there: whoever waits goes where work goes now.
                () = wrong(self.shared, claim) => None,
                () = self.shared.stop.cancelled() => None,
            }
        })
        .await
    }

    /// A connection, the endpoint told who it is for, and encrypted where it wants that. One in
    /// clear still may wait for small pieces to become larger ones.
    async fn dial(&self, address: SocketAddr) -> io::Result<Stream> {
        let Self { shared, client, who, .. } = self;
        // As it is now: whoever was held goes as its endpoint wants it by now.
        let config = shared.config();
        let mut server = connect(address).await?;
        if let Some(version) = config.send_proxy {
            let _ = server.set_nodelay(true);
            server.write_all(&header::write(version, *who, client.local_addr()?)).await?;
        }
        if !config.encrypts {
            return Ok(Stream::Plain(server));
        }
        let _ = server.set_nodelay(true);
        let host = shared.group.host(address);
        // Every connection would have room for it, the many in clear as well.
        Box::pin(shared.dialer.encrypt(server, address, host.as_deref())).await
    }
}
