//! Keeps this node's front doors of services whose endpoints something else runs as the
//! configuration wants them, from its start to its end and while it changes.
//! In: `Config`. Out: open balancers, what waits, `Snapshot`s.
//! A service that comes is opened, one that goes closes its door at once and lets its connections
//! end within `drain_max`, one that stays changes and keeps every connection. Where services
//! exchange their addresses, one of them accepts nobody for a moment, and so does one that moves
//! between its own address and all of them.
//! Keeps: a service that cannot change stays where it is, and takes no door from another.
//! Not here: what a balancer does (`proxy/balancer`), the doors of PostgreSQL (`node/services.rs`).
//! Tested by: `tests/balancer`.

use crate::config::{self, Balanced, Command, Config, UpstreamProtocol};
use crate::identity::Identity;
use crate::proxy::balancer::{
    Balancer, BalancerConfig, Check, Cut, ProxyVersion, Question, Role, RoleCheck, Snapshot,
    Upstream,
};
use crate::proxy::{Certificate, Error, HttpCheck, HttpConfig, Network, Protocol, UpstreamTls};
use crate::runtime::supervisor::{Supervisor, TaskKind};
use futures::future::join_all;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tandem_core::clustering::load_balanced::key::Source;
use tandem_core::clustering::load_balanced::retry;
use tandem_core::ids::{NodeId, ServiceId};

