//! Decides where a new session goes, and whether an open one may stay.
//! In: `Routes`, the time, the door's mode. Out: `Choice` or `Why`, `Verdict`.
//! Keeps: H41 past `valid_until` there is no primary and no replica; a term below the highest seen
//! routes nobody. H2 a session of an older term does not stay.
//! Tested by: below.

pub(super) mod readers;

use super::Mode;
use readers::Readers;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;
use tandem_core::clustering::load_balanced::balance::Draw;
use tandem_core::ids::{NodeId, Term};
use tandem_core::time::Timestamp;

/// Where an instance takes connections.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Whose instance.
    pub node: NodeId,
    /// Its PostgreSQL.
    pub address: SocketAddr,
}

/// An instance that may be read from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replica {
    /// Where.
    pub target: Target,
    /// How far behind, in bytes of WAL.
    pub lag_bytes: u64,
    /// How far behind, in time.
    pub lag: Duration,
    /// How much work it gets, relative to the others; at least 1.
    pub weight: u32,
    /// It stands in another zone than this node.
    pub far: bool,
    /// It gets no new sessions, by an operator's word; what it has may go on.
    pub draining: bool,
}

/// Who may be talked to, as this node knows it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Routes {
    /// The epoch of what follows.
    pub term: Term,
    /// Who takes writes; none: hold.
    pub primary: Option<Target>,
    /// Healthy and within the bound of lag.
    pub replicas: Vec<Replica>,
    /// A switchover is under way: new sessions wait although there is a primary.
    pub holding: bool,
    /// On this node's clock: after this moment nothing above counts (H41). None: does not expire.
    pub valid_until: Option<Timestamp>,
}

/// Where a session goes, and by which right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Claim {
    pub(super) target: Target,
    pub(super) term: Term,
}

/// Why a new session waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Why {
    Queue,
    NoPrimary,
    Switchover,
    NotHeard,
    OldTerm { term: Term, seen: Term },
    Server { node: NodeId, error: String },
}

impl std::fmt::Display for Why {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Queue => f.write_str("other clients were waiting first"),
            Self::NoPrimary => f.write_str("no node is primary at the moment"),
            Self::Switchover => f.write_str("a switchover is under way"),
            Self::NotHeard => f.write_str("this node has lost contact with the cluster"),
            Self::OldTerm { term, seen } => {
                write!(f, "this node's state is of term {term}, but term {seen} has begun")
            }
            Self::Server { node, error } => write!(f, "node {node}: {error}"),
        }
    }
}

/// What becomes of an open session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Stay,
    /// The primary moved, or may have.
    Cut,
    /// Its replica is not listed: bear it for a while.
    Missing,
}

/// Routes as of now.
#[derive(Clone, Copy, Debug)]
pub(super) struct View<'a> {
    pub(super) routes: &'a Routes,
    pub(super) now: Timestamp,
    pub(super) term_seen: Term,
}

