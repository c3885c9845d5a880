//! Talks to this machine before a node runs on it: what would keep it from starting.
//! In: a configuration, a node's name and folder. Out: `Error` at the start, `Finding`s for a
//! doctor.
//! Checked before anything is started, so that a mistake is an error and not half a node.
//! A port that this node's own PostgreSQL holds is no clash: it outlives the daemon.
//! Tested by: `tests/bad_days.rs`.

pub(super) mod trial;

use super::problem::{of_config, of_identity, of_postgres};
use super::services::balancers::read_certificates;
use super::services::instance_config;
use super::user::run_as;
use super::{Error, Ground, mounts};
use crate::api::explain::{Finding, Severity};
use crate::config::{self, Config, Service, print_bytes};
use crate::identity::{self, Identity};
use crate::runtime::{clock, process};
use crate::service::postgres::{self, Binaries, Postgres};
use crate::telemetry::problem::Problem;
use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tandem_core::ids::{ConfigVersion, NodeId, ServiceId};
use tandem_core::spec::NodeRole;

/// What was killed with its node a moment ago may still hold the port.
const PORT_PATIENCE: Duration = Duration::from_secs(5);
const PORT_LOOK: Duration = Duration::from_millis(50);
/// Room for a small database and its WAL.
const ROOM_MIN_BYTES: u64 = 1 << 30;
/// 2026-01-01: this program did not exist before.
const CLOCK_MIN_UNIX_MS: u64 = 1_767_225_600_000;
const DAY_S: i64 = 86_400;

/// Whether the certificates of front doors can be used, as far as their files are on this machine.
///
/// # Errors
/// What is wrong with which file.
pub fn certificates(config: &Config) -> Result<(), Error> {
    Ok(read_certificates(config)?)
}

/// Whether the instances of this node can run here.
pub(super) async fn check(ground: &Ground) -> Result<(), Error> {
    let node = ground.config.nodes.get(&ground.args.node).ok_or(Error::Broken)?;
    if let Some(why) = expired(&ground.identity) {
        // It goes on: a clock that is wrong must not end a primary that its peers still know.
        tracing::error!(node = %ground.args.node, "{why}");
    }
    if node.role != NodeRole::Data {
        return Ok(());
    }
    // What is agreed runs elsewhere, or the node would be missed for a setting; what is not yet
    // agreed must not be founded on.
    if ground.version == ConfigVersion(0) && !ground.identity.joined() {
        let problems = trial::problems(&ground.config).await;
        if !problems.is_empty() {
            return Err(Error::Config(problems));
        }
    }
    for (service, config) in &ground.config.services {
        let postgres =
            Postgres::new(instance_config(ground, &ground.config, (service, config)).await?)?;
        match postgres.check_data().await {
            Ok(()) | Err(postgres::Error::NoData { .. }) => {}
            Err(error) => return Err(error.into()),
        }
        let address = config.instance_address(node);
        if !port_comes_free(address, &postgres.data_dir()).await {
            return Err(Error::PostgresPort { service: service.clone(), address });
        }
    }
    Ok(())
}

async fn port_comes_free(address: SocketAddr, data: &Path) -> bool {
    let deadline = clock::now().plus(PORT_PATIENCE);
    while is_taken(address) {
        if own_postmaster_lives(data) {
            return true;
        }
        if clock::now() > deadline {
            return false;
        }
        tokio::time::sleep(PORT_LOOK).await;
    }
    true
}

fn is_taken(address: SocketAddr) -> bool {
    TcpListener::bind(address).is_err_and(|error| error.kind() == ErrorKind::AddrInUse)
}

/// The first line of postmaster.pid is the number of the process that uses the data.
fn own_postmaster_lives(data: &Path) -> bool {
    let text = std::fs::read_to_string(data.join("postmaster.pid")).unwrap_or_default();
    let pid = text.lines().next().and_then(|line| line.trim().parse().ok());
    pid.is_some_and(process::is_alive)
}

fn expired(identity: &Identity) -> Option<String> {
    let now_s = i64::try_from(clock::unix_ms() / 1000).unwrap_or(i64::MAX);
    let ended_s = identity.expires_unix_s().filter(|end| *end < now_s)?;
    Some(format!(
        "this node's certificate ended {} days ago, so its peers refuse it; check the clock, or \
         let the node join again (tandem token, tandem join)",
        (now_s - ended_s) / DAY_S
    ))
}

/// What `tandem doctor --before` looks at.
#[derive(Clone, Debug, Default)]
pub struct Before {
    /// The configuration.
    pub config: Option<PathBuf>,
    /// The folder that a node would use.
    pub dir: Option<PathBuf>,
    /// Which node; left out, the one of the identity in the folder.
    pub node: Option<NodeId>,
}

