//! Talks to the cluster about another configuration: judges it, has it agreed, sees it carried out.
//! In: a text, and the version it was made from. Out: `Outcome` with what waits, or why not.
//! States of a node that comes: unknown → learner → voter → in the configuration. Of one that goes:
//! its copy stops → no commit rule counts it → out of the configuration → no voter.
//! Each step may be the last before a crash: repeating the verb goes on from there (INV-6).
//! Keeps: H48 one member at a time, none that costs a majority; INV-4 no commit rule names a node
//! that nobody can ask for a promise; no change may leave fewer standbys than commits wait for.
//! Not here: what forbids a change by the two texts alone (`config::unsafe_change`), how one that
//! goes gives away what it has (`aside.rs`), carrying it out on each node (`node/live.rs`), what is
//! said of it afterwards (`carried.rs`).
//! Tested by: `tests/members`.

use super::super::seen::{Seen, ServiceSeen};
use super::super::{NodeOperations, refusals};
use super::aside;
use super::carried::CARRIED_OUT;
use crate::api::operations::{Outcome, Refused};
use crate::config::{self, Config};
use crate::consensus::{self, Agreed};
use crate::peers::LinkState;
use crate::telemetry::codes;
use crate::telemetry::problem::{Problem, chain};
use std::collections::BTreeSet;
use std::time::Duration;
use tandem_core::cluster::command::{self, Command};
use tandem_core::cluster::state::Applied;
use tandem_core::clustering::copies::left::left;
use tandem_core::clustering::members::keeps_voters;
use tandem_core::ids::{ConfigVersion, NodeId};
use tandem_core::spec::{Durability, NodeRole};

/// For a new node to be reached and to hold the log, or a removed one to be out.
const MEMBER: Duration = Duration::from_secs(20);
/// For a node that runs to be dialled.
const DIALLED: Duration = Duration::from_secs(5);
/// For the holder of a lease to say that it has heard of the last change.
const HEARD: Duration = Duration::from_secs(2);
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// Who comes and who goes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Members {
    comes: Option<(NodeId, String)>,
    goes: Option<(NodeId, NodeRole)>,
}

impl Members {
    /// At most one of both: `unsafe_change` saw to that.
    fn between(old: &Config, new: &Config) -> Self {
        let comes = new.nodes.iter().find(|(node, _)| !old.nodes.contains_key(*node));
        let goes = old.nodes.iter().find(|(node, _)| !new.nodes.contains_key(*node));
        Self {
            comes: comes.map(|(node, it)| (node.clone(), it.address.to_string())),
            goes: goes.map(|(node, it)| (node.clone(), it.role)),
        }
    }
}

impl NodeOperations {
    /// Has another configuration agreed and carried out.
    pub(in crate::node::operations) async fn apply_config(
        &self,
        text: &str,
        expected: Option<ConfigVersion>,
    ) -> Result<Outcome, Refused> {
        let what = "cannot apply the configuration";
        let state = self.agreed_state(what)?;
        let version = state.config_version;
        if expected.is_some_and(|expected| expected != version) {
            return Err(changed(what, &format!("the running version is {version}")));
        }
        if state.config_text == text {
            let because = format!("it is the running version {version}, to the byte");
            return Err(Problem::new(codes::ALREADY_SO, what, because, "change the file first"));
        }
        let old = self.running_config(version, &state.config_text);
        let new = Config::parse(text, "the new configuration")
            .map_err(|problems| unusable(codes::CONFIG_NOT_VALID, what, &problems))?;
        let forbidden = config::unsafe_change(&old, &new);
        if !forbidden.is_empty() {
            return Err(unusable(codes::CONFIG_UNSAFE_CHANGE, what, &forbidden));
        }
        let not_taken = self.not_taken(&old, &new).await;
        if !not_taken.is_empty() {
            return Err(unusable(codes::CONFIG_NOT_VALID, what, &not_taken));
        }
        let members = Members::between(&old, &new);
        self.check_soon(&members, &new, what).await?;
        let lacks = self.lacks_everywhere(&old, &new).await;
        self.agree_on(version, &new, &members, what).await?;
        Ok(self.carried_out(version.next(), (&old, &new), lacks).await)
    }

