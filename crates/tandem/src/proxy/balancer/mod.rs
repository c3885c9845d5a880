//! Talks to the clients of a service that Tandem does not run itself, and spreads their connections
//! over its endpoints.
//! In: `BalancerConfig`. Out: connections at healthy endpoints, `Snapshot`.
//! States of a client: (no endpoint) Held → Connected → Ended; Held → Expired.
//! Keeps: INV-7, by the core's decision; H43 only a connect that carried nothing is tried again.
//! Full: beyond `sessions_max` a connection is closed as it comes, beyond `held_max` what would
//! have to wait.
//! All but the name may change while it runs: connections stay, new ones follow what is new.
//! Not here: who is chosen and who is out (`tandem_core::clustering::load_balanced`).
//! Tested by: `tests.rs`.

mod check;
mod copying;
mod dial;
pub(super) mod group;
mod header;
pub(super) mod limiter;
pub(super) mod listener;
pub(super) mod member;
pub(super) mod owners;
mod resolve;
pub(super) mod session;
mod snapshot;
#[cfg(test)]
mod tests;
mod waiting;

pub use check::role::{Role, RoleCheck};
pub use dial::UpstreamTls;
pub use header::Version as ProxyVersion;
pub use listener::Balancer;
pub use member::leaving::Cut;
pub use owners::{Owned, OwnersSnapshot};
pub use snapshot::{EndpointSnapshot, Snapshot};

use super::Error;
use super::http::{Certificate, Certificates, Http, HttpCheck, HttpConfig, Network};
use dial::Dialer;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tandem_core::clustering::load_balanced::balance::Policy;
use tandem_core::clustering::load_balanced::ejection;
use tandem_core::clustering::load_balanced::rate;
use tandem_core::ids::ServiceId;

/// What a balancer serves, and its bounds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BalancerConfig {
    /// Whose it is; named in messages.
    pub service: ServiceId,
    /// Where it listens.
    pub listen: SocketAddr,
    /// Where work may go.
    pub upstreams: Vec<Upstream>,
    /// How an endpoint is chosen.
    pub policy: Policy,
    /// When an endpoint is out.
    pub limits: ejection::Limits,
    /// How endpoints are asked; none: they are not.
    pub check: Option<Check>,
    /// What a check asks for; none: it only connects.
    pub question: Option<Question>,
    /// What clients of a balancer of connections are shown; none: what they say is passed on. One
    /// of requests has its own.
    pub certificates: Vec<Certificate>,
    /// Of a balancer of connections: they are encrypted as well, and not only its checks.
    pub encrypts: bool,
    /// How endpoints are spoken to; none: in clear.
    pub upstream_tls: Option<UpstreamTls>,
    /// How many connections, with HTTP requests, there may be in a time.
    pub rates: rate::Limits,
    /// How long a connection waits for an endpoint.
    pub hold_max: Duration,
    /// How long one connect may take.
    pub connect_timeout: Duration,
    /// A connection on which nothing moves for so long is closed.
    pub idle_timeout: Duration,
    /// What an endpoint has that gets no new work ends within this, or is cut; none: somebody else
    /// sees to that.
    pub drain_max: Option<Duration>,
    /// How many connections there may be.
    pub sessions_max: usize,
    /// How many clients, with HTTP requests, may wait for a place at an endpoint.
    pub held_max: usize,
    /// Connections at an endpoint at once, where connections are balanced; 0 is no bound.
    pub connections_max: u32,
    /// Clients say who they are by the PROXY protocol, and must.
    pub accept_proxy: bool,
    /// Those who do, while the others are clients for themselves; none: everybody does.
    pub accept_proxy_from: Option<Vec<Network>>,
    /// Endpoints are told who the client is by the PROXY protocol.
    pub send_proxy: Option<ProxyVersion>,
    /// Work belongs to one of so many partitions by its key, and goes to its owner alone, whom
    /// `Balancer::route` names; that never changes. None: to any endpoint.
    pub partitions: Option<u32>,
    /// It balances requests and not connections; that never changes.
    pub http: Option<HttpConfig>,
}

impl BalancerConfig {
    /// Whether whoever connects from there has to say who its client is.
    fn expects_header_from(&self, peer: IpAddr) -> bool {
        let among = self.accept_proxy_from.as_ref();
        let is_named = |all: &Vec<Network>| all.iter().any(|network| network.contains(peer));
        self.accept_proxy && among.is_none_or(is_named)
    }

    /// Its files of certificates and keys.
    pub fn files(&self) -> Vec<&Path> {
        let of_requests = self.http.iter().flat_map(|http| &http.certificates);
        let shown = self.certificates.iter().chain(of_requests);
        let of_clients = self.upstream_tls.iter().flat_map(|tls| &tls.certificate);
        let pairs = shown.chain(of_clients).flat_map(|it| [&it.chain, &it.key]);
        let believed = self.upstream_tls.iter().map(|tls| &tls.ca);
        pairs.chain(believed).map(PathBuf::as_path).collect()
    }

    /// Reads them, and keeps nothing.
    ///
    /// # Errors
    /// What is wrong with which file.
    pub fn read_files(&self) -> Result<(), Error> {
        let failed = |why| Error::Certificate { service: self.service.clone(), why };
        Certificates::read(&self.certificates).map_err(failed)?;
        self.http.as_ref().map(Http::read).transpose().map_err(failed)?;
        self.dialed().map(drop).map_err(failed)
    }

    /// How its endpoints are spoken to.
    fn dialed(&self) -> Result<Option<dial::Loaded>, String> {
        let protocols = self.http.as_ref().map_or(&[][..], |http| http.upstream_protocol.alpn());
        Dialer::read(self.upstream_tls.as_ref(), protocols)
    }
}

/// A name or an address, as the owner wrote it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upstream {
    /// An IP address, or a name that stands for any number of them.
    pub host: String,
    /// The port.
    pub port: u16,
    /// How much work it gets, relative to the others; at least 1.
    pub weight: u32,
    /// It stands in another zone than this node.
    pub far: bool,
    /// It gets no new work; what it has may end within `drain_max`.
    pub drain: bool,
}

impl Upstream {
    /// As its owner wrote it.
    pub fn name(&self) -> String {
        let Self { host, port, .. } = self;
        if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
    }
}

/// What endpoints are asked once they have accepted a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Question {
    /// For a path, by HTTP.
    Http(HttpCheck),
    /// For its role, by PostgreSQL's protocol.
    Postgres(RoleCheck),
}

/// How endpoints are asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Check {
    /// Between two checks of an endpoint.
    pub interval: Duration,
    /// For one check.
    pub timeout: Duration,
}
