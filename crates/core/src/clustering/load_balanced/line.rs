//! Decides who of those that wait for a place at an endpoint goes first: whoever came first.
//! In: who waits, and for which endpoint if only one will do. Out: tickets, and who is served.
//! Keeps: nobody who comes overtakes somebody who waits for the same place; whoever waits for one
//! endpoint holds up nobody who can go to another; no more wait than may.
//! Not here: whether there is a place (`balance.rs`), and the waiting (the shell).
//! Tested by: below.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

#[derive(Debug)]
struct Waiter<W> {
    /// The only endpoint that will do; none: any will.
    at: Option<u64>,
    who: W,
}

/// Those who wait.
#[derive(Debug)]
pub struct Line<W> {
    next: u64,
    waiting: BTreeMap<u64, Waiter<W>>,
    /// So many go anywhere.
    anywhere: usize,
}

impl<W> Default for Line<W> {
    fn default() -> Self {
        Self { next: 0, waiting: BTreeMap::new(), anywhere: 0 }
    }
}

impl<W> Line<W> {
    /// How many wait.
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Nobody waits.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// How many wait for each endpoint that alone will do for them.
    pub fn waiting_at(&self) -> BTreeMap<u64, u64> {
        let mut count = BTreeMap::new();
        for at in self.waiting.values().filter_map(|waiter| waiter.at) {
            *count.entry(at).or_default() += 1;
        }
        count
    }

    /// Whether somebody waits who could take what a newcomer would.
    pub fn is_before(&self, at: Option<u64>) -> bool {
        let same = |waiter: &Waiter<W>| waiter.at == at;
        self.anywhere > 0 || (at.is_some() && self.waiting.values().any(same))
    }

    /// A ticket at the end; none if `max` wait already.
    pub fn join(&mut self, at: Option<u64>, who: W, max: usize) -> Option<u64> {
        if self.waiting.len() >= max {
            return None;
        }
        let ticket = self.next;
        self.next += 1;
        self.anywhere += usize::from(at.is_none());
        self.waiting.insert(ticket, Waiter { at, who });
        Some(ticket)
    }

    /// Somebody waits no longer.
    pub fn leave(&mut self, ticket: u64) -> Option<W> {
        let Waiter { at, who } = self.waiting.remove(&ticket)?;
        self.anywhere -= usize::from(at.is_none());
        Some(who)
    }

    /// Gives to each in turn what there is for them. Once there is nothing for somebody who would
    /// go anywhere, there is nothing for those behind.
    pub fn serve<P>(&mut self, mut give: impl FnMut(&W) -> Option<P>) -> Vec<(W, P)> {
        let mut given = Vec::new();
        for (ticket, waiter) in &self.waiting {
            match give(&waiter.who) {
                Some(place) => given.push((*ticket, place)),
                None if waiter.at.is_none() => break,
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
    }
}
