//! Talks to the socket of a balancer: binds, accepts, counts, closes.
//! In: `BalancerConfig`, a supervisor. Out: `Balancer`.
//! States: Open → (close) Closing: held clients are let go, connections may end → Closed.
//! Not here: who is accepted (`listener/accepting.rs`), what a client gets (`session.rs`).
//! Tested by: `tests.rs`.

mod accepting;
mod sweep;

use super::dial::Dialer;
use super::group::Group;
use super::limiter::Rates;
use super::owners::Owned;
use super::resolve::Names;
use super::session::Shared;
use super::snapshot::Snapshot;
use super::{BalancerConfig, Cut, ProxyVersion, Upstream, check, resolve};
use crate::proxy::Error;
use crate::proxy::http::{Certificates, Http, Protocol, Shows};
use crate::proxy::listener::bind;
use crate::runtime::supervisor::{Supervisor, TaskKind};
use crate::runtime::workers::Workers;
use accepting::Accepting;
use socket2::{SockRef, TcpKeepalive};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::{Notify, watch};
use tokio::time::timeout;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

/// What a balancer has done and is doing.
#[derive(Debug, Default)]
pub(in crate::proxy) struct Tally {
    pub(in crate::proxy) sessions: Arc<AtomicU64>,
    pub(in crate::proxy) held: AtomicU64,
    pub(in crate::proxy) accepted: AtomicU64,
    pub(in crate::proxy) refused: AtomicU64,
    pub(in crate::proxy) expired: AtomicU64,
    pub(in crate::proxy) retried: AtomicU64,
}

/// An open balancer. Dropped, it closes at once, but for connections that have just begun.
#[derive(Debug)]
pub struct Balancer {
    shared: Arc<Shared>,
    listening: Mutex<Listening>,
    connections: TaskTracker,
    doors: TaskTracker,
    supervisor: Supervisor,
    _stop: DropGuard,
}

/// Where it accepts connections now.
#[derive(Debug)]
struct Listening {
    /// As it was asked for; the port may be 0. None: it has stepped aside.
    wanted: Option<SocketAddr>,
    address: SocketAddr,
    /// Ends it, and nothing else.
    accepting: CancellationToken,
    /// Empty once the socket is closed.
    door: TaskTracker,
    /// The one before it.
    left: Option<TaskTracker>,
}

impl Balancer {
    /// Binds its address, then starts to serve.
    ///
    /// # Errors
    /// The address cannot be had.
    pub fn open(config: BalancerConfig, supervisor: &Supervisor) -> Result<Self, Error> {
        Self::open_and_sweep(config, supervisor, sweep::EVERY)
    }

    /// The same, with another pause between two looks at what is idle or was written anew.
    pub(in crate::proxy) fn open_and_sweep(
        config: BalancerConfig,
        supervisor: &Supervisor,
        pause: Duration,
    ) -> Result<Self, Error> {
        let failed = |why| Error::Certificate { service: config.service.clone(), why };
        let http = config.http.as_ref().map(Http::new).transpose().map_err(failed)?;
        let dialer = Arc::new(Dialer::new(config.dialed().map_err(failed)?));
        let shows = Shows::new(Certificates::read(&config.certificates).map_err(failed)?);
        let (address, listener) = listen(&config)?;
        let stop = supervisor.stopping().child_token();
        let group = Group::new(&config);
        Names::new(&config).tell(&group);
        let wanted = Some(config.listen);
        let rates = Rates::new(config.rates);
        let config = watch::Sender::new(Arc::new(config));
        let asked = (Arc::clone(&group), Arc::clone(&dialer));
        let run = check::run(asked, config.subscribe(), stop.clone());
        supervisor.spawn("balancer checks", TaskKind::Session, run);
        let asked = (Arc::clone(&group), supervisor.lookups());
        let run = resolve::run(asked, config.subscribe(), stop.clone());
        supervisor.spawn("balancer names", TaskKind::Session, run);
        let closing = stop.child_token();
        let accepting = closing.child_token();
        let tally = Tally::default();
        let balancer = Self {
            shared: Arc::new(Shared {
                config,
                group,
                dialer,
                shows,
                supervisor: supervisor.clone(),
                tally,
                rates,
                room: Notify::new(),
                http,
                closing,
                stop: stop.clone(),
            }),
            listening: Mutex::new(Listening {
                wanted,
                address,
                accepting: accepting.clone(),
                door: TaskTracker::new(),
                left: None,
            }),
            connections: TaskTracker::new(),
            doors: TaskTracker::new(),
            supervisor: supervisor.clone(),
            _stop: stop.drop_guard(),
        };
        let run = sweep::run(Arc::clone(&balancer.shared), pause);
        supervisor.spawn("balancer pool", TaskKind::Session, run);
        balancer.listening().door = balancer.accept(listener, accepting);
        Ok(balancer)
    }

