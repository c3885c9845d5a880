//! Decides whether a primary is alive, dead, or not known to be either.
//! In: the facts of all nodes. Out: `Verdict`, with the class of the failure and its numbers.
//! Silence is not evidence by itself: a silent node counts as dead only where a majority of the
//! voters does not hear it *and* no standby is still fed by it (H3, H33, H34).
//! Not here: what follows from it (`controller.rs`).
//! Tested by: the scenarios, among them `silent_node.txt`, `hung.txt`, `leader_cut_off_*.txt`.

use super::controller::ControllerView;
use super::singleton;
use crate::cluster::state::{Appointment, Cause};
use crate::facts::{Data, Health, InstanceFacts, Link, NodeFacts, Process, Stream};
use crate::ids::NodeId;
use crate::pairing::Kind;
use crate::reason::Reason;
use crate::time::Timestamp;
use alloc::format;
use core::time::Duration;

/// How long an appointed node may take to become primary before another is tried.
pub const PROMOTION_PATIENCE: Duration = Duration::from_secs(10);
/// How long an instance or its disk may be stuck before it counts as not serving.
pub const HUNG_AFTER: Duration = Duration::from_secs(3);

/// What is known about a primary.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It serves.
    Serving,
    /// Its own node says that it is on the way up or down.
    Moving(Reason),
    /// It does not serve and will not by itself.
    Dead(Cause, Reason),
    /// No evidence either way.
    Unknown(Reason),
}

/// Judges the appointed primary.
pub fn judge(view: &ControllerView<'_>, appointment: &Appointment, now: Timestamp) -> Verdict {
    if view.spec.pairing.kind() == Kind::Command {
        return singleton::judge(view, appointment, now);
    }
    let primary = &appointment.primary;
    let refused = matches!(view.link(view.me, primary, now), Some(Link::Refused(_)));
    match view.fresh(primary, now) {
        Some(facts) if !refused => judge_by_itself(view, appointment, facts),
        Some(_) | None => judge_by_others(view, appointment, now),
    }
}

fn judge_by_itself(
    view: &ControllerView<'_>,
    appointment: &Appointment,
    facts: &NodeFacts,
) -> Verdict {
    let Some(instance) = facts.instances.get(view.service) else {
        let text = format!("{} does not speak of the service yet", facts.node);
        return Verdict::Unknown(text.into());
    };
    let was_promoted = instance.promoted >= appointment.term;
    match instance.process {
        Process::Primary if was_promoted => judge_health(instance),
        Process::Stopped if was_promoted && matches!(instance.data, Data::Suspect { .. }) => {
            let node = &facts.node;
            let reason = format!("{node} reports that its postmaster ended: its disk is suspect");
            Verdict::Dead(Cause::PostmasterDied, reason.into())
        }
        Process::Stopped | Process::Starting | Process::Standby if was_promoted => Verdict::Dead(
            Cause::PostmasterDied,
            format!("{} reports that its postmaster ended", facts.node).into(),
        ),
        Process::Stopped
        | Process::Starting
        | Process::Standby
        | Process::Promoting
        | Process::Primary
        | Process::Stopping => judge_progress(view, appointment, instance),
    }
}

fn judge_health(instance: &InstanceFacts) -> Verdict {
    let stuck = |what: &str, age: Duration| {
        if age >= HUNG_AFTER {
            let reason = Reason::new(format!("{what} for {} ms", age.as_millis()))
                .number("stuck_ms", age.as_millis())
                .number("stuck_ms_max", HUNG_AFTER.as_millis());
            Verdict::Dead(Cause::InstanceHung, reason)
        } else {
            Verdict::Serving
        }
    };
    match instance.health {
        // Used-up connections and a full disk are not death: moving would not help (H27, H29).
        Health::Good | Health::ConnectionsUsedUp | Health::DiskFull => Verdict::Serving,
        Health::Hung(age) => stuck("a new connection got no answer", age),
        Health::DiskStuck(age) => stuck("the disk did not answer", age),
    }
}

