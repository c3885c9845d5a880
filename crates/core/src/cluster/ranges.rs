//! Tells partitions as a person would list them: what follows each other as a range.

use crate::ids::PartitionId;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

/// `0-3, 7`, in the order in which they come; past so many ranges only how many more there are.
pub fn ranges(all: impl IntoIterator<Item = PartitionId>, shown_max: usize) -> String {
    let mut ranges: Vec<(u32, u32)> = Vec::new();
    for PartitionId(id) in all {
        match ranges.last_mut() {
            Some((_, last)) if last.checked_add(1) == Some(id) => *last = id,
            Some(_) | None => ranges.push((id, id)),
        }
    }
    let word = |(first, last): &(u32, u32)| match first == last {
        true => format!("{first}"),
        false => format!("{first}-{last}"),
    };
    let shown: Vec<String> = ranges.iter().take(shown_max).map(word).collect();
    let rest = ranges.iter().skip(shown_max).map(|(first, last)| last - first + 1);
    match rest.sum::<u32>() {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_follows_each_other_is_one_range() {
        let said = |ids: &[u32], max| ranges(ids.iter().copied().map(PartitionId), max);
        assert_eq!(said(&[], 3), "");
        assert_eq!(said(&[5], 3), "5");
        assert_eq!(said(&[0, 1, 2, 3, 7, 9, 10], 3), "0-3, 7, 9-10");
        assert_eq!(said(&[0, 1, 2, 3, 7, 9, 10], 1), "0-3 and 3 more");
        assert_eq!(said(&[u32::MAX, 0], 3), format!("{}, 0", u32::MAX));
    }
}
