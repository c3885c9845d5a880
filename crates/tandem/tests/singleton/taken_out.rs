//! A service that is taken out of the configuration: its copy ends in order, however long it may
//! take for that, beside a lease that is far shorter.

use crate::ledger::Ledger;
use crate::machines::Machines;
use crate::serves;
use std::fs;

pub async fn it_ends_in_order_and_comes_back(machines: &Machines, ledger: &Ledger) {
    let with = fs::read_to_string(machines.config_path()).unwrap();
    let service = ledger.saves();
    assert!(with.contains(&service));
    // Nodes on which it ran were killed before.
    let before = ledger.saved().len();
    let since = || ledger.saved().split_off(before);
    assert_eq!(ledger.saved().last().map(String::as_str), Some("began"), "it runs");
    fs::write(machines.config_path(), with.replace(&service, "")).unwrap();
    machines.applies("a").await;
    machines.wait("its hook was run", "a", || since().contains(&"closed".to_owned())).await;
    assert_eq!(since(), ["saved", "closed"]);
    let events = ["a", "b", "c"].map(|node| machines.tandem(node, &["events"]).success().out);
    let failed = |line: &str| line.contains(" saves/") && line.contains("hook.failed");
    assert!(!events.iter().flat_map(|it| it.lines()).any(failed), "{events:?}");
    fs::write(machines.config_path(), with).unwrap();
    machines.applies("a").await;
    machines.wait("it is back", "a", || since() == ["saved", "closed", "began"]).await;
    serves(machines, "a").await;
}
