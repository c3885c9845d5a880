//! Tells what happens to instances, as their nodes' facts show it.
//! In: two looks. Out: `Draft`s.
//! Ends, starts and copies of the own instance are told by its driver, which knows more.

use super::super::seen::{Seen, ServiceSeen};
use crate::telemetry::event_kind::EventKind;
use crate::telemetry::events::Draft;
use tandem_core::facts::{Data, Health, InstanceFacts, Process, Stream};
use tandem_core::ids::NodeId;

/// One instance at two looks.
struct Pair<'a> {
    of: ServiceSeen<'a>,
    node: &'a NodeId,
    was: &'a InstanceFacts,
    is: &'a InstanceFacts,
}

/// Every instance of every service.
pub(super) fn changes(before: &Seen, after: &Seen) -> Vec<Draft> {
    let mut drafts = Vec::new();
    for of in after.services() {
        for (node, facts) in &after.facts {
            let is = facts.last_known().instances.get(of.name);
            let was = before.facts.get(node).map(|facts| facts.last_known());
            let was = was.and_then(|facts| facts.instances.get(of.name));
            let (Some(was), Some(is)) = (was, is) else { continue };
            let pair = Pair { of, node, was, is };
            drafts.extend(pair.health());
            drafts.extend(pair.promise());
            drafts.extend(pair.process());
            drafts.extend(pair.data());
            drafts.extend(pair.stream());
        }
    }
    drafts
}

impl Pair<'_> {
    fn tell(&self, kind: EventKind, message: String) -> Draft {
        Draft::new(kind, message)
            .service(self.of.name)
            .term(self.of.state.term())
            .field("instance", self.node.as_str())
    }

    fn is_own(&self) -> bool {
        *self.node == self.of.seen.me
    }

    fn health(&self) -> Option<Draft> {
        let kind = |health: &Health| std::mem::discriminant(health);
        if kind(&self.was.health) == kind(&self.is.health) {
            return None;
        }
        let node = self.node;
        Some(match (self.was.health, self.is.health) {
            (_, Health::Hung(age)) => {
                let age_ms = u64::try_from(age.as_millis()).unwrap_or(u64::MAX);
                let message = format!("{node} does not answer a new connection");
                self.tell(EventKind::InstanceHung, message).field("age_ms", age_ms)
            }
            (_, Health::DiskStuck(age)) => {
                let age_ms = u64::try_from(age.as_millis()).unwrap_or(u64::MAX);
                let message = format!("the disk of {node} does not answer");
                self.tell(EventKind::DiskStuck, message).field("age_ms", age_ms)
            }
            (_, Health::DiskFull) => {
                let message = format!("no space is left on {node}; moving would not help");
                self.tell(EventKind::DiskFull, message)
            }
            (_, Health::ConnectionsUsedUp) => self.tell(
                EventKind::ConnectionsUsedUp,
                format!("all connections of {node} are in use; it is alive"),
            ),
            (Health::DiskFull | Health::DiskStuck(_), Health::Good) => {
                self.tell(EventKind::DiskRecovered, format!("the disk of {node} is well"))
            }
            (_, Health::Good) => {
                self.tell(EventKind::InstanceRecovered, format!("{node} answers again"))
            }
        })
    }

    fn promise(&self) -> Option<Draft> {
        let ballot = self.is.ballot.filter(|_| self.was.ballot != self.is.ballot)?;
        let at = ballot.position.map(|position| position.flushed.to_string());
        let holds = at.as_deref().unwrap_or("no data");
        let message = format!("{} promised term {}, at {holds}", self.node, ballot.term);
        Some(self.tell(EventKind::PromiseMade, message).term(ballot.term).field("lsn", at))
    }

    fn process(&self) -> Vec<Draft> {
        let node = self.node;
        let mut drafts = Vec::new();
        let is_gone = self.is.process == Process::Stopped && self.was.process != Process::Stopped;
        if is_gone && !self.is_own() {
            drafts.push(if self.was.process == Process::Stopping {
                self.tell(EventKind::InstanceStopped, format!("{node} stopped its instance"))
            } else {
                self.tell(EventKind::InstanceExited, format!("the instance of {node} ended"))
            });
        }
        if self.was.process == Process::Stopped && !is_gone && !self.is_own() {
            let is_new = self.is.process != Process::Stopped;
            if is_new {
                let message = format!("{node} started its instance");
                drafts.push(self.tell(EventKind::InstanceStarted, message));
            }
        }
        let is_primary = self.is.process == Process::Primary && self.of.spec.copies.is_none();
        if is_primary && self.was.process != Process::Primary {
            drafts.push(
                self.tell(EventKind::PrimaryPromoted, format!("{node} left recovery"))
                    .term(self.is.promoted)
                    .field("lsn", self.is.flushed.to_string())
                    .field("timeline", self.is.timeline.0),
            );
        }
        let left = self.was.process == Process::Primary && self.is.process != Process::Primary;
        let appointed = self.of.appointment().map(|appointment| &appointment.primary);
        if let Some(primary) = appointed.filter(|primary| left && *primary != node) {
            let message = format!("{node} is no primary any more: {primary} was appointed");
            drafts.push(self.tell(EventKind::PrimaryDemoted, message));
        }
        drafts
    }

    fn data(&self) -> Option<Draft> {
        let node = self.node;
        match (&self.was.data, &self.is.data) {
            (Data::Quarantined { .. }, _) | (Data::Suspect { .. }, Data::Suspect { .. }) => None,
            (_, Data::Suspect { reason }) => Some(self.tell(
                EventKind::InstanceDiskSuspect,
                format!("the disk of {node} may have lost a write, so nothing starts: {reason}"),
            )),
            (_, Data::Quarantined { reason }) => Some(self.tell(
                EventKind::InstanceQuarantined,
                format!("{node} waits for a human: {reason}"),
            )),
            (_, _) if self.is_own() => None,
            (Data::Copying { .. }, Data::Present) => {
                Some(self.tell(EventKind::RejoinCloned, format!("{node} has a complete new copy")))
            }
            (Data::Copying { .. }, _) => None,
            (_, Data::Copying { .. }) => {
                Some(self.tell(EventKind::CloneStarted, format!("{node} copies everything")))
            }
            (_, _) => None,
        }
    }

    fn stream(&self) -> Option<Draft> {
        let is_fed = matches!(self.is.stream, Stream::Connected(_));
        let was_fed = matches!(self.was.stream, Stream::Connected(_));
        let (primary, term) = self.is.upstream.as_ref()?;
        let is_new = was_fed && self.was.upstream != self.is.upstream;
        (is_fed && (!was_fed || is_new)).then(|| {
            let message = format!("{} is fed by {primary} in term {term}", self.node);
            self.tell(EventKind::RejoinFollowed, message).field("upstream", primary.as_str())
        })
    }
}
