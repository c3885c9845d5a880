//! Names what can happen to a cluster of commands.

use super::divided::files::Told;
use super::{beside, faults, keyed};
use std::rc::Rc;
use tandem_core::clustering::active_active::holder::Floor;
use tandem_core::facts::NodeFacts;
use tandem_core::ids::{Epoch, PartitionId, Term};
use tandem_core::time::Timestamp;

/// One thing that happens. `n` is a node, `inc` its daemon's incarnation, `life` a copy.
#[derive(Clone, Debug)]
pub(super) enum Event {
    Tick { n: usize, inc: u32 },
    BeatTick { n: usize, inc: u32 },
    BeatNow { n: usize, inc: u32 },
    Request { to: usize, from: usize, inc: u32, sent: Timestamp, facts: Rc<NodeFacts> },
    Answer { to: usize, inc: u32, sent: Timestamp, facts: Rc<NodeFacts> },
    Refused { n: usize, inc: u32, peer: usize },
    Asked { n: usize, inc: u32, s: usize, term: Term },
    Written { n: usize, inc: u32, id: u64 },
    Done { n: usize, inc: u32, id: u64 },
    Ended { n: usize, inc: u32, life: u64 },
    LeaseEnds { n: usize, life: u64 },
    Dies { n: usize, life: u64 },
    Gone { n: usize, life: u64 },
    Look { n: usize, life: u64 },
    Saw { n: usize, life: u64, order: u64, shown: Rc<Told> },
    Finish { n: usize, life: u64, held: (PartitionId, Epoch) },
    Confirmed { n: usize, life: u64, held: (PartitionId, Epoch) },
    FloorWritten { n: usize, inc: u32, floor: Floor },
    PutOut { n: usize, inc: u32, version: u64, term: Term, shown: Rc<Told> },
    Drive { n: usize, inc: u32 },
    Beside(beside::Event),
    Keyed(keyed::Event),
    Applied { n: usize, upto: usize },
    AgreementTick,
    Elect { round: u64 },
    Depose { n: usize, inc: u32 },
    Commit { id: u64 },
    ProposalEnded { n: usize, inc: u32, id: u64 },
    StartDaemon { n: usize },
    Thaw { n: usize },
    ThawDaemon { n: usize },
    Fault,
    Mend { kind: faults::Mend },
    Heal,
    Judge,
}

impl Event {
    /// Whose processes take part: a frozen node's events wait for its thaw, a dead one's are lost.
    pub(super) fn node(&self) -> Option<(usize, bool)> {
        match self {
            Self::Tick { n, .. }
            | Self::BeatTick { n, .. }
            | Self::BeatNow { n, .. }
            | Self::Request { to: n, .. }
            | Self::Answer { to: n, .. }
            | Self::Refused { n, .. }
            | Self::Asked { n, .. }
            | Self::Written { n, .. }
            | Self::Done { n, .. }
            | Self::Ended { n, .. }
            | Self::Applied { n, .. }
            | Self::Drive { n, .. }
            | Self::FloorWritten { n, .. }
            | Self::PutOut { n, .. }
            | Self::Depose { n, .. }
            | Self::ProposalEnded { n, .. } => Some((*n, true)),
            Self::LeaseEnds { n, .. }
            | Self::Dies { n, .. }
            | Self::Gone { n, .. }
            | Self::Look { n, .. }
            | Self::Saw { n, .. }
            | Self::Finish { n, .. }
            | Self::Confirmed { n, .. } => Some((*n, false)),
            Self::Beside(event) => event.node(),
            Self::Keyed(event) => event.node(),
            Self::AgreementTick
            | Self::Elect { .. }
            | Self::Commit { .. }
            | Self::StartDaemon { .. }
            | Self::Thaw { .. }
            | Self::ThawDaemon { .. }
            | Self::Fault
            | Self::Mend { .. }
            | Self::Heal
            | Self::Judge => None,
        }
    }
}
