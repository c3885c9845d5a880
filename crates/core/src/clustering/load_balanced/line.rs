//! Decides who of those that wait for a place at an endpoint goes first: whoever came first.
//! In: who waits, and for which endpoint if only one will do. Out: tickets, and who is served.
//! Keeps: nobody who comes overtakes somebody who waits for the same place; whoever waits for one
//! endpoint holds up nobody who can go to another; no more wait than may.
//! Not here: whether there is a place (`balance.rs`), and the waiting (the shell).
//! Tested by: below.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::ops::Bound;

/// The only endpoint that will do for somebody; none: any will.
type Place = Option<u64>;

/// Those who wait.
#[derive(Debug)]
pub struct Line<W> {
    next: u64,
    /// Who waits for what.
    places: BTreeMap<u64, Place>,
    /// Those who wait for the same, in the order in which they came. None of them is empty.
    queues: BTreeMap<Place, BTreeMap<u64, W>>,
}

impl<W> Default for Line<W> {
    fn default() -> Self {
        Self { next: 0, places: BTreeMap::new(), queues: BTreeMap::new() }
    }
}

impl<W> Line<W> {
    /// How many wait.
    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// Nobody waits.
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// How many wait for each endpoint that alone will do for them.
    pub fn waiting_at(&self) -> BTreeMap<u64, u64> {
        let count = |(at, queue): (&Place, &BTreeMap<u64, W>)| Some(((*at)?, queue.len() as u64));
        self.queues.iter().filter_map(count).collect()
    }

    /// Whether somebody waits for this endpoint, and for no other.
    pub fn waits_at(&self, at: u64) -> bool {
        self.queues.contains_key(&Some(at))
    }

    /// Whether somebody waits who could take what a newcomer would.
    pub fn is_before(&self, at: Place) -> bool {
        self.queues.contains_key(&None) || self.queues.contains_key(&at)
    }

    /// A ticket at the end; none if `max` wait already.
    pub fn join(&mut self, at: Place, who: W, max: usize) -> Option<u64> {
        if self.places.len() >= max {
            return None;
        }
        let ticket = self.next;
        self.next += 1;
        self.places.insert(ticket, at);
        self.queues.entry(at).or_default().insert(ticket, who);
        Some(ticket)
    }

    /// Somebody waits no longer.
    pub fn leave(&mut self, ticket: u64) -> Option<W> {
        let at = self.places.remove(&ticket)?;
        let queue = self.queues.get_mut(&at)?;
        let who = queue.remove(&ticket);
        if queue.is_empty() {
            self.queues.remove(&at);
        }
        who
    }

    /// Gives to each in turn what there is for them. Once there is nothing for somebody, there is
    /// nothing for those behind who wait for the same; once there is nothing for somebody who would
    /// go anywhere, there is nothing for anybody behind. So the many who wait for one endpoint cost
    /// one question.
    pub fn serve<P>(&mut self, mut give: impl FnMut(&W) -> Option<P>) -> Vec<(W, P)> {
        let first = |(at, queue): (&Place, &BTreeMap<u64, W>)| {
            queue.first_key_value().map(|(ticket, _)| (*ticket, *at))
        };
        let mut turns: BTreeMap<u64, Place> = self.queues.iter().filter_map(first).collect();
        let mut given = Vec::new();
        while let Some((ticket, at)) = turns.pop_first() {
            let Some(queue) = self.queues.get(&at) else { continue };
            match queue.get(&ticket).and_then(&mut give) {
                Some(place) => {
                    given.push((ticket, place));
                    let behind = (Bound::Excluded(ticket), Bound::Unbounded);
                    turns.extend(queue.range(behind).next().map(|(next, _)| (*next, at)));
                }
                None if at.is_none() => break,
                None => {}
            }
        }
        let served = given.into_iter();
        served.filter_map(|(ticket, place)| Some((self.leave(ticket)?, place))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_come_first_served() {
        let mut line = Line::default();
        for who in ['a', 'b', 'c'] {
            assert!(line.join(None, who, 3).is_some());
        }
        assert_eq!(line.join(None, 'd', 3), None, "no more than three may wait");
        let mut places = 2;
        let served = line.serve(|_| {
            places -= 1;
            (places >= 0).then_some(places)
        });
        assert_eq!(served, [('a', 1), ('b', 0)]);
        assert!(line.is_before(None) && line.is_before(Some(7)), "who comes waits too");
        assert_eq!(line.serve(|_| None::<()>), []);
        assert_eq!((line.leave(2), line.leave(2), line.is_empty()), (Some('c'), None, true));
        assert!(!line.is_before(None));
    }

    #[test]
    fn who_waits_for_one_endpoint_holds_up_nobody_else() {
        let mut line = Line::default();
        line.join(Some(1), 'a', 9);
        line.join(Some(2), 'b', 9);
        assert!(!line.is_before(None) && line.is_before(Some(1)) && !line.is_before(Some(3)));
        line.join(None, 'c', 9);
        line.join(Some(2), 'd', 9);
        // One place, at the second endpoint.
        let mut free = true;
        let served = line.serve(|who| (*who != 'a' && core::mem::take(&mut free)).then_some(()));
        assert_eq!(served, [('b', ())]);
        assert_eq!(line.len(), 3);
        assert_eq!(line.waiting_at(), [(1, 1), (2, 1)].into());
        assert!(line.waits_at(1) && !line.waits_at(3));
    }
    #[test]
    fn many_who_wait_for_one_endpoint_cost_one_question() {
        let mut line = Line::default();
        for who in 0..1000 {
            line.join(Some(u64::from(who % 2 == 0)), who, 1000);
        }
        let mut asked = 0;
        let served = line.serve(|_| {
            asked += 1;
            None::<()>
        });
        assert_eq!((served.len(), asked), (0, 2));
        // Two places at one of them go to the first two who wait there.
        let mut places = 2;
        let served = line.serve(|who| {
            let is_taken = who % 2 == 0 && places > 0;
            places -= i32::from(is_taken);
            is_taken.then_some(())
        });
        assert_eq!(served, [(0, ()), (2, ())]);
        assert_eq!((line.len(), line.leave(4), line.leave(4)), (998, Some(4), None));
        for ticket in 0..1000 {
            line.leave(ticket);
        }
        assert!(line.is_empty() && !line.is_before(Some(0)) && !line.is_before(Some(1)));
    }
}
