//! Tells the front door of copies where they take work, and the copies what it still has there.
//! In: facts, where this node reaches copies. Out: endpoints; `DoorUse`s.
//! States of an endpoint: takes work ⇄ drained; it stays listed while it does not run, so that what
//! is known of it survives its restarts, and it comes back slowly.
//! Keeps: INV-14 the door is told first, and the copies then, by one look.
//! Not here: the decision (`tandem_core::clustering::copies::door`), what a connection or request
//! gets (`proxy/balancer`), what else a door is by configuration (`node/services/copies.rs`).
//! Tested by: below, `tests/copies`.

use crate::driver::hub::{DoorWords, Hub};
use crate::proxy::{Balancer, Upstream};
use crate::runtime::clock;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tandem_core::clustering::copies::door::{DoorView, Look, look};
use tandem_core::facts::DoorUse;
use tandem_core::ids::{NodeId, ServiceId};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// How often to look when nothing changes.
const TICK: Duration = Duration::from_millis(200);
/// While somebody waits for what it has to end.
const SOON: Duration = Duration::from_millis(10);

/// Where this node reaches a node's copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Where.
    pub address: SocketAddr,
    /// How much work it gets, relative to the others.
    pub weight: u32,
    /// It stands in another zone than this node.
    pub far: bool,
}

/// Where a door may lead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Where each node's copy is.
    pub places: BTreeMap<NodeId, Place>,
    /// What a node said longer ago is not known to be so now.
    pub suspicion: Duration,
}

/// What the door of a service of copies follows.
#[derive(Debug)]
pub struct DoorGuide {
    /// Which service.
    pub service: ServiceId,
    /// What this node knows.
    pub hub: Arc<Hub>,
    /// What it shall be.
    pub wanted: watch::Receiver<Wanted>,
    /// The door.
    pub door: Arc<Balancer>,
    /// What it says to copies.
    pub words: DoorWords,
}