impl View<'_> {
    fn expired(&self) -> bool {
        self.routes.valid_until.is_some_and(|until| self.now >= until)
    }

    fn unusable(&self) -> Option<Why> {
        let term = self.routes.term;
        if self.expired() {
            Some(Why::NotHeard)
        } else if term < self.term_seen {
            Some(Why::OldTerm { term, seen: self.term_seen })
        } else {
            None
        }
    }

    fn primary(&self) -> Result<&Target, Why> {
        match &self.routes.primary {
            Some(_) if self.routes.holding => Err(Why::Switchover),
            Some(target) => Ok(target),
            None => Err(Why::NoPrimary),
        }
    }

    /// Where a new session goes; not to `avoid` while there is another replica, or the primary.
    pub(super) fn choose(
        &self,
        mode: Mode,
        (readers, sessions): (&mut Readers, &BTreeMap<NodeId, u64>),
        avoid: Option<&NodeId>,
        draw: Draw,
    ) -> Result<Claim, Why> {
        if let Some(why) = self.unusable() {
            return Err(why);
        }
        let replicas = &self.routes.replicas;
        let mut replica = |avoid| {
            let at = readers.choose(replicas, sessions, (avoid, draw), self.now)?;
            replicas.get(at).map(|replica| &replica.target)
        };
        let found = match mode {
            Mode::Write => None,
            Mode::Read => replica(avoid),
        };
        let target = match (found, self.primary()) {
            (Some(target), _) | (None, Ok(target)) => target,
            (None, Err(why)) if mode == Mode::Write => return Err(why),
            // What failed just now is better than nothing.
            (None, Err(why)) => replica(None).ok_or(why)?,
        };
        Ok(Claim { target: target.clone(), term: self.routes.term })
    }

    /// Whether a session may stay where it is.
    pub(super) fn judge(&self, mode: Mode, claim: &Claim) -> Verdict {
        match mode {
            Mode::Write if self.expired() || self.term_seen > claim.term => Verdict::Cut,
            Mode::Write => {
                let elsewhere = |primary: &Target| primary.node != claim.target.node;
                let current = self.routes.term == claim.term;
                let moved = current && self.routes.primary.as_ref().is_some_and(elsewhere);
                if moved { Verdict::Cut } else { Verdict::Stay }
            }
            Mode::Read => {
                let listed = self
                    .routes
                    .replicas
                    .iter()
                    .map(|replica| &replica.target)
                    .chain(&self.routes.primary)
                    .any(|target| target.node == claim.target.node);
                if listed && !self.expired() { Verdict::Stay } else { Verdict::Missing }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tandem_core::clustering::load_balanced::balance::Policy;

    fn target(node: &str) -> Target {
        Target { node: node.into(), address: ([127, 0, 0, 1], 1).into() }
    }

    fn routes(primary: Option<&str>, replicas: &[&str]) -> Routes {
        let replica = |node: &&str| Replica { target: target(node), ..blank() };
        Routes {
            term: Term(3),
            primary: primary.map(target),
            replicas: replicas.iter().map(replica).collect(),
            holding: false,
            valid_until: Some(Timestamp(100)),
        }
    }

    fn blank() -> Replica {
        let target = target("x");
        Replica {
            target,
            lag_bytes: 0,
            lag: Duration::ZERO,
            weight: 1,
            far: false,
            draining: false,
        }
    }

    fn choose(routes: &Routes, mode: Mode, avoid: Option<&str>) -> Result<String, Why> {
        let view = View { routes, now: Timestamp(99), term_seen: Term(3) };
        let loads = BTreeMap::from([("b".into(), 2), ("c".into(), 1)]);
        let avoid = avoid.map(NodeId::from);
        let mut readers = Readers::new(Policy::LeastConnections);
        let claim = view.choose(mode, (&mut readers, &loads), avoid.as_ref(), Draw::default());
        claim.map(|claim| claim.target.node.to_string())
    }

    #[test]
    fn writes_go_to_the_primary_or_wait() {
        assert_eq!(choose(&routes(Some("a"), &["b"]), Mode::Write, None), Ok("a".into()));
        assert_eq!(choose(&routes(None, &["b"]), Mode::Write, None), Err(Why::NoPrimary));
        let mut holding = routes(Some("a"), &["b"]);
        holding.holding = true;
        assert_eq!(choose(&holding, Mode::Write, None), Err(Why::Switchover));
        assert_eq!(choose(&holding, Mode::Read, None), Ok("b".into()));
    }

    #[test]
    fn reads_go_to_the_least_loaded_replica_then_to_the_primary() {
        assert_eq!(choose(&routes(Some("a"), &["b", "c"]), Mode::Read, None), Ok("c".into()));
        assert_eq!(choose(&routes(Some("a"), &["b", "c"]), Mode::Read, Some("c")), Ok("b".into()));
        assert_eq!(choose(&routes(Some("a"), &["c"]), Mode::Read, Some("c")), Ok("a".into()));
        assert_eq!(choose(&routes(None, &["c"]), Mode::Read, Some("c")), Ok("c".into()));
        assert_eq!(choose(&routes(Some("a"), &[]), Mode::Read, None), Ok("a".into()));
        assert_eq!(choose(&routes(None, &[]), Mode::Read, None), Err(Why::NoPrimary));
    }

    #[test]
    fn h41_expired_or_older_routes_route_nobody() {
        let routes = routes(Some("a"), &["b"]);
        let choose = |view: View<'_>, mode| {
            let mut readers = Readers::new(Policy::LeastConnections);
            view.choose(mode, (&mut readers, &BTreeMap::new()), None, Draw::default())
        };
        for mode in [Mode::Write, Mode::Read] {
            let late = View { routes: &routes, now: Timestamp(100), term_seen: Term(3) };
            assert_eq!(choose(late, mode), Err(Why::NotHeard));
            let older = View { routes: &routes, now: Timestamp(1), term_seen: Term(4) };
            let why = Why::OldTerm { term: Term(3), seen: Term(4) };
            assert_eq!(choose(older, mode), Err(why));
        }
    }

    #[test]
    fn h2_a_write_session_ends_with_its_term_its_node_or_the_news() {
        let mut now = routes(Some("a"), &[]);
        let claim = Claim { target: target("a"), term: Term(3) };
        let judge = |routes: &Routes, seen, at| {
            let view = View { routes, now: Timestamp(at), term_seen: Term(seen) };
            view.judge(Mode::Write, &claim)
        };
        assert_eq!(judge(&now, 3, 1), Verdict::Stay);
        now.holding = true;
        assert_eq!(judge(&now, 3, 1), Verdict::Stay);
        assert_eq!(judge(&now, 4, 1), Verdict::Cut);
        assert_eq!(judge(&now, 3, 100), Verdict::Cut);
        assert_eq!(judge(&routes(None, &[]), 3, 1), Verdict::Stay);
        assert_eq!(judge(&routes(Some("b"), &["a"]), 3, 1), Verdict::Cut);
    }

    #[test]
    fn a_read_session_stays_while_its_node_is_listed_in_any_role() {
        let claim = Claim { target: target("b"), term: Term(1) };
        let judge = |routes: &Routes, at| {
            let view = View { routes, now: Timestamp(at), term_seen: Term(3) };
            view.judge(Mode::Read, &claim)
        };
        assert_eq!(judge(&routes(Some("a"), &["b"]), 1), Verdict::Stay);
        assert_eq!(judge(&routes(Some("b"), &[]), 1), Verdict::Stay);
        assert_eq!(judge(&routes(Some("a"), &["c"]), 1), Verdict::Missing);
        assert_eq!(judge(&routes(Some("a"), &["b"]), 100), Verdict::Missing);
    }
}
