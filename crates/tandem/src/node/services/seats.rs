//! Builds what each node's copy needs of a command whose work is divided, besides what every copy
//! does.
//! In: `Ground`. Out: the running seat, what its copy is told.
//! Not here: its driver (`commands.rs`), what a seat does (`driver/seats.rs`).

use super::super::Ground;
use super::Agreement;
use super::commands::{alone, dir_of};
use crate::config::{self, Command, Config, Partitions};
use crate::driver::instance::wishes::Asked;
use crate::driver::seats::{self, Seat};
use crate::runtime::clock;
use crate::telemetry::event_kind::EventKind;
use crate::telemetry::events::Draft;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use tandem_core::facts::{Data, InstanceFacts, Process};
use tandem_core::ids::{NodeId, ServiceId};
use tandem_core::spec;
use tokio::sync::mpsc;

/// What runs under a lease: a command of which one copy runs, or a node's copy of one whose work is
/// divided.
pub(super) struct Leased<'a> {
    pub id: ServiceId,
    pub work: &'a ServiceId,
    pub command: &'a Command,
    /// Where it runs, or nowhere; none: anywhere.
    pub seat: Option<(&'a NodeId, &'a Partitions)>,
}

pub(super) fn leased(config: &Config) -> impl Iterator<Item = Leased<'_>> {
    let alone =
        alone(config).map(|(work, command)| Leased { id: work.clone(), work, command, seat: None });
    let divided =
        config.commands.iter().filter_map(|(id, it)| Some((id, it, it.partitions.as_ref()?)));
    let seats = divided.flat_map(|(work, command, partitions)| {
        config.data_nodes().map(move |(node, _)| Leased {
            id: spec::Seat::name(work, node),
            work,
            command,
            seat: Some((node, partitions)),
        })
    });
    alone.chain(seats)
}

/// Nothing where what is durable of it cannot be read: without its memory it must not tell a copy
/// anything. Then none is started, and the others are told so, who get what it owned.
pub(super) fn start(
    ground: &Ground,
    agreed: &Agreement,
    it: &Leased<'_>,
    wishes: mpsc::Sender<Asked>,
) -> Option<Arc<Seat>> {
    let (_, partitions) = it.seat?;
    let wiring = seats::Wiring {
        work: it.work.clone(),
        seat: it.id.clone(),
        dir: dir_of(ground, &it.id),
        release_max: partitions.release_max,
        hub: ground.hub.clone(),
        agreed: agreed.clone(),
        wishes,
        events: ground.events.clone(),
    };
    match seats::start(wiring, &ground.supervisor) {
        Ok(seat) => Some(seat),
        Err(error) => {
            quarantine(ground, it, &error);
            None
        }
    }
}

/// Of what may be left here nothing is known: it counts as being there until a majority has waited
/// its lease out.
fn quarantine(ground: &Ground, it: &Leased<'_>, error: &seats::Error) {
    let me = ground.hub.me();
    let reason = format!(
        "no copy of it can run here: {error}; put the file back as it was and restart the daemon, \
         or tandem remove {me}, empty its folder and let it join again"
    );
    tracing::error!(service = %it.work, "{reason}");
    let draft = Draft::new(EventKind::InstanceQuarantined, format!("{me}: {reason}"));
    ground.events.record(draft.service(it.work).field("instance", me.as_str()));
    let data = Data::Quarantined { reason };
    let own = InstanceFacts { data, process: Process::Stopping, ..InstanceFacts::default() };
    ground.hub.publish(&it.id, &own, clock::now());
}

/// What a copy is told besides its own environment.
pub(super) fn told(it: &Leased<'_>, node: &config::Node, dir: &Path) -> BTreeMap<String, String> {
    let ip = match node.api.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    let api = SocketAddr::new(ip, node.api.port());
    let mut told = BTreeMap::from([
        ("TANDEM_SERVICE".to_owned(), it.work.to_string()),
        ("TANDEM_API".to_owned(), format!("http://{api}")),
    ]);
    if let Some((_, partitions)) = it.seat {
        told.insert("TANDEM_PARTITIONS".to_owned(), partitions.count.to_string());
    }
    if let Ok(path) = seats::path_in(dir) {
        told.insert("TANDEM_PARTITIONS_FILE".to_owned(), path.display().to_string());
    }
    told
}
