//! Keeps this node's front doors of services whose endpoints something else runs as the
//! configuration wants them, from its start to its end and while it changes.
//! In: `Config`. Out: open balancers, what waits, `Snapshot`s.
//! A service that comes is opened, one that goes closes its door at once and lets its connections
//! end within `drain_max`, one that stays changes and keeps every connection.
//! Not here: what a balancer does (`proxy/balancer`), the doors of PostgreSQL (`node/services.rs`).
//! Tested by: `tests/balancer`.

use crate::config::{self, Balanced, Config, UpstreamProtocol};
use crate::identity::Identity;
use crate::proxy::balancer::{
    Balancer, BalancerConfig, Check, Cut, ProxyVersion, Question, Role, RoleCheck, Snapshot,
    Upstream,
};
use crate::proxy::{Certificate, Error, HttpCheck, HttpConfig, Protocol, UpstreamTls};
use crate::runtime::supervisor::{Supervisor, TaskKind};
use futures::future::join_all;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tandem_core::clustering::load_balanced::key::Source;
use tandem_core::clustering::load_balanced::retry;
use tandem_core::ids::{NodeId, ServiceId};

type Open = BTreeMap<ServiceId, Arc<Balancer>>;

/// The balancers of this node.
#[derive(Debug)]
pub(in crate::node) struct Balancers {
    identity: Arc<Identity>,
    supervisor: Supervisor,
    open: Mutex<Open>,
}

impl Balancers {
    /// Opens those of the configuration that the node starts with.
    ///
    /// # Errors
    /// An address cannot be had.
    pub(in crate::node) fn open(
        identity: &Arc<Identity>,
        config: &Config,
        supervisor: &Supervisor,
    ) -> Result<Self, Error> {
        let (identity, supervisor) = (Arc::clone(identity), supervisor.clone());
        let balancers = Self { identity, supervisor, open: Mutex::default() };
        for service in config.balanced.keys() {
            let Some(config) = balancers.wanted(config, service) else { continue };
            let balancer = Balancer::open(config, &balancers.supervisor)?;
            balancers.lock().insert(service.clone(), Arc::new(balancer));
        }
        Ok(balancers)
    }

    fn wanted(&self, config: &Config, service: &ServiceId) -> Option<BalancerConfig> {
        let mut wanted = wanted(config, self.identity.node(), service)?;
        if let Some(http) = &mut wanted.http {
            http.secret = self.identity.cookie_secret(service);
        }
        Some(wanted)
    }

    /// Goes on with another configuration; what could not be done is said, and done by the next
    /// call.
    pub(in crate::node) async fn follow(&self, config: &Config) -> Vec<String> {
        let gone: Vec<Arc<Balancer>> = {
            let mut open = self.lock();
            let is_gone = |service: &ServiceId| self.wanted(config, service).is_none();
            open.extract_if(.., |service, _| is_gone(service)).map(|(_, it)| it).collect()
        };
        for balancer in gone {
            // Whoever comes next may want the same address.
            balancer.stop_accepting().await;
            self.supervisor.spawn("balancer drain", TaskKind::Session, async move {
                let grace = balancer.drain_max().unwrap_or_default();
                if !balancer.close(grace).await {
                    let service = balancer.snapshot().service;
                    tracing::warn!(%service, "connections of a removed service were cut");
                }
            });
        }
        let mut waits = Vec::new();
        let mut open = self.lock();
        for service in config.balanced.keys() {
            let Some(wanted) = self.wanted(config, service) else { continue };
            let done = match open.get(service) {
                Some(balancer) => balancer.configure(wanted),
                None => Balancer::open(wanted, &self.supervisor)
                    .map(|balancer| _ = open.insert(service.clone(), Arc::new(balancer))),
            };
            waits.extend(done.err().map(|error| error.to_string()));
        }
        waits
    }

    /// Every balancer as it is now.
    pub(in crate::node) fn snapshots(&self) -> Vec<Snapshot> {
        self.lock().values().map(|balancer| balancer.snapshot()).collect()
    }

    /// What each of them cut since the last call.
    pub(in crate::node) fn cuts(&self) -> Vec<(ServiceId, Cut)> {
        let open = self.lock();
        let cuts = open.iter().flat_map(|(service, balancer)| {
            balancer.cuts().into_iter().map(|cut| (service.clone(), cut))
        });
        cuts.collect()
    }

    /// Accepts nobody more, gives connections `grace` to end by themselves, then cuts them.
    pub(in crate::node) async fn close(&self, grace: Duration) {
        let open: Vec<Arc<Balancer>> = std::mem::take(&mut *self.lock()).into_values().collect();
        let close = |balancer: Arc<Balancer>| async move {
            if !balancer.close(grace).await {
                let Snapshot { service, sessions, .. } = balancer.snapshot();
                tracing::info!(%service, sessions, "connections were cut");
            }
        };
        join_all(open.into_iter().map(close)).await;
    }

