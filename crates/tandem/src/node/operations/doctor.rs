//! Talks about what is wrong or soon will be: of this node by itself, of the cluster by asking all.
//! In: `Seen`, every node's own examination. Out: `Finding`s, the bad ones with what may help.
//! Keeps: H13 settings that weaken a commit, H24 logical slots, H27 full disks, H40 what a failover
//! does not carry over, H10 names that two standbys share: each is said before it hurts.
//! Not here: words for people (`cli/ask/doctor.rs`).
//! Tested by: `tests/doctor.rs`.

pub(super) mod balanced;
mod command;
mod server;

use super::NodeOperations;
use super::between::{Answered, Examined, PeerVerb};
use super::moves::singleton;
use super::seen::{Seen, ServiceSeen};
use super::status;
use crate::api::explain::{Finding, Severity};
use crate::api::status::{InstanceRole, InstanceState, NodeState};
use crate::config::print_bytes;
use crate::runtime::clock;
use crate::service::postgres;
use crate::telemetry::event_kind::EventKind;
use crate::telemetry::events::Draft;
use std::time::Duration;
use tandem_core::facts::Process;
use tandem_core::ids::NodeId;
use tandem_core::pairing::Kind;
use tandem_core::spec::{Durability, NodeRole};

/// For a node to examine itself.
const EXAMINE: Duration = Duration::from_secs(8);
/// Clocks that differ by more make logs hard to read; certificates bear far more.
const CLOCK_ODD: Duration = Duration::from_secs(1);
const CLOCK_BAD: Duration = Duration::from_secs(60);
const DAY_S: i64 = 86_400;

impl NodeOperations {
    /// The cluster, every node included.
    pub(super) async fn examine(&self) -> Vec<Finding> {
        let seen = self.seen();
        let (own, others) =
            tokio::join!(self.examine_here(), self.ask_peers(&PeerVerb::Examine, EXAMINE));
        let trouble = |node: &NodeId| self.ground().mesh.trouble(node);
        let mut findings = cluster(&seen);
        findings.extend(nodes(&seen, &trouble));
        let clocks = clocks(&others);
        for found in clocks.iter().filter(|found| found.severity == Severity::Bad) {
            let message = format!("{}: {}", found.subject, found.what);
            self.ground().events.record(Draft::new(EventKind::ClockSkewed, message));
        }
        findings.extend(clocks);
        findings.extend(versions(&own.version, &others));
        findings.extend(seen.services().flat_map(service));
        findings.extend(own.findings);
        for other in others {
            match other.answer {
                Ok(examined) => findings.extend(examined.findings),
                Err(why) => findings.push(
                    Finding::new(
                        Severity::Warning,
                        format!("node {}", other.node),
                        "it could not be examined",
                    )
                    .advice(why, "run tandem doctor on it"),
                ),
            }
        }
        findings
    }

    /// This node by itself.
    pub(super) async fn examine_here(&self) -> Examined {
        let ground = self.ground();
        let me = &ground.me;
        let mut findings = Vec::new();
        findings.push(certificate(me, ground.identity.expires_unix_s(), clock::unix_ms()));
        let seen = self.seen();
        let applied = ground.applied.borrow().clone();
        findings.extend(super::members::waiting(me, &applied.waits, applied.removed));
        for (name, own) in &ground.instances {
            let subject = format!("{name} on {me}");
            let postgres = own.postgres.borrow().clone();
            findings.push(disk(&subject, postgres.free_space().await));
            let process = seen
                .service(name)
                .and_then(|it| it.instance(me))
                .map_or(Process::Stopped, |own| own.process);
            let starts_failed = seen
                .service(name)
                .and_then(|it| it.instance(me))
                .map_or(0, |own| own.starts_failed);
            if starts_failed > 0 {
                findings.push(server::not_started(&subject, &postgres, starts_failed).await);
            }
            if matches!(process, Process::Primary | Process::Standby) {
                findings.extend(server::instance(&subject, &postgres, process).await);
            }
        }
        findings.extend(self.commands_here(&seen).await);
        for service in super::balanced::all(&seen, &ground.doors_of_endpoints()) {
            findings.extend(balanced::findings(&service, me, seen.unix_ms));
        }
        let version = env!("CARGO_PKG_VERSION").to_owned();
        Examined { version, unix_ms: clock::unix_ms(), findings }
    }
}

