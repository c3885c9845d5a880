//! What puts an endpoint out, and what never does.

use super::*;
use crate::clustering::load_balanced::pace::Pace;

const LIMITS: Limits = Limits {
    fall: 3,
    rise: 2,
    failures: 5,
    success_percent_min: 50,
    latency_times: 0,
    window: Duration::from_secs(10),
    ejection: Duration::from_secs(10),
    ejection_max: Duration::from_secs(25),
    ejected_percent_max: 50,
    slow_start: Duration::from_secs(10),
};

const fn second(seconds: u64) -> Timestamp {
    Timestamp(seconds * 1_000_000)
}

fn fail(group: &mut Group, at: usize, times: usize, now: Timestamp) {
    for _ in 0..times {
        group.step(at, Event::WorkFailed, now);
    }
}

#[test]
fn checks_need_a_row_of_the_same_answers_but_for_the_first() {
    let mut group = Group::new(&[1, 1], LIMITS, true);
    assert_eq!(group.condition(0, second(0)), Some(Condition::Unknown));
    assert_eq!(group.shares(second(0)), [100, 100], "nothing is known to be up");
    assert!(group.step(0, Event::CheckSucceeded, second(1)));
    assert_eq!(group.shares(second(1)), [100, 0], "now something is");
    for (event, changed) in [
        (Event::CheckFailed, false),
        (Event::CheckFailed, false),
        (Event::CheckSucceeded, false),
        (Event::CheckFailed, false),
        (Event::CheckFailed, false),
        (Event::CheckFailed, true),
        (Event::CheckSucceeded, false),
        (Event::CheckSucceeded, true),
    ] {
        assert_eq!(group.step(0, event, second(2)), changed, "{event:?}");
    }
    assert_eq!(group.condition(0, second(2)), Some(Condition::Starting));
}

#[test]
fn a_down_group_has_no_shares_but_an_ejected_one_has() {
    let mut group = Group::new(&[1, 1], LIMITS, true);
    for at in [0, 1] {
        group.step(at, Event::CheckFailed, second(0));
    }
    assert_eq!(group.shares(second(0)), [0, 0]);
    let mut group = Group::new(&[1, 1], LIMITS, true);
    group.step(0, Event::CheckSucceeded, second(0));
    group.step(1, Event::CheckSucceeded, second(0));
    fail(&mut group, 0, 5, second(1));
    assert_eq!(group.shares(second(1)), [0, 100]);
    for _ in 0..3 {
        group.step(1, Event::CheckFailed, second(2));
    }
    assert_eq!(group.shares(second(2))[1], 0);
    assert!(group.shares(second(2))[0] > 0, "bad work is better than none");
}

#[test]
fn failures_in_a_row_eject_for_longer_each_time() {
    let mut group = Group::new(&[1, 1, 1], LIMITS, false);
    fail(&mut group, 0, 4, second(0));
    group.step(0, Event::WorkSucceeded, second(0));
    fail(&mut group, 0, 4, second(0));
    assert_eq!(group.condition(0, second(0)), Some(Condition::Up));
    let mut now = second(1);
    for wanted in [10, 20, 25] {
        fail(&mut group, 0, 5, now);
        let until = now.plus(Duration::from_secs(wanted));
        assert_eq!(group.condition(0, now), Some(Condition::Ejected(until)));
        assert_eq!(group.deadline(now), Some(until));
        now = until;
        assert_eq!(group.condition(0, now), Some(Condition::Starting));
    }
    now = now.plus(Duration::from_secs(26));
    fail(&mut group, 0, 5, now);
    let until = now.plus(Duration::from_secs(10));
    assert_eq!(group.condition(0, now), Some(Condition::Ejected(until)), "it behaved: forgiven");
}

#[test]
fn a_bad_rate_ejects_without_any_row() {
    let mut group = Group::new(&[1, 1, 1], LIMITS, false);
    for n in 0..40 {
        let event = if n % 3 == 0 { Event::WorkSucceeded } else { Event::WorkFailed };
        group.step(0, event, second(1));
    }
    assert!(matches!(group.condition(0, second(1)), Some(Condition::Ejected(_))));
    for n in 0..40 {
        let event = if n % 3 == 0 { Event::WorkFailed } else { Event::WorkSucceeded };
        group.step(1, event, second(1));
    }
    assert_eq!(group.condition(1, second(1)), Some(Condition::Up));
}

