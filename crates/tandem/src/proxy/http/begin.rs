//! Talks to a client at first: encrypts what is said where it has to be, and finds out what it
//! speaks.
//! In: an accepted connection. Out: a session of HTTP/1.1 (`session.rs`) or HTTP/2 (`h2/serve.rs`).
//! States: Accepted → (handshake) → (ALPN, or the first bytes) HTTP/1.1 or HTTP/2.
//! Keeps: a handshake and the first bytes are waited for only so long.
//! Not here: certificates (`tls.rs`).
//! Tested by: `tests/`.

use super::session::{Client, poll_head, run};
use super::stream::{Buffer, Stream};
use super::wire::rewrite::Origin;
use super::{Http, HttpConfig, h2};
use crate::proxy::balancer::session::{LAGGARD, SETTLED, Shared, makes_room, shake_hands};
use crate::runtime::woken::when_woken;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};

/// How long a door that closes still serves what comes on an idle connection: it was sent before
/// its client could know.
pub(super) const LAST_WORD: Duration = Duration::from_secs(1);

/// Serves one client to its end.
pub(in crate::proxy) async fn serve(
    shared: &Shared,
    http: &Http,
    client: TcpStream,
    who: SocketAddr,
) {
    let config = shared.config();
    let Some(requests) = &config.http else { return };
    let ends = client.local_addr().ok().map(|door| (who, door));
    let Some(stream) = accept(shared, http, requests, client).await else { return };
    // Whose word is believed is looked up with each request.
    let (ip, is_encrypted) = (who.ip().to_canonical(), stream.is_encrypted());
    let origin = Origin { ip, is_encrypted, is_trusted: false };
    let session = speak(h2::Server { shared, http, origin, ends }, requests, stream);
    let stopped = pin!(shared.stop.cancelled());
    tokio::select! {
        biased;
        () = session => {}
        () = when_woken(stopped) => {}
    }
    // What endpoints have for it is of no use to anybody else.
    if let (Some(ends), true) = (ends, shared.config().send_proxy.is_some()) {
        http.pool.forget(ends);
    }
}

/// What its client is spoken to by: in clear, or encrypted.
async fn accept(
    shared: &Shared,
    http: &Http,
    config: &HttpConfig,
    client: TcpStream,
) -> Option<Stream> {
    let Some(tls) = http.tls() else { return Some(Stream::Plain(client)) };
    let late = Instant::now() + LAGGARD;
    let accept = timeout(config.head_timeout, shake_hands(shared, tls, client));
    let accepted = tokio::select! {
        biased;
        () = last_word(shared) => return None,
        accepted = accept => accepted,
        // It drips.
        () = makes_room(shared, late) => return None,
    };
    accepted.unwrap_or_else(|_late| {
        shared.tally.refused.fetch_add(1, Ordering::Relaxed);
        None
    })
}

/// HTTP/2 where TLS agreed on it or the client begins with it, else HTTP/1.1.
async fn speak(server: h2::Server<'_>, config: &HttpConfig, stream: Stream) {
    let is_agreed = stream.protocol() == Some(h2::ALPN);
    let mut client = Client::new(stream, server.origin, Buffer::default());
    client.ends = server.ends;
    if is_agreed {
        h2::serve(server, config, (client.stream, client.input)).await;
        return;
    }
    if config.http2 && !client.stream.is_encrypted() {
        match begins(server.shared, config, &mut client).await {
            Some(true) => {
                h2::serve(server, config, (client.stream, client.input)).await;
                return;
            }
            Some(false) => {}
            None => return,
        }
    }
    run(server.shared, server.http, &mut client).await;
}

/// Whether its first bytes are those of HTTP/2; none if there are none.
async fn begins(shared: &Shared, config: &HttpConfig, client: &mut Client) -> Option<bool> {
    let mut deadline = Instant::now() + config.keep_alive;
    let settled = Instant::now() + SETTLED;
    let mut is_silent = true;
    loop {
        let unread = client.input.unread();
        let common = unread.len().min(h2::PREFACE.len());
        if unread[..common] != h2::PREFACE[..common] {
            return Some(false);
        }
        if common == h2::PREFACE.len() {
            return Some(true);
        }
        if is_silent && common > 0 {
            // Once, however slowly the rest drips.
            (deadline, is_silent) = (Instant::now() + config.head_timeout, false);
        }
        let fill = poll_fn(|cx| poll_head(client, config.head_bytes_max, deadline, cx));
        let filled = tokio::select! {
            biased;
            filled = fill => filled,
            // What has begun to come may still come.
            () = last_word(shared), if is_silent => return None,
            () = makes_room(shared, settled), if is_silent => return None,
        };
        if !filled.is_ok_and(|bytes| bytes > 0) {
            // Half a word is no HTTP/2; whoever speaks HTTP/1.1 says what is wrong with it.
            return (!is_silent).then_some(false);
        }
    }
}

/// Ready when a door that closes waits no longer for what was sent before its client knew.
pub(super) async fn last_word(shared: &Shared) {
    shared.closing.cancelled().await;
    sleep(LAST_WORD).await;
}
