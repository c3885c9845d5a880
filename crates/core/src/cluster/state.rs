//! Folds agreed commands into the cluster's state: deterministic, the same on every node.
//! In: `Command`. Out: `ClusterState`, `Applied`.
//! Keeps: INV-5 terms never go back; INV-6 a command planned on an older revision changes nothing.
//! Not here: high-rate facts (`facts.rs`), which are not agreed.
//! Tested by: below, and every run of the simulator.

use crate::cluster::command::{Command, ServiceCommand};
pub use crate::cluster::copies::{Copies, Placed};
use crate::cluster::partitions::Partitions;
use crate::cluster::taken_out::TakenOut;
use crate::ids::{ClusterId, ConfigVersion, NodeId, Revision, ServiceId, SystemId, Term};
use crate::replication::primary_replica::sync_quorum::CommitRule;
use crate::spec::ClusterSpec;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::String;
use alloc::vec::Vec;
use serde::{Deserialize, Serialize};

/// How many past appointments are kept.
pub const HISTORY_MAX: usize = 64;

/// Everything agreed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, Default)]
pub struct ClusterState {
    /// Identity of the cluster, none before its first command.
    pub cluster: Option<ClusterId>,
    /// Version of the configuration.
    pub config_version: ConfigVersion,
    /// The configuration file's text, as its owner wrote it.
    pub config_text: String,
    /// What the text says.
    pub spec: ClusterSpec,
    /// Every service's state.
    pub services: BTreeMap<ServiceId, ServiceState>,
    /// Nodes that an operator is emptying: no primary is placed there.
    pub draining: BTreeSet<NodeId>,
    /// What must be known of services that were taken out, should they come back.
    pub taken_out: BTreeMap<ServiceId, TakenOut>,
}

/// One service, as agreed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, Default)]
pub struct ServiceState {
    /// Grows with every command that changed this service.
    pub revision: Revision,
    /// What it left behind when it was taken out before; else nothing.
    pub before: TakenOut,
    /// The configuration with which it came.
    pub since: ConfigVersion,
    /// Who makes the first copy of the data, until somebody is appointed.
    pub founder: Option<NodeId>,
    /// Identity of the data, once it exists (H35).
    pub system: Option<SystemId>,
    /// Who is primary, under which rules.
    pub appointment: Option<Appointment>,
    /// A planned switchover that is under way.
    pub switchover: Option<Switchover>,
    /// A failover that an operator demanded.
    pub forced: Option<Forced>,
    /// Automatic failover is off.
    pub paused: bool,
    /// Of a seat: the last term for which all copies of earlier ones were proven gone. What was
    /// agreed to be owned by one of those is nobody's.
    pub sitting: Term,
    /// Who owns what, where the work is divided.
    pub partitions: Option<Partitions>,
    /// Where copies run that need not be alone.
    pub copies: Copies,
    /// Past and present appointments, oldest first, at most `HISTORY_MAX`.
    pub history: Vec<Appointed>,
}

impl ServiceState {
    /// The present term; before the first appointment that of its last time, or 0.
    pub fn term(&self) -> Term {
        self.appointment.as_ref().map_or(self.before.term, |appointment| appointment.term)
    }
}

/// Who is primary in a term.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Appointment {
    /// The epoch; each has one primary.
    pub term: Term,
    /// Who may take writes; of a command, where its one copy runs.
    pub primary: NodeId,
    /// The rules that may be in force, each of which an election must satisfy; the last one is
    /// what the primary shall apply. More than one while a change is under way, none for a command.
    pub rules: Vec<CommitRule>,
    /// How far it has come.
    pub phase: Phase,
}

/// How far an appointment has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Phase {
    /// Decided; the primary has not proven its barrier yet.
    Appointed,
    /// The barrier was acknowledged under the new rule: clients are let in.
    Active,
}

/// A planned change of primary.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Switchover {
    /// The node that shall be primary.
    pub to: NodeId,
    /// Given up after this moment, milliseconds since 1970 on the controller's clock.
    pub deadline_unix_ms: u64,
}

/// A failover that an operator demanded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Forced {
    /// The next primary; none is the best one.
    pub to: Option<NodeId>,
    /// Appoint even where acknowledged commits may be missing.
    pub accept_loss: bool,
    /// Given up after this moment, milliseconds since 1970 on the controller's clock.
    pub deadline_unix_ms: u64,
}

