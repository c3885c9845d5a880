//! Decides what each fault does, to whom, and what must hold meanwhile.
//! In: who is primary, leader, standby. Out: `Injection`.
//! Tested by: below.

use super::cluster::Action;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;
use tandem_core::ids::NodeId;

macro_rules! faults {
    ($($(#[$doc:meta])* $variant:ident => $name:literal),+ $(,)?) => {
        /// A way to break a cluster.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Fault { $($(#[$doc])* $variant),+ }

        impl Fault {
            /// Every fault of any service.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// Its name on the command line and in reports.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name),+ }
            }
        }
    };
}

faults! {
    /// SIGKILL to the primary's first process.
    PostmasterKill => "postmaster-kill",
    /// SIGKILL to every process of the primary's node.
    NodeKill => "node-kill",
    /// SIGKILL to the daemon of the primary's node.
    DaemonKill => "daemon-kill",
    /// SIGSTOP to that daemon.
    DaemonFreeze => "daemon-freeze",
    /// SIGSTOP to the primary's first process.
    PostmasterFreeze => "postmaster-freeze",
    /// SIGSTOP to every process of the primary's node.
    NodeFreeze => "node-freeze",
    /// The primary's node loses all links.
    NodeCut => "node-cut",
    /// The primary's node loses the link to one standby.
    LinkCut => "link-cut",
    /// The link between the primary and one standby takes a while.
    LinkSlow => "link-slow",
    /// SIGKILL to every process of a standby's node.
    StandbyKill => "standby-kill",
    /// The same to the Raft leader's node, while it is not the primary's.
    LeaderKill => "leader-kill",
    /// The same to the primary's node and a standby's: writes must stop.
    TwoKill => "two-kill",
    /// A planned change of primary.
    Switchover => "switchover",
    /// SIGTERM to the daemon of the primary's node.
    DaemonRestart => "daemon-restart",
    /// No space left on the primary's disk.
    DiskFull => "disk-full",
    /// SIGKILL to everything at once.
    AllKill => "all-kill",
    /// SIGKILL to the first process of a command, or to an endpoint.
    InstanceKill => "instance-kill",
    /// SIGSTOP to it.
    InstanceFreeze => "instance-freeze",
    /// An endpoint answers slowly; a copy under a lease, its checks too.
    Slow => "slow",
    /// An endpoint answers with 500, and its checks say that all is well; of a copy under a lease
    /// they say so, since nobody else would.
    Lie => "lie",
    /// A node or an endpoint is emptied by an operator.
    Drain => "drain",
    /// A node joins the cluster, has its share, and leaves again.
    Scale => "scale",
    /// One copy or endpoint less, or more work for one node, then as before, by the configuration.
    Resize => "resize",
    /// Every copy is started anew, one after the other.
    Restart => "restart",
    /// The command is another one from now on, while it runs.
    Change => "change",
}

impl Fault {
    /// What is done to PostgreSQL, in the order of a drill.
    pub const OF_POSTGRES: &'static [Self] = &[
        Self::PostmasterKill,
        Self::NodeKill,
        Self::DaemonKill,
        Self::DaemonFreeze,
        Self::PostmasterFreeze,
        Self::NodeFreeze,
        Self::NodeCut,
        Self::LinkCut,
        Self::LinkSlow,
        Self::StandbyKill,
        Self::LeaderKill,
        Self::TwoKill,
        Self::Switchover,
        Self::DaemonRestart,
        Self::DiskFull,
        Self::AllKill,
    ];
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Fault {
    type Err = super::Error;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        Self::ALL.iter().copied().find(|fault| fault.name() == name).ok_or_else(|| {
            let known: Vec<&str> = Self::ALL.iter().map(|fault| fault.name()).collect();
            super::Error::UnknownFault { name: name.into(), known: known.join(", ") }
        })
    }
}

/// Who is who before a fault.
#[derive(Clone, Debug)]
pub struct Cast {
    /// Takes writes.
    pub primary: NodeId,
    /// Leads Raft, where known.
    pub leader: Option<NodeId>,
    /// The other nodes with data, the chosen one first.
    pub standbys: Vec<NodeId>,
    /// Every node.
    pub nodes: Vec<NodeId>,
}

/// What a fault comes down to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Injection {
    /// The node that it is about.
    pub node: NodeId,
    /// What to do.
    pub inject: Vec<Action>,
    /// What ends it; empty where it ends by itself.
    pub heal: Vec<Action>,
}

/// What must happen to writes while a fault lasts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Writes {
    /// They go on, or go on again, before healing.
    GoOn,
    /// They stop until healing: too few copies are left to acknowledge.
    Stop,
}

impl Fault {
    /// How long the fault lasts at least, before it is healed or judged: longer than the time after
    /// which silence is believed, so that the cluster has to deal with the fault and not only to
    /// sit it out. Healing 5 s later is also what other products were measured with.
    pub const fn lasts(self) -> Duration {
        match self {
            Self::Switchover | Self::DaemonKill | Self::DaemonRestart | Self::PostmasterKill => {
                Duration::from_secs(2)
            }
            Self::TwoKill | Self::AllKill => Duration::from_secs(4),
            Self::NodeKill
            | Self::DaemonFreeze
            | Self::PostmasterFreeze
            | Self::NodeFreeze
            | Self::NodeCut
            | Self::LinkCut
            | Self::LinkSlow
            | Self::StandbyKill
            | Self::LeaderKill
            | Self::DiskFull
            | Self::InstanceKill
            | Self::InstanceFreeze
            | Self::Slow
            | Self::Lie
            | Self::Drain
            | Self::Scale
            | Self::Resize
            | Self::Restart
            | Self::Change => Duration::from_secs(5),
        }
    }

