//! Talks to endpoints only to see whether they answer: a TCP connection is made and closed.
//! In: the group. Out: `CheckSucceeded`, `CheckFailed`.
//! All endpoints are asked side by side, so that one that answers nothing delays no other; each is
//! asked at once, then at its own pace, spread by chance so that many nodes do not ask together.
//! Not here: how many answers in a row count (`tandem_core`).

use super::group::{Group, Member};
use super::{BalancerConfig, Check};
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
        let Some(check) = config.borrow_and_update().check else {
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
                asked.push(ask(member, check));
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

async fn ask(member: Arc<Member>, check: Check) -> (Arc<Member>, bool) {
    let connected = timeout(check.timeout, TcpStream::connect(member.address)).await;
    if let Ok(Ok(stream)) = &connected {
        // Closed by a reset: thousands of checks leave no sockets that wait for their end.
        let _ = socket2::SockRef::from(stream).set_linger(Some(Duration::ZERO));
    }
    (member, matches!(connected, Ok(Ok(_))))
}
