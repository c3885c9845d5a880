//! Talks to endpoints only to see whether they answer: a connection is made, encrypted if that is
//! how its endpoint is spoken to, a question asked if there is one, and it is closed.
//! In: the group. Out: `CheckSucceeded`, `CheckFailed`.
//! All endpoints are asked side by side, so that one that answers nothing delays no other; each is
//! asked at once, then at its own pace, spread by chance so that many nodes do not ask together.
//! Not here: how many answers in a row count (`tandem_core`).

pub(super) mod role;

use super::dial::Dialer;
use super::group::Group;
use super::header;
use super::member::Member;
use super::{BalancerConfig, Question};
use crate::proxy::http::{self, Protocol};
use futures::stream::{FuturesUnordered, StreamExt};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tandem_core::clustering::load_balanced::ejection::Event;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

/// Asks until `stop`.
pub(super) async fn run(
    (group, dialer): (Arc<Group>, Arc<Dialer>),
    mut config: watch::Receiver<Arc<BalancerConfig>>,
    stop: CancellationToken,
) {
    let mut changed = group.changed();
    let mut due: BTreeMap<SocketAddr, Instant> = BTreeMap::new();
    let mut asked = FuturesUnordered::new();
    loop {
        changed.mark_unchanged();
        let current = Arc::clone(&config.borrow_and_update());
        let Some(check) = current.check else {
            due.clear();
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                result = config.changed() => if result.is_err() { return },
            }
            continue;
        };
        let members = group.members();
        due.retain(|address, _| members.iter().any(|member| member.address == *address));
        let now = Instant::now();
        for member in members {
            let next = due.entry(member.address).or_insert(now);
            if *next <= now {
                // Until it has answered, or has not.
                *next = now + check.timeout + check.interval;
                asked.push(ask(member, Arc::clone(&current), (&group, &dialer)));
            }
        }
        let next = due.values().min().copied().unwrap_or(now + check.interval);
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            Some((member, succeeded)) = asked.next() => {
                if let Some(next) = due.get_mut(&member.address) {
                    // From the answer on: a slow one is not asked more often for being slow.
                    let pause = check.interval.mul_f64(rand::random_range(0.75..1.25));
                    *next = Instant::now() + pause;
                }
                let event = if succeeded { Event::CheckSucceeded } else { Event::CheckFailed };
                group.note(&member, event);
            }
            () = sleep_until(next) => {}
            _ = changed.changed() => {}
            result = config.changed() => {
                if result.is_err() {
                    return;
                }
                // A shorter interval counts from now on.
                due.clear();
            }
        }
    }
}

async fn ask(
    member: Arc<Member>,
    config: Arc<BalancerConfig>,
    (group, dialer): (&Group, &Dialer),
) -> (Arc<Member>, bool) {
    let Some(check) = config.check else { return (member, true) };
    let host = group.host(member.address);
    let asked = connect_and_ask(&config, dialer, (member.address, host.as_deref()));
    let failure = match timeout(check.timeout, asked).await {
        Ok(asked) => asked.err(),
        Err(_) => Some("no answer in time".to_owned()),
    };
    let succeeded = failure.is_none();
    if let Some(failure) = failure {
        member.failed_because(failure);
    }
    (member, succeeded)
}

async fn connect_and_ask(
    config: &BalancerConfig,
    dialer: &Dialer,
    (address, host): (SocketAddr, Option<&str>),
) -> Result<(), String> {
    let mut stream = TcpStream::connect(address).await.map_err(|error| error.to_string())?;
    if let Some(Question::Postgres(check)) = &config.question {
        return role::ask(stream, check).await;
    }
    // Closed by a reset: thousands of checks leave no sockets that wait for their end.
    let _ = socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO));
    let asks = config.question.is_some() || dialer.is_encrypted();
    if let (Some(version), true) = (config.send_proxy, asks) {
        // Nobody but this node asks.
        let own = stream.local_addr().map_err(|error| error.to_string())?;
        let said = stream.write_all(&header::write(version, own, address)).await;
        said.map_err(|error| error.to_string())?;
    }
    let stream = dialer.encrypt(stream, address, host).await;
    let mut stream = stream.map_err(|error| error.to_string())?;
    let Some(Question::Http(question)) = &config.question else { return Ok(()) };
    let is_http2 = match config.http.as_ref().map(|http| http.upstream_protocol) {
        Some(Protocol::Auto) => stream.protocol() == Some(http::HTTP2),
        speaks => speaks == Some(Protocol::Http2),
    };
    if is_http2 {
        let ask = async |mut stream| http::ask(&mut stream, address, question).await;
        return http::once(stream, address, ask).await;
    }
    http::ask(&mut stream, address, question).await
}