/// Leader, majority, members.
pub(super) fn cluster(seen: &Seen) -> Vec<Finding> {
    let mut findings = Vec::new();
    let voters = &seen.leadership.voters;
    let heard = voters.iter().filter(|node| **node == seen.me || seen.fresh(node).is_some());
    let (heard, of) = (heard.count(), voters.len());
    let majority = of / 2 + 1;
    findings.push(match &seen.leadership.leader {
        Some(leader) => {
            Finding::good("consensus", format!("{leader} leads, {heard} of {of} heard"))
        }
        None => Finding::new(Severity::Bad, "consensus", "nobody leads, as this node sees it")
            .advice(
                format!("{heard} of {of} voters are heard, and {majority} are needed"),
                "start the missing nodes; tandem recover is the last resort",
            ),
    });
    if heard == majority && of > heard {
        findings.push(
            Finding::new(Severity::Warning, "consensus", "one more loss stops every change")
                .advice(
                    format!("{heard} of {of} voters are heard, and {majority} are needed"),
                    "bring the missing nodes back",
                ),
        );
    }
    if of > 0 && of % 2 == 0 {
        findings.push(
            Finding::new(Severity::Warning, "members", format!("{of} nodes vote")).advice(
                format!("{of} voters bear no more losses than {}", of - 1),
                "add a witness: tandem token, then tandem join",
            ),
        );
    }
    for problem in &seen.config.warnings {
        findings.push(
            Finding::new(Severity::Warning, "configuration", problem.what.clone())
                .advice(problem.because.clone(), problem.try_.clone()),
        );
    }
    findings
}

fn nodes(seen: &Seen, trouble: &dyn Fn(&NodeId) -> Option<String>) -> Vec<Finding> {
    let others = seen.config.nodes.keys().filter(|node| **node != seen.me);
    let mut findings: Vec<Finding> = others
        .map(|node| {
            let subject = format!("node {node}");
            let state = status::node_state(seen, node);
            let because = || trouble(node).unwrap_or_else(|| "no heartbeat arrives".to_owned());
            match state {
                NodeState::Up | NodeState::Draining | NodeState::Joining => {
                    Finding::good(subject, format!("it is {state}"))
                }
                NodeState::Silent | NodeState::Down | NodeState::Unknown => {
                    Finding::new(Severity::Bad, subject, format!("it is {state}"))
                        .advice(because(), "check the machine, its network and tandem's log there")
                }
            }
        })
        .collect();
    let version = seen.agreed.config_version;
    for (node, facts) in &seen.facts {
        let applied = facts.last_known().config_version;
        if seen.fresh(node).is_some() && applied < version {
            let what = format!("it runs configuration {applied}, agreed is {version}");
            findings.push(
                Finding::new(Severity::Warning, format!("node {node}"), what)
                    .advice("it has not caught up yet", "wait; if it lasts, restart its daemon"),
            );
        }
    }
    findings
}

/// How far each clock is away, at least: the answer was given between sending and arriving.
pub(super) fn clocks(others: &[Answered<Examined>]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for Answered { node, answer, sent_unix_ms, took } in others {
        let Ok(examined) = answer else { continue };
        let arrived = sent_unix_ms.saturating_add(u64::try_from(took.as_millis()).unwrap_or(0));
        let apart_ms = if examined.unix_ms < *sent_unix_ms {
            sent_unix_ms - examined.unix_ms
        } else {
            examined.unix_ms.saturating_sub(arrived)
        };
        let apart = Duration::from_millis(apart_ms);
        let subject = format!("clock of {node}");
        let what = format!("at least {apart_ms} ms from this node's");
        findings.push(if apart <= CLOCK_ODD {
            Finding::good(subject, "as this node's, as far as one can see from here")
        } else {
            let severity = if apart <= CLOCK_BAD { Severity::Warning } else { Severity::Bad };
            Finding::new(severity, subject, what).advice(
                "no decision about safety rests on it, but certificates, schedules and logs do",
                "run a time service such as chrony on every node",
            )
        });
    }
    findings
}

fn versions(own: &str, others: &[Answered<Examined>]) -> Vec<Finding> {
    let differ = |answered: &&Answered<Examined>| {
        answered.answer.as_ref().is_ok_and(|examined| examined.version != own)
    };
    others
        .iter()
        .filter(differ)
        .filter_map(|answered| {
            let version = &answered.answer.as_ref().ok()?.version;
            let subject = format!("node {}", answered.node);
            let what = format!("it runs Tandem {version}, this node {own}");
            Some(Finding::new(Severity::Warning, subject, what).advice(
                "mixed versions are for the time of an upgrade",
                "upgrade the other nodes too",
            ))
        })
        .collect()
}