type Open = BTreeMap<ServiceId, Arc<Balancer>>;
/// Services that are not yet what they shall be, and why.
pub(super) type Waits = Vec<(ServiceId, String)>;
/// What a service shall be.
type Change = (ServiceId, BalancerConfig);

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

    /// Ends what another configuration has no more: its addresses are free then.
    pub(in crate::node) async fn end(&self, config: &Config) {
        let gone: Vec<Arc<Balancer>> = {
            let mut open = self.lock();
            let is_gone = |service: &ServiceId| self.wanted(config, service).is_none();
            open.extract_if(.., |service, _| is_gone(service)).map(|(_, it)| it).collect()
        };
        for balancer in gone {
            balancer.stop_accepting().await;
            self.supervisor.spawn("balancer drain", TaskKind::Session, async move {
                let grace = balancer.drain_max().unwrap_or_default();
                if !balancer.close(grace).await {
                    let service = balancer.snapshot().service;
                    tracing::warn!(%service, "connections of a removed service were cut");
                }
            });
        }
    }

    /// Goes on with another configuration, once what it has no more has ended; what could not be
    /// done is said, and done by the next call.
    pub(super) async fn follow(&self, config: &Config) -> Waits {
        let change = |service: &ServiceId| Some((service.clone(), self.wanted(config, service)?));
        let mut changes: Vec<Change> = config.balanced.keys().filter_map(change).collect();
        let mut waits = Vec::new();
        // Looked at before anybody steps aside for it.
        changes.retain(|change| match self.may_move(change) {
            Ok(()) => true,
            Err(error) => {
                waits.push((change.0.clone(), error.to_string()));
                false
            }
        });
        while !changes.is_empty() {
            let next = changes.remove(self.next(&changes).await);
            let service = next.0.clone();
            let is_led = config.balanced.get(&service).is_some_and(|it| it.leads_to.is_some());
            if let Err(error) = self.change(next, is_led).await {
                waits.push((service, error.to_string()));
            }
        }
        waits
    }

    /// Whether a service that shall be at another address can become what it shall be.
    fn may_move(&self, (service, wanted): &Change) -> Result<(), Error> {
        let at = self.lock().get(service).and_then(|balancer| balancer.listens_at());
        if at == Some(wanted.listen) { Ok(()) } else { wanted.read_files() }
    }

    /// Which one comes first: an address is free only once whoever has it has moved.
    async fn next(&self, changes: &[Change]) -> usize {
        loop {
            if let Some(at) = changes.iter().position(|it| self.in_the_way(changes, it).is_none()) {
                return at;
            }
            // They want each other's: one of them accepts nobody for a moment.
            match changes.first().and_then(|first| self.in_the_way(changes, first)) {
                Some(other) => other.step_aside().await,
                None => return 0,
            }
        }
    }

    /// Who is still where a service shall be, and is about to leave.
    fn in_the_way(&self, changes: &[Change], (service, wanted): &Change) -> Option<Arc<Balancer>> {
        let open = self.lock();
        let mut others = changes.iter().filter(|(other, _)| other != service);
        others.find_map(|(other, its)| {
            let balancer = open.get(other)?;
            let at = balancer.listens_at().filter(|at| *at != its.listen)?;
            is_taken_by(at, wanted.listen).then(|| Arc::clone(balancer))
        })
    }

    async fn change(&self, (service, wanted): Change, is_led: bool) -> Result<(), Error> {
        let balancer = self.lock().get(&service).cloned();
        match balancer {
            Some(balancer) => {
                let at = balancer.listens_at().filter(|at| *at != wanted.listen);
                if at.is_some_and(|at| is_taken_by(at, wanted.listen)) {
                    // It is in its own way: nobody can listen at both.
                    balancer.step_aside().await;
                }
                // Where it leads is its guide's to say, who may drain somebody just now.
                let changed = match is_led {
                    true => balancer.configure_rest(wanted),
                    false => balancer.configure(wanted),
                };
                if let Err(error) = changed {
                    balancer.step_back()?;
                    return Err(error);
                }
                balancer.moved().await;
            }
            None => {
                let balancer = Arc::new(Balancer::open(wanted, &self.supervisor)?);
                self.lock().insert(service, balancer);
            }
        }
        Ok(())
    }

    /// The one of a service, if it is open.
    pub(super) fn door(&self, service: &ServiceId) -> Option<Arc<Balancer>> {
        self.lock().get(service).cloned()
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

/// Reads the certificates of every door, if any file of them is on this machine, and none is kept
/// from whoever asks: a configuration may be checked where none of its nodes is, and by anybody.
///
/// # Errors
/// What is wrong with which file of which service.
pub(in crate::node) fn read_certificates(config: &Config) -> Result<(), Error> {
    let Some(node) = config.nodes.values().next() else { return Ok(()) };
    let by_key = |it: &Command| it.partitions.as_ref()?.door.as_ref().map(|it| it.door.clone());
    let door = |it: &Command| it.copies.as_ref().and_then(|it| it.door.clone()).or(by_key(it));
    let of_commands: BTreeMap<ServiceId, Balanced> = config
        .commands
        .iter()
        .filter_map(|(service, command)| Some((service.clone(), door(command)?)))
        .collect();
    for (service, own) in config.balanced.iter().chain(&of_commands) {
        let door = door_config(service, own, node);
        let files = door.files();
        let denied = |file: &&Path| {
            File::open(file).is_err_and(|error| error.kind() == ErrorKind::PermissionDenied)
        };
        if files.iter().any(|file| file.exists()) && !files.iter().any(denied) {
            door.read_files()?;
        }
    }
    Ok(())
}

/// Whether nobody can listen at the one while somebody does at the other.
fn is_taken_by(at: SocketAddr, wanted: SocketAddr) -> bool {
    let is_same =
        at.ip() == wanted.ip() || at.ip().is_unspecified() || wanted.ip().is_unspecified();
    is_same && at.port() == wanted.port() && at.port() != 0
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
        certificates: own.certificates.iter().map(certificate).collect(),
        encrypts: own.encrypts,
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
        accept_proxy_from: own.accept_proxy_from.as_ref().map(|it| networks(it)),
        send_proxy: own.send_proxy.map(version),
        partitions: None,
        http: own
            .http
            .as_ref()
            .map(|requests| HttpConfig { limit_key: limit_key(own), ..http(requests) }),
    }
}