    fn listening(&self) -> MutexGuard<'_, Listening> {
        self.listening.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn accept(&self, listener: TcpListener, stop: CancellationToken) -> TaskTracker {
        let accepting = Accepting {
            shared: Arc::clone(&self.shared),
            connections: self.connections.clone(),
            supervisor: self.supervisor.clone(),
            workers: Workers::default(),
        };
        let door = TaskTracker::new();
        let open = (self.doors.token(), door.token());
        door.close();
        self.supervisor.spawn("balancer accept", TaskKind::Session, async move {
            let _until_the_end = open;
            accepting.run(listener, stop).await;
        });
        door
    }

    /// Where it listens as its configuration says; none once it has stepped aside.
    pub fn listens_at(&self) -> Option<SocketAddr> {
        self.listening().wanted
    }

    /// Leaves its address to somebody else: it accepts nobody until `configure` gives it one.
    pub async fn step_aside(&self) {
        let door = {
            let mut listening = self.listening();
            listening.wanted = None;
            listening.accepting.cancel();
            listening.door.clone()
        };
        door.wait().await;
    }

    /// Ready once the address that it listened at before is free.
    pub async fn moved(&self) {
        let left = self.listening().left.take();
        if let Some(left) = left {
            left.wait().await;
        }
    }

    /// Takes the address again that it has left, if nobody else has it now.
    ///
    /// # Errors
    /// The address cannot be had.
    pub fn step_back(&self) -> Result<(), Error> {
        let mut listening = self.listening();
        if listening.wanted.is_none() {
            self.bind(&mut listening, &self.shared.config())?;
        }
        Ok(())
    }

    /// Goes on with another configuration: no connection ends. One that was accepted before keeps
    /// the times it began with. Where it listens changes first the new, then the old address.
    ///
    /// # Errors
    /// The new address cannot be had: nothing has changed.
    pub fn configure(&self, config: BalancerConfig) -> Result<(), Error> {
        let mut listening = self.listening();
        self.change(&mut listening, config)
    }

    /// The same, but it sends its work where it sent it, whoever says meanwhile where that is.
    ///
    /// # Errors
    /// The new address cannot be had: nothing has changed.
    pub fn configure_rest(&self, config: BalancerConfig) -> Result<(), Error> {
        let mut listening = self.listening();
        let upstreams = self.shared.config().upstreams.clone();
        self.change(&mut listening, BalancerConfig { upstreams, ..config })
    }

    /// What all nodes call what each reaches by a way of its own, from the next `lead` on: a key
    /// and a cookie lead to the same endpoint through every node's door.
    pub fn known_as(&self, agreed: BTreeMap<SocketAddr, Arc<str>>) {
        self.shared.group.agreed(agreed);
    }

    /// Sends its work there from now on, by addresses. No file and no socket is needed for it, so
    /// it cannot fail: whoever drains an endpoint may rest on it.
    pub fn lead(&self, upstreams: Vec<Upstream>) {
        let _one_at_a_time = self.listening();
        let config = BalancerConfig { upstreams, ..BalancerConfig::clone(&self.shared.config()) };
        Names::new(&config).tell(&self.shared.group);
        self.shared.config.send_replace(Arc::new(config));
    }

