//! Decides which endpoint a key belongs to, so that a change of the group moves only the keys that
//! it must: each endpoint has a score for each key, the best one wins.
//! In: the hashes of key and endpoint, and the endpoint's share. Out: a score.
//! A share of 2 wins twice as many keys as a share of 1: the score is `share / -ln(hash)`, after
//! Schindelhauer and Schomaker's weighted rendezvous hashing. It is computed in whole numbers, so
//! that every node and every processor gives the same answer.
//! Tested by: below.

use core::fmt::{self, Write as _};

/// Binary digits behind the point of `minus_log2`.
const FRACTION: u32 = 16;

/// The score of an endpoint for a key; greater wins. 0 for a share of 0.
pub fn score(key: u64, endpoint: u64, share: u32) -> u64 {
    (u64::from(share) << 32) / minus_log2(mix(key ^ mix(endpoint))).max(1)
}

/// A hash of bytes for keys and the names of endpoints (FNV-1a, then mixed).
pub fn hash(bytes: &[u8]) -> u64 {
    mix(fnv(FNV_BASIS, bytes))
}

/// The hash of how something is written, which takes no memory.
pub fn hash_of(value: impl fmt::Display) -> u64 {
    let mut written = Written(FNV_BASIS);
    // What is hashed is never full.
    let _ = write!(written, "{value}");
    mix(written.0)
}

const FNV_BASIS: u64 = 0xcbf2_9ce4_8422_2325;

fn fnv(hash: u64, bytes: &[u8]) -> u64 {
    bytes.iter().fold(hash, |h, b| (h ^ u64::from(*b)).wrapping_mul(0x100_0000_01b3))
}

/// The part that was written so far.
struct Written(u64);

impl fmt::Write for Written {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0 = fnv(self.0, text.as_bytes());
        Ok(())
    }
}

/// Spreads every bit of the input over the output (the finalizer of SplitMix64).
pub(super) const fn mix(value: u64) -> u64 {
    let value = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

/// `-log2(hash / 2^64)` with `FRACTION` binary digits behind the point: the digits of a logarithm
/// come one by one from squaring.
fn minus_log2(hash: u64) -> u64 {
    let hash = hash.max(1);
    let zeros = hash.leading_zeros();
    let mut mantissa = hash << zeros;
    let mut fraction = 0;
    for _ in 0..FRACTION {
        let square = (u128::from(mantissa) * u128::from(mantissa)) >> 63;
        let carry = u32::try_from(square >> 64).unwrap_or(1);
        fraction = (fraction << 1) | u64::from(carry);
        mantissa = u64::try_from(square >> carry).unwrap_or(u64::MAX);
    }
    (u64::from(zeros + 1) << FRACTION) - fraction
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;

    fn winner(key: u64, shares: &[u32]) -> usize {
        let scores: Vec<u64> = shares
            .iter()
            .enumerate()
            .map(|(i, share)| score(hash(&key.to_be_bytes()), hash(&[i as u8]), *share))
            .collect();
        (0..scores.len()).max_by_key(|i| scores[*i]).unwrap()
    }

    #[test]
    fn the_logarithm_is_right_where_it_is_known() {
        assert_eq!(minus_log2(1 << 63), 1 << FRACTION);
        assert_eq!(minus_log2(1 << 62), 2 << FRACTION);
        // log2(0.75) = -0.415037…
        assert_eq!(minus_log2(3 << 62), (0.415_037_5 * f64::from(1 << FRACTION)).round() as u64);
        assert_eq!(minus_log2(0), 64 << FRACTION);
    }

    #[test]
    fn what_is_hashed_as_it_is_written_is_hashed_as_its_text() {
        for text in ["", "192.0.2.1", "2001:db8::1"] {
            assert_eq!(hash_of(text), hash(text.as_bytes()));
        }
        let address = core::net::Ipv4Addr::new(192, 0, 2, 1);
        assert_eq!(hash_of(address), hash(b"192.0.2.1"), "in more pieces than one");
    }

    #[test]
    fn keys_are_spread_by_share() {
        let mut won = [0_i32; 3];
        for key in 0..40_000 {
            won[winner(key, &[1, 2, 1])] += 1;
        }
        for (won, wanted) in won.iter().zip([10_000, 20_000, 10_000]) {
            assert!((won - wanted).abs() < 500, "{won} of {wanted}");
        }
    }

    #[test]
    fn only_the_keys_of_what_left_move() {
        for key in 0..5_000 {
            let before = winner(key, &[3, 3, 2, 1]);
            let after = winner(key, &[3, 3, 0, 1]);
            assert!(before == after || before == 2, "{key} moved from {before} to {after}");
        }
    }
}
