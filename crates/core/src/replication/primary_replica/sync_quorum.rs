//! Decides which acknowledgements make a commit safe, and who may choose the next primary.
//! In: the cohort and `k`. Out: `CommitRule`, and whether a set of promises elects.
//! Keeps: INV-4, every set that can acknowledge meets every set that can choose.
//! Not here: who is chosen (`clustering/active_passive/candidate.rs`), the text of
//! `synchronous_standby_names` (the PostgreSQL adapter).
//! Tested by: every cohort of up to five nodes, below.

use crate::ids::NodeId;
use alloc::collections::BTreeSet;
use core::fmt;
use serde::{Deserialize, Serialize};

/// When the primary may acknowledge a commit: it has flushed it, and so have `acks` of `standbys`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommitRule {
    /// The node whose commits the rule governs; its own flush is part of every acknowledgement.
    pub primary: NodeId,
    /// Who may confirm a commit. Never contains the primary.
    pub standbys: BTreeSet<NodeId>,
    /// How many of them must; 0 is "the primary alone".
    pub acks: usize,
}

impl CommitRule {
    /// What holds between a promotion and its barrier: nobody may confirm, so that no commit is
    /// acknowledged (H7).
    pub const fn of_nobody(primary: NodeId) -> Self {
        Self { primary, standbys: BTreeSet::new(), acks: 1 }
    }

    /// Whether nobody outside `promised` can still complete an acknowledgement: the primary itself
    /// promised (its flush is part of each), or fewer than `acks` standbys are left that did not.
    pub fn elects(&self, promised: &BTreeSet<NodeId>) -> bool {
        promised.contains(&self.primary)
            || self.standbys.iter().filter(|node| !promised.contains(*node)).count() < self.acks
    }

    /// Whether the primary with `confirmed` (standbys that flushed) may acknowledge.
    pub fn acknowledges(&self, confirmed: &BTreeSet<NodeId>) -> bool {
        self.standbys.intersection(confirmed).count() >= self.acks
    }
}

impl fmt::Display for CommitRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}+any {} of (", self.primary, self.acks)?;
        for (index, node) in self.standbys.iter().enumerate() {
            write!(f, "{}{node}", if index == 0 { "" } else { "," })?;
        }
        f.write_str(")")
    }
}

/// Whether `promised` may choose the next primary under every rule that may be in force.
/// An empty list of rules elects nobody.
pub fn elects(rules: &[CommitRule], promised: &BTreeSet<NodeId>) -> bool {
    !rules.is_empty() && rules.iter().all(|rule| rule.elects(promised))
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;

    fn nodes(bits: u32) -> BTreeSet<NodeId> {
        let names = ["a", "b", "c", "d", "e"];
        (0..5).filter(|i| bits & 1 << i != 0).map(|i| names[i as usize].into()).collect()
    }

    #[test]
    fn every_acknowledging_set_meets_every_electing_set() {
        let mut elections = 0;
        for cohort in 0..16_u32 {
            for acks in 0..=4 {
                let rule = CommitRule { primary: "a".into(), standbys: nodes(cohort << 1), acks };
                for promised in (0..32).map(nodes).filter(|set| rule.elects(set)) {
                    elections += 1;
                    for confirmed in (0..16).map(|bits| nodes(bits << 1)) {
                        let mut holders = confirmed.clone();
                        if !rule.acknowledges(&confirmed) {
                            continue;
                        }
                        holders.retain(|node| rule.standbys.contains(node));
                        holders.insert("a".into());
                        assert!(!holders.is_disjoint(&promised), "{rule}: {promised:?}");
                    }
                }
            }
        }
        assert!(elections > 1000);
    }

    #[test]
    fn a_primary_alone_is_followed_by_nobody() {
        let rule = CommitRule { primary: "a".into(), standbys: BTreeSet::new(), acks: 0 };
        assert!(!rule.elects(&nodes(0b11110)));
        assert!(rule.elects(&nodes(0b00001)));
    }

    #[test]
    fn where_nobody_may_confirm_nothing_is_acknowledged_and_anybody_elects() {
        let rule = CommitRule::of_nobody("a".into());
        for set in (0..32).map(nodes) {
            assert!(!rule.acknowledges(&set) && rule.elects(&set), "{set:?}");
        }
    }

    #[test]
    fn two_rules_need_both() {
        let rule =
            |standbys, acks| CommitRule { primary: "a".into(), standbys: nodes(standbys), acks };
        let rules: Vec<_> = [rule(0b110, 1), rule(0b010, 1)].into();
        assert!(!elects(&rules, &nodes(0b010)));
        assert!(elects(&rules, &nodes(0b110)));
        assert!(!elects(&[], &nodes(0b11111)));
    }
}