/// One line of the history.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Appointed {
    /// The epoch.
    pub term: Term,
    /// Its primary.
    pub primary: NodeId,
    /// Why.
    pub cause: Cause,
    /// The controller's words, with numbers.
    pub reason: String,
    /// When decided, milliseconds since 1970 on the controller's clock.
    pub at_unix_ms: u64,
    /// Whether it was elected with every commit that earlier terms may have acknowledged.
    pub whole: bool,
    /// When the barrier was acknowledged.
    pub active_unix_ms: Option<u64>,
}

/// Why a primary was appointed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// The first one.
    Founded,
    /// An operator asked for it, both were alive.
    Switchover,
    /// The keeper saw the postmaster end.
    PostmasterDied,
    /// Connections to the node were reset and refused, and its streams ended.
    NodeDied,
    /// The node was silent, and its streams were too.
    NodeSilent,
    /// The instance is there but does not serve.
    InstanceHung,
    /// All nodes had stopped, or the same primary went on after an interrupted election.
    Resumed,
    /// An operator forced it.
    Forced,
    /// A command failed on its node again and again.
    CrashLoop,
}

/// What came of a command.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Applied {
    /// The state changed.
    Changed,
    /// Nothing changed: planned on an older state, already done, or no such service.
    Ignored {
        /// Why.
        because: String,
    },
}

impl ClusterState {
    /// Applies one agreed command. Cannot fail: what does not fit is ignored, on every node alike.
    pub fn apply(&mut self, command: &Command) -> Applied {
        match command {
            Command::Noop => Applied::Changed,
            Command::Found { cluster, config } => {
                if self.cluster.is_some() {
                    return ignored("the cluster is founded already");
                }
                self.cluster = Some(cluster.clone());
                self.configure(ConfigVersion(1), &config.text, &config.spec)
            }
            Command::Configure { expected, config } => {
                if *expected != self.config_version {
                    return ignored("the configuration changed in the meantime");
                }
                if let Some(because) = self.divided_otherwise(&config.spec) {
                    return ignored(because);
                }
                self.configure(expected.next(), &config.text, &config.spec)
            }
            Command::Drain { node, draining } => {
                let changed = if *draining {
                    self.draining.insert(node.clone())
                } else {
                    self.draining.remove(node)
                };
                if changed { Applied::Changed } else { ignored("already so") }
            }
            Command::Service { service, expected, command } => {
                let Some(state) = self.services.get_mut(service) else {
                    return ignored("no such service");
                };
                if state.revision != *expected {
                    return ignored("the service changed in the meantime");
                }
                let applied = state.apply(command);
                if applied == Applied::Changed {
                    state.revision = state.revision.next();
                }
                applied
            }
        }
    }

    fn configure(&mut self, version: ConfigVersion, text: &str, spec: &ClusterSpec) -> Applied {
        // A plan rests on who the voters are; and whoever planned on this revision knows them.
        if !self.spec.nodes.keys().eq(spec.nodes.keys()) {
            for state in self.services.values_mut() {
                state.revision = state.revision.next();
            }
        }
        self.take_over(spec, version);
        self.config_version = version;
        self.config_text = text.into();
        self.spec = spec.clone();
        self.draining.retain(|node| spec.nodes.contains_key(node));
        Applied::Changed
    }
}

impl ServiceState {
    fn current(&mut self, term: Term) -> Option<&mut Appointment> {
        self.appointment.as_mut().filter(|appointment| appointment.term == term)
    }

    fn activate(
        &mut self,
        term: Term,
        rule: &CommitRule,
        system: SystemId,
        at_unix_ms: u64,
    ) -> Applied {
        let Some(appointment) = self.current(term) else {
            return ignored("another term");
        };
        appointment.phase = Phase::Active;
        // Where the rule is no longer the last one, the older ones stay until it is settled.
        let _ = appointment.settle(rule);
        self.system = self.system.or(Some(system));
        if let Some(line) = self.history.last_mut().filter(|line| line.term == term) {
            line.active_unix_ms.get_or_insert(at_unix_ms);
        }
        Applied::Changed
    }

    fn confirm_running(&mut self, term: Term, at_unix_ms: u64) -> Applied {
        let Some(appointment) = self.current(term) else {
            return ignored("another term");
        };
        if appointment.phase == Phase::Active {
            return ignored("already so");
        }
        appointment.phase = Phase::Active;
        if let Some(line) = self.history.last_mut().filter(|line| line.term == term) {
            line.active_unix_ms.get_or_insert(at_unix_ms);
        }
        Applied::Changed
    }

    /// Whatever was under way ends with the appointment.
    pub(super) fn appoint(&mut self, line: Appointed) {
        self.founder = None;
        self.switchover = None;
        self.forced = None;
        self.history.push(line);
        let excess = self.history.len().saturating_sub(HISTORY_MAX);
        self.history.drain(..excess);
    }

