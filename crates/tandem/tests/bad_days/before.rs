//! `tandem doctor --before`: what would keep a node from starting, without one.

use super::place::Place;
use serde_json::Value;
use std::fs;
use std::net::TcpListener;

async fn examined(place: &Place, more: &[&str]) -> (i32, Vec<Value>) {
    let config = place.config();
    let mut arguments = vec!["doctor", "--before", "--json", "--config", config.to_str().unwrap()];
    arguments.extend(more);
    let ended = place.run(&arguments).await;
    let findings = serde_json::from_str(&ended.stdout).unwrap_or_else(|_| panic!("{ended:?}"));
    (ended.status, findings)
}

fn bad(findings: &[Value]) -> Vec<String> {
    let bad = findings.iter().filter(|finding| finding["severity"] == "bad");
    bad.map(|it| format!("{}: {}", it["subject"], it["what"])).collect()
}

#[tokio::test]
async fn a_machine_that_is_ready_and_one_that_is_not() {
    let mut place = Place::new();
    fs::write(place.config(), place.text()).unwrap();
    let dir = place.dir();
    let dir = ["--dir", dir.to_str().unwrap()];
    let (status, findings) = examined(&place, &dir).await;
    assert_eq!((status, bad(&findings)), (0, Vec::new()));
    let subjects: Vec<&str> = findings.iter().filter_map(|it| it["subject"].as_str()).collect();
    for subject in
        ["clock", "configuration", "identity", "peer port", "API", "PostgreSQL of orders"]
    {
        assert!(subjects.contains(&subject), "{subject}: {subjects:?}");
    }

    let _busy = TcpListener::bind(place.address("postgres")).unwrap();
    place.service = "bin_dir = \"/no/such/folder\"\n".into();
    fs::write(place.config(), place.text()).unwrap();
    let (status, findings) = examined(&place, &dir).await;
    let found = bad(&findings).join("\n");
    assert_eq!(status, 1, "{found}");
    assert!(found.contains("TDM0501") && found.contains("TDM0104"), "{found}");
    let advised = findings.iter().filter(|it| it["severity"] == "bad");
    for finding in advised {
        assert!(finding["because"].is_string() && finding["try"].is_string(), "{finding}");
    }

    place.service = "[services.orders.postgresql]\nmax_connections = \"many\"\n".into();
    fs::write(place.config(), place.text()).unwrap();
    let (status, findings) = examined(&place, &["--node", "a"]).await;
    let found = bad(&findings).join("\n");
    assert_eq!(status, 1, "{found}");
    assert!(found.contains("services.orders.postgresql.max_connections cannot be set"), "{found}");

    fs::write(place.config(), "cluster = 5\n").unwrap();
    let (status, findings) = examined(&place, &dir).await;
    assert_eq!(status, 1);
    assert!(bad(&findings).join("\n").contains("TDM02"), "{findings:?}");
    let (_, findings) = examined(&place, &["--node", "z"]).await;
    assert!(!findings.is_empty());
}
