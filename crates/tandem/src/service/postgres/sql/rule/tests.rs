use super::*;

fn row(node: &str, flushed: u64, listed: bool) -> Walsender {
    let application = format!("tandem_01234567_{node}");
    Walsender { application, streaming: true, flushed: Lsn(flushed), listed }
}

fn missing(acks: usize, rows: &[Walsender]) -> Option<Why> {
    let standbys = ["b", "c"].map(NodeId::from).into();
    let rule = CommitRule { primary: "a".into(), standbys, acks };
    Postgres::for_test().missing(&rule, Lsn(100), rows)
}

/// H9: listed is not caught up, and one that has not confirmed may still work by the old names.
#[test]
fn every_listed_walsender_must_confirm_or_be_gone() {
    assert_eq!(missing(1, &[row("b", 100, true), row("c", 100, true)]), None);
    assert_eq!(missing(1, &[row("b", 100, true)]), None);
    assert!(matches!(
        missing(1, &[row("b", 100, true), row("c", 99, true)]),
        Some(Why::NotConfirmed { .. })
    ));
    let catching_up = Walsender { streaming: false, ..row("c", 1, true) };
    assert_eq!(missing(1, &[row("b", 100, true), catching_up]), None);
    assert_eq!(missing(2, &[row("b", 100, true)]), Some(Why::TooFew { confirmed: 1, acks: 2 }));
}

#[test]
fn a_walsender_with_the_old_names_is_waited_for() {
    assert!(matches!(
        missing(1, &[row("b", 100, true), row("d", 100, true)]),
        Some(Why::OldNames { .. })
    ));
    assert_eq!(missing(1, &[row("b", 100, true), row("d", 1, false)]), None);
    assert!(matches!(missing(1, &[row("b", 100, false)]), Some(Why::OldNames { .. })));
    assert!(matches!(missing(0, &[row("b", 100, true)]), Some(Why::OldNames { .. })));
    assert_eq!(missing(0, &[row("b", 1, false)]), None);
}

/// H10.
#[test]
fn two_standbys_of_one_name_prove_nothing() {
    let rows = [row("b", 100, true), row("b", 100, true)];
    assert_eq!(missing(1, &rows), Some(Why::Duplicate { node: "b".into() }));
}
