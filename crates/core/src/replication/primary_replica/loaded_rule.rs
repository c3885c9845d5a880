//! Decides whether a commit rule is the first that a server may obey since its promotion, and so
//! needs no proof that an older one is gone.
//! In: what a daemon had its server load since the promotion. Out: whether to prove.
//! Keeps: INV-4, H9 a rule that may follow another is proven before the other no longer counts.
//! Tested by: below, and the simulator, whose primaries ask it as well.

use super::sync_quorum::CommitRule;

/// The one rule, if it is only one, that a primary may obey since its promotion besides that of
/// nobody. A daemon that did not see the promotion, or asked for a change, knows none.
#[derive(Clone, Debug, Default)]
pub struct LoadedRule(Option<CommitRule>);

impl LoadedRule {
    /// What was in force when the promotion began.
    pub const fn at_promotion(rule: CommitRule) -> Self {
        Self(Some(rule))
    }

    /// Whether no rule but `wanted`, and before it that of nobody, can have been in force since
    /// the promotion. If so, `wanted` may be from now on; if not, nothing is known any more.
    pub fn is_first(&mut self, wanted: &CommitRule) -> bool {
        let nobody = CommitRule::of_nobody(wanted.primary.clone());
        let is_first = self.0.as_ref().is_some_and(|rule| *rule == nobody || rule == wanted);
        self.0 = is_first.then(|| wanted.clone());
        is_first
    }

    /// Another rule is about to be asked for, so that two may be in force (H9).
    pub fn forget(&mut self) {
        self.0 = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(acks: usize) -> CommitRule {
        let standbys = ["b".into(), "c".into()].into();
        CommitRule { primary: "a".into(), standbys, acks }
    }

    #[test]
    fn the_first_after_nobodys_needs_no_proof_and_may_be_tried_again() {
        let mut loaded = LoadedRule::at_promotion(CommitRule::of_nobody("a".into()));
        assert!(loaded.is_first(&rule(1)));
        assert!(loaded.is_first(&rule(1)));
        assert!(!loaded.is_first(&rule(2)));
        assert!(!loaded.is_first(&rule(1)), "two may be in force");
    }

    #[test]
    fn who_did_not_see_the_promotion_proves() {
        assert!(!LoadedRule::default().is_first(&rule(1)));
        let mut loaded = LoadedRule::at_promotion(rule(2));
        assert!(!loaded.is_first(&rule(1)), "something else was in force");
        let mut loaded = LoadedRule::at_promotion(rule(1));
        loaded.forget();
        assert!(!loaded.is_first(&rule(1)));
    }
}
