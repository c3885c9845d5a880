//! Builds cases for the parsers of strangers' bytes, from a seed: what is right, and what something
//! was changed in. `FUZZ_SEEDS=n` says how many; a case that fails says how to repeat it alone.
//! In: a seed. Out: bytes.
//! Not here: what must hold (`http/tests/fuzz.rs`, `balancer/header.rs`, `pgwire/fuzz.rs`).

use std::env;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

/// Runs a check for many seeds.
pub(super) fn cases(seeds: u64, check: impl Fn(&mut Random)) {
    let number = |name| env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let (from, count) = match number("FUZZ_SEED") {
        Some(seed) => (seed, 1),
        None => (0, number("FUZZ_SEEDS").unwrap_or(seeds)),
    };
    for seed in from..from + count {
        let run = || check(&mut Random::new(seed));
        if let Err(panic) = catch_unwind(AssertUnwindSafe(run)) {
            eprintln!("seed {seed}; to repeat it alone: FUZZ_SEED={seed}");
            resume_unwind(panic);
        }
    }
}

/// Numbers that look like chance, the same for a seed in every run.
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        let mixed = (seed + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        Self((mixed ^ mixed >> 29).wrapping_mul(0xbf58_476d_1ce4_e5b9) | 1)
    }

    pub(super) fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as usize % end
    }

    /// One time in so many.
    pub(super) fn one_in(&mut self, times: usize) -> bool {
        self.below(times) == 0
    }

    pub(super) fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }

    /// Changes something, a few times.
    pub(super) fn mutate(&mut self, bytes: &mut Vec<u8>, pieces: &[&[u8]]) {
        for _ in 0..=self.below(3) {
            let at = self.below(bytes.len() + 1);
            let end = (at + self.below(6)).min(bytes.len());
            match self.below(7) {
                0 => drop(bytes.drain(at..end)),
                1 => {
                    let piece = self.pick(pieces);
                    bytes.splice(at..at, piece.iter().copied());
                }
                2 => {
                    let piece = self.pick(pieces);
                    bytes.splice(at..end, piece.iter().copied());
                }
                3 if at < bytes.len() => bytes[at] = self.below(256) as u8,
                4 if at < bytes.len() => bytes[at] ^= 1 << self.below(8),
                5 => {
                    let again = bytes[at..end].to_vec();
                    bytes.splice(at..at, again);
                }
                6 if self.one_in(3) => bytes.truncate(at),
                _ => {}
            }
        }
    }

    /// The bytes in pieces, as a network may bring them.
    pub(super) fn cut<'b>(&mut self, mut bytes: &'b [u8]) -> Vec<&'b [u8]> {
        let most = self.pick(&[1, 2, 7, 40, 1000]);
        let mut pieces = Vec::new();
        while !bytes.is_empty() {
            let (piece, rest) = bytes.split_at((1 + self.below(most)).min(bytes.len()));
            pieces.push(piece);
            bytes = rest;
        }
        pieces
    }
}