#[test]
fn the_last_one_and_more_than_the_permitted_share_stay() {
    let mut group = Group::new(&[1, 1, 1, 1], LIMITS, false);
    for at in 0..4 {
        fail(&mut group, at, 50, second(1));
    }
    let shares = group.shares(second(1));
    assert_eq!(shares.iter().filter(|share| **share > 0).count(), 2, "{shares:?}");
    let mut pair = Group::new(&[1, 1], LIMITS, false);
    pair.step(1, Event::Drained, second(0));
    fail(&mut pair, 0, 50, second(1));
    assert_eq!(pair.condition(0, second(1)), Some(Condition::Up), "nobody else takes work");
}

#[test]
fn a_share_grows_after_a_return() {
    let mut group = Group::new(&[2, 2], LIMITS, false);
    fail(&mut group, 0, 5, second(0));
    let share = |seconds| group.shares(second(seconds))[0];
    assert_eq!([share(9), share(10), share(15), share(20)], [0, 2, 100, 200]);
    assert_eq!(group.deadline(second(20)), None);
}

#[test]
fn a_drained_endpoint_gets_nothing_whatever_it_does() {
    let mut group = Group::new(&[1, 1], LIMITS, true);
    group.step(0, Event::CheckSucceeded, second(0));
    assert!(group.step(0, Event::Drained, second(0)));
    assert!(!group.step(0, Event::CheckSucceeded, second(0)));
    assert_eq!(group.shares(second(0)), [0, 100], "the unknown one serves");
    assert!(group.step(0, Event::Undrained, second(1)));
    assert_eq!(group.condition(0, second(1)), Some(Condition::Starting));
    assert!(!group.step(7, Event::Drained, second(1)), "no such endpoint");
}

#[test]
fn what_stays_in_the_group_keeps_its_past_and_what_is_new_starts_slowly() {
    let mut group = Group::new(&[1, 1, 1], LIMITS, false);
    fail(&mut group, 1, 5, second(0));
    group.replace(&[(1, Some(2)), (3, Some(1)), (1, None)], second(1));
    let until = second(10);
    let conditions = [0, 1, 2].map(|at| group.condition(at, second(1)).unwrap());
    assert_eq!(conditions, [Condition::Up, Condition::Ejected(until), Condition::Starting]);
    let mut empty = Group::new(&[], LIMITS, false);
    empty.replace(&[(1, None)], second(1));
    assert_eq!(empty.condition(0, second(1)), Some(Condition::Up), "nobody to ease it in beside");
}

#[test]
fn limits_change_and_what_is_known_stays() {
    let mut group = Group::new(&[1, 1], LIMITS, true);
    group.step(0, Event::CheckSucceeded, second(0));
    group.step(1, Event::CheckFailed, second(0));
    group.configure(Limits { fall: 1, ..LIMITS }, true, second(1));
    let conditions = |group: &Group| [0, 1].map(|at| group.condition(at, second(1)).unwrap());
    assert_eq!(conditions(&group), [Condition::Up, Condition::Down]);
    group.step(0, Event::CheckFailed, second(1));
    assert_eq!(conditions(&group), [Condition::Down, Condition::Down]);
    group.configure(LIMITS, false, second(1));
    assert_eq!(conditions(&group), [Condition::Starting, Condition::Starting]);
    group.configure(LIMITS, true, second(1));
    assert_eq!(conditions(&group), [Condition::Starting, Condition::Starting]);
}

/// Whatever happens in whatever order, work has somewhere to go unless checks or operators said no.
#[test]
fn no_storm_of_results_leaves_nobody() {
    for seed in 0..300_u64 {
        let mut random = seed;
        let mut next = |below: u64| {
            random = crate::clustering::load_balanced::rendezvous::mix(random);
            random % below
        };
        let size = 1 + next(6) as usize;
        let mut group = Group::new(&alloc::vec![1; size], LIMITS, next(2) == 0);
        let mut now = second(0);
        for _ in 0..400 {
            now = now.plus(Duration::from_millis(next(500)));
            let event = match next(20) {
                0 => Event::Drained,
                1 => Event::Undrained,
                2..5 => Event::CheckSucceeded,
                5 => Event::CheckFailed,
                6..9 => Event::WorkSucceeded,
                _ => Event::WorkFailed,
            };
            group.step(next(size as u64) as usize, event, now);
            let conditions: Vec<Condition> =
                (0..size).filter_map(|at| group.condition(at, now)).collect();
            let refused = |c: &Condition| matches!(c, Condition::Down | Condition::Draining);
            let served = group.shares(now).iter().any(|share| *share > 0);
            assert_eq!(served, !conditions.iter().all(refused), "seed {seed}: {conditions:?}");
            let out = conditions.iter().filter(|c| matches!(c, Condition::Ejected(_))).count();
            assert!(out <= 1.max(size / 2), "seed {seed}: {conditions:?}");
        }
    }
}

