//! Keeps what runs under a lease on this node as the configuration wants it, from its start and
//! while it changes: drivers, seats, votes.
//! In: `Config`. Out: running tasks, where operators' wishes go, what waits.
//! States of a driver: begun → (its service is taken out) its copy has ended, it votes on → (the
//! name comes back under a lease) begun; (with copies side by side) over, and its folder free.
//! Not here: services of PostgreSQL (`services.rs`), doors (`leased.rs`, `copies.rs`).

use super::super::{Error, Ground};
use super::folders::Folder;
use super::seats::{self, Leased, leased};
use super::{Agreement, start_witness};
use crate::config::{self, Command, Config};
use crate::driver::asks::Asks;
use crate::driver::instance::wishes::Asked;
use crate::driver::seats::Seat;
use crate::driver::singleton::{Change, SingletonDriver, Wiring};
use crate::fence::protocol::Limit;
use crate::runtime::supervisor::TaskKind;
use crate::service::command::{AtPort, CommandConfig, Health, Probe};
use futures::future::join_all;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tandem_core::ids::{NodeId, ServiceId, Term};
use tandem_core::spec::{self, NodeRole};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

/// Wishes that may wait; one more is refused.
const WISHES_MAX: usize = 4;
/// For a driver that holds nothing to learn that its name has another pattern.
const GIVES_WAY: Duration = Duration::from_secs(1);

/// Commands of which one copy runs.
pub(super) fn alone(config: &Config) -> impl Iterator<Item = (&ServiceId, &Command)> {
    let is_alone = |it: &Command| it.copies.is_none() && it.partitions.is_none();
    config.commands.iter().filter(move |(_, command)| is_alone(command))
}

/// Changes that may wait for a copy's driver, which takes them at once.
pub(super) const CHANGES_MAX: usize = 4;

/// What runs under a lease on this node, and follows the configuration: copies, seats, votes.
pub(in crate::node) struct Driven {
    ground: Arc<Ground>,
    asks: Arc<Asks>,
    agreed: Agreement,
    copies: Mutex<BTreeMap<ServiceId, Followed>>,
}

/// A copy that follows its configuration.
struct Followed {
    work: ServiceId,
    changes: mpsc::Sender<Change>,
    wishes: mpsc::Sender<Asked>,
    /// What it was told last, with the port at which it is.
    told: Command,
    /// There if its work is divided.
    seat: Option<Arc<Seat>>,
    /// Its name has another pattern now, and nothing of it is left.
    ended: CancellationToken,
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

/// The same of one whose copies run under a lease: they listen where they began.
pub(super) fn addresses_begun(
    ground: &Ground,
    cluster: &Config,
    (service, command): (&ServiceId, &Command),
) -> BTreeMap<NodeId, SocketAddr> {
    let port = ground.ports.at(service, command);
    addresses(ground, cluster, (service, &Command { port, ..command.clone() }))
}

/// Where a service has what is kept of it on this node.
pub(super) fn dir_of(ground: &Ground, service: &ServiceId) -> PathBuf {
    ground.args.dir.join("services").join(service.as_str())
}

impl Driven {
    /// Starts what the configuration has with which the node starts.
    ///
    /// # Errors
    /// A folder or the program cannot be had.
    pub(in crate::node) fn start(
        ground: &Arc<Ground>,
        asks: &Arc<Asks>,
        agreed: &Agreement,
    ) -> Result<Self, Error> {
        let (ground, asks, agreed) = (Arc::clone(ground), Arc::clone(asks), agreed.clone());
        let driven = Self { ground, asks, agreed, copies: Mutex::default() };
        for it in leased(&driven.ground.config) {
            driven.begin(&it)?;
        }
        Ok(driven)
    }

    /// Waits a moment for those whose name has another pattern from now on: others may have their
    /// folders then.
    pub(in crate::node) async fn give_way(&self, cluster: &Config) {
        let ends: Vec<CancellationToken> = {
            let all = self.all();
            // A seat has a name of its own.
            let is_beside = |it: &&Followed| {
                let command = cluster.commands.get(&it.work).filter(|_| it.seat.is_none());
                command.is_some_and(|command| command.copies.is_some())
            };
            all.values().filter(is_beside).map(|it| it.ended.clone()).collect()
        };
        let ended = join_all(ends.iter().map(CancellationToken::cancelled));
        // Who takes longer is waited for by whoever wants the folder.
        let _ = timeout(GIVES_WAY, ended).await;
    }

    /// Goes on with another configuration; what could not be done is said, and done by the next
    /// call.
    pub(in crate::node) fn follow(&self, cluster: &Config) -> Vec<String> {
        let mut waits = Vec::new();
        for it in leased(cluster) {
            if let Err(because) = self.follow_one(&it) {
                waits.push(format!("{}: {because}", it.id));
            }
        }
        waits
    }

    /// Whether one that the configuration has under a lease has given way meanwhile to what was to
    /// run side by side.
    pub(in crate::node) fn lacks(&self, cluster: &Config) -> bool {
        let all = self.all();
        all.iter()
            .any(|(id, own)| own.ended.is_cancelled() && leased(cluster).any(|it| it.id == *id))
    }

