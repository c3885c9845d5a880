//! Talks to endpoints only to see whether they answer: a TCP connection is made, for HTTP a
//! question asked, and it is closed.
//! In: the group. Out: `CheckSucceeded`, `CheckFailed`.
//! All endpoints are asked side by side, so that one that answers nothing delays no other; each is
//! asked at once, then at its own pace, spread by chance so that many nodes do not ask together.
//! Not here: how many answers in a row count (`tandem_core`).

use super::group::Group;
use super::member::Member;
use super::{BalancerConfig, Check};
use crate::proxy::http::{self, HttpCheck};
use futures::stream::{FuturesUnordered, StreamExt};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tandem_core::clustering::load_balanced::ejection::Event;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

/// Asks until `stop`.
pub(super) async fn run(
    group: Arc<Group>,
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
                // The interval is longer than the timeout: nobody is asked twice at once.
                *next = now + check.interval.mul_f64(rand::random_range(0.75..1.25));
                asked.push(ask(member, check, Arc::clone(&current)));
            }
        }
        let next = due.values().min().copied().unwrap_or(now + check.interval);
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            Some((member, succeeded)) = asked.next() => {
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
    check: Check,
    config: Arc<BalancerConfig>,
) -> (Arc<Member>, bool) {
    let question = config.http.as_ref().and_then(|http| http.check.as_ref());
    let failure = match timeout(check.timeout, connect_and_ask(member.address, question)).await {
        Ok(asked) => asked.err(),
        Err(_) => Some("no answer in time".to_owned()),
    };
    let succeeded = failure.is_none();
    if let Some(failure) = failure {
        member.failed_because(failure);
    }
    (member, succeeded)
}

async fn connect_and_ask(address: SocketAddr, question: Option<&HttpCheck>) -> Result<(), String> {
    let mut stream = TcpStream::connect(address).await.map_err(|error| error.to_string())?;
    // Closed by a reset: thousands of checks leave no sockets that wait for their end.
    let _ = socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO));
    match question {
        Some(question) => http::ask(&mut stream, address, question).await,
        None => Ok(()),
    }
}
