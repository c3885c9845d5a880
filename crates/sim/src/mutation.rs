//! Decides how the simulator breaks its wrapper around the core, to prove that it would notice.
//! The shipped code is never changed.

/// One rule that is broken on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutation {
    /// A ballot is sent without the promise being kept: the standby goes on confirming.
    DropPromise,
    /// Any one ballot elects.
    DropMeeting,
    /// `Async`: a ballot counts before the old primary's lease passed.
    PromoteBeforeFence,
    /// A commit rule is replaced at once, without a time in which both count.
    GrowAndShrink,
    /// A ballot is told before the promise is on the disk.
    BallotBeforePersist,
    /// A door goes on with what it once heard.
    RouteForEver,
    /// `Async`: however far behind, it is elected.
    DropBound,
    /// `Async`: however long ago that was written which it lacks, it is elected.
    DropTimeBound,
    /// `Async`: an answer supports whoever asks, known to its sender or not.
    SupportStrangers,
    /// The rule is in force at the promotion already, before the term's row is there.
    AcknowledgeBeforeBarrier,
    /// The keeper's lease gets an end only once the promotion ended (H42).
    ArmAfterPromotion,
    /// A node goes by what its primary once said, however long ago (INV-8).
    BelieveStale,
}

impl Mutation {
    /// Every mutation.
    pub const ALL: [Self; 12] = [
        Self::DropPromise,
        Self::DropMeeting,
        Self::PromoteBeforeFence,
        Self::GrowAndShrink,
        Self::BallotBeforePersist,
        Self::RouteForEver,
        Self::DropBound,
        Self::DropTimeBound,
        Self::SupportStrangers,
        Self::AcknowledgeBeforeBarrier,
        Self::ArmAfterPromotion,
        Self::BelieveStale,
    ];

    /// As on the command line.
    pub const fn word(self) -> &'static str {
        match self {
            Self::DropPromise => "drop-promise",
            Self::DropMeeting => "drop-meeting",
            Self::PromoteBeforeFence => "promote-before-fence",
            Self::GrowAndShrink => "grow-and-shrink",
            Self::BallotBeforePersist => "ballot-before-persist",
            Self::RouteForEver => "route-for-ever",
            Self::DropBound => "drop-bound",
            Self::DropTimeBound => "drop-time-bound",
            Self::SupportStrangers => "support-strangers",
            Self::AcknowledgeBeforeBarrier => "acknowledge-before-barrier",
            Self::ArmAfterPromotion => "arm-after-promotion",
            Self::BelieveStale => "believe-stale",
        }
    }

    /// The mutation of a word.
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|mutation| mutation.word() == word)
    }
}