    fn change(&self, listening: &mut Listening, config: BalancerConfig) -> Result<(), Error> {
        let is_open = listening.wanted.is_some();
        if is_open && config == **self.shared.config.borrow() {
            // Whoever applies the same again may have written a certificate anew.
            sweep::renew(&self.shared, &config.service);
            return Ok(());
        }
        let failed = |why| Error::Certificate { service: config.service.clone(), why };
        let certificates = config.http.as_ref().map(Http::read).transpose().map_err(failed)?;
        let dialed = config.dialed().map_err(failed)?;
        let shown = Certificates::read(&config.certificates).map_err(failed)?;
        if Some(config.listen) != listening.wanted {
            self.bind(listening, &config)?;
        }
        self.shared.group.configure(&config);
        // Whoever changes it may rest on it: nobody is sent any more to who is drained.
        let names = Names::new(&config);
        if names.are_addresses() {
            names.tell(&self.shared.group);
        }
        // Before anybody goes by the rest of it: no request is sent on what was made otherwise.
        self.shared.shows.configure(shown);
        if self.shared.dialer.configure(dialed) {
            self.shared.http.iter().for_each(Http::forget);
        }
        self.shared.rates.configure(config.rates);
        if let (Some(http), Some(config), Some(certificates)) =
            (&self.shared.http, &config.http, certificates)
        {
            http.configure(config, certificates);
        }
        let before = self.shared.config.send_replace(Arc::new(config));
        if protocol(&before) != protocol(&self.shared.config()) {
            self.shared.http.iter().for_each(Http::forget);
        }
        Ok(())
    }

    /// The new address first, then it leaves the old one.
    fn bind(&self, listening: &mut Listening, config: &BalancerConfig) -> Result<(), Error> {
        let (address, listener) = listen(config)?;
        let accepting = self.shared.closing.child_token();
        let door = self.accept(listener, accepting.clone());
        listening.accepting.cancel();
        let (wanted, left) = (Some(config.listen), Some(listening.door.clone()));
        *listening = Listening { wanted, address, accepting, door, left };
        Ok(())
    }

    /// Where it listens, the port filled in.
    pub fn local_address(&self) -> SocketAddr {
        self.listening().address
    }

    /// What it is and has done.
    pub fn snapshot(&self) -> Snapshot {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let Shared { group, tally, rates, http, dialer, shows, .. } = &*self.shared;
        let shown = http.as_ref().map_or_else(|| shows.ends(), Http::certificate_ends);
        let config = self.shared.config();
        Snapshot {
            service: config.service.clone(),
            policy: config.policy.word(),
            sessions: read(&tally.sessions),
            held: read(&tally.held),
            accepted: read(&tally.accepted),
            refused: read(&tally.refused),
            expired: read(&tally.expired),
            retried: read(&tally.retried),
            limited: rates.refused(),
            endpoints: group.snapshot(),
            http: http.as_ref().map(Http::snapshot),
            certificates: shown,
            shown_to_endpoints: dialer.certificate_end(),
            unresolved: group.unresolved().clone(),
            owners: group.owners(),
        }
    }

    /// Where the work of each partition goes from now on, in their order; none: it waits. Whoever
    /// was at the places that are `gone` is so: what they had is cut.
    pub fn route(&self, routes: Vec<Option<Owned>>, gone: &[SocketAddr]) {
        if !gone.is_empty() {
            sweep::leave(&self.shared, gone);
        }
        self.shared.group.route(routes, gone);
    }

    /// What was cut at endpoints that get no more work since the last call.
    pub fn cuts(&self) -> Vec<Cut> {
        self.shared.group.cuts()
    }

    /// What the sweep does once in a while.
    #[cfg(test)]
    pub(in crate::proxy) fn sweep_now(&self) {
        self.shared.group.cut_overdue();
    }

    /// For what is left of it when its service is taken out.
    pub fn drain_max(&self) -> Option<Duration> {
        self.shared.config().drain_max
    }

    /// What each endpoint has that is not over.
    pub fn in_flight(&self) -> BTreeMap<SocketAddr, u32> {
        self.shared.group.in_flight()
    }

    /// Cuts what is left at every other place than this one that work was led to.
    pub fn cut_elsewhere(&self, there: SocketAddr, led: &BTreeSet<SocketAddr>) {
        self.shared.group.cut_elsewhere(there, led);
    }

    /// Closes its door, which is free for others then; connections stay.
    pub async fn stop_accepting(&self) {
        self.shared.closing.cancel();
        self.doors.close();
        self.doors.wait().await;
    }

    /// Ready once it was closed and no connection is left.
    pub async fn ended(&self) {
        self.connections.wait().await;
    }

    /// Accepts nobody more, gives connections `grace` to end by themselves, then cuts them. False
    /// if some were cut.
    pub async fn close(&self, grace: Duration) -> bool {
        self.stop_accepting().await;
        self.connections.close();
        let drained = timeout(grace, self.connections.wait()).await.is_ok();
        self.shared.stop.cancel();
        drained
    }
}

