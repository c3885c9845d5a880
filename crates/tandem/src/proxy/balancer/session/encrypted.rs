//! Talks to one client of a balancer of connections where one side or both speak TLS.
//! In: a client in clear or at the beginning of TLS. Out: nothing but counters.
//! States: Accepted → (handshake) → Held → (handshake) Connected → half open → Ended.
//! Keeps: what ended without its last word is passed on as a reset.
//! Costs: some kilobytes for each side that is encrypted; a connection in clear pays for none of
//! it.
//! Not here: certificates (`http/tls.rs`), endpoints that prove their names (`dial.rs`).
//! Tested by: `../tests/encrypted.rs`.

use super::{LAGGARD, Shared, endpoint, makes_room, note, over, speaks};
use crate::proxy::balancer::BalancerConfig;
use crate::proxy::balancer::listener::keep_alive;
use crate::proxy::balancer::member::Claim;
use crate::proxy::balancer::member::progress::Progress;
use crate::proxy::http::{Stream, relay};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};
use tokio_rustls::TlsAcceptor;

/// For a client to prove that it speaks TLS, as for the head of a request.
const HANDSHAKE_MAX: Duration = Duration::from_secs(10);

/// Serves one client to its end.
pub(super) async fn serve(
    shared: &Shared,
    config: &BalancerConfig,
    (client, who): (TcpStream, SocketAddr),
    tls: Option<Arc<rustls::ServerConfig>>,
) {
    let Some(client) = accept(shared, client, tls).await else { return };
    let Some(socket) = client.socket() else { return };
    let Some((claim, server)) = endpoint(shared, config, (socket, who)).await else {
        return;
    };
    copy(shared, config, (client, server), claim).await;
}

/// Copies between a client and its endpoint, one of which is encrypted, to the end.
pub(super) async fn copy(
    shared: &Shared,
    config: &BalancerConfig,
    (client, server): (Stream, Stream),
    claim: Claim,
) {
    if let Some(socket) = server.socket() {
        // As one in clear, which asks for it once it has lasted, and has said more than one thing.
        let _ = (keep_alive(socket), socket.set_nodelay(true));
    }
    let progress = Progress::new(Instant::now());
    let (terms, over) = ((config.idle_timeout, &progress), over(shared, &claim, &progress));
    note(shared, &claim, relay((client, server), terms, over).await);
}

async fn accept(
    shared: &Shared,
    client: TcpStream,
    tls: Option<Arc<rustls::ServerConfig>>,
) -> Option<Stream> {
    let Some(tls) = tls else { return Some(Stream::Plain(client)) };
    let late = Instant::now() + LAGGARD;
    let accept = timeout(HANDSHAKE_MAX, shake_hands(shared, tls, client));
    let accepted = tokio::select! {
        biased;
        () = shared.closing.cancelled() => return None,
        accepted = accept => accepted,
        // It drips.
        () = makes_room(shared, late) => return None,
    };
    accepted.unwrap_or_else(|_late| {
        shared.tally.refused.fetch_add(1, Ordering::Relaxed);
        None
    })
}

/// None where it makes room, or is refused.
pub(in crate::proxy) async fn shake_hands(
    shared: &Shared,
    tls: Arc<rustls::ServerConfig>,
    client: TcpStream,
) -> Option<Stream> {
    if !speaks(shared, &client).await {
        return None;
    }
    match TlsAcceptor::from(tls).accept(client).await {
        Ok(stream) => Some(Stream::Tls(Box::new(stream.into()))),
        Err(_) => {
            shared.tally.refused.fetch_add(1, Ordering::Relaxed);
            None
        }
    }
}
