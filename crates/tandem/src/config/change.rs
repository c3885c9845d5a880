//! Decides whether a running cluster may go from one configuration to another.
//! In: the agreed configuration and the new one. Out: what forbids it, and what it brings with it.
//! Handles: H48 (one member at a time, so that two majorities always meet), H4 (a lease that others
//! still count on is never shortened under them).
//! Not here: agreeing on it, and carrying it out.
//! Tested by: `config/tests/change.rs`.

mod balanced;
mod command;

pub use command::port_waits;

use super::problem::{Code, Problem, Problems, Say, Source};
use super::show::durability_parts;
use super::valid::{Config, Node, Service};
use super::value::print_duration;
use std::collections::BTreeSet;
use tandem_core::ids::{NodeId, ServiceId};
use tandem_core::spec::Durability;

/// Settings that PostgreSQL reads only when it starts.
const START_SETTINGS: &[&str] = &[
    "archive_mode",
    "autovacuum_freeze_max_age",
    "autovacuum_max_workers",
    "autovacuum_multixact_freeze_max_age",
    "bonjour",
    "dynamic_shared_memory_type",
    "event_source",
    "huge_page_size",
    "huge_pages",
    "io_method",
    "jit_provider",
    "max_connections",
    "max_files_per_process",
    "max_locks_per_transaction",
    "max_logical_replication_workers",
    "max_pred_locks_per_transaction",
    "max_prepared_transactions",
    "max_replication_slots",
    "max_wal_senders",
    "max_worker_processes",
    "min_dynamic_shared_memory",
    "old_snapshot_threshold",
    "reserved_connections",
    "shared_buffers",
    "shared_memory_type",
    "shared_preload_libraries",
    "superuser_reserved_connections",
    "track_activity_query_size",
    "track_commit_timestamp",
    "unix_socket_group",
    "unix_socket_permissions",
    "wal_buffers",
    "wal_decode_buffer_size",
    "wal_level",
    "wal_log_hints",
];

/// Settings that a standby must not have smaller than its primary.
const STANDBY_SETTINGS: &[&str] = &[
    "max_connections",
    "max_locks_per_transaction",
    "max_prepared_transactions",
    "max_wal_senders",
    "max_worker_processes",
];

struct Change<'a> {
    old: &'a Config,
    new: &'a Config,
    problems: Problems<'a>,
}

impl<'a> Change<'a> {
    fn new(old: &'a Config, new: &'a Config) -> Self {
        let problems = Problems::new(Source::new(&new.text, &new.file_name));
        Self { old, new, problems }
    }

    fn refuse(&mut self, key: &str, say: Say) {
        self.problems.error(Code::UnsafeChange, &self.new.place_of(key), say);
    }

    fn restart(&mut self, key: &str, say: Say) {
        self.problems.note(Code::Restart, &self.new.place_of(key), say);
    }

    fn weaker(&mut self, key: &str, say: Say) {
        self.problems.warning(Code::Weaker, &self.new.place_of(key), say);
    }

    fn both_nodes(&self) -> Vec<(&'a NodeId, &'a Node, &'a Node)> {
        let (old, new) = (self.old, self.new);
        old.nodes.iter().filter_map(|(id, node)| Some((id, node, new.nodes.get(id)?))).collect()
    }

    fn both_services(&self) -> Vec<(&'a ServiceId, &'a Service, &'a Service)> {
        let (old, new) = (self.old, self.new);
        old.services.iter().filter_map(|(id, it)| Some((id, it, new.services.get(id)?))).collect()
    }
}

