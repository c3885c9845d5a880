//! The examples, as somebody would copy them: each can be run, and some are, with real daemons,
//! while things die.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test's helpers fail the test")]
#![allow(clippy::print_stdout, reason = "times are reported, never asserted")]

#[path = "../copies/app.rs"]
mod app;
mod cluster;
#[path = "../common/crowd.rs"]
mod crowd;
#[path = "../common/http.rs"]
mod http;
mod nightly;
mod reads;
mod redis;
#[allow(dead_code, reason = "shared with a test that needs more of it")]
#[path = "../copies/traffic.rs"]
mod traffic;
mod web;

use std::path::Path;
use tandem::config::Config;

#[test]
fn every_example_can_be_run_and_says_what_its_keys_are_for() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples");
    let mut seen = 0;
    for folder in std::fs::read_dir(root).unwrap() {
        let path = folder.unwrap().path().join("tandem.toml");
        let text =
            std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path:?}: {error}"));
        let config = Config::parse(&text, &path.display().to_string())
            .unwrap_or_else(|found| panic!("{path:?}: {}", found[0]));
        assert_eq!(config.warnings.len(), 0, "{path:?}: {:?}", config.warnings);
        assert!(text.starts_with("# "), "{path:?} begins by saying what it is for");
        seen += 1;
    }
    assert!(seen >= 6, "{seen}");
}
