//! Decides how often a copy is asked that turned a request away as not its own.
//! In: what copies answered, routes. Out: whether a request may go now, and when to ask again.
//! States of a partition: open → (turned away) closed: one request in each `PACE` asks → (taken)
//! open. Another epoch opens it: its owner has turned nothing away yet.
//! A copy hears of what it owns a moment after the doors do. All who wait would ask it at once, be
//! turned away, and ask again; so one asks for all.
//! Not here: where the owner is (`active_active/routing.rs`), whether a request may be sent once
//! more (the shell, which knows what was sent).
//! Tested by: below.

use super::attempts::PACE;
use crate::ids::{Epoch, PartitionId};
use crate::time::Timestamp;
use alloc::collections::BTreeMap;

#[derive(Clone, Copy, Debug)]
struct Gate {
    epoch: Epoch,
    again: Timestamp,
}

/// The partitions whose owner turned a request away; those of a door.
#[derive(Clone, Debug, Default)]
pub struct Gates {
    closed: BTreeMap<PartitionId, Gate>,
}

impl Gates {
    /// Whether a request may go to who owns it under that epoch.
    pub fn is_open(&self, partition: PartitionId, epoch: Epoch, now: Timestamp) -> bool {
        let gate = self.closed.get(&partition).filter(|gate| gate.epoch == epoch);
        gate.is_none_or(|gate| gate.again <= now)
    }

    /// A request goes there.
    pub fn sent(&mut self, partition: PartitionId, epoch: Epoch, now: Timestamp) {
        let gate = self.closed.get_mut(&partition).filter(|gate| gate.epoch == epoch);
        if let Some(gate) = gate {
            gate.again = now.plus(PACE);
        }
    }

    /// It was turned away; true if it was open until now.
    pub fn turned_away(&mut self, partition: PartitionId, epoch: Epoch, now: Timestamp) -> bool {
        let known = self.closed.get(&partition).map(|gate| gate.epoch);
        if known.is_none_or(|known| known <= epoch) {
            self.closed.insert(partition, Gate { epoch, again: now.plus(PACE) });
        }
        known.is_none_or(|known| known < epoch)
    }

    /// It was taken; true if others waited for that.
    pub fn taken(&mut self, partition: PartitionId, epoch: Epoch) -> bool {
        let is_it = self.closed.get(&partition).is_some_and(|gate| gate.epoch <= epoch);
        is_it && self.closed.remove(&partition).is_some()
    }

    /// Forgets those that are owned under another epoch, or by nobody.
    pub fn keep(&mut self, epoch_of: impl Fn(PartitionId) -> Option<Epoch>) {
        self.closed.retain(|partition, gate| epoch_of(*partition) == Some(gate.epoch));
    }

    /// When somebody may ask who may not now, of those who wait. A gate that nobody waits at may
    /// stay closed for long, and concerns nobody.
    pub fn deadline(&self, is_waited_for: impl Fn(PartitionId) -> bool) -> Option<Timestamp> {
        let waited_for = self.closed.iter().filter(|(partition, _)| is_waited_for(**partition));
        waited_for.map(|(_, gate)| gate.again).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp(1_000_000);
    const IT: PartitionId = PartitionId(7);

    fn asks(gates: &mut Gates, epoch: u64, now: Timestamp) -> bool {
        let may = gates.is_open(IT, Epoch(epoch), now);
        if may {
            gates.sent(IT, Epoch(epoch), now);
        }
        may
    }

    #[test]
    fn one_asks_for_all_until_one_is_taken() {
        let mut gates = Gates::default();
        assert!(asks(&mut gates, 3, NOW) && asks(&mut gates, 3, NOW));
        assert!(gates.turned_away(IT, Epoch(3), NOW) && !gates.turned_away(IT, Epoch(3), NOW));
        assert!(!asks(&mut gates, 3, NOW));
        let later = NOW.plus(PACE);
        assert_eq!(gates.deadline(|partition| partition == IT), Some(later));
        assert_eq!(gates.deadline(|_| false), None, "nobody waits there");
        assert!(asks(&mut gates, 3, later) && !asks(&mut gates, 3, later), "one, not all");
        assert!(gates.is_open(PartitionId(8), Epoch(3), later), "others are not concerned");
        assert!(gates.taken(IT, Epoch(3)) && !gates.taken(IT, Epoch(3)));
        assert!(asks(&mut gates, 3, later) && asks(&mut gates, 3, later));
    }

    #[test]
    fn another_owner_is_asked_at_once_and_an_old_word_closes_nothing() {
        let mut gates = Gates::default();
        gates.turned_away(IT, Epoch(3), NOW);
        assert!(asks(&mut gates, 4, NOW) && asks(&mut gates, 4, NOW));
        assert!(gates.turned_away(IT, Epoch(4), NOW));
        assert!(!gates.turned_away(IT, Epoch(3), NOW.plus(PACE)));
        assert!(!asks(&mut gates, 4, NOW));
        assert!(!gates.taken(IT, Epoch(3)), "somebody else took that");
        gates.keep(|_| Some(Epoch(4)));
        assert!(!asks(&mut gates, 4, NOW));
        gates.keep(|_| None);
        assert_eq!(gates.deadline(|_| true), None);
    }
}
