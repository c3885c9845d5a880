//! Builds what each command needs on this node: the adapter, the keeper, the driver.
//! In: `Ground`. Out: running tasks, and where operators' wishes go.
//! Not here: services of PostgreSQL (`services.rs`), doors (`leased.rs`, `copies.rs`).

use super::super::{Error, Ground};
use super::seats::{self, Leased, OwnSeats, leased};
use super::{Agreement, AskReceivers, start_witness};
use crate::config::{self, Command, Config};
use crate::consensus::Consensus;
use crate::driver::asks::Asks;
use crate::driver::instance::wishes::Asked;
use crate::driver::singleton::{Change, SingletonDriver, Wiring};
use crate::fence::protocol::Limit;
use crate::runtime::supervisor::TaskKind;
use crate::service::command::{AtPort, CommandConfig, Health, Probe};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use tandem_core::ids::{NodeId, ServiceId, Term};
use tandem_core::spec::NodeRole;
use tokio::sync::mpsc;

/// Wishes that may wait; one more is refused.
const WISHES_MAX: usize = 4;
/// Commands of which one copy runs.
pub(super) fn alone(config: &Config) -> impl Iterator<Item = (&ServiceId, &Command)> {
    let is_alone = |it: &Command| it.copies.is_none() && it.partitions.is_none();
    config.commands.iter().filter(move |(_, command)| is_alone(command))
}

/// Changes that may wait for a copy's driver, which takes them at once.
pub(super) const CHANGES_MAX: usize = 4;

/// Where each command of this node takes wishes.
pub(in crate::node) type CommandWishes = BTreeMap<ServiceId, mpsc::Sender<Asked>>;

/// What runs under a lease on this node.
#[derive(Default)]
pub(in crate::node) struct Started {
    pub wishes: CommandWishes,
    pub seats: OwnSeats,
    pub driven: Driven,
}

/// What follows the configuration: the copies of this node, each with where it takes changes and
/// what it was told last; its seats; its votes.
#[derive(Default)]
pub(in crate::node) struct Driven {
    copies: Mutex<BTreeMap<ServiceId, Followed>>,
    seats: OwnSeats,
    asks: Arc<Asks>,
}

/// A copy that follows its configuration.
struct Followed {
    changes: mpsc::Sender<Change>,
    work: ServiceId,
    told: Command,
}

/// Where this node reaches each node's copy.
pub(super) fn addresses(
    ground: &Ground,
    cluster: &Config,
    (service, command): (&ServiceId, &Command),
) -> BTreeMap<NodeId, SocketAddr> {
    let nodes = cluster.data_nodes();
    let reached = |(node, it): (&NodeId, &config::Node)| {
        let own = command.instance_address(it)?;
        let other = ground.routes.get(node).and_then(|r| r.services.get(service.as_str()));
        let is_me = *node == ground.args.node;
        Some((node.clone(), other.filter(|_| !is_me).copied().unwrap_or(own)))
    };
    nodes.filter_map(reached).collect()
}

/// The same of one whose copy runs alone: it listens where it did when the daemons began.
pub(super) fn addresses_begun(
    ground: &Ground,
    cluster: &Config,
    (service, command): (&ServiceId, &Command),
) -> BTreeMap<NodeId, SocketAddr> {
    let began = ground.config.commands.get(service).map_or(command.port, |began| began.port);
    addresses(ground, cluster, (service, &Command { port: began, ..command.clone() }))
}

