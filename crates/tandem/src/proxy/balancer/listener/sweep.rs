//! Keeps a balancer in order, once in a while: what nobody uses, what had time enough, what is
//! slow, what was written anew.
//! In: time that passes, in pauses of so long. Out: nothing.
//! Tested by: `../tests/drain.rs`, `http/tests/tls.rs`.

use crate::proxy::balancer::session::Shared;
use crate::proxy::http::Http;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tandem_core::ids::ServiceId;
use tokio::time::sleep;

/// How often idle connections to endpoints are looked through.
pub(super) const EVERY: Duration = Duration::from_secs(1);
/// After so many times files of certificates are looked at.
const RENEW: u64 = 10;

/// Closes connections to endpoints that nobody uses, cuts what is left at those that get no more
/// work, ejects those that are slow, and finds certificates that were renewed.
pub(super) async fn run(shared: Arc<Shared>, pause: Duration) {
    for round in 1_u64.. {
        tokio::select! {
            biased;
            () = shared.stop.cancelled() => return,
            () = sleep(pause) => {}
        }
        leave(&shared, &[]);
        shared.group.cut_overdue();
        shared.group.judge();
        if round.is_multiple_of(RENEW) {
            renew(&shared, &shared.config().service);
        }
    }
}

/// Closes connections to endpoints that nobody uses, and all that are idle to these: whoever was at
/// their other end is gone, and behind a cut nobody says so.
pub(super) fn leave(shared: &Shared, gone: &[SocketAddr]) {
    let Some(http) = &shared.http else { return };
    let members = shared.group.members();
    let addresses = members.iter().map(|member| member.address);
    let addresses: Vec<SocketAddr> = addresses.filter(|it| !gone.contains(it)).collect();
    let idle_timeout = shared.config().http.as_ref().map(|http| http.idle_timeout);
    http.sweep(&addresses, idle_timeout.unwrap_or_default());
}

/// Reads certificates again that were written anew.
pub(super) fn renew(shared: &Shared, service: &ServiceId) {
    shared.http.iter().for_each(|http| http.renew(service));
    shared.shows.renew(service);
    if shared.dialer.renew(service) {
        shared.http.iter().for_each(Http::forget);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn certificates_are_looked_at_every_ten_seconds() {
        let every = EVERY * u32::try_from(RENEW).unwrap();
        assert_eq!(every, Duration::from_secs(10), "as the reference says of `certificates`");
    }
}