/// Examines this machine without a node.
pub async fn examine(before: &Before) -> Vec<Finding> {
    let mut findings = vec![clock_sanity(clock::unix_ms())];
    let mut node = before.node.clone();
    if let Some(dir) = &before.dir {
        findings.extend(folder(dir, &mut node));
    }
    let Some(path) = &before.config else {
        findings.push(programs("PostgreSQL", None).await);
        return findings;
    };
    let config = match read(path) {
        Ok(config) => config,
        Err(problem) => {
            findings.push(bad("configuration", problem));
            return findings;
        }
    };
    findings.push(Finding::good("configuration", format!("{} can be used", path.display())));
    findings.extend(config.warnings.iter().map(|it| {
        Finding::new(Severity::Warning, "configuration", it.what.clone())
            .advice(it.because.clone(), it.try_.clone())
    }));
    findings.extend(trial::problems(&config).await.into_iter().map(|it| {
        let what = format!("{}: line {}: {}", it.code, it.line, it.what);
        Finding::new(Severity::Bad, "configuration", what).advice(it.because, it.try_)
    }));
    for (service, config) in &config.services {
        findings.push(programs(&format!("PostgreSQL of {service}"), Some(config)).await);
        findings.push(match run_as(service, config.run_as.as_deref()) {
            Ok(_) => Finding::good(format!("user of {service}"), "PostgreSQL can run as it"),
            Err(error) => bad(&format!("user of {service}"), error.into()),
        });
    }
    match node {
        Some(node) => findings.extend(of_node(&config, &node, before.dir.as_deref())),
        None => findings.push(
            Finding::new(Severity::Unknown, "ports", "they were not checked")
                .advice("which node this is, is not known", "add --node NAME or --dir DIR"),
        ),
    }
    findings
}

fn read(path: &Path) -> Result<Config, Problem> {
    let text = config::read_file(path).map_err(|error| Problem::from(Error::Unreadable(error)))?;
    Config::parse(&text, &path.display().to_string()).map_err(|problems| of_config(&problems))
}

fn bad(subject: &str, problem: Problem) -> Finding {
    let what = format!("{}: {}", problem.code, problem.what);
    Finding::new(Severity::Bad, subject, what).advice(problem.because, problem.try_)
}

async fn programs(subject: &str, config: Option<&Service>) -> Finding {
    match Binaries::find(config.and_then(|it| it.bin_dir.as_deref())).await {
        Ok(found) => {
            let at = found.tool("postgres").display().to_string();
            Finding::good(subject, format!("version {} in {at}", found.major()))
        }
        Err(error) => bad(subject, of_postgres(&error)),
    }
}

fn clock_sanity(now_unix_ms: u64) -> Finding {
    if now_unix_ms >= CLOCK_MIN_UNIX_MS {
        return Finding::good("clock", "it shows a time after this program was made");
    }
    Finding::new(Severity::Warning, "clock", "it shows a time before this program was made").advice(
        "no decision about safety rests on it, but certificates, schedules and logs do",
        "run a time service such as chrony",
    )
}

/// The folder, its owner and room, and the identity in it, which also says whose it is.
fn folder(dir: &Path, node: &mut Option<NodeId>) -> Vec<Finding> {
    let subject = format!("folder {}", dir.display());
    let existing = dir.ancestors().find(|path| path.is_dir());
    let existing = existing.unwrap_or(Path::new("/"));
    let mut findings = vec![room(&subject, existing)];
    findings.extend(mounts::check(&subject, existing));
    let Ok(metadata) = std::fs::metadata(dir) else {
        findings.push(Finding::good(subject, "it is not there yet; init or join makes it"));
        return findings;
    };
    let (owner, me) = (metadata.uid(), nix::unistd::geteuid().as_raw());
    findings.push(if !metadata.is_dir() {
        Finding::new(Severity::Bad, subject.clone(), "it is not a folder")
            .advice("something else has that name", "use another --dir")
    } else if owner != me && me != 0 {
        Finding::new(Severity::Bad, subject.clone(), format!("it belongs to user {owner}"))
            .advice(format!("this is user {me}"), "chown it, or run as its owner")
    } else if metadata.mode() & 0o022 != 0 {
        let mode = metadata.mode() & 0o777;
        Finding::new(Severity::Bad, subject.clone(), format!("others may write to it ({mode:o})"))
            .advice("whoever can replace its files can replace the node", "chmod go-w on it")
    } else {
        Finding::good(subject, "it is this user's, and nobody else may write to it")
    });
    findings.push(match Identity::load(dir) {
        Ok(identity) => {
            let name = node.get_or_insert_with(|| identity.node().clone()).clone();
            match expired(&identity) {
                Some(why) => Finding::new(Severity::Bad, "certificate", why),
                None if *identity.node() != name => Finding::new(
                    Severity::Bad,
                    "identity",
                    format!("it is node {}'s, not {name}'s", identity.node()),
                )
                .advice("folders were mixed up", "correct --node or --dir"),
                None => Finding::good(
                    "identity",
                    format!("node {name} of cluster {}", identity.cluster()),
                ),
            }
        }
        Err(identity::Error::Missing { .. }) => {
            Finding::new(Severity::Warning, "identity", "there is none yet")
                .advice("init and join make it", "tandem init, or tandem join")
        }
        Err(error) => bad("identity", of_identity(&error)),
    });
    findings
}