    fn lock(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a node's balancer of a service shall be; none if there shall be none.
fn wanted(config: &Config, me: &NodeId, service: &ServiceId) -> Option<BalancerConfig> {
    let node = config.nodes.get(me)?;
    let own: &Balanced = config.balanced.get(service)?;
    let upstream = |it: &config::Upstream| Upstream {
        host: it.address.host.ip().map_or_else(|| it.address.host.to_string(), |ip| ip.to_string()),
        port: it.address.port,
        weight: it.weight,
        // Who does not say where it stands is near to everybody.
        far: it.zone.is_some() && node.zone.is_some() && it.zone != node.zone,
        drain: it.drain,
    };
    let upstreams = own.upstreams.iter().map(upstream).collect();
    Some(BalancerConfig { upstreams, ..door_config(service, own, node) })
}

/// A door as its owner wants it, but for its endpoints and its secret.
pub(super) fn door_config(
    service: &ServiceId,
    own: &Balanced,
    node: &config::Node,
) -> BalancerConfig {
    let version = |version| match version {
        config::ProxyVersion::V1 => ProxyVersion::V1,
        config::ProxyVersion::V2 => ProxyVersion::V2,
    };
    BalancerConfig {
        service: service.clone(),
        listen: own.listen.on(node),
        upstreams: Vec::new(),
        policy: own.policy,
        limits: own.limits,
        check: own
            .health
            .map(|health| Check { interval: health.interval, timeout: health.timeout }),
        question: own.role.as_ref().map(role).or_else(|| own.question.as_ref().map(question)),
        upstream_tls: own.upstream_tls.as_ref().map(upstream_tls),
        rates: own.rate_limit.as_ref().map(|it| it.limits).unwrap_or_default(),
        hold_max: own.hold_max,
        connect_timeout: own.connect_timeout,
        idle_timeout: own.idle_timeout,
        drain_max: own.drain_max,
        sessions_max: own.sessions_max,
        held_max: own.held_max,
        connections_max: own.connections_max.unwrap_or(0),
        accept_proxy: own.accept_proxy,
        send_proxy: own.send_proxy.map(version),
        partitions: None,
        http: own
            .http
            .as_ref()
            .map(|requests| HttpConfig { limit_key: limit_key(own), ..http(requests) }),
    }
}

fn question(of: &config::Question) -> Question {
    let config::Question { path, host, expect } = of.clone();
    Question::Http(HttpCheck { path, host, expect })
}

fn role(of: &config::RoleCheck) -> Question {
    let config::RoleCheck { role, user, database, password_file } = of.clone();
    let role = match role {
        config::Role::Any => Role::Any,
        config::Role::Primary => Role::Primary,
        config::Role::Replica => Role::Replica,
    };
    Question::Postgres(RoleCheck { role, user, database, password_file })
}

const fn protocol(of: UpstreamProtocol) -> Protocol {
    match of {
        UpstreamProtocol::Http1 => Protocol::Http1,
        UpstreamProtocol::Http2 => Protocol::Http2,
        UpstreamProtocol::Auto => Protocol::Auto,
    }
}

fn certificate(of: &config::Certificate) -> Certificate {
    Certificate { chain: of.certificate.clone(), key: of.key.clone() }
}

fn upstream_tls(of: &config::UpstreamTls) -> UpstreamTls {
    UpstreamTls {
        ca: of.ca.clone(),
        server_name: of.server_name.clone(),
        certificate: of.certificate.as_ref().map(certificate),
    }
}

fn limit_key(own: &Balanced) -> Source {
    own.rate_limit.as_ref().and_then(|it| it.key.clone()).unwrap_or(Source::Address)
}

/// What a balancer of requests shall be, but for its secret.
fn http(own: &config::Http) -> HttpConfig {
    let bytes = |bytes: u64| usize::try_from(bytes).unwrap_or(usize::MAX);
    HttpConfig {
        head_bytes_max: bytes(own.head_bytes_max),
        fields_max: own.fields_max,
        body_bytes_max: own.body_bytes_max,
        head_timeout: own.head_timeout,
        keep_alive: own.keep_alive,
        answer_timeout: own.answer_timeout,
        total_timeout: own.total_timeout,
        idle_max: own.upstream_idle_max,
        idle_timeout: own.upstream_idle_timeout,
        in_flight_max: own.in_flight_max.unwrap_or(0),
        retry: own.retry.unwrap_or(retry::Limits { percent: 0, floor_per_second: 0 }),
        errors_count: own.errors_count,
        // Checked where they were read.
        trusted: own.trusted.iter().filter_map(|network| network.parse().ok()).collect(),
        upstream_protocol: protocol(own.upstream_protocol),
        http2: own.http2,
        certificates: own.certificates.iter().map(certificate).collect(),
        sticky: own.sticky.clone(),
        secret: [0; 32],
        hash_key: own.hash_key.clone(),
        limit_key: Source::Address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = r#"
cluster = "shop"
[nodes.a]
address = "10.0.0.1:7400"
zone = "x"
[nodes.b]
address = "10.0.0.2:7400"
[services.cache]
kind = "tcp"
clustering = "load-balanced"
replication = "none"
listen = 6379
upstreams = ["[fd00::1]:1", { address = "e2:2", zone = "x" }, { address = "e3:3", zone = "y" }]
health = false
"#;

    #[test]
    fn far_is_what_stands_in_another_zone_than_the_node() {
        let config = Config::parse(TEXT, "t").unwrap();
        let far = |node: &str| {
            let wanted = wanted(&config, &node.into(), &"cache".into()).unwrap();
            wanted.upstreams.into_iter().map(|it| it.far).collect::<Vec<_>>()
        };
        assert_eq!(far("a"), [false, false, true]);
        assert_eq!(far("b"), [false, false, false], "b does not say where it stands");
        let wanted = wanted(&config, &"a".into(), &"cache".into()).unwrap();
        assert_eq!(wanted.upstreams[0].host, "fd00::1", "as it can be parsed");
        assert_eq!((wanted.listen.to_string().as_str(), wanted.check), ("10.0.0.1:6379", None));
    }
}