impl DoorGuide {
    /// Keeps the door true until `stop`, or until nobody can change what it shall be: then what it
    /// says to copies is handed back, and still stands.
    pub async fn run(mut self, stop: CancellationToken) -> Option<DoorWords> {
        let mut changed = self.hub.changed();
        let mut told = None;
        loop {
            let wanted = self.wanted.borrow_and_update().clone();
            let look = self.look(wanted.suspicion);
            let upstreams = upstreams(&wanted, &look);
            let to = (upstreams, names(&wanted));
            if told.as_ref() != Some(&to) {
                self.door.known_as(to.1.clone());
                self.door.lead(to.0.clone());
                told = Some(to);
            }
            let uses = self.uses(&wanted, &look);
            let pause = if uses.values().any(|it| it.in_flight > 0) { SOON } else { TICK };
            self.words.say(uses);
            tokio::select! {
                biased;
                () = stop.cancelled() => return None,
                result = self.wanted.changed() => if result.is_err() { return Some(self.words) },
                result = changed.changed() => if result.is_err() { return None },
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    fn look(&self, suspicion: Duration) -> Look {
        let (me, service, facts) = (self.hub.me(), &self.service, &self.hub.everyone());
        look(&DoorView { me, service, facts, suspicion }, clock::now())
    }

    /// What is still there at copies that withdrew.
    fn uses(&self, wanted: &Wanted, look: &Look) -> BTreeMap<NodeId, DoorUse> {
        let in_flight = self.door.in_flight();
        look.uses(|node| {
            let place = wanted.places.get(node)?;
            Some(in_flight.get(&place.address).copied().unwrap_or(0))
        })
    }
}

/// The node's name is what all nodes call its copy: one without a way of its own may bind to all
/// addresses, and several do.
fn names(wanted: &Wanted) -> BTreeMap<SocketAddr, Arc<str>> {
    let places = wanted.places.iter();
    places.map(|(node, place)| (place.address, Arc::from(node.as_str()))).collect()
}

fn upstreams(wanted: &Wanted, look: &Look) -> Vec<Upstream> {
    let upstream = |(node, place): (&NodeId, &Place)| Upstream {
        host: place.address.ip().to_string(),
        port: place.address.port(),
        weight: place.weight,
        far: place.far,
        drain: !look.takers.contains(node),
    };
    wanted.places.iter().map(upstream).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::BalancerConfig;
    use crate::runtime::supervisor::{Supervisor, TaskKind};
    use tandem_core::clustering::load_balanced::balance::Policy;
    use tandem_core::clustering::load_balanced::{ejection, rate};
    use tandem_core::facts::{InstanceFacts, NodeFacts, Process, Told};
    use tandem_core::ids::{ConfigVersion, Term};
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::{TcpListener, TcpSocket};

    /// Far more than anything here takes.
    const LIMIT: Duration = Duration::from_secs(20);

    /// A way to a copy, whose answer is its letter.
    async fn way_to(copy: u8, supervisor: &Supervisor) -> SocketAddr {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        supervisor.spawn("copy", TaskKind::Session, async move {
            while let Ok((mut client, _)) = listener.accept().await {
                let _ = client.write_all(&[copy]).await;
            }
        });
        address
    }

    fn config() -> BalancerConfig {
        BalancerConfig {
            service: "web".into(),
            listen: ([127, 0, 0, 1], 0).into(),
            upstreams: Vec::new(),
            policy: Policy::Hash,
            limits: ejection::Limits { slow_start: Duration::ZERO, ..Default::default() },
            check: None,
            question: None,
            certificates: Vec::new(),
            encrypts: false,
            upstream_tls: None,
            rates: rate::Limits::default(),
            hold_max: LIMIT,
            connect_timeout: LIMIT,
            idle_timeout: LIMIT,
            drain_max: None,
            sessions_max: 100,
            held_max: 100,
            connections_max: 0,
            accept_proxy: false,
            accept_proxy_from: None,
            send_proxy: None,
            partitions: None,
            http: None,
        }
    }

    fn wanted(places: &[(&str, SocketAddr)]) -> Wanted {
        let place = |(node, address): &(&str, SocketAddr)| {
            ((*node).into(), Place { address: *address, weight: 1, far: false })
        };
        Wanted { places: places.iter().map(place).collect(), suspicion: LIMIT }
    }

    /// The door of a node without a copy, which hears that those of these nodes serve.
    fn door(
        places: &[(&str, SocketAddr)],
        supervisor: &Supervisor,
    ) -> (Arc<Balancer>, watch::Sender<Wanted>) {
        let (hub, service) = (Arc::new(Hub::new("w".into())), ServiceId::from("web"));
        for node in ["a", "b", "c"] {
            let (process, serving) = (Process::Primary, Some(Term(1)));
            let own = InstanceFacts { process, serving, ..InstanceFacts::default() };
            hub.heard(NodeFacts {
                ended: Default::default(),
                node: node.into(),
                told: Told { start: 1, number: 1 },
                config_version: ConfigVersion(1),
                draining: false,
                doors: BTreeMap::new(),
                links: BTreeMap::new(),
                instances: [(service.clone(), own)].into(),
            });
        }
        let door = Arc::new(Balancer::open(config(), supervisor).unwrap());
        let (told, wanted) = watch::channel(wanted(places));
        let words = DoorWords::open(&hub, &service);
        let guide = DoorGuide { service, hub, wanted, door: Arc::clone(&door), words };
        let stop = supervisor.stopping();
        supervisor.spawn("guide", TaskKind::Session, async move {
            guide.run(stop).await;
        });
        (door, told)
    }

    /// Which copies a few clients get, who come from addresses of their own.
    async fn homes(door: &Balancer) -> String {
        let mut homes = Vec::new();
        for client in 1..=32 {
            let socket = TcpSocket::new_v4().unwrap();
            socket.bind(([127, 0, 0, client], 0).into()).unwrap();
            let mut client = socket.connect(door.local_address()).await.unwrap();
            homes.push(tokio::time::timeout(LIMIT, client.read_u8()).await.unwrap().unwrap());
        }
        String::from_utf8(homes).unwrap()
    }

    /// However each node reaches them.
    #[tokio::test]
    async fn a_client_belongs_to_one_nodes_copy_through_every_nodes_door() {
        let supervisor = Supervisor::new();
        let mut all = Vec::new();
        for _ in 0..2 {
            let (a, b) = (way_to(b'a', &supervisor).await, way_to(b'b', &supervisor).await);
            let (door, _told) = door(&[("a", a), ("b", b)], &supervisor);
            all.push(homes(&door).await);
        }
        assert_eq!(all[0], all[1]);
        assert!(all[0].contains('a') && all[0].contains('b'), "{}", all[0]);
    }

    #[tokio::test]
    async fn a_client_belongs_to_a_node_that_came_to_where_another_one_was() {
        let supervisor = Supervisor::new();
        let (a, b) = (way_to(b'1', &supervisor).await, way_to(b'2', &supervisor).await);
        let (changed, told) = door(&[("a", a), ("b", b)], &supervisor);
        let before = homes(&changed).await;
        let after = [("a", a), ("c", b)];
        let (fresh, _told) = door(&after, &supervisor);
        let wants = homes(&fresh).await;
        assert_ne!(before, wants);
        told.send_replace(wanted(&after));
        let follows = async { while homes(&changed).await != wants {} };
        tokio::time::timeout(LIMIT, follows).await.unwrap();
    }
}
