//! Decides what a name stands for, where each answer may tell only a part of it.
//! In: answers. Out: addresses.
//! States: whole → (an address that had gone is back) in parts → (none came back for long) whole.
//! Most names tell all that they stand for: what an answer lacks is gone at once. Some tell a few
//! of many, others each time; to take each answer for all would make endpoints come and go, with
//! their connections, their past, and the keys that belong to them.
//! Not here: questions (the shell), whether an address serves (`ejection.rs`).
//! Tested by: below.

use alloc::vec::Vec;

/// So many answers are remembered: what comes back within them had not gone, and where that
/// happens, an address stays until so many have lacked it.
const REMEMBERED: u32 = 30;

/// What one name was said to stand for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answers<A> {
    /// Each address, and how many answers have lacked it since.
    told: Vec<(A, u32)>,
    /// For so many more answers it tells only parts.
    in_parts: u32,
}

impl<A: Ord + Clone> Answers<A> {
    /// A name that stands for these.
    pub fn of(addresses: impl IntoIterator<Item = A>) -> Self {
        Self { told: addresses.into_iter().map(|it| (it, 0)).collect(), in_parts: 0 }
    }

    /// What it stands for now, in order.
    pub fn addresses(&self) -> Vec<A> {
        let is_there = |(_, lacked): &&(A, u32)| *lacked == 0 || self.in_parts > 0;
        self.told.iter().filter(is_there).map(|(address, _)| address.clone()).collect()
    }

    /// Takes an answer.
    pub fn answered(&mut self, found: &[A]) {
        self.in_parts = self.in_parts.saturating_sub(1);
        for (address, lacked) in &mut self.told {
            if !found.contains(address) {
                *lacked += 1;
            } else if core::mem::take(lacked) > 0 {
                self.in_parts = REMEMBERED;
            }
        }
        self.told.retain(|(_, lacked)| *lacked < REMEMBERED);
        for address in found {
            if !self.told.iter().any(|(it, _)| it == address) {
                self.told.push((address.clone(), 0));
            }
        }
        self.told.sort_unstable();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_answer_lacks_is_gone_where_answers_are_whole() {
        let mut name = Answers::of([1, 2]);
        name.answered(&[2, 3]);
        assert_eq!(name.addresses(), [2, 3]);
        name.answered(&[4]);
        assert_eq!(name.addresses(), [4]);
    }

    #[test]
    fn what_comes_back_had_not_gone() {
        let mut name = Answers::of([1, 2]);
        name.answered(&[3, 4]);
        assert_eq!(name.addresses(), [3, 4]);
        // Each answer tells two of four from here on: nobody comes and goes any more.
        for turn in 0..200 {
            name.answered(if turn % 2 == 0 { &[1, 2] } else { &[3, 4] });
            assert_eq!(name.addresses(), [1, 2, 3, 4]);
        }
        // One of them is gone for good.
        for turn in 0..REMEMBERED {
            assert_eq!(name.addresses(), [1, 2, 3, 4]);
            name.answered(if turn % 2 == 0 { &[1, 2] } else { &[3] });
        }
        assert_eq!(name.addresses(), [1, 2, 3]);
    }

    #[test]
    fn answers_become_whole_again() {
        let mut name = Answers::of([1, 2]);
        name.answered(&[1]);
        name.answered(&[1, 2]);
        for _ in 0..REMEMBERED {
            name.answered(&[1, 2]);
        }
        name.answered(&[1]);
        assert_eq!(name.addresses(), [1], "that was long ago");
    }
}
