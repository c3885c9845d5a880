//! Decides which endpoint of a group gets the next session.
//! In: the load of each eligible endpoint, and a random number. Out: the index of one of them.
//! Keeps: INV-7 as far as a choice can: a group that is not empty always has an answer.
//! Not here: which endpoints are eligible (lag, health): the caller lists only those.
//! Tested by: below.

/// The endpoint with the fewest open sessions; equals are told apart by `seed`, so that many doors
/// that start together do not all choose the first.
pub fn least_connections(sessions: &[u64], seed: u64) -> Option<usize> {
    let fewest = *sessions.iter().min()?;
    let equals = sessions.iter().filter(|count| **count == fewest).count() as u64;
    let nth = usize::try_from(seed % equals).unwrap_or(0);
    sessions.iter().enumerate().filter(|(_, count)| **count == fewest).nth(nth).map(|(i, _)| i)
}

#[cfg(test)]
mod tests {
    use super::least_connections;

    #[test]
    fn an_empty_group_has_no_answer() {
        assert_eq!(least_connections(&[], 7), None);
    }

    #[test]
    fn the_fewest_sessions_win_whatever_the_seed() {
        for seed in [0, 1, 2, u64::MAX] {
            assert_eq!(least_connections(&[3, 1, 2], seed), Some(1));
        }
    }

    #[test]
    fn equals_share_evenly_over_the_seeds() {
        let mut chosen = [0; 4];
        for seed in 0..300 {
            chosen[least_connections(&[5, 2, 2, 2], seed).unwrap()] += 1;
        }
        assert_eq!(chosen, [0, 100, 100, 100]);
    }

    #[test]
    fn new_sessions_level_out_uneven_loads() {
        let mut sessions = [9, 0, 4];
        for seed in 0..14 {
            sessions[least_connections(&sessions, seed).unwrap()] += 1;
        }
        assert_eq!(sessions, [9, 9, 9]);
    }
}