pub(in crate::node) fn start(
    ground: &Ground,
    consensus: &Consensus,
    (all_asks, asks): (&Arc<Asks>, &mut AskReceivers),
) -> Result<Started, Error> {
    let (mut started, mut driven) = (Started::default(), BTreeMap::new());
    let Some(node) = ground.config.nodes.get(&ground.args.node) else { return Ok(started) };
    for it in leased(&ground.config) {
        let Some(asks) = asks.remove(&it.id) else { continue };
        let is_elsewhere = it.seat.is_some_and(|(seat, _)| *seat != ground.args.node);
        if node.role == NodeRole::Witness || is_elsewhere {
            start_witness(ground, consensus, &it.id, asks)?;
            continue;
        }
        let (sender, receiver) = mpsc::channel(WISHES_MAX);
        let mut divided = None;
        let mut prepared = Prepared::of(ground, node, (&it.id, it.command));
        if it.seat.is_some() {
            let Some(seat) = seats::start(ground, consensus, &it, sender.clone()) else { continue };
            divided = Some(seat.told());
            started.seats.insert(it.work.clone(), seat);
            prepared.config.told = seats::told(&it, node, &prepared.config.dir);
        }
        let (changes, changed) = mpsc::channel(CHANGES_MAX);
        let (work, told) = (it.work.clone(), it.command.clone());
        driven.insert(it.id.clone(), Followed { changes, work, told });
        let wiring = wiring(ground, &consensus.state(), prepared, (asks, receiver, changed))?;
        start_one(ground, Wiring { divided, ..wiring });
        started.wishes.insert(it.work.clone(), sender);
    }
    let (copies, seats) = (Mutex::new(driven), started.seats.clone());
    started.driven = Driven { copies, seats, asks: Arc::clone(all_asks) };
    Ok(started)
}

/// Where a service has what is kept of it on this node.
pub(super) fn dir_of(ground: &Ground, service: &ServiceId) -> PathBuf {
    ground.args.dir.join("services").join(service.as_str())
}

impl Driven {
    /// Goes on with another configuration; what could not be done is said, and done by the next
    /// call.
    pub(in crate::node) fn follow(
        &self,
        ground: &Ground,
        cluster: &Config,
        consensus: &Consensus,
    ) -> Vec<String> {
        let mut waits = self.vote(ground, cluster, consensus);
        for (work, seat) in &self.seats {
            let command = cluster.commands.get(work);
            if let Some(partitions) = command.and_then(|it| it.partitions.as_ref()) {
                seat.allow(partitions.release_max);
            }
        }
        let Some(node) = ground.config.nodes.get(&ground.args.node) else { return waits };
        let mut all = self.copies.lock().unwrap_or_else(PoisonError::into_inner);
        for (service, it) in all.iter_mut() {
            let command = cluster.commands.get(&it.work).filter(|command| **command != it.told);
            let Some(command) = command else { continue };
            // The doors of all nodes find it at the port that their daemons began with.
            let began = ground.config.commands.get(&it.work).and_then(|began| began.port);
            let at_its_port = Command { port: began, ..command.clone() };
            let Prepared { config, limits } = Prepared::of(ground, node, (service, &at_its_port));
            let seat = leased(cluster).find(|own| own.id == *service && own.seat.is_some());
            let config = match seat {
                Some(own) => {
                    let told = seats::told(&own, node, &config.dir);
                    CommandConfig { told, ..config }
                }
                None => config,
            };
            match it.changes.try_send(Change::Config(Box::new(config), limits)) {
                Ok(()) => it.told = command.clone(),
                Err(error) => waits.push(format!("{service}: {error}")),
            }
        }
        waits
    }
}

impl Driven {
    /// A node that was added has a seat of each command whose work is divided: this one votes on it
    /// from now on, without which it would get no term.
    fn vote(&self, ground: &Ground, config: &Config, consensus: &Consensus) -> Vec<String> {
        let is_others = |it: &Leased<'_>| {
            let begun = ground.config.commands.contains_key(it.work);
            begun && it.seat.is_some_and(|(node, _)| *node != ground.args.node)
        };
        let mut waits = Vec::new();
        for it in leased(config).filter(is_others) {
            let Some(asks) = self.asks.add(&it.id) else { continue };
            if let Err(error) = start_witness(ground, consensus, &it.id, asks) {
                self.asks.remove(&it.id);
                waits.push(format!("{}: {error}", it.id));
            }
        }
        waits
    }
}

