//! What a machine lacks for a command.

use super::*;

fn lacks(it: &CommandConfig) -> Vec<String> {
    it.lacks(true).into_iter().map(|lack| lack.what).collect()
}

#[test]
fn what_is_missing_on_a_machine_is_told_before_a_start() {
    let dir = tempfile::tempdir().unwrap();
    let plain = dir.path().join("plain");
    std::fs::write(&plain, "no program").unwrap();
    let it = CommandConfig { command: words(&["sh", "-c", "true"]), ..config(dir.path()) };
    assert_eq!(lacks(&it), [""; 0]);
    let it = CommandConfig {
        command: words(&["./plain"]),
        stop: words(&["no_such_program_here"]),
        on_start: words(&["/no/such/{node}"]),
        on_stop: words(&["/bin/sh"]),
        on_partitions: Vec::new(),
        cwd: dir.path().into(),
        run_as: Some("no_such_user_here".into()),
        ..it
    };
    let path = dir.path().join("./plain");
    assert_eq!(
        lacks(&it),
        [
            "it cannot run as its user".to_owned(),
            format!("{} cannot be run", path.display()),
            "no_such_program_here is not there".to_owned(),
            "/no/such/a is not there".to_owned(),
        ]
    );
    let it = CommandConfig { cwd: "/no/such/folder".into(), ..config(dir.path()) };
    assert_eq!(lacks(&it), ["its working folder /no/such/folder is not there"]);
}

#[test]
fn a_port_is_looked_at_where_the_copy_does_not_run() {
    let dir = tempfile::tempdir().unwrap();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let it = CommandConfig { address: listener.local_addr().ok(), ..config(dir.path()) };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let _guard = runtime.enter();
    assert_eq!(lacks(&it), [""; 0]);
    assert_eq!(it.lacks(false)[0].what, "its port is not free");
}
