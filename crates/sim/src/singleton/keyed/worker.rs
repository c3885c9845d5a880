//! Drives what a copy does with requests: it begins what it owns, and turns everything else away.
//! What it has begun is work on the partition, and over before it confirms a release.
//! Not here: what it owns (`divided`).

use super::{ANSWER_MAX, Event, How, Sent};
use crate::event::Micros;
use crate::singleton::{Mutation, World};
use std::rc::Rc;
use tandem_core::ids::{Epoch, PartitionId};

/// What does not get through is sent again.
const AGAIN: Micros = 100_000;

/// What a copy works on.
#[derive(Clone, Debug)]
pub(super) struct Work {
    pub n: usize,
    pub life: u64,
    pub partition: PartitionId,
    /// Under which it owns that.
    pub epoch: Epoch,
    it: Rc<Sent>,
}

impl World {
    pub(super) fn on_keyed_arrives(&mut self, n: usize, it: &Rc<Sent>) {
        let is_wanted = self.keyed.requests.get(&it.id).is_some_and(|now| now.no == it.no);
        // Whoever gave up closed its connection; what was sent before may come all the same.
        if it.connects && !is_wanted || self.now > it.at + ANSWER_MAX {
            return;
        }
        if !self.net.both(it.door, n) {
            return self.push_keyed(self.now + AGAIN, Event::Arrives { n, it: it.clone() });
        }
        let Some(copy) = self.nodes[n].copy.as_ref().filter(|copy| !copy.dying) else {
            let how = if it.connects { How::Refused } else { How::Broke };
            return self.reply(n, it, how);
        };
        let takes_all = self.options.mutation == Some(Mutation::ServeAnybodys);
        let owned = copy.begins.get(&it.routed.partition).copied();
        let led_by = it.routed.epoch;
        let owned = owned.filter(|own| copy.before < led_by && led_by <= *own);
        let Some(epoch) = owned.or(takes_all.then_some(it.routed.epoch)) else {
            return self.reply(n, it, How::Misdirected);
        };
        let life = copy.life;
        let work = Work { n, life, partition: it.routed.partition, epoch, it: it.clone() };
        self.judge_begins(&work, it);
        self.is_reached(it);
        self.keyed.works.insert((it.id, it.no), work);
        self.push_keyed(self.now + it.lasts, Event::Ends { n, it: it.clone() });
    }

    fn is_reached(&mut self, it: &Sent) {
        if let Some(request) = self.keyed.requests.get_mut(&it.id).filter(|now| now.no == it.no)
            && let super::clients::At::Sent { is_reached, .. } = &mut request.at
        {
            *is_reached = true;
        }
    }

    fn reply(&mut self, n: usize, it: &Rc<Sent>, how: How) {
        let at = self.way_of_request(n, it.door);
        self.push_keyed(at, Event::Replies { n, it: it.clone(), how });
    }

    pub(super) fn on_replies(&mut self, n: usize, it: Rc<Sent>, how: How) {
        if self.now > it.at + ANSWER_MAX {
            return;
        }
        if !self.net.both(it.door, n) {
            return self.push_keyed(self.now + AGAIN, Event::Replies { n, it, how });
        }
        self.push_keyed(self.now, Event::Answered { it, how });
    }

    /// The copy has done it.
    pub(super) fn on_keyed_ends(&mut self, n: usize, it: &Rc<Sent>) {
        let Some(work) = self.keyed.works.remove(&(it.id, it.no)) else { return };
        self.judge_ends(&work);
        self.reply(n, it, How::Done);
    }

    /// Whether a copy still works on what it shall release.
    pub(crate) fn is_busy(&self, n: usize, life: u64, partition: PartitionId) -> bool {
        let is_it = |it: &Work| it.n == n && it.life == life && it.partition == partition;
        let confirms = self.options.mutation == Some(Mutation::ConfirmWhileBusy);
        !confirms && self.keyed.works.values().any(is_it)
    }

    /// What is not its own any more is ended at once.
    pub(crate) fn end_what_is_lost(&mut self, n: usize) {
        let Some(copy) = self.nodes[n].copy.as_ref() else { return };
        let (life, works) = (copy.life, copy.works.clone());
        let is_lost = |it: &Work| it.life == life && !works.contains_key(&it.partition);
        self.end_works(n, is_lost);
    }

    /// A copy is gone with all that it worked on.
    pub(crate) fn cut_works(&mut self, n: usize, life: u64) {
        self.end_works(n, |it| it.life == life);
    }

    /// A machine is off: nobody says that anything broke.
    pub(crate) fn forget_works(&mut self, n: usize) {
        self.keyed.works.retain(|_, work| work.n != n);
    }

    fn end_works(&mut self, n: usize, is_over: impl Fn(&Work) -> bool) {
        let over = self.keyed.works.iter().filter(|(_, it)| it.n == n && is_over(it));
        let over: Vec<((u64, u32), Rc<Sent>)> =
            over.map(|(key, work)| (*key, work.it.clone())).collect();
        for (key, it) in over {
            self.keyed.works.remove(&key);
            self.reply(n, &it, How::Broke);
        }
    }
}