/// One service as the cluster sees it.
pub(super) fn service(of: ServiceSeen<'_>) -> Vec<Finding> {
    let subject = of.name.to_string();
    let mut findings = Vec::new();
    for warning in status::warnings(of) {
        let severity =
            if warning.starts_with("writes wait") { Severity::Bad } else { Severity::Warning };
        findings.push(
            Finding::new(severity, subject.clone(), warning)
                .advice("see tandem status", format!("tandem explain {} says why", of.name)),
        );
    }
    findings.extend(durability(of));
    for node in of.seen.agreed.spec.data_nodes() {
        let shown = status::instance_status(of, node, &|_| None);
        let is_well = matches!(
            (shown.role, shown.state),
            (_, InstanceState::Running | InstanceState::Streaming)
                | (InstanceRole::Passive, InstanceState::Stopped)
        );
        let subject = format!("{} on {node}", of.name);
        findings.push(if is_well {
            Finding::good(subject, format!("it is {}", shown.state))
        } else {
            let because = shown.reason.unwrap_or_else(|| "it is on its way".to_owned());
            let advice = match shown.state {
                InstanceState::Quarantined if of.spec.pairing.kind() == Kind::Command => {
                    "mend what it says: its node's log names the file".to_owned()
                }
                InstanceState::Quarantined => format!("tandem reinit {} --node {node}", of.name),
                InstanceState::Suspect => format!(
                    "check the disk (kernel log, SMART); then tandem reinit {0} --node {node} for \
                     a new copy, or tandem restart {0} --node {node} to go on with this one",
                    of.name
                ),
                InstanceState::CrashLoop => format!(
                    "mend it, then tandem restart {} --node {node}: it is tried at once",
                    of.name
                ),
                _ => "it comes back by itself; if it does not, see its node's log".to_owned(),
            };
            Finding::new(Severity::Warning, subject, format!("it is {}", shown.state))
                .advice(because, advice)
        });
    }
    findings
}

/// What the owner chose, where it does not hold what it seems to promise.
fn durability(of: ServiceSeen<'_>) -> Option<Finding> {
    let nodes = &of.seen.agreed.spec.nodes;
    let data = nodes.values().filter(|spec| spec.role == NodeRole::Data).count();
    let advise = |what: String, because: &str, advice: &str| {
        Some(Finding::new(Severity::Warning, of.name.as_str(), what).advice(because, advice))
    };
    match of.spec.durability {
        _ if data == 1 => advise(
            match singleton::is_command(of) {
                true => "one node alone can run it".to_owned(),
                false => "there is one copy of the data".to_owned(),
            },
            "nobody can take over",
            "add a data node",
        ),
        _ if nodes.len() == 2 => advise(
            "there is no automatic failover".to_owned(),
            "two nodes without a witness cannot tell a dead peer from a cut link",
            "add a witness: tandem token, then tandem join",
        ),
        Durability::Quorum { acks } if acks >= data - 1 => advise(
            format!("writes stop when any of the {data} data nodes is down"),
            "each commit needs every standby",
            "add a data node, or choose durability = \"preferred\"",
        ),
        Durability::Quorum { .. } | Durability::Preferred { .. } | Durability::Async { .. } => None,
    }
}

pub(super) fn certificate(me: &NodeId, expires_unix_s: Option<i64>, now_unix_ms: u64) -> Finding {
    let subject = format!("certificate of {me}");
    let Some(expires) = expires_unix_s else {
        return Finding::new(Severity::Warning, subject, "its end cannot be read")
            .advice("it is not a certificate that Tandem made", "tandem join makes a new one");
    };
    let left_days = (expires - i64::try_from(now_unix_ms / 1000).unwrap_or(i64::MAX)) / DAY_S;
    let what = format!("it is valid for {left_days} days");
    let severity = match left_days {
        ..7 => Severity::Bad,
        7..60 => Severity::Warning,
        _ => return Finding::good(subject, what),
    };
    Finding::new(severity, subject, what).advice(
        "an expired certificate is refused by every peer, and the node is alone",
        "let the node join again: tandem token, then tandem join",
    )
}

fn disk(subject: &str, space: Result<postgres::probe::Space, postgres::Error>) -> Finding {
    let subject = format!("disk of {subject}");
    let space = match space {
        Ok(space) => space,
        Err(error) => {
            return Finding::new(Severity::Warning, subject, "its room is not known")
                .advice(error.to_string(), "check that the folder is there");
        }
    };
    let percent = space.free_bytes.saturating_mul(100) / space.total_bytes.max(1);
    let what = format!("{} free, {percent} %", print_bytes(space.free_bytes));
    let severity = match percent {
        ..3 => Severity::Bad,
        3..10 => Severity::Warning,
        _ => return Finding::good(subject, what),
    };
    Finding::new(severity, subject, what).advice(
        "a primary whose disk is full stops taking writes, and moving it does not help",
        "add space, or find out what retains WAL: pg_replication_slots",
    )
}
