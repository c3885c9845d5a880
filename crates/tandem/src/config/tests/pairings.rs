use super::*;
use tandem_core::pairing::{Clustering, Kind, Pairing, Replication};

/// Every pair of every kind: runs, is not in this version yet, or is refused with the core's words.
#[test]
fn every_pair_is_run_postponed_or_refused_at_its_clustering() {
    let mut counted = [0; 3];
    for kind in Kind::WORDS {
        for clustering in Clustering::WORDS {
            for replication in Replication::WORDS {
                let text = with("kind = \"postgres\"", &format!("kind = \"{kind}\""))
                    .replace("\"active-passive\"", &format!("\"{clustering}\""))
                    .replace("\"primary-replica\"", &format!("\"{replication}\""));
                let found = problems(&text);
                let pairing = Pairing::new(
                    Kind::from_word(kind).expect("kind"),
                    Clustering::from_word(clustering).expect("clustering"),
                    Replication::from_word(replication).expect("replication"),
                );
                let built = *kind == "postgres"
                    && *replication == "primary-replica"
                    && *clustering != "active-active";
                // The keys of the good file are those of postgres.
                let is_pair = |it: &Problem| matches!(it.code.id(), "TDM0211" | "TDM0212");
                let found: Vec<Problem> =
                    found.into_iter().filter(|it| *kind == "postgres" || is_pair(it)).collect();
                let built = built || pairing_is_ok(kind, clustering, replication);
                let case = format!("{kind} {clustering} {replication}: {:?}", lines(&found));
                match pairing {
                    Ok(_) if built => {
                        counted[0] += 1;
                        assert!(found.is_empty(), "{case}");
                        continue;
                    }
                    Ok(_) => {
                        counted[1] += 1;
                        assert_eq!(found[0].code.id(), "TDM0212", "{case}");
                    }
                    Err(refusal) => {
                        counted[2] += 1;
                        assert_eq!(found[0].code.id(), "TDM0211", "{case}");
                        assert_eq!(found[0].because, refusal.because);
                        assert_eq!(found[0].try_, refusal.instead);
                    }
                }
                assert_eq!(found.len(), 1, "{case}");
                assert_eq!((found[0].line, found[0].column), (13, 14), "{case}");
                assert_eq!(&text[found[0].span.clone()], format!("\"{clustering}\""));
            }
        }
    }
    assert_eq!(counted, [7, 5, 36]);
}

fn pairing_is_ok(kind: &str, clustering: &str, replication: &str) -> bool {
    replication == "none"
        && matches!((kind, clustering), ("tcp" | "http", "load-balanced") | ("command", _))
}

#[test]
fn older_words_are_read_with_a_warning() {
    let text = with("\"primary-replica\"", "\"master-slave\"");
    assert_eq!(
        lines(&problems(&text)),
        ["TDM0230 warning 14:15 +14: \"master-slave\" is an older word for \"primary-replica\""]
    );
    let orders = &parse(&text).services[&"orders".into()];
    assert_eq!(orders.pairing.replication(), Replication::PrimaryReplica);
    let found = problems(&with("\"primary-replica\"", "\"multi-master\""));
    let codes: Vec<_> = found.iter().map(|problem| problem.code.id()).collect();
    assert_eq!(codes, ["TDM0212", "TDM0230"]);
}
