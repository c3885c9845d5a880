use super::super::metrics::Appointments;
use super::*;

/// The agreed history keeps the last lines only; counters go on.
#[test]
fn counters_never_fall() {
    let mut seen = healthy("a");
    let mut counted = Appointments::default();
    counted.note(&seen);
    assert_eq!(counted.totals(&orders()), (0, 0), "founding is neither");
    let mut before = (0, 0);
    for term in 2..150 {
        let cause = if term % 3 == 0 { Cause::Switchover } else { Cause::NodeDied };
        let primary = if term % 2 == 0 { "b" } else { "a" };
        agree(&mut seen, appoint(term, primary, cause, Vec::new()));
        counted.note(&seen);
        counted.note(&seen);
        let now = counted.totals(&orders());
        assert!(now.0 >= before.0 && now.1 >= before.1, "{before:?} {now:?}");
        before = now;
    }
    let history = seen.agreed.services[&orders()].history.len();
    assert!(history <= 64, "{history}");
    assert_eq!(before, (99, 49));
}