    fn apply(&mut self, command: &ServiceCommand) -> Applied {
        match command {
            ServiceCommand::ChooseFounder { node } => {
                if self.appointment.is_some() {
                    return ignored("the service has a primary already");
                }
                self.founder = Some(node.clone());
                Applied::Changed
            }
            ServiceCommand::Appoint { appointment, cause, reason, system, at_unix_ms } => {
                if appointment.term <= self.term() {
                    return ignored("terms never go back");
                }
                self.system = self.system.or(*system);
                let rules = &appointment.rules;
                let own = |rule: &CommitRule| rule.acks > 0 || rule.primary == appointment.primary;
                self.appoint(Appointed {
                    term: appointment.term,
                    primary: appointment.primary.clone(),
                    cause: *cause,
                    reason: reason.clone(),
                    at_unix_ms: *at_unix_ms,
                    whole: *cause != Cause::Forced && rules.iter().all(own),
                    active_unix_ms: None,
                });
                self.appointment = Some(appointment.clone());
                Applied::Changed
            }
            ServiceCommand::Seat(command) => self.seat(command),
            ServiceCommand::Partition { changes, .. } => self.partition(changes),
            ServiceCommand::Activate { term, rule, system, at_unix_ms } => {
                self.activate(*term, rule, *system, *at_unix_ms)
            }
            ServiceCommand::ConfirmRunning { term, at_unix_ms } => {
                self.confirm_running(*term, *at_unix_ms)
            }
            ServiceCommand::ChangeRule { term, rule } => match self.current(*term) {
                Some(appointment) => appointment.change_rule(rule),
                None => ignored("another term"),
            },
            ServiceCommand::SettleRule { term, rule } => match self.current(*term) {
                Some(appointment) => appointment.settle(rule),
                None => ignored("another term"),
            },
            ServiceCommand::RequestSwitchover { to, deadline_unix_ms } => {
                if self.appointment.as_ref().is_none_or(|a| a.primary == *to) {
                    return ignored("it is the primary already, or there is none");
                }
                self.switchover =
                    Some(Switchover { to: to.clone(), deadline_unix_ms: *deadline_unix_ms });
                Applied::Changed
            }
            ServiceCommand::RequestFailover { forced } => {
                self.forced = Some(forced.clone());
                Applied::Changed
            }
            ServiceCommand::CancelFailover => match self.forced.take() {
                Some(_) => Applied::Changed,
                None => ignored("no failover is demanded"),
            },
            ServiceCommand::CancelSwitchover => match self.switchover.take() {
                Some(_) => Applied::Changed,
                None => ignored("no switchover is under way"),
            },
            ServiceCommand::Pause { paused } if self.paused == *paused => ignored("already so"),
            ServiceCommand::Pause { paused } => {
                self.paused = *paused;
                Applied::Changed
            }
            ServiceCommand::Copies(command) => self.copies.apply(command),
        }
    }
}

impl Appointment {
    /// From now on both the old rules and `rule` count (H8), and whatever lies between them: WAL
    /// senders load the names one by one, and each counts by its own number the standbys that any
    /// of them lists. So while a change is under way any `acks` of the least, out of all that were
    /// ever listed, may confirm (H9). That one rule implies every other of this primary.
    fn change_rule(&mut self, rule: &CommitRule) -> Applied {
        if rule.primary != self.primary || rule.standbys.contains(&rule.primary) {
            return ignored("the rule is not for this primary");
        }
        if self.rules.last() == Some(rule) {
            return ignored("already so");
        }
        let mut mixed = rule.clone();
        for own in self.rules.iter().filter(|own| own.primary == self.primary) {
            mixed.standbys.extend(own.standbys.iter().cloned());
            mixed.acks = mixed.acks.min(own.acks);
        }
        self.rules.retain(|own| own.primary != self.primary);
        if mixed != *rule {
            self.rules.push(mixed);
        }
        self.rules.push(rule.clone());
        Applied::Changed
    }

    /// Drops every rule but `rule`, if it is the one that the primary was last told to apply.
    fn settle(&mut self, rule: &CommitRule) -> Applied {
        if self.rules.len() < 2 || self.rules.last() != Some(rule) {
            return ignored("nothing to settle");
        }
        self.rules.drain(..self.rules.len() - 1);
        Applied::Changed
    }
}

pub(super) fn ignored(because: &str) -> Applied {
    Applied::Ignored { because: because.into() }
}