/// What forbids the change; empty when it is safe.
pub fn unsafe_change(old: &Config, new: &Config) -> Vec<Problem> {
    let mut change = Change::new(old, new);
    if old.cluster != new.cluster {
        let what = format!("the cluster would be renamed from {} to {}", old.cluster, new.cluster);
        let because = "its certificates carry the name: nodes would refuse each other";
        let instead = format!("write cluster = \"{}\"", old.cluster);
        change.refuse("cluster", Say::new(what, because, instead));
    }
    members(&mut change);
    for (id, before, after) in change.both_services() {
        identity(&mut change, id, (before, after));
        lease(&mut change, id, (before, after));
    }
    command::lease(&mut change);
    command::kept(&mut change);
    command::keys(&mut change);
    command::ports(&mut change);
    balanced::kinds(&mut change);
    change.problems.into_sorted()
}

/// At most one member comes, goes or moves (H48).
fn members(change: &mut Change<'_>) {
    let before: BTreeSet<_> = change.old.nodes.keys().collect();
    let after: BTreeSet<_> = change.new.nodes.keys().collect();
    let added = after.difference(&before).map(|id| format!("{id} comes"));
    let removed = before.difference(&after).map(|id| format!("{id} goes"));
    let moved: Vec<_> = change
        .both_nodes()
        .into_iter()
        .filter(|(_, before, after)| before.address != after.address)
        .map(|(id, ..)| id)
        .collect();
    let all: Vec<String> =
        added.chain(removed).chain(moved.iter().map(|id| format!("{id} moves"))).collect();
    if all.len() > 1 {
        let key = moved
            .first()
            .map(|id| format!("nodes.{id}.address"))
            .or_else(|| after.difference(&before).next().map(|id| format!("nodes.{id}")))
            .unwrap_or_else(|| "nodes".to_owned());
        let what = format!("{} nodes would change at once: {}", all.len(), all.join(", "));
        let because = "the majority before and the majority after might not meet, and each could \
                       choose a primary";
        let instead = "apply one of them, wait until `tandem status` is healthy, then the next";
        change.refuse(&key, Say::new(what, because, instead));
    }
    for (id, before, after) in change.both_nodes() {
        if before.role != after.role {
            let key = format!("nodes.{id}.role");
            let what = format!("the role of {id} would change");
            let because = "its copies of the data would appear or vanish under running services";
            let instead = "remove the node, apply, then add it with its new role";
            change.refuse(&key, Say::new(what, because, instead));
        }
    }
}

/// What a service is cannot change while it runs.
fn identity(change: &mut Change<'_>, id: &ServiceId, (old, new): (&Service, &Service)) {
    let pair = |service: &Service| {
        let pairing = service.pairing;
        format!("{} as {} with {}", pairing.kind(), pairing.clustering(), pairing.replication())
    };
    let folder = |path: &Option<std::path::PathBuf>| {
        path.as_ref().map_or_else(|| "the default".to_owned(), |path| path.display().to_string())
    };
    let user = |user: &Option<String>| user.clone().unwrap_or_else(|| "the default".to_owned());
    let port_because = "replicas and front doors of every node connect to that port";
    let cases = [
        (
            "clustering",
            pair(old),
            pair(new),
            "instances, data and front doors were set up for the old pair",
        ),
        ("port", old.port.to_string(), new.port.to_string(), port_because),
        (
            "data_dir",
            folder(&old.data_dir),
            folder(&new.data_dir),
            "the data is where it is: instances would start on an empty folder",
        ),
        ("run_as", user(&old.run_as), user(&new.run_as), "the data belongs to the old user"),
    ];
    for (key, before, after, because) in cases {
        if before == after {
            continue;
        }
        let what = format!("services.{id}: {key} would change from {before} to {after}");
        let instead = match key {
            "port" => format!("write port = {before}"),
            "clustering" => "make a new service beside it and move the data".to_owned(),
            _ => format!("keep {before}; move it with the service stopped on every node"),
        };
        change.refuse(&format!("services.{id}.{key}"), Say::new(what, because, instead));
    }
}

