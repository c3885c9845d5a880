//! Decides what of a door's work waits for nobody: it was led to a copy that is proven gone.
//! In: what each look finds agreed, and where it leads. Out: places where all that was led there
//! before is over.
//! States of a place: led to, for a sitting → (led there for a later one, or no more) led to →
//! (the sitting passed) over.
//! Keeps: INV-15 what was sent to an owner that released its partition is never over by that: its
//! answer may be on its way. And what is led to a copy that came after is not over either.
//! Not here: where work is led (`routing.rs`), who cuts what is over (the shell).
//! Tested by: `tests/led.rs`, the simulator (`sim/src/singleton/keyed`).

use super::routing::RoutingView;
use crate::cluster::partitions::{Owner, Partitions};
use crate::ids::NodeId;
use crate::spec::Seat;
use alloc::collections::BTreeMap;
use alloc::vec::Vec;

/// Where a door has led work, and to whose copy there: a node, and its sitting then.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Led<E>(BTreeMap<E, Owner>);

impl<E> Default for Led<E> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<E: Copy + Ord> Led<E> {
    /// Takes note of where work is led from this look on: to these places, each a node's. Returns
    /// those where all that was led there before is over: it is cut before anything is led anew.
    pub fn look(
        &mut self,
        view: &RoutingView<'_>,
        leads: impl IntoIterator<Item = (E, NodeId)>,
    ) -> Vec<E> {
        let table = view.services.get(view.service).and_then(|state| state.partitions.as_ref());
        let mut over = Vec::new();
        self.0.retain(|place, owner| {
            let is_over = table.is_some_and(|table| is_gone(view, table, owner));
            over.extend(is_over.then_some(*place));
            !is_over
        });
        for (place, node) in leads {
            if let Some(seat) = view.services.get(&Seat::name(view.service, &node)) {
                self.0.insert(place, Owner { node, sitting: seat.sitting });
            }
        }
        over
    }
}

/// Whether a copy is proven gone. A node that was taken out owned nothing then, so what it answered
/// last may be on its way; unless an operator vouched for it that it is gone.
fn is_gone(view: &RoutingView<'_>, table: &Partitions, it: &Owner) -> bool {
    match view.services.get(&Seat::name(view.service, &it.node)) {
        Some(seat) => seat.sitting > it.sitting,
        None => table.owned_by(&it.node, it.sitting) > 0,
    }
}