fn limit((key, value): (&&'static str, &u64)) -> Option<(Limit, u64)> {
    let limit = match *key {
        "nofile" => Limit::Nofile,
        "core" => Limit::Core,
        "nproc" => Limit::Nproc,
        "memlock" => Limit::Memlock,
        "address_space" => Limit::AddressSpace,
        "fsize" => Limit::Fsize,
        _ => return None,
    };
    Some((limit, *value))
}

/// How a command is run on this node.
pub(super) struct Prepared {
    pub(super) config: CommandConfig,
    pub(super) limits: BTreeMap<Limit, u64>,
}

impl Prepared {
    pub(super) fn of(
        ground: &Ground,
        node: &config::Node,
        (service, command): (&ServiceId, &Command),
    ) -> Self {
        let limits = command.limits.iter().filter_map(limit).collect();
        let place = (&ground.args.node, ground.args.dir.as_path());
        Self { config: command_config(place, node, (service, command)), limits }
    }
}

fn start_one(ground: &Ground, wiring: Wiring) {
    let run = SingletonDriver::new(wiring).run(ground.supervisor.stopping());
    ground.supervisor.spawn("singleton driver", TaskKind::Essential, run);
}

/// What others want of it: promises, wishes, changes.
pub(super) type Requests = (mpsc::Receiver<Term>, mpsc::Receiver<Asked>, mpsc::Receiver<Change>);

/// What the driver of a command is connected to; one that runs alone, unless that is changed.
pub(super) fn wiring(
    ground: &Ground,
    agreed: &Agreement,
    Prepared { config, limits }: Prepared,
    (asks, wishes, changes): Requests,
) -> Result<Wiring, Error> {
    let exe = std::env::current_exe()
        .map_err(|source| Error::File { path: "the running program".into(), source })?;
    Ok(Wiring {
        config,
        limits,
        exe,
        hub: ground.hub.clone(),
        explanations: ground.explanations.clone(),
        supervisor: ground.supervisor.clone(),
        agreed: agreed.clone(),
        asks,
        wishes,
        changes,
        events: ground.events.clone(),
        beside: None,
        divided: None,
    })
}

/// How a command is run on a node, which keeps everything in that folder.
pub(in crate::node) fn command_config(
    (me, folder): (&NodeId, &Path),
    node: &config::Node,
    (service, command): (&ServiceId, &Command),
) -> CommandConfig {
    let dir = folder.join("services").join(service.as_str());
    let health = command.health.as_ref().map(|it| Health {
        probe: match &it.probe {
            config::Probe::Http(path) => Probe::Port(AtPort::Http(path.clone())),
            config::Probe::Tcp => Probe::Port(AtPort::Tcp),
            config::Probe::Exec(words) => Probe::Exec(words.clone()),
        },
        interval: it.interval,
        timeout: it.timeout,
        fall: it.fall,
        rise: it.rise,
        grace: it.grace,
    });
    CommandConfig {
        service: service.clone(),
        me: me.clone(),
        cwd: command.cwd.clone().unwrap_or_else(|| dir.join("work")),
        dir,
        command: command.command.clone(),
        env: command.env.clone(),
        run_as: command.run_as.clone(),
        address: command.instance_address(node),
        stop: command.stop.clone(),
        stop_max: command.stop_max,
        drain_max: command.drain_max,
        on_start: command.on_start.clone(),
        on_stop: command.on_stop.clone(),
        on_partitions: command
            .partitions
            .as_ref()
            .map(|it| it.on_partitions.clone())
            .unwrap_or_default(),
        hook_max: command.hook_max,
        health,
        log_bytes_max: command.log_bytes_max,
        told: BTreeMap::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One that is missing here would be dropped in silence.
    #[test]
    fn every_limit_that_can_be_written_is_one_that_a_keeper_knows() {
        let keys = config::entries().map(|entry| entry.key);
        let limits = keys.filter_map(|key| key.strip_prefix("services.NAME.limits."));
        let limits: Vec<&'static str> = limits.collect();
        assert_eq!(limits.len(), 6);
        assert!(limits.iter().all(|key| limit((key, &1)).is_some()), "{limits:?}");
    }
}
