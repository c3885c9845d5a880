//! Every placement of two faults in a small world is survived.

use tandem_sim::explore::{Bounds, Explored, explore};

#[test]
fn two_faults_anywhere_are_survived() {
    let bounds = Bounds { first: 34, second: 10 };
    let parts: Vec<Explored> = std::thread::scope(|scope| {
        let halves: Vec<_> =
            [0, 1].map(|share| scope.spawn(move || explore(bounds, (share, 2)))).into();
        halves.into_iter().map(|half| half.join().unwrap()).collect()
    });
    let runs: usize = parts.iter().map(|part| part.runs).sum();
    println!("{runs} placements explored");
    assert!(runs > 25_000, "only {runs} placements");
    for part in parts {
        assert!(
            part.failures.is_empty(),
            "{} fail, first {:?}",
            part.failures.len(),
            part.failures[0]
        );
    }
}
