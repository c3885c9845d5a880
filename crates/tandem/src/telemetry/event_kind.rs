//! Talks about what can happen: the typed list that log, API, dashboard and drill share.
//! In: nothing. Out: `EventKind`, its stable name and how loud it is.
//! Names are in the past tense; a name, once published, keeps its meaning.
//! Tested by: below.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use std::fmt;
use std::str::FromStr;

/// How loud an event is in the log. `Error`: a human must look. `Warn`: odd, and we went on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// A state changed.
    Info,
    /// Odd, and we went on.
    Warn,
    /// A human must look.
    Error,
}

/// The name is not in the list.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown event {0:?}")]
pub struct UnknownEvent(pub String);

macro_rules! kinds {
    ($($(#[doc = $doc:literal])+ $kind:ident = $name:literal $level:ident),+ $(,)?) => {
        /// What happened.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum EventKind { $($(#[doc = $doc])+ $kind),+ }

        impl EventKind {
            /// Every kind.
            pub const ALL: &'static [Self] = &[$(Self::$kind),+];

            /// The stable name.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$kind => $name),+ }
            }

            /// How loud it is.
            pub const fn level(self) -> Level {
                match self { $(Self::$kind => Level::$level),+ }
            }
        }

        impl FromStr for EventKind {
            type Err = UnknownEvent;

            fn from_str(name: &str) -> Result<Self, UnknownEvent> {
                match name {
                    $($name => Ok(Self::$kind),)+
                    _ => Err(UnknownEvent(name.to_owned())),
                }
            }
        }
    };
}

kinds! {
    /// The daemon of this node runs.
    DaemonStarted = "daemon.started" Info,
    /// The daemon of this node was asked to end.
    DaemonStopping = "daemon.stopping" Info,
    /// The keeper of an instance that already ran was taken over by this daemon.
    InstanceAdopted = "instance.adopted" Info,
    /// An instance was started, as a standby.
    InstanceStarted = "instance.started" Info,
    /// An instance was stopped on purpose.
    InstanceStopped = "instance.stopped" Info,
    /// A copy is about to be stopped by a plan: doors send nothing new there.
    InstanceWithdrawn = "instance.withdrawn" Info,
    /// A keeper saw its postmaster end.
    InstanceExited = "instance.exited" Warn,
    /// A keeper ended its instance: the lease had passed.
    InstanceFenced = "instance.fenced" Warn,
    /// A new connection gets no answer though the process is there.
    InstanceHung = "instance.hung" Warn,
    /// A hook, or what asks a command to end, failed or hung.
    HookFailed = "hook.failed" Warn,
    /// What was wrong with an instance no longer is.
    InstanceRecovered = "instance.recovered" Info,
    /// A human is needed before anything of it is touched: its data, or what its node promised.
    InstanceQuarantined = "instance.quarantined" Error,
    /// The server ended because a write failed: nothing is started from that disk unchecked.
    InstanceDiskSuspect = "instance.disk_suspect" Error,
    /// The data directory was initialised: the first copy of a service.
    ServiceFounded = "service.founded" Info,
    /// Copies of a command shall run on other nodes than before.
    CopiesPlaced = "copies.placed" Info,
    /// A round of moves began: nodes were asked to release partitions.
    PartitionsAsked = "partitions.asked" Info,
    /// Partitions have new owners: those before released them, or they were nobody's.
    PartitionsMoved = "partitions.moved" Info,
    /// Partitions have new owners without a release: the copies of those before are proven gone.
    PartitionsTaken = "partitions.taken" Warn,
    /// Partitions that were to be released stay where they are.
    PartitionsKept = "partitions.kept" Info,
    /// A copy did not release partitions in time, and is ended for it.
    PartitionsOverdue = "partitions.overdue" Warn,
    /// Automatic failover was turned off.
    ServicePaused = "service.paused" Warn,
    /// Automatic failover was turned on again.
    ServiceResumed = "service.resumed" Info,
    /// The settings of a service were loaded again.
    ServiceReloaded = "service.reloaded" Info,
    /// A primary's lease passed without a proof.
    LeaseExpired = "lease.expired" Warn,
    /// A primary gave its lease back: its instance is gone for certain.
    LeaseReleased = "lease.released" Info,
    /// A standby promised a term and stopped receiving.
    PromiseMade = "promise.made" Info,
    /// A primary was agreed for a new term.
    PrimaryAppointed = "primary.appointed" Info,
    /// An instance left recovery and takes writes.
    PrimaryPromoted = "primary.promoted" Info,
    /// The barrier of the term was acknowledged: clients are let in.
    PrimaryActivated = "primary.activated" Info,
    /// A primary was stopped because another was appointed.
    PrimaryDemoted = "primary.demoted" Warn,
    /// A primary was lost, and standbys are recruited.
    FailoverStarted = "failover.started" Warn,
    /// The new primary serves.
    FailoverDone = "failover.done" Info,
    /// Nobody could be chosen; the reason is in the message.
    FailoverFailed = "failover.failed" Error,
    /// A switchover waits for its time.
    SwitchoverScheduled = "switchover.scheduled" Info,
    /// A planned move began.
    SwitchoverStarted = "switchover.started" Info,
    /// The planned move ended, nothing was lost.
    SwitchoverDone = "switchover.done" Info,
    /// The planned move was given up; what served before goes on.
    SwitchoverFailed = "switchover.failed" Warn,
    /// An operator took a switchover back.
    SwitchoverCancelled = "switchover.cancelled" Info,
    /// Another commit rule was agreed.
    RuleChanged = "rule.changed" Info,
    /// Only the newest commit rule is in effect, proven by a barrier.
    RuleSettled = "rule.settled" Info,
    /// Fewer standbys confirm commits than the owner asked for.
    DurabilityReduced = "durability.reduced" Warn,
    /// As many standbys confirm commits as the owner asked for.
    DurabilityRestored = "durability.restored" Info,
    /// Writes wait: too few standbys can confirm.
    WritesStalled = "writes.stalled" Error,
    /// Writes go on.
    WritesResumed = "writes.resumed" Info,
    /// An instance follows the new primary as it is.
    RejoinFollowed = "rejoin.followed" Info,
    /// An instance was rewound, and follows.
    RejoinRewound = "rejoin.rewound" Info,
    /// A new base backup began.
    CloneStarted = "clone.started" Info,
    /// A new base backup is complete, and the instance follows.
    RejoinCloned = "rejoin.cloned" Info,
    /// One rung of the rejoin ladder failed; the next is tried.
    RejoinFailed = "rejoin.failed" Warn,
    /// Every copy that the owner asked for streams again.
    RedundancyRestored = "redundancy.restored" Info,
    /// A node was not heard for longer than the suspicion time.
    NodeSilent = "node.silent" Warn,
    /// Connections to a node were reset and refused: its daemon is gone.
    NodeDied = "node.died" Warn,
    /// A node that was silent or gone is heard again.
    NodeReturned = "node.returned" Info,
    /// An operator empties a node.
    NodeDrained = "node.drained" Info,
    /// A node takes work again.
    NodeUndrained = "node.undrained" Info,
    /// A node became a member.
    NodeJoined = "node.joined" Info,
    /// A node is no longer a member.
    NodeRemoved = "node.removed" Info,
    /// Two nodes do not hear each other though others hear both.
    LinkCut = "link.cut" Warn,
    /// Two nodes hear each other again.
    LinkHealed = "link.healed" Info,
    /// No space is left where the data is.
    DiskFull = "disk.full" Error,
    /// The disk is full: the room that was kept for that was given up.
    BallastReleased = "disk.ballast_released" Warn,
    /// There is room again, and some of it is kept as before.
    BallastRestored = "disk.ballast_restored" Info,
    /// The disk did not answer a probe in time.
    DiskStuck = "disk.stuck" Error,
    /// The disk answers and has room.
    DiskRecovered = "disk.recovered" Info,
    /// All connections of an instance are in use; it is alive.
    ConnectionsUsedUp = "connections.used_up" Warn,
    /// A replication slot was lost or exceeded its WAL limit.
    SlotLost = "slot.lost" Warn,
    /// The front door holds sessions: there is no primary.
    DoorHeld = "door.held" Warn,
    /// Held sessions were routed.
    DoorReleased = "door.released" Info,
    /// Sessions on an old primary were cut.
    DoorCut = "door.cut" Info,
    /// An endpoint does not answer its checks.
    EndpointDown = "endpoint.down" Warn,
    /// An endpoint is left out for a while: its work failed, or took too long.
    EndpointEjected = "endpoint.ejected" Warn,
    /// An endpoint has as much as it may, and others wait.
    EndpointFull = "endpoint.full" Warn,
    /// An endpoint that was out or full takes work again.
    EndpointReturned = "endpoint.returned" Info,
    /// No endpoint of a service takes work: its clients wait.
    DoorUnserved = "door.unserved" Warn,
    /// An endpoint of a service takes work again.
    DoorServed = "door.served" Info,
    /// What an endpoint still had was cut: it gets no more work, and `drain_max` was over; or
    /// whoever had it is gone.
    EndpointCut = "endpoint.cut" Warn,
    /// A node leads the consensus, and plans.
    LeaderElected = "leader.elected" Info,
    /// Nobody leads the consensus as this node sees it.
    LeaderLost = "leader.lost" Warn,
    /// A new configuration is in force.
    ConfigApplied = "config.applied" Info,
    /// Parts of the configuration are not in force on a node, as a door whose address is taken.
    ConfigHeldUp = "config.held_up" Warn,
    /// All of the configuration is in force on a node where parts of it waited.
    ConfigCarriedOut = "config.carried_out" Info,
    /// An operator asked for something.
    OperatorAsked = "operator.asked" Info,
    /// What an operator asked for was refused.
    OperatorRefused = "operator.refused" Info,
    /// A message of another cluster, name or version was refused.
    PeerRefused = "peer.refused" Warn,
    /// A doctor found two clocks of the cluster that differ by more than a minute.
    ClockSkewed = "clock.skewed" Warn,
}

impl fmt::Display for EventKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl Serialize for EventKind {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

impl<'de> Deserialize<'de> for EventKind {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn names_are_unique_and_have_a_subject_and_a_past_verb() {
        let names: BTreeSet<&str> = EventKind::ALL.iter().map(|kind| kind.name()).collect();
        assert_eq!(names.len(), EventKind::ALL.len());
        for name in names {
            assert_eq!(name.split('.').filter(|part| !part.is_empty()).count(), 2, "{name}");
            assert_eq!(name.parse::<EventKind>().map(EventKind::name), Ok(name));
        }
    }
}
