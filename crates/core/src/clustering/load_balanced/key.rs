//! Decides what a key stands for: which part of a request names what it belongs to, and which of
//! so many equal parts that is.
//! In: what an owner wrote, the bytes of a key. Out: `Source`, a hash, a place.
//! Keeps: the same bytes give the same place on every node and in every version: clients may
//! compute it for themselves.
//! Not here: how a request is read (the shell), who gets a key (`balance.rs`).
//! Tested by: below.

use super::rendezvous;
use alloc::string::String;
use serde::{Deserialize, Serialize};

/// Which part of a request is its key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Source {
    /// The address of the client. Every request has one.
    Address,
    /// The value of a field of the head.
    Header(String),
    /// The value of a cookie.
    Cookie(String),
    /// One segment of the path, which count from 1.
    PathSegment(u32),
}

/// The hash of a key: FNV-1a with 64 bits, then the finalizer of SplitMix64.
pub fn hash(key: &[u8]) -> u64 {
    rendezvous::hash(key)
}

/// Which of so many equal parts a key belongs to: its hash modulo their number. 0 of none.
pub fn part(key: &[u8], parts: u32) -> u32 {
    part_of(hash(key), parts)
}

/// The same for a key of which only the hash is known.
pub fn part_of(hash: u64, parts: u32) -> u32 {
    let part = hash.checked_rem(u64::from(parts)).unwrap_or(0);
    u32::try_from(part).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What clients compute for themselves may never change.
    #[test]
    fn a_key_has_the_same_part_for_ever() {
        assert_eq!(hash(b""), 0xc381_7c01_6ba4_ff30);
        assert_eq!(hash(b"shop-17"), 0x8675_b487_e9e6_323a);
        assert_eq!([1, 7, 64, 4096].map(|parts| part(b"shop-17", parts)), [0, 5, 58, 570]);
        // As docs/operating/partitions.md has them.
        let table: [(&[u8], [u32; 3]); 4] = [
            (b"", [0, 48, 3888]),
            (b"shop-17", [6, 58, 570]),
            (b"127.0.0.1", [4, 28, 1372]),
            ("\u{fc}".as_bytes(), [9, 5, 3141]),
        ];
        for (key, parts) in table {
            assert_eq!([12, 64, 4096].map(|count| part(key, count)), parts, "{key:?}");
        }
        assert_eq!(part(b"anything", 0), 0);
    }

    #[test]
    fn parts_are_of_equal_size() {
        let mut count = [0_u32; 10];
        for key in 0..20_000_u32 {
            count[part(&key.to_be_bytes(), 10) as usize] += 1;
        }
        assert!(count.iter().all(|count| count.abs_diff(2_000) < 200), "{count:?}");
    }
}