/// Nodes adopt a file one after the other. Where safety rests on the lease, one that counts on the
/// shorter one, old or new, would act while the primary still serves on the longer one (H4).
fn lease(change: &mut Change<'_>, id: &ServiceId, (old, new): (&Service, &Service)) {
    let is_async = [old, new].iter().any(|it| matches!(it.durability, Durability::Async { .. }));
    let cases = [
        ("lease", old.timing.lease, new.timing.lease),
        ("drift_margin", old.timing.drift_margin, new.timing.drift_margin),
    ];
    for (key, before, after) in cases.into_iter().filter(|(_, b, a)| is_async && a != b) {
        let (before, after) = (print_duration(before), print_duration(after));
        let what = format!("services.{id}: {key} would change from {before} to {after}");
        let because = "with async the lease alone keeps two primaries apart, and nodes adopt the \
                       new one at different moments";
        let instead = "apply durability = \"preferred\" first, then this, then \"async\" again";
        change.refuse(&format!("services.{id}.timing.{key}"), Say::new(what, because, instead));
    }
}

/// What waits until the daemon of one node is restarted, but for ports of copies: what counts there
/// is what each began with (`node/services/ports.rs`).
pub fn daemon_restart(old: &Config, new: &Config, node: &NodeId) -> Vec<Problem> {
    let mut change = Change::new(old, new);
    let both = change.both_nodes();
    for (id, before, after) in both.into_iter().filter(|(id, ..)| *id == node) {
        listeners(&mut change, id, (before, after));
    }
    for id in new.services.keys().filter(|id| !old.services.contains_key(*id)) {
        begins(&mut change, id);
    }
    for (id, before, after) in change.both_services() {
        doors(&mut change, id, (before, after));
    }
    change.problems.into_sorted()
}

/// What the change brings with it: restarts as notes, what gets weaker or ends as warnings.
pub fn needs_restart(old: &Config, new: &Config) -> Vec<Problem> {
    let mut change = Change::new(old, new);
    for (id, before, after) in change.both_nodes() {
        listeners(&mut change, id, (before, after));
    }
    for id in new.services.keys().filter(|id| !old.services.contains_key(*id)) {
        begins(&mut change, id);
    }
    for id in old.services.keys().filter(|id| !new.services.contains_key(*id)) {
        let what = format!("service {id} ends");
        let because = "the new file does not have it: its instances stop, its data stays in place";
        let instead = "if that is not meant, put it back";
        change.weaker("services", Say::new(what, because, instead));
    }
    for (id, before, after) in change.both_services() {
        durability(&mut change, id, (before, after));
        doors(&mut change, id, (before, after));
        instance(&mut change, id, (before, after));
    }
    command::restarts(&mut change);
    command::anew(&mut change);
    command::ends(&mut change);
    balanced::doors(&mut change);
    command::doors(&mut change);
    change.problems.into_sorted()
}

fn begins(change: &mut Change<'_>, id: &ServiceId) {
    let what = format!("service {id} begins once the daemons were restarted");
    let because = "its doors are opened and its instances made when a daemon starts";
    let instead = "restart the daemons one after the other; other instances keep running";
    change.restart(&format!("services.{id}"), Say::new(what, because, instead));
}

fn listeners(change: &mut Change<'_>, id: &NodeId, (old, new): (&Node, &Node)) {
    let cases = [
        ("address", old.address != new.address),
        ("bind", old.bind != new.bind),
        ("api", old.api != new.api),
    ];
    let changed = cases.into_iter().filter(|(_, changed)| *changed);
    let keys: Vec<String> = changed.map(|(key, _)| format!("nodes.{id}.{key}")).collect();
    let Some(first) = keys.first() else { return };
    let what = format!("the daemon of {id} must be restarted");
    let verb = if keys.len() == 1 { "changes" } else { "change" };
    let because = format!("{} {verb}, and listeners are opened when it starts", keys.join(", "));
    let instead = "restart it after the change is applied; its instances keep running, and until \
                   then the others find it where it was";
    change.restart(first, Say::new(what, because, instead));
}