    /// A holder hears of a change within moments, and says so with its next heartbeat.
    async fn check_soon(&self, members: &Members, new: &Config, what: &str) -> Result<(), Problem> {
        let deadline = tokio::time::Instant::now() + HEARD;
        loop {
            let checked = check(&self.seen(), members, new, what);
            let is_busy = checked.as_ref().is_err_and(|problem| problem.code == codes::BUSY);
            if !is_busy || tokio::time::Instant::now() > deadline {
                return checked;
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    async fn agree_on(
        &self,
        version: ConfigVersion,
        new: &Config,
        members: &Members,
        what: &str,
    ) -> Result<(), Problem> {
        if let Some((node, address)) = &members.comes {
            self.begin_membership(node, address, what).await?;
        }
        if let Some((node, role)) = &members.goes {
            self.step_aside(node, *role, what).await?;
        }
        let config = command::Config { text: new.text.clone(), spec: new.spec() };
        let command = Command::Configure { expected: version, config: Box::new(config) };
        if let Applied::Ignored { because } = self.agree(command, what).await? {
            self.take_back(members, what).await;
            return Err(changed(what, &because));
        }
        // From here on it is agreed: what fails is said, and done by repeating it.
        let is_seen = |agreed: &Agreed| agreed.state.config_version > version;
        let _ = self.wait(CARRIED_OUT, is_seen).await;
        match &members.goes {
            Some((node, _)) => self.end_membership(node, what).await.map_err(|problem| Problem {
                what: format!("{node} is out of the configuration, and votes still"),
                try_: format!("repeat it: tandem remove {node}"),
                ..problem
            }),
            None => Ok(()),
        }
    }

    /// Somebody else's change came first.
    async fn take_back(&self, members: &Members, what: &str) {
        if let Some((node, _)) = &members.comes {
            let _ = self.end_membership(node, what).await;
        }
        if let Some((node, _)) = &members.goes {
            // Its copy returns by itself (`driver/instance/leaving.rs`).
            let _ = self.agree(Command::Drain { node: node.clone(), draining: false }, what).await;
        }
    }

    /// Makes a node that runs and waits a voter, once it holds everything that is agreed.
    async fn begin_membership(
        &self,
        node: &NodeId,
        address: &str,
        what: &str,
    ) -> Result<(), Problem> {
        if self.ground().consensus.leadership().borrow().voters.contains(node) {
            // An earlier attempt ended between its two halves.
            return Ok(());
        }
        let Err(because) = self.teach(node, address).await else { return Ok(()) };
        let _ = self.end_membership(node, what).await;
        Err(Problem::new(
            codes::NODE_UNREACHABLE,
            what,
            format!("{node} at {address} did not become a voter: {because}"),
            format!(
                "let it join (tandem token {node}) and start it with the new file, then apply again"
            ),
        ))
    }

    /// First it receives, so that it is dialled at all; once it holds everything, it votes.
    async fn teach(&self, node: &NodeId, address: &str) -> Result<(), String> {
        let ground = self.ground();
        let add = async |voter| {
            let added =
                ground.consensus.add_member(node.clone(), address.to_owned(), voter, MEMBER);
            added.await.map_err(|error| chain(&error))
        };
        add(false).await?;
        let is_there = async {
            while ground.mesh.link(node) != LinkState::Connected {
                tokio::time::sleep(LOOK_AGAIN).await;
            }
        };
        if tokio::time::timeout(DIALLED, is_there).await.is_err() {
            let trouble = ground.mesh.trouble(node);
            return Err(trouble.unwrap_or_else(|| "it refuses connections".to_owned()));
        }
        add(true).await
    }

    /// Takes a node's vote.
    pub(super) async fn end_membership(&self, node: &NodeId, what: &str) -> Result<(), Problem> {
        let removed = self.ground().consensus.remove_member(node, MEMBER).await;
        removed.map_err(|error| match &error {
            consensus::Error::Refused(refusal) => {
                let advice = "tandem doctor shows which nodes cannot be reached";
                Problem::new(codes::WOULD_LOSE_QUORUM, what, refusal.to_string(), advice)
            }
            _ => refusals::not_agreed(what, &error),
        })
    }
}

/// What forbids it at this moment: votes and commits must go on.
fn check(seen: &Seen, members: &Members, new: &Config, what: &str) -> Result<(), Problem> {
    let mut voters: BTreeSet<&NodeId> = seen.leadership.voters.iter().collect();
    let mut heard: BTreeSet<&NodeId> =
        voters.iter().copied().filter(|it| **it == seen.me || seen.fresh(it).is_some()).collect();
    if let Some((node, _)) = &members.comes {
        // Whether it is there is seen when it is made a learner.
        voters.insert(node);
        heard.insert(node);
    }
    if let Some((node, _)) = &members.goes {
        voters.remove(node);
        heard.remove(node);
    }
    let needed = voters.len() / 2 + 1;
    if heard.len() < needed {
        let because = format!(
            "{} of {} voters would be there, and {needed} are needed to agree on anything",
            heard.len(),
            voters.len()
        );
        let advice = "bring the missing nodes back first; tandem doctor shows which";
        return Err(Problem::new(codes::WOULD_LOSE_QUORUM, what, because, advice));
    }
    let goes = members.goes.as_ref().map(|(node, _)| node);
    if members.comes.is_some() || goes.is_some() {
        seen.services_and_seats().try_for_each(|service| check_lease(service, what))?;
    }
    check_names(seen, new, what)?;
    seen.services().try_for_each(|service| check_commits(service, goes, new, what))
}

/// Whether nothing is left of services that come back under a lease and had none before.
fn check_names(seen: &Seen, new: &Config, what: &str) -> Result<(), Problem> {
    let leased = new.commands.iter().filter(|(_, command)| command.copies.is_none());
    for service in leased.map(|(service, _)| service) {
        let because = left(&seen.agreed, service, |node| seen.fresh(node));
        if let Some(because) = because {
            let advice = "wait until it has ended; bring nodes back that are away, or switch their \
                          machines off for good, then tandem remove NODE; or give it another name";
            return Err(Problem::new(codes::BUSY, what, because.to_string(), advice));
        }
    }
    Ok(())
}

/// Whether a lease that rests on the voters allows them to change.
fn check_lease(service: ServiceSeen<'_>, what: &str) -> Result<(), Problem> {
    let Some(because) = keeps_voters(&service.view(), service.seen.now) else { return Ok(()) };
    let holder = service.appointment().map(|it| it.primary.to_string()).unwrap_or_default();
    let advice = format!(
        "wait until tandem status shows {} as active; if that never comes, {holder} is cut off: \
         heal its links, or stop tandem on {holder}, and the change is taken once its lease has \
         passed",
        service.name
    );
    Err(Problem::new(codes::BUSY, what, because.to_string(), advice))
}

/// Whether a service's commits are confirmed afterwards, and its primary stays where it is.
fn check_commits(
    service: ServiceSeen<'_>,
    goes: Option<&NodeId>,
    new: &Config,
    what: &str,
) -> Result<(), Problem> {
    let Some(appointment) = service.appointment() else { return Ok(()) };
    let name = service.name;
    if let Some(node) = goes.filter(|node| appointment.primary == **node) {
        // A command is moved before its node goes, where it may be.
        if !service.state.paused && aside::alone(&service.seen.agreed, node).any(|it| it == name) {
            return aside::can_move(service, node, what);
        }
        let because = format!("{node} is the {} of {name}", service.holder_word());
        let advice = match service.state.paused {
            true => format!("end the pause first: tandem resume {name}"),
            false => format!("move it first: tandem switchover {name}"),
        };
        return Err(Problem::new(codes::PRIMARY_NOT_TOUCHED, what, because, advice));
    }
    let Some(after) = new.services.get(name) else { return Ok(()) };
    let Durability::Quorum { acks } = after.durability else { return Ok(()) };
    let before = match service.spec.durability {
        Durability::Quorum { acks } => acks,
        Durability::Preferred { .. } | Durability::Async { .. } => 0,
    };
    let Some(serving) = service.serving_primary() else {
        let because = format!("{} does not serve {name} at this moment", appointment.primary);
        let advice = "wait until tandem status shows it as active";
        let matters = goes.is_some() || acks > before;
        let refused = Problem::new(codes::BUSY, what, because, advice);
        return if matters { Err(refused) } else { Ok(()) };
    };
    let streaming = |without: Option<&NodeId>| {
        let standbys = serving.replicas.iter();
        standbys.filter(|(node, it)| it.streaming && Some(*node) != without).count()
    };
    let (now, left) = (streaming(None), streaming(goes));
    // Where commits wait already, a change that asks for no more makes nothing worse.
    if left >= acks || (now < before && acks <= before && left == now) {
        return Ok(());
    }
    let because = format!(
        "{left} standbys of {name} would be fed, and each commit would need {acks}: writes would \
         wait"
    );
    let advice = "bring another standby back first, or ask for fewer acks";
    Err(Problem::new(codes::WOULD_LOSE_QUORUM, what, because, advice))
}

fn changed(what: &str, because: &str) -> Problem {
    let advice = "look at tandem config show --running, and apply again";
    Problem::new(codes::CHANGED_MEANWHILE, what, because, advice)
}

/// The first error, and how many more there are.
fn unusable(
    code: crate::telemetry::problem::Code,
    what: &str,
    problems: &[config::Problem],
) -> Problem {
    let errors: Vec<_> = problems.iter().filter(|it| it.is_error()).collect();
    let Some(first) = errors.first() else {
        return Problem::new(code, what, "it cannot be used", "tandem config check FILE");
    };
    let more = match errors.len() - 1 {
        0 => String::new(),
        more => format!(" (and {more} more)"),
    };
    let because = format!("line {}: {}: {}{more}", first.line, first.what, first.because);
    Problem::new(code, what, because, first.try_.clone())
}