/// What its endpoints are spoken to by.
fn protocol(config: &BalancerConfig) -> (Option<Protocol>, Option<ProxyVersion>) {
    (config.http.as_ref().map(|http| http.upstream_protocol), config.send_proxy)
}

fn listen(config: &BalancerConfig) -> Result<(SocketAddr, TcpListener), Error> {
    let bound = bind(config.listen).and_then(|socket| {
        keep_alive(&socket)?;
        SockRef::from(&socket).set_tcp_nodelay(true)?;
        Ok((socket.local_addr()?, socket))
    });
    let (service, address) = (config.service.clone(), config.listen);
    bound.map_err(|source| Error::Listen { service, address, source })
}

/// A peer that vanished is noticed after two minutes without an answer, or, if something was on its
/// way, when the system gives up, after a quarter of an hour. No `TCP_USER_TIMEOUT`: it would end
/// the connection of a peer that lives and takes nothing for so long, as a consumer may that
/// pauses. Whose idle timeout is shorter ends by that.
///
/// What a listener has, the connections that it accepts have too.
pub(in crate::proxy) fn keep_alive<'s>(socket: impl Into<SockRef<'s>>) -> io::Result<()> {
    let times = TcpKeepalive::new().with_time(Duration::from_secs(60));
    let times = times.with_interval(Duration::from_secs(10)).with_retries(6);
    socket.into().set_tcp_keepalive(&times)
}

#[cfg(test)]
mod tests {
    use super::super::group::{Picked, Wanted, Wish};
    use super::*;
    use tandem_core::clustering::load_balanced::attempts::Attempts;
    use tokio::net::TcpStream;

    #[tokio::test]
    async fn who_waits_hears_of_what_changed_before_it_listened() {
        let supervisor = Supervisor::new();
        let config = super::super::tests::config(&[]);
        let balancer = Balancer::open(config, &supervisor).unwrap();
        let Shared { group, .. } = &*balancer.shared;
        let attempts = Attempts::default();
        let (key, token, in_flight_max, held_max) = (None, None, 0, 1);
        let wish = Wish { key, attempts: &attempts, token, in_flight_max, held_max };
        let Picked::Wait(waiting) = group.ask(wish) else { panic!("nobody serves") };
        let (upstream, address) = (Arc::from("one"), ([127, 0, 0, 1], 1).into());
        group.replace(&[Wanted { upstream, address, weight: 1, far: false, drain: false }]);
        let turn = timeout(Duration::from_secs(20), waiting.turn(&balancer.shared));
        assert!(matches!(turn.await, Ok(Picked::Place(_))));
    }

    /// Between when it was given a place and when it knew.
    #[tokio::test]
    async fn whose_endpoint_was_drained_before_it_got_there_goes_elsewhere() {
        let supervisor = Supervisor::new();
        let config = super::super::tests::config(&[]);
        let balancer = Balancer::open(config, &supervisor).unwrap();
        let Shared { group, .. } = &*balancer.shared;
        let address = ([127, 0, 0, 1], 1).into();
        let lead = |drain| {
            let upstream = Arc::from("one");
            group.replace(&[Wanted { upstream, address, weight: 1, far: false, drain }]);
        };
        lead(false);
        let attempts = Attempts::default();
        let (key, token, in_flight_max, held_max) = (None, None, 0, 1);
        let wish = Wish { key, attempts: &attempts, token, in_flight_max, held_max };
        let Picked::Place(claim) = group.ask(wish) else { panic!("it serves") };
        lead(true);
        let goes = super::super::session::goes_elsewhere(&balancer.shared, &claim);
        assert!(timeout(Duration::from_secs(20), goes).await.is_ok());
    }

    #[tokio::test]
    async fn what_is_accepted_is_kept_alive() {
        let listener = bind(([127, 0, 0, 1], 0).into()).unwrap();
        keep_alive(&listener).unwrap();
        let address = listener.local_addr().unwrap();
        let (client, accepted) = tokio::join!(TcpStream::connect(address), listener.accept());
        let (accepted, client) = (accepted.unwrap().0, client.unwrap());
        let accepted = SockRef::from(&accepted);
        assert!(accepted.keepalive().unwrap() && !SockRef::from(&client).keepalive().unwrap());
        assert_eq!(accepted.tcp_keepalive_time().unwrap(), Duration::from_secs(60));
        assert_eq!(accepted.tcp_user_timeout().unwrap(), None, "a pause is no absence");
    }
}
