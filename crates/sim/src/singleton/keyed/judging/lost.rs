//! Decides whether anybody waits for a copy that is known to be gone, and whether anybody is cut
//! who may be answered: remembers whose each partition was.
//! Not here: what a door cuts (`../door.rs`).

use super::{DOOR_LATE, Sent};
use crate::singleton::{World, name};
use tandem_core::cluster::partitions::Owner;
use tandem_core::cluster::state::{ClusterState, ServiceState};
use tandem_core::spec::Seat;

impl World {
    /// Whose each partition is, and from which epoch on.
    pub(super) fn note_owners(&mut self) {
        let Some(work) = &self.work else { return };
        let judged = &mut self.keyed.judged;
        for state in self.agreement.after(judged.seen) {
            judged.seen += 1;
            let table = state.services.get(work).and_then(|it| it.partitions.as_ref());
            let Some(table) = table else { continue };
            for (id, it) in table.iter() {
                it.owner.iter().for_each(|owner| {
                    judged.past.entry((id, it.epoch)).or_insert_with(|| owner.clone());
                });
                let known = judged.owners.get(&id).map(|(owner, _)| owner);
                match &it.owner {
                    Some(owner) if known == Some(owner) => {}
                    Some(owner) => _ = judged.owners.insert(id, (owner.clone(), it.epoch)),
                    None => _ = judged.owners.remove(&id),
                }
            }
        }
    }

    /// As whose it was sent, by what was agreed.
    fn sent_to(&mut self, it: &Sent) -> Option<Owner> {
        self.note_owners();
        self.keyed.judged.past.get(&(it.routed.partition, it.routed.epoch)).cloned()
    }

    fn seat_of<'a>(&self, state: &'a ClusterState, owner: &Owner) -> Option<&'a ServiceState> {
        state.services.get(&Seat::name(self.work.as_ref()?, &owner.node))
    }

    /// What is cut waits for nobody: by what is agreed, whoever had it is gone.
    pub(in crate::singleton::keyed) fn judge_cut(&mut self, it: &Sent) {
        let Some(owner) = self.sent_to(it) else { return };
        let state = self.agreement.last();
        if self.seat_of(state, &owner).is_some_and(|seat| seat.sitting <= owner.sitting) {
            self.broken(format!("{} cuts {it:?}, which may be answered", name(it.door)));
        }
    }

    /// Nobody waits for a copy of which the door's node knows that it is gone.
    pub(super) fn judge_lost(&mut self, n: usize) {
        let (now, agreed, inc) = (self.now, self.agreed(n), self.nodes[n].daemons);
        let sent: Vec<Sent> =
            self.keyed.sent().filter(|it| (it.door, it.inc) == (n, inc)).collect();
        for it in sent {
            let Some(owner) = self.sent_to(&it) else { continue };
            let Some(seat) = self.seat_of(&agreed, &owner).map(|seat| seat.sitting) else {
                continue;
            };
            let known = self.keyed.judged.sittings.entry((n, it.to)).or_insert((seat, now));
            if known.0 != seat {
                *known = (seat, now);
            }
            let waited = now - known.1.max(it.at);
            if seat > owner.sitting && waited > DOOR_LATE {
                let (n, waited) = (name(n), waited / 1000);
                self.broken(format!("{it:?} waits at {n} for a copy known gone {waited} ms ago"));
            }
        }
    }
}