fn room(subject: &str, path: &Path) -> Finding {
    let Ok(stat) = rustix::fs::statvfs(path) else {
        return Finding::new(Severity::Unknown, subject, "its room is not known");
    };
    let free = stat.f_bavail.saturating_mul(stat.f_frsize);
    let what = format!("{} free", print_bytes(free));
    if free >= ROOM_MIN_BYTES {
        return Finding::good(subject, what);
    }
    let least = print_bytes(ROOM_MIN_BYTES);
    Finding::new(Severity::Warning, subject, what)
        .advice(format!("a small database and its WAL need {least}"), "make room")
}

/// What only one node of the configuration needs: its ports, and the data in its folder.
fn of_node(config: &Config, node: &NodeId, dir: Option<&Path>) -> Vec<Finding> {
    let Some(it) = config.nodes.get(node) else {
        let known: Vec<&str> = config.nodes.keys().map(NodeId::as_str).collect();
        let error = Error::NoSuchNode { node: node.clone(), known: known.join(", ") };
        return vec![bad("configuration", error.into())];
    };
    let mut findings = vec![
        port("peer port", it.listen_address(), "set another address for this node"),
        port("API", it.api, "set another api for this node"),
    ];
    for (service, config) in &config.services {
        let doors = [Some(config.listen), config.read_listen];
        for listen in doors.into_iter().flatten() {
            let subject = format!("front door of {service}");
            findings.push(port(&subject, listen.on(it), "set listen in the service"));
        }
        if it.role == NodeRole::Data {
            let data = config.data_dir.as_deref().filter(|data| data.is_dir());
            findings.extend(data.and_then(|it| mounts::check(&format!("data of {service}"), it)));
            findings.push(instance_port(service, config.instance_address(it), dir));
        }
    }
    for (service, config) in &config.balanced {
        let subject = format!("front door of {service}");
        findings.push(port(&subject, config.listen.on(it), "set listen in the service"));
    }
    findings
}

fn instance_port(service: &ServiceId, address: SocketAddr, dir: Option<&Path>) -> Finding {
    let subject = format!("PostgreSQL of {service}");
    let data = dir.map(|dir| dir.join("services").join(service.as_str()).join("data"));
    if data.is_some_and(|data| own_postmaster_lives(&data)) {
        return Finding::good(subject, format!("it already runs on {address}"));
    }
    port(&subject, address, "set port in the service")
}

fn port(subject: &str, address: SocketAddr, else_: &str) -> Finding {
    match TcpListener::bind(address) {
        Ok(_) => Finding::good(subject, format!("{address} is free")),
        Err(error) => {
            let what = format!("TDM0104: {address} cannot be listened on");
            let advice = match error.kind() {
                std::io::ErrorKind::AddrNotAvailable => {
                    let ip = address.ip();
                    format!("this machine has no address {ip} (ip addr lists its own); {else_}")
                }
                std::io::ErrorKind::PermissionDenied => {
                    format!("ports below 1024 are for root; {else_}")
                }
                _ => format!("ss -ltnp shows who holds it (the node, if it runs); {else_}"),
            };
            Finding::new(Severity::Bad, subject, what).advice(error.to_string(), advice)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_of_another_machine_is_not_a_port_in_use() {
        // Reserved for documentation: no machine has it.
        let found = port("API", SocketAddr::from(([192, 0, 2, 1], 7401)), "set another api");
        let advice = found.try_.unwrap_or_default();
        assert!(advice.contains("this machine has no address 192.0.2.1"), "{advice}");
        assert!(!advice.contains("ss -ltnp"), "{advice}");
        let held = TcpListener::bind("127.0.0.1:0").unwrap();
        let found = port("API", held.local_addr().unwrap(), "set another api");
        assert!(found.try_.unwrap_or_default().contains("ss -ltnp"));
    }
}
