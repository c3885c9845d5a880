//! Decides which known word somebody meant.
//! In: what was written and what could have been. Out: the nearest, if it is near.

/// Longer words are no typing errors of ours, and their distance costs time.
const WORD_CHARS_MAX: usize = 64;

/// The word that was probably meant: at most a third of its letters are wrong, missing, too many or
/// swapped with a neighbour.
pub(crate) fn nearest<'a>(written: &str, known: &[&'a str]) -> Option<&'a str> {
    if written.chars().count() > WORD_CHARS_MAX {
        return None;
    }
    let plain = |word: &str| word.to_lowercase().replace('-', "_");
    let written = plain(written);
    known
        .iter()
        .map(|word| (distance(&written, &plain(word)), *word))
        .filter(|(distance, word)| *distance <= (word.chars().count() / 3).max(1))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, word)| word)
}

/// Optimal string alignment: insertions, deletions, substitutions, swaps of neighbours.
fn distance(a: &str, b: &str) -> usize {
    let a: Vec<char> = a.chars().collect();
    let b: Vec<char> = b.chars().collect();
    let mut before: Vec<usize> = Vec::new();
    let mut above: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, y) in b.iter().enumerate() {
            let mut best = (above[j + 1] + 1).min(row[j] + 1).min(above[j] + usize::from(x != y));
            if i > 0 && j > 0 && *x == b[j - 1] && a[i - 1] == *y {
                best = best.min(before[j - 1] + 1);
            }
            row.push(best);
        }
        before = std::mem::replace(&mut above, row);
    }
    above[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn typing_errors_find_their_word_and_other_words_do_not() {
        let known = ["address", "zone", "role", "priority", "bind", "read_listen", "listen"];
        for (written, meant) in [
            ("adress", Some("address")),
            ("addresss", Some("address")),
            ("adderss", Some("address")),
            ("Zone", Some("zone")),
            ("read-listen", Some("read_listen")),
            ("lisetn", Some("listen")),
            ("roles", Some("role")),
            ("colour", None),
            ("x", None),
        ] {
            assert_eq!(nearest(written, &known), meant, "{written}");
        }
        assert_eq!(nearest(&"a".repeat(100_000), &known), None);
    }

    #[test]
    fn distances() {
        for (a, b, expected) in [
            ("", "", 0),
            ("", "abc", 3),
            ("abc", "", 3),
            ("abc", "acb", 1),
            ("kitten", "sitting", 3),
        ] {
            assert_eq!(distance(a, b), expected, "{a} {b}");
        }
    }
}