    fn follow_one(&self, it: &Leased<'_>) -> Result<(), String> {
        self.begin(it).map_err(|error| error.to_string())?;
        let Some(node) = self.ground.config.nodes.get(&self.ground.args.node) else {
            return Ok(());
        };
        let mut all = self.all();
        let Some(own) = all.get_mut(&it.id) else { return Ok(()) };
        if let (Some(seat), Some((_, partitions))) = (&own.seat, it.seat) {
            seat.allow(partitions.release_max);
        }
        let command = self.at_its_port(it);
        if own.told == command {
            return Ok(());
        }
        let Prepared { config, limits } = self.prepared(it, node, &command);
        let change = Change::Config(Box::new(config), limits);
        own.changes.try_send(change).map_err(|error| error.to_string())?;
        own.told = command;
        Ok(())
    }

    /// The doors of all nodes find it at the port with which it began.
    fn at_its_port(&self, it: &Leased<'_>) -> Command {
        Command { port: self.ground.ports.at(it.work, it.command), ..it.command.clone() }
    }

    fn prepared(&self, it: &Leased<'_>, node: &config::Node, command: &Command) -> Prepared {
        let mut prepared = Prepared::of(&self.ground, node, (&it.id, command));
        if it.seat.is_some() {
            prepared.config.told = seats::told(it, node, &prepared.config.dir);
        }
        prepared
    }

    /// Starts what is new here: the own copy, or a vote on what runs elsewhere, without which that
    /// would get no term.
    fn begin(&self, it: &Leased<'_>) -> Result<(), Error> {
        let ground = &*self.ground;
        let Some(node) = ground.config.nodes.get(&ground.args.node) else { return Ok(()) };
        let Some(asks) = self.asks.add(&it.id) else { return Ok(()) };
        let is_elsewhere = it.seat.is_some_and(|(seat, _)| *seat != ground.args.node);
        let begun = if node.role == NodeRole::Witness || is_elsewhere {
            start_witness(ground, &self.agreed, &it.id, asks)
        } else {
            self.begin_own(it, node, asks)
        };
        if begun.is_err() {
            self.asks.remove(&it.id);
        }
        begun
    }

    fn begin_own(
        &self,
        it: &Leased<'_>,
        node: &config::Node,
        asks: mpsc::Receiver<Term>,
    ) -> Result<(), Error> {
        let ground = &*self.ground;
        let (wishes, asked) = mpsc::channel(WISHES_MAX);
        let (changes, changed) = mpsc::channel(CHANGES_MAX);
        let told = self.at_its_port(it);
        let prepared = self.prepared(it, node, &told);
        let wiring = wiring(ground, &self.agreed, prepared, (asks, asked, changed))?;
        let folder = ground.folders.take(&it.id).ok_or(Error::StillEnds)?;
        let seat = match it.seat {
            Some(_) => seats::start(ground, &self.agreed, it, wishes.clone()),
            None => None,
        };
        if it.seat.is_some() && seat.is_none() {
            // Nothing of it can run here before the daemon's restart.
            return Ok(());
        }
        let divided = seat.as_ref().map(|seat| seat.told());
        let (ended, work) = (CancellationToken::new(), it.work.clone());
        self.drive(Wiring { divided, ..wiring }, &it.id, (folder, ended.clone()));
        let own = Followed { work, changes, wishes, told, seat, ended };
        self.all().insert(it.id.clone(), own);
        Ok(())
    }

    fn drive(&self, wiring: Wiring, id: &ServiceId, (folder, ended): (Folder, CancellationToken)) {
        let stop = self.ground.supervisor.stopping();
        let (asks, id) = (Arc::clone(&self.asks), id.clone());
        let driver = SingletonDriver::new(wiring);
        self.ground.supervisor.spawn("singleton driver", TaskKind::Essential, async move {
            if !driver.run(stop.clone()).await {
                return;
            }
            // It may come back, for another driver.
            asks.remove(&id);
            folder.release();
            ended.cancel();
            // One that gave way is no part of the node that is missing.
            stop.cancelled().await;
        });
    }

    /// Where the own copy of a service takes wishes.
    pub(in crate::node) fn wishes(&self, service: &ServiceId) -> Option<mpsc::Sender<Asked>> {
        let all = self.all();
        let own = all.get(&self.own_name(service)).filter(|own| !own.ended.is_cancelled());
        own.map(|own| own.wishes.clone())
    }

    /// The own seat of a service whose work is divided.
    pub(in crate::node) fn seat(&self, service: &ServiceId) -> Option<Arc<Seat>> {
        self.all().get(&self.own_name(service))?.seat.clone()
    }

    /// By what name the own copy is agreed: of one that changed its pattern another may be there.
    fn own_name(&self, service: &ServiceId) -> ServiceId {
        let seat = spec::Seat::name(service, &self.ground.args.node);
        let is_divided = self.agreed.borrow().state.spec.services.contains_key(&seat);
        if is_divided { seat } else { service.clone() }
    }

    fn all(&self) -> MutexGuard<'_, BTreeMap<ServiceId, Followed>> {
        self.copies.lock().unwrap_or_else(PoisonError::into_inner)
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
