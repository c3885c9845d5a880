//! Talks to the resolver: keeps the group's addresses what the owner's names stand for.
//! In: `Upstream`s. Out: the group's endpoints.
//! Keeps: an answer that is lost, late or empty never forgets the last good one; a name that was
//! never answered has no addresses yet, and keeps the others from nothing.
//! Not here: what becomes of the connections of an address that is gone: they end by themselves.

use super::group::{Group, Wanted};
use super::{BalancerConfig, Upstream};
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

/// Between two questions; the system's own cache knows how long an answer lasts.
const INTERVAL: Duration = Duration::from_secs(10);
/// After a question without an answer.
const RETRY: Duration = Duration::from_secs(1);
/// For one answer.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Names and what they stood for last.
#[derive(Debug)]
pub(super) struct Names(Vec<(Upstream, Vec<IpAddr>)>);

impl Names {
    pub(super) fn new(config: &BalancerConfig) -> Self {
        Self(Vec::new()).followed_by(config)
    }

    /// The names of another configuration; what was answered for one stays known.
    fn followed_by(&self, config: &BalancerConfig) -> Self {
        let known = |upstream: &Upstream| {
            let same = self.0.iter().find(|(before, _)| before.host == upstream.host);
            let address = upstream.host.parse::<IpAddr>().ok();
            let found = match same {
                Some((_, found)) => found.clone(),
                None => address.into_iter().collect(),
            };
            (upstream.clone(), found)
        };
        Self(config.upstreams.iter().map(known).collect())
    }

    /// Tells the group what is known.
    pub(super) fn tell(&self, group: &Group) {
        let mut wanted: Vec<Wanted> = Vec::new();
        let mut hosts = BTreeMap::new();
        for (upstream, addresses) in &self.0 {
            let name: Arc<str> = upstream.name().into();
            for ip in addresses {
                let address = SocketAddr::new(*ip, upstream.port);
                if upstream.host.parse::<IpAddr>().is_err() {
                    hosts.entry(address).or_insert_with(|| upstream.host.as_str().into());
                }
                if wanted.iter().all(|other| other.address != address) {
                    let Upstream { weight, far, drain, .. } = *upstream;
                    let upstream = Arc::clone(&name);
                    wanted.push(Wanted { upstream, address, weight, far, drain });
                }
            }
        }
        group.hosts(hosts);
        group.replace(&wanted);
        let unanswered = self.0.iter().filter(|(_, addresses)| addresses.is_empty());
        *group.unresolved() = unanswered.map(|(upstream, _)| upstream.host.clone()).collect();
    }

    fn are_addresses(&self) -> bool {
        self.0.iter().all(|(upstream, _)| upstream.host.parse::<IpAddr>().is_ok())
    }

    /// Asks for every name; whether all were answered.
    async fn ask(&mut self) -> bool {
        let mut all = true;
        for (upstream, known) in &mut self.0 {
            let host = upstream.host.as_str();
            if host.parse::<IpAddr>().is_ok() {
                continue;
            }
            let answer = timeout(TIMEOUT, tokio::net::lookup_host((host, upstream.port))).await;
            let mut found: Vec<IpAddr> = match answer {
                Ok(Ok(addresses)) => addresses.map(|address| address.ip()).collect(),
                Ok(Err(_)) | Err(_) => Vec::new(),
            };
            found.sort_unstable();
            found.dedup();
            if found.is_empty() {
                all = false;
            } else {
                *known = found;
            }
        }
        all
    }
}

/// Asks until `stop`, for the names of the configuration as it is.
pub(super) async fn run(
    group: Arc<Group>,
    mut config: watch::Receiver<Arc<BalancerConfig>>,
    stop: CancellationToken,
) {
    let mut names = Names::new(&config.borrow_and_update());
    loop {
        // At once, before any question that may take long.
        names.tell(&group);
        let answered = tokio::select! {
            biased;
            () = stop.cancelled() => return,
            result = config.changed() => {
                if result.is_err() {
                    return;
                }
                names = names.followed_by(&config.borrow_and_update());
                continue;
            }
            answered = names.ask() => answered,
        };
        names.tell(&group);
        let pause = if answered { INTERVAL } else { RETRY };
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            result = config.changed() => {
                if result.is_err() {
                    return;
                }
                names = names.followed_by(&config.borrow_and_update());
            }
            () = sleep(pause), if !names.are_addresses() => {}
        }
    }
}
