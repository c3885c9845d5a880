//! Talks to one client of a balancer of connections where one side or both speak TLS.
//! In: a client in clear or at the beginning of TLS. Out: nothing but counters.
//! States: Accepted → (handshake) → Held → (handshake) Connected → half open → Ended.
//! Keeps: what ended without its last word is passed on as a reset.
//! Costs: some kilobytes for each side that is encrypted; a connection in clear pays for none of
//! it.
//! Not here: certificates (`http/tls.rs`), endpoints that prove their names (`dial.rs`).
//! Tested by: `../tests/encrypted.rs`.

use super::{Shared, endpoint};
use crate::proxy::balancer::BalancerConfig;
use crate::proxy::http::{Stream, relay};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tandem_core::clustering::load_balanced::ejection::Event;
use tokio::net::TcpStream;
use tokio::time::timeout;
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
    let Ok(door) = client.local_addr() else { return };
    let Some(client) = accept(shared, client, tls).await else { return };
    let Some(socket) = client.socket() else { return };
    let Some((claim, server)) = endpoint(shared, config, (socket, who, door)).await else {
        return;
    };
    let relayed = tokio::select! {
        biased;
        () = shared.stop.cancelled() => return,
        relayed = relay((client, server), config.idle_timeout, claim.0.over()) => relayed,
    };
    let Some(worked) = relayed else {
        claim.0.was_cut();
        return;
    };
    if !worked {
        claim.0.failed_because("it drops connections without a word");
    }
    shared.group.note(&claim.0, if worked { Event::WorkSucceeded } else { Event::WorkFailed });
}

async fn accept(
    shared: &Shared,
    client: TcpStream,
    tls: Option<Arc<rustls::ServerConfig>>,
) -> Option<Stream> {
    let Some(tls) = tls else { return Some(Stream::Plain(client)) };
    let accept = timeout(HANDSHAKE_MAX, TlsAcceptor::from(tls).accept(client));
    let accepted = tokio::select! {
        biased;
        () = shared.closing.cancelled() => return None,
        accepted = accept => accepted,
    };
    let Ok(Ok(stream)) = accepted else {
        shared.tally.refused.fetch_add(1, Ordering::Relaxed);
        return None;
    };
    Some(Stream::Tls(Box::new(stream.into())))
}
