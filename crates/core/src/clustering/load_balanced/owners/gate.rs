//! Decides how often a copy is asked that turned a request away as not its own.
//! In: what copies answered, routes. Out: whether a request may go now, and when to ask again.
//! States of a partition: open → (turned away) closed: one request in each `PACE` asks → (taken)
//! open. Another epoch opens it: its owner has turned nothing away yet.
//! A copy hears of what it owns a moment after the doors do. All who wait would ask it at once, be
//! turned away, and ask again; so one asks for all. What was on its way when the last one turned
//! away came back says nothing of now, even if it is answered later: its owner may have begun it
//! while it still did. Which of two reached it first is not known: one had to connect before.
//! Keeps: INV-15 who turned one away is asked by one in each `PACE`.
//! Not here: where the owner is (`owners.rs`), whether a request may be sent once more (the shell,
//! which knows what was sent).
//! Tested by: below.

use super::Routed;
use crate::clustering::load_balanced::attempts::PACE;
use crate::ids::{Epoch, PartitionId};
use crate::time::Timestamp;
use alloc::collections::BTreeMap;

#[derive(Clone, Copy, Debug)]
struct Gate {
    epoch: Epoch,
    again: Timestamp,
    /// When the last one came back that was turned away.
    heard: Timestamp,
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
    pub fn turned_away(&mut self, it: Routed, now: Timestamp) -> bool {
        let Routed { partition, epoch, at: _ } = it;
        let known = self.closed.get(&partition).map(|gate| gate.epoch);
        if known.is_none_or(|known| known <= epoch) {
            self.closed.insert(partition, Gate { epoch, again: now.plus(PACE), heard: now });
        }
        known.is_none_or(|known| known < epoch)
    }

    /// It was taken; true if others waited for that.
    pub fn taken(&mut self, it: Routed) -> bool {
        let opens =
            |gate: &Gate| gate.epoch < it.epoch || gate.epoch == it.epoch && gate.heard < it.at;
        let is_it = self.closed.get(&it.partition).is_some_and(opens);
        is_it && self.closed.remove(&it.partition).is_some()
    }

    /// Forgets those that are owned under another epoch. One whose owner is known no more may be
    /// its again, and has then not taken anything.
    pub fn keep(&mut self, epoch_of: impl Fn(PartitionId) -> Option<Epoch>) {
        self.closed
            .retain(|partition, gate| epoch_of(*partition).is_none_or(|epoch| epoch == gate.epoch));
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

    fn routed(epoch: u64, at: Timestamp) -> Routed {
        Routed { partition: IT, epoch: Epoch(epoch), at }
    }

    #[test]
    fn one_asks_for_all_until_one_is_taken() {
        let mut gates = Gates::default();
        let first = routed(3, NOW);
        assert!(asks(&mut gates, 3, NOW) && asks(&mut gates, 3, NOW));
        assert!(gates.turned_away(first, NOW) && !gates.turned_away(first, NOW));
        assert!(!asks(&mut gates, 3, NOW));
        let later = NOW.plus(PACE);
        assert_eq!(gates.deadline(|partition| partition == IT), Some(later));
        assert_eq!(gates.deadline(|_| false), None, "nobody waits there");
        assert!(asks(&mut gates, 3, later) && !asks(&mut gates, 3, later), "one, not all");
        assert!(gates.is_open(PartitionId(8), Epoch(3), later), "others are not concerned");
        let second = routed(3, later);
        assert!(gates.taken(second) && !gates.taken(second));
        assert!(asks(&mut gates, 3, later) && asks(&mut gates, 3, later));
    }

    #[test]
    fn what_was_on_its_way_when_one_was_turned_away_opens_nothing() {
        let mut gates = Gates::default();
        // The first one waits for its connection. The second one, sent after it, is there before,
        // and begun; then the partition is asked back, and the first one arrives.
        let (second, heard) = (NOW.plus(PACE), NOW.plus(PACE * 9));
        gates.turned_away(routed(3, NOW), heard);
        assert!(!gates.taken(routed(3, NOW)) && !gates.taken(routed(3, second)));
        assert!(!gates.taken(routed(3, heard)), "sent with it, or before");
        let later = heard.plus(PACE);
        assert!(asks(&mut gates, 3, later) && !asks(&mut gates, 3, later));
        // Another one of before comes back: what asks meanwhile may be there before or after it.
        gates.turned_away(routed(3, second), later.plus(PACE / 2));
        assert!(!gates.taken(routed(3, later)));
        let last = later.plus(PACE * 2);
        assert!(asks(&mut gates, 3, last) && gates.taken(routed(3, last)));
        assert!(asks(&mut gates, 3, last) && asks(&mut gates, 3, last));
    }

    #[test]
    fn another_owner_is_asked_at_once_and_an_old_word_closes_nothing() {
        let mut gates = Gates::default();
        gates.turned_away(routed(3, NOW), NOW);
        assert!(asks(&mut gates, 4, NOW) && asks(&mut gates, 4, NOW));
        assert!(gates.turned_away(routed(4, NOW), NOW));
        assert!(!gates.turned_away(routed(3, NOW), NOW.plus(PACE)));
        assert!(!asks(&mut gates, 4, NOW));
        assert!(!gates.taken(routed(3, NOW)), "somebody else took that");
        gates.keep(|_| Some(Epoch(4)));
        assert!(!asks(&mut gates, 4, NOW));
        gates.keep(|_| None);
        assert!(!asks(&mut gates, 4, NOW), "it has taken nothing, and may be the owner again");
        gates.keep(|_| Some(Epoch(5)));
        assert_eq!(gates.deadline(|_| true), None);
    }
}
