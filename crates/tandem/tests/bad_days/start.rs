//! What a node is started with: configuration, ports, programs.

use super::place::Place;
use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

#[tokio::test]
async fn a_wrong_configuration() {
    let mut place = Place::new();
    place.service = "lisen = 1\n".into();
    let ended = place.node().await;
    let report = ended.refused("TDM0203", 2);
    assert!(report.contains("lisen") && report.contains("tandem.toml:13:1"), "{report}");
    let ended = place.node_with(Path::new("/no/such/file"), "a", &place.dir()).await;
    assert!(ended.refused("TDM0106", 1).contains("/no/such/file"));
    // What only PostgreSQL itself knows is an error before anything is founded on it.
    place.service = "[services.orders.postgresql]\nmax_conections = 50\n".into();
    let ended = place.node().await;
    let report = ended.refused("TDM0218", 2);
    assert!(report.contains("did you mean max_connections?"), "{report}");
    assert!(report.contains("max_conections = 50") && !place.data().exists(), "{report}");
    place.service.clear();
    fs::write(place.config(), place.text()).unwrap();
    let ended = place.node_with(&place.config(), "z", &place.dir()).await;
    assert!(ended.refused("TDM0304", 3).contains("its certificate is of node a"));
}

#[tokio::test]
async fn init_for_a_node_that_is_not_in_the_file() {
    let place = Place::without_identity();
    fs::write(place.config(), place.text()).unwrap();
    let (config, dir) = (place.config(), place.dir());
    let (config, dir) = (config.to_str().unwrap(), dir.to_str().unwrap());
    let init = |node| ["init", "--config", config, "--node", node, "--dir", dir];
    place.run(&init("z")).await.refused("TDM0108", 2);
    assert!(!place.dir().join("identity").exists(), "nothing was made");
    assert_eq!(place.run(&init("a")).await.status, 0);
    let again = place.run(&init("a")).await;
    assert!(again.refused("TDM0302", 3).contains("already"));
}

#[tokio::test]
async fn a_busy_port() {
    let place = Place::new();
    for (port, code, words) in [
        ("door", "TDM0104", "the front door of service orders cannot listen on"),
        ("peer", "TDM0104", "cannot listen for the other nodes on"),
        ("api", "TDM0104", "for the API"),
        ("postgres", "TDM0505", "PostgreSQL of service orders cannot listen on"),
    ] {
        let _busy = TcpListener::bind(place.address(port)).unwrap();
        let ended = place.node().await;
        let report = ended.refused(code, 1);
        assert!(report.contains(words) && report.contains(&place.address(port)), "{report}");
    }
    assert!(!place.data().exists(), "nothing was founded");
}

#[tokio::test]
async fn no_postgresql() {
    let mut place = Place::new();
    let empty = place.root.path().join("empty");
    fs::create_dir(&empty).unwrap();
    place.service = format!("bin_dir = {:?}\n", empty.to_str().unwrap());
    // A folder that is named is the only one that counts, whatever PATH has.
    let ended = place.node().await;
    let report = ended.refused("TDM0501", 1);
    assert!(report.contains(empty.to_str().unwrap()) && report.contains("apt install"), "{report}");
}

#[tokio::test]
async fn a_postgresql_of_another_version() {
    let mut place = Place::new();
    let bin = place.root.path().join("bin");
    fs::create_dir(&bin).unwrap();
    for tool in ["postgres", "initdb", "pg_controldata", "pg_basebackup", "pg_rewind", "pg_waldump"]
    {
        fs::write(bin.join(tool), "#!/bin/sh\necho 'postgres (PostgreSQL) 14.9'\n").unwrap();
        fs::set_permissions(bin.join(tool), fs::Permissions::from_mode(0o755)).unwrap();
    }
    place.service = format!("bin_dir = {:?}\n", bin.to_str().unwrap());
    let ended = place.node().await;
    let report = ended.refused("TDM0502", 1);
    assert!(report.contains("14.9") && report.contains("15 to 18"), "{report}");
}