fn durability(change: &mut Change<'_>, id: &ServiceId, (old, new): (&Service, &Service)) {
    let strength = |service: &Service| match service.durability {
        Durability::Async { .. } => 0,
        Durability::Preferred { .. } => 1,
        Durability::Quorum { .. } => 2,
    };
    let (before, old_acks) = durability_parts(old.durability);
    let (after, new_acks) = durability_parts(new.durability);
    let key = format!("services.{id}.durability");
    if strength(new) < strength(old) {
        let what = format!("services.{id}: durability goes from {before} to {after}");
        let because = "commits acknowledged from then on survive less";
        change.weaker(&key, Say::new(what, because, "make sure that this is meant"));
    } else if let (Some(before), Some(after)) = (old_acks, new_acks)
        && after < before
    {
        let what = format!("services.{id}: acks goes from {before} to {after}");
        let because = "commits acknowledged from then on have fewer copies";
        let say = Say::new(what, because, "make sure that this is meant");
        change.weaker(&format!("services.{id}.acks"), say);
    }
}

fn doors(change: &mut Change<'_>, id: &ServiceId, (old, new): (&Service, &Service)) {
    let cases =
        [("listen", old.listen != new.listen), ("read_listen", old.read_listen != new.read_listen)];
    for (key, _) in cases.into_iter().filter(|(_, changed)| *changed) {
        let key = format!("services.{id}.{key}");
        let what = format!("the front door of {id} moves on every node");
        let because = format!("{key} changes: clients must connect to the new place");
        let instead = "restart the daemons one after the other; instances keep running";
        change.restart(&key, Say::new(what, because, instead));
    }
    let is_async = |service: &Service| matches!(service.durability, Durability::Async { .. });
    let limits = [
        ("hold_max", old.hold_max != new.hold_max),
        ("held_max", old.held_max != new.held_max),
        ("sessions_max", old.sessions_max != new.sessions_max),
        // With async, a session may lower its own durability; else its door refuses that.
        ("durability", is_async(old) != is_async(new)),
    ];
    for (key, _) in limits.into_iter().filter(|(_, changed)| *changed) {
        let what = format!("the front doors of {id} keep their old {key} until a restart");
        let because = "a door takes its limits when it is opened";
        let instead = "restart the daemons one after the other; instances keep running";
        change.restart(&format!("services.{id}.{key}"), Say::new(what, because, instead));
    }
}

fn instance(change: &mut Change<'_>, id: &ServiceId, (old, new): (&Service, &Service)) {
    let path = |key: &str| format!("services.{id}.{key}");
    let what = |key: &str| format!("the instances of {id} must be restarted for {key}");
    let rolling = "restart the standbys, then switch over, then restart the old primary";
    if old.bin_dir != new.bin_dir {
        let because = "running processes keep the old programs; both must be of one major version";
        change.restart(&path("bin_dir"), Say::new(what("bin_dir"), because, rolling));
    }
    let names: BTreeSet<_> = old.settings.keys().chain(new.settings.keys()).collect();
    for name in names.into_iter().filter(|name| START_SETTINGS.contains(&name.as_str())) {
        let (before, after) = (old.settings.get(name), new.settings.get(name));
        if before == after {
            continue;
        }
        let standbys = STANDBY_SETTINGS.contains(&name.as_str());
        let because = if standbys {
            "PostgreSQL reads it when it starts, and a standby with less than its primary stops"
        } else {
            "PostgreSQL reads it when it starts"
        };
        let number = |value: Option<&String>| value.and_then(|value| value.parse::<u64>().ok());
        let lowers = matches!((number(before), number(after)), (Some(b), Some(a)) if a < b);
        let instead = if standbys && lowers {
            "restart the primary first: a standby waits for the lower value in the log"
        } else {
            rolling
        };
        let say = Say::new(what(name), because, instead);
        change.restart(&path(&format!("postgresql.{name}")), say);
    }
}