/// What each takes, in milliseconds; 0 is not known.
fn paces(of: &[u64], since: Timestamp) -> Vec<Option<Pace>> {
    let pace = |ms: &u64| (*ms > 0).then_some(Pace { since, median_us: *ms * 1_000, far: false });
    of.iter().map(pace).collect()
}

#[test]
fn what_takes_much_longer_than_the_others_is_ejected() {
    let limits = Limits { latency_times: 5, ..LIMITS };
    let group = || Group::new(&[1; 4], limits, false);
    let judge = |of: &[u64]| group().judge(&paces(of, second(1)), second(2));
    assert_eq!(judge(&[10, 50, 10, 9]), [], "five times is not more than that");
    let slow = judge(&[10, 51, 10, 9]);
    assert_eq!(slow, [Slow { at: 1, median_us: 51_000, others_us: 10_000 }]);
    assert_eq!(judge(&[51, 51, 10, 9]).len(), 2, "half may go");
    assert_eq!(judge(&[60, 60, 60, 9]), [], "most are as slow: the fault is elsewhere");
    assert_eq!(judge(&[90, 90, 90, 90]), []);
    assert_eq!(judge(&[0, 51, 0, 0]), [], "there is nobody to be held against");
    assert_eq!(judge(&[0, 51, 0, 10]).len(), 1);
    let mut quick = group();
    let pace = |median_us| Some(Pace { since: second(1), median_us, far: false });
    assert_eq!(quick.judge(&[pace(900), pace(20), pace(20), pace(20)], second(2)), []);
    assert_eq!(
        Group::new(&[1; 4], LIMITS, false).judge(&paces(&[1, 99, 1, 1], second(1)), second(2)),
        []
    );
}

/// A connect takes as long as the way there and back.
#[test]
fn what_is_far_is_not_held_against_what_is_near() {
    let limits = Limits { latency_times: 5, ..LIMITS };
    let judge = |of: [(u64, bool); 4]| {
        let pace = |(ms, far)| Some(Pace { since: second(1), median_us: ms * 1_000, far });
        Group::new(&[1; 4], limits, false).judge(&of.map(pace), second(2))
    };
    assert_eq!(judge([(1, false), (1, false), (30, true), (30, true)]), [], "by the way only");
    let slow = judge([(1, false), (9, false), (30, true), (200, true)]);
    let at: Vec<usize> = slow.iter().map(|it| it.at).collect();
    assert_eq!(at, [1, 3], "each against its own kind: {slow:?}");
    assert_eq!(judge([(1, false), (1, false), (1, false), (200, true)]), [], "it has no others");
}

#[test]
fn what_was_slow_is_judged_by_what_it_takes_since_it_is_back_and_the_last_one_stays() {
    let limits = Limits { latency_times: 5, ..LIMITS };
    let mut group = Group::new(&[1, 1], limits, false);
    let of = [10, 90];
    assert_eq!(group.judge(&paces(&of, second(1)), second(2)).len(), 1);
    assert_eq!(group.condition(1, second(2)), Some(Condition::Ejected(second(12))));
    assert_eq!(group.judge(&paces(&[90, 90], second(1)), second(3)), [], "one alone is left");
    // It is back at 12.
    assert_eq!(group.judge(&paces(&of, second(11)), second(13)), [], "that was before");
    assert_eq!(group.judge(&paces(&of, second(12)), second(14)).len(), 1);
    assert_eq!(group.condition(1, second(14)), Some(Condition::Ejected(second(34))), "for longer");
    fail(&mut group, 0, 50, second(15));
    assert_eq!(group.condition(0, second(15)), Some(Condition::Up), "it is the last one (INV-7)");
}