fn networks(written: &[String]) -> Vec<Network> {
    written.iter().filter_map(|network| network.parse().ok()).collect()
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
        trusted: networks(&own.trusted),
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

    /// A service whose answer is its name.
    async fn endpoint(name: &'static str) -> SocketAddr {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        Supervisor::new().spawn("endpoint", TaskKind::Session, async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let _ = tokio::io::AsyncWriteExt::write_all(&mut stream, name.as_bytes()).await;
            }
        });
        address
    }

    async fn answers(address: SocketAddr) -> String {
        use tokio::io::AsyncReadExt as _;
        let mut answer = String::new();
        let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
        let read =
            tokio::time::timeout(Duration::from_secs(20), stream.read_to_string(&mut answer));
        read.await.unwrap().unwrap();
        answer
    }

    fn free() -> SocketAddr {
        std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
    }

    fn service(name: &str, at: SocketAddr, to: SocketAddr) -> String {
        format!(
            "[services.{name}]\nkind = \"tcp\"\nclustering = \"load-balanced\"\n\
             replication = \"none\"\nhealth = false\nlisten = \"{at}\"\n\
             upstreams = [\"{to}\"]\n"
        )
    }

    fn of(services: &[String]) -> Config {
        let nodes = "cluster = \"shop\"\n[nodes.a]\naddress = \"127.0.0.1:7400\"\n";
        Config::parse(&[nodes, &services.concat()].concat(), "t").unwrap()
    }

    fn open(config: &Config) -> Balancers {
        let dir = tempfile::tempdir().unwrap();
        let identity = crate::identity::create_cluster(dir.path(), "shop", &"a".into()).unwrap();
        Balancers::open(&Arc::new(identity), config, &Supervisor::new()).unwrap()
    }

    async fn follow(balancers: &Balancers, config: &Config) -> Vec<String> {
        balancers.follow(config).await.into_iter().map(|(_, because)| because).collect()
    }

    #[tokio::test]
    async fn services_exchange_their_addresses() {
        let (one, two) = (endpoint("one").await, endpoint("two").await);
        let (a, b, c) = (free(), free(), free());
        let config = |at_one: SocketAddr, at_two: SocketAddr| {
            of(&[service("one", at_one, one), service("two", at_two, two)])
        };
        let balancers = open(&config(a, b));
        for (at_one, at_two) in [(a, b), (b, a), (a, b), (b, c), (c, a), (a, c)] {
            assert_eq!(follow(&balancers, &config(at_one, at_two)).await, [""; 0]);
            assert_eq!([answers(at_one).await, answers(at_two).await], ["one", "two"]);
        }
    }

    /// Whoever cannot change stays where it is, and so does whoever wants its place.
    #[tokio::test]
    async fn a_service_that_cannot_change_takes_no_door_from_another() {
        let (one, two) = (endpoint("one").await, endpoint("two").await);
        let missing = "certificates = [{ certificate = \"/none.crt\", key = \"/none.key\" }]\n";
        for bad in ["one", "two"] {
            let (a, b) = (free(), free());
            let balancers = open(&of(&[service("one", a, one), service("two", b, two)]));
            let [mut first, mut second] = [service("one", b, one), service("two", a, two)];
            let it = if bad == "one" { &mut first } else { &mut second };
            it.push_str(missing);
            let changed = of(&[first, second]);
            for _ in 0..2 {
                let waits = follow(&balancers, &changed).await.join("; ");
                let said = format!("service {bad}: a certificate cannot be used: /none.crt");
                assert!(waits.contains(&said), "{waits}");
                assert_eq!([answers(a).await, answers(b).await], ["one", "two"], "{bad} is bad");
            }
            // The file is there, or is asked for no more.
            let mended = of(&[service("one", b, one), service("two", a, two)]);
            assert_eq!(follow(&balancers, &mended).await, [""; 0]);
            assert_eq!([answers(b).await, answers(a).await], ["one", "two"]);
        }
    }

    /// Nobody can listen at both at once, not even the same service.
    #[tokio::test]
    async fn a_service_moves_to_all_addresses_and_back() {
        let one = endpoint("one").await;
        let own = free();
        let all = SocketAddr::from(([0, 0, 0, 0], own.port()));
        let balancers = open(&of(&[service("one", own, one)]));
        for at in [all, own, all] {
            assert_eq!(follow(&balancers, &of(&[service("one", at, one)])).await, [""; 0], "{at}");
            assert_eq!(answers(own).await, "one");
        }
        // What cannot be done leaves it where it is.
        let missing = "certificates = [{ certificate = \"/none.crt\", key = \"/none.key\" }]\n";
        let bad = of(&[[&service("one", own, one), missing].concat()]);
        assert_eq!(follow(&balancers, &bad).await.len(), 1);
        assert_eq!(answers(own).await, "one");
    }

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