fn judge_progress(
    view: &ControllerView<'_>,
    appointment: &Appointment,
    instance: &InstanceFacts,
) -> Verdict {
    let begun = view.state.history.last().map_or(view.unix_ms, |line| line.at_unix_ms);
    // Recorded by a clock that is far ahead of ours: how long ago is not known, so long enough.
    let ahead = Duration::from_millis(begun.saturating_sub(view.unix_ms));
    let passed = Duration::from_millis(view.unix_ms.saturating_sub(begun));
    let waited = if ahead > PROMOTION_PATIENCE { ahead } else { passed };
    let what = Reason::new(format!(
        "{} is on its way to term {} ({})",
        appointment.primary, appointment.term, instance.process
    ))
    .number("term", appointment.term.0);
    if waited > PROMOTION_PATIENCE && instance.process != Process::Primary {
        let reason = what
            .within(|what| format!("{what} for {} ms", waited.as_millis()))
            .number("waited_ms", waited.as_millis())
            .number("waited_ms_max", PROMOTION_PATIENCE.as_millis());
        Verdict::Dead(Cause::InstanceHung, reason)
    } else {
        Verdict::Moving(what)
    }
}

/// What the other nodes see of a primary that does not answer us.
fn judge_by_others(
    view: &ControllerView<'_>,
    appointment: &Appointment,
    now: Timestamp,
) -> Verdict {
    let primary = &appointment.primary;
    let (mut refused, mut silent, mut heard) = (0_usize, 0_usize, None::<NodeId>);
    let feeds_nobody = feeds_nobody(view, appointment, now);
    for node in view.nodes.keys().filter(|node| *node != primary) {
        if view.fresh(node, now).is_none() {
            continue;
        }
        match view.link(node, primary, now) {
            Some(Link::Refused(_)) => refused += 1,
            Some(Link::Silent(age)) if age >= view.spec.timing.suspicion => silent += 1,
            Some(Link::Never(_)) => silent += 1,
            // Its daemon talks, but of its instance nobody gets anything, and we cannot ask it.
            Some(Link::Up(_)) if feeds_nobody => silent += 1,
            Some(Link::Up(_)) => heard = Some(node.clone()),
            Some(Link::Silent(_)) | None => {}
        }
        if let Some(age) = fed_by_primary(view, node, appointment, now) {
            let (age, limit) = (age.as_millis(), view.spec.timing.suspicion.as_millis());
            let text =
                format!("{primary} does not answer, but {node} received from it {age} ms ago");
            let reason = Reason::new(text).number("received_ms_ago", age);
            return Verdict::Unknown(reason.number("suspicion_ms", limit));
        }
    }
    if let Some(node) = heard {
        let text = format!("{primary} does not answer us, but {node} hears it");
        return Verdict::Unknown(text.into());
    }
    let nodes = view.nodes.len();
    let majority = nodes / 2 + 1;
    let enough = majority.min(nodes - 1);
    if refused >= enough {
        let reason = Reason::new(format!("{refused} of {nodes} nodes are refused by {primary}"))
            .number("refused", refused)
            .number("nodes", nodes)
            .number("needed", enough);
        return Verdict::Dead(Cause::NodeDied, reason);
    }
    if refused + silent >= enough {
        let (deaf, silence) = (refused + silent, view.spec.timing.suspicion.as_millis());
        let reason = Reason::new(format!("{deaf} nodes do not hear {primary} for {silence} ms"))
            .number("unheard_by", deaf)
            .number("needed", enough)
            .number("suspicion_ms", silence);
        return Verdict::Dead(Cause::NodeSilent, reason);
    }
    let text = format!("{primary}: {refused} refused, {silent} silent, {majority} needed");
    let reason = Reason::new(text).number("refused", refused).number("silent", silent);
    Verdict::Unknown(reason.number("needed", majority))
}

/// Whether every standby that is heard has gone without its primary for so long that it serves
/// nobody who needs a commit confirmed (a witness that hears its daemon cannot tell).
fn feeds_nobody(view: &ControllerView<'_>, appointment: &Appointment, now: Timestamp) -> bool {
    let mut standbys = view
        .data_nodes()
        .filter(|node| **node != appointment.primary)
        .filter_map(|node| view.instance(node, now))
        .peekable();
    standbys.peek().is_some()
        && standbys.all(|own| {
            let votes = own.promised > appointment.term;
            own.stream == Stream::None && (votes || own.stalled >= HUNG_AFTER)
        })
}

/// How long ago a standby was fed by the primary, if lately.
fn fed_by_primary(
    view: &ControllerView<'_>,
    node: &NodeId,
    appointment: &Appointment,
    now: Timestamp,
) -> Option<Duration> {
    let (facts, age) = view.fresh_with_age(node, now)?;
    let instance = facts.instances.get(view.service)?;
    let follows = instance.upstream.as_ref().is_some_and(|(up, _)| *up == appointment.primary);
    match instance.stream {
        Stream::Connected(silence) if follows => {
            let silence = silence.saturating_add(age);
            (silence < view.spec.timing.suspicion).then_some(silence)
        }
        Stream::Connected(_) | Stream::None => None,
    }
}