    /// What must happen to writes.
    pub const fn writes(self) -> Writes {
        match self {
            Self::TwoKill | Self::AllKill => Writes::Stop,
            _ => Writes::GoOn,
        }
    }

    /// Whether the primary must stay where it is.
    pub const fn keeps_primary(self) -> bool {
        matches!(
            self,
            Self::LinkCut
                | Self::LinkSlow
                | Self::StandbyKill
                | Self::LeaderKill
                | Self::DaemonKill
                | Self::DaemonRestart
        )
    }

    /// Whether the primary must be another one afterwards.
    pub const fn moves_primary(self) -> bool {
        matches!(self, Self::Switchover)
    }

    /// What to do, given who is who; none when the cast does not fit.
    pub fn injection(self, cast: &Cast) -> Option<Injection> {
        use Action as A;
        let primary = &cast.primary;
        let one = |inject: fn(NodeId) -> A, heal: Option<fn(NodeId) -> A>| {
            let heal = heal.map(|heal| heal(primary.clone()));
            (primary.clone(), vec![inject(primary.clone())], heal.into_iter().collect())
        };
        let kill = |nodes: &[NodeId]| {
            let inject = nodes.iter().cloned().map(A::KillNode).collect();
            let heal = nodes.iter().cloned().map(A::RestoreNode).collect();
            nodes.first().map(|node| (node.clone(), inject, heal))
        };
        let standby = cast.standbys.first();
        let (node, inject, heal) = match self {
            Self::PostmasterKill => one(A::KillPostmaster, None),
            Self::NodeKill => one(A::KillNode, Some(A::RestoreNode)),
            Self::DaemonKill => one(A::KillDaemon, None),
            Self::DaemonFreeze => one(A::FreezeDaemon, Some(A::ThawDaemon)),
            Self::PostmasterFreeze => one(A::FreezePostmaster, Some(A::ThawPostmaster)),
            Self::NodeFreeze => one(A::FreezeNode, Some(A::ThawNode)),
            Self::NodeCut => one(A::CutNode, Some(A::HealNode)),
            Self::LinkCut => {
                let (a, b) = (primary.clone(), standby?.clone());
                let heal = vec![A::HealLink(a.clone(), b.clone())];
                (primary.clone(), vec![A::CutLink(a, b)], heal)
            }
            Self::LinkSlow => {
                let (a, b) = (primary.clone(), standby?.clone());
                let heal = vec![A::HealLink(a.clone(), b.clone())];
                (primary.clone(), vec![A::SlowLink(a, b)], heal)
            }
            Self::StandbyKill => kill(&[standby?.clone()])?,
            Self::LeaderKill => kill(&[cast.leader.clone().filter(|leader| leader != primary)?])?,
            Self::TwoKill => kill(&[primary.clone(), standby?.clone()])?,
            Self::Switchover => {
                let to = A::SwitchOver { via: primary.clone(), to: Some(standby?.clone()) };
                (primary.clone(), vec![to], Vec::new())
            }
            Self::DaemonRestart => one(A::RestartDaemon, None),
            Self::DiskFull => one(A::FillDisk, Some(A::FreeDisk)),
            Self::AllKill => {
                let others = cast.nodes.iter().filter(|node| *node != primary).cloned();
                let nodes: Vec<_> = std::iter::once(primary.clone()).chain(others).collect();
                kill(&nodes)?
            }
            // Of other services: `service/faults.rs`.
            Self::InstanceKill
            | Self::InstanceFreeze
            | Self::Slow
            | Self::Lie
            | Self::Drain
            | Self::Scale
            | Self::Resize
            | Self::Restart
            | Self::Change => return None,
        };
        Some(Injection { node, inject, heal })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cast(leader: &str) -> Cast {
        let node = NodeId::new;
        Cast {
            primary: node("b"),
            leader: Some(node(leader)),
            standbys: vec![node("c"), node("a")],
            nodes: vec![node("a"), node("b"), node("c")],
        }
    }

    #[test]
    fn names_go_both_ways() {
        for fault in Fault::ALL {
            assert_eq!(fault.name().parse::<Fault>().unwrap(), *fault);
        }
        let of_postgres = |fault| fault < Fault::InstanceKill;
        let expected: Vec<Fault> =
            Fault::ALL.iter().copied().filter(|it| of_postgres(*it)).collect();
        assert_eq!(Fault::OF_POSTGRES, expected);
        let error = "node-kil".parse::<Fault>().unwrap_err();
        assert!(error.to_string().contains("node-kill"));
    }

    #[test]
    fn every_fault_hits_whom_it_says() {
        let two = Fault::TwoKill.injection(&cast("a")).unwrap();
        let [b, c] = ["b", "c"].map(NodeId::new);
        assert_eq!(two.inject, [Action::KillNode(b.clone()), Action::KillNode(c.clone())]);
        assert_eq!(two.heal, [Action::RestoreNode(b.clone()), Action::RestoreNode(c)]);
        assert_eq!(Fault::AllKill.injection(&cast("a")).unwrap().inject.len(), 3);
        assert_eq!(Fault::LeaderKill.injection(&cast("b")), None, "the leader is the primary");
        let leader = Fault::LeaderKill.injection(&cast("a")).unwrap();
        assert_eq!(leader.node, NodeId::new("a"));
        for fault in Fault::OF_POSTGRES {
            let injection = fault.injection(&cast("a")).unwrap();
            assert!(!injection.inject.is_empty(), "{fault}");
            let about_primary = !matches!(fault, Fault::StandbyKill | Fault::LeaderKill);
            assert_eq!(injection.node == b, about_primary, "{fault}");
        }
    }
}
