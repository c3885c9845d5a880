//! A server whose disk fails an fsync ends, and is not started again before an operator says so.

use super::{Daemon, theirs};
use crate::postgres_cluster::bin_dir;
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::process::Command;
use tandem::runtime::process;

/// Fails what makes the log durable, as a disk does, while a file is there.
const SHIM: &str = r#"
#define _GNU_SOURCE
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>
static int fails(int fd) {
    char link[64], path[4096];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0) return 0;
    path[length] = 0;
    return strstr(path, "/pg_wal/") && access(FLAG, F_OK) == 0;
}
int fsync(int fd) {
    if (fails(fd)) { errno = EIO; return -1; }
    return syscall(SYS_fsync, fd);
}
int fdatasync(int fd) {
    if (fails(fd)) { errno = EIO; return -1; }
    return syscall(SYS_fdatasync, fd);
}
"#;

impl Daemon {
    /// PostgreSQL's programs, with a `postgres` on a disk that fails while `failing` is there.
    fn on_a_bad_disk(&mut self) {
        let root = self.dir.path().canonicalize().unwrap();
        let (source, shim) = (root.join("shim.c"), root.join("shim.so"));
        fs::write(&source, SHIM).unwrap();
        let mut cc = Command::new("cc");
        cc.args(["-shared", "-fPIC", "-o"]).arg(&shim).arg(&source);
        cc.arg(format!("-DFLAG=\"{}\"", root.join("failing").display()));
        assert!(cc.status().unwrap().success());
        let programs = root.join("bin");
        fs::create_dir(&programs).unwrap();
        for tool in fs::read_dir(bin_dir()).unwrap().map(Result::unwrap) {
            if tool.file_name() != "postgres" {
                symlink(tool.path(), programs.join(tool.file_name())).unwrap();
            }
        }
        let (shim, real) = (shim.display(), bin_dir().join("postgres"));
        let script = format!("#!/bin/sh\nLD_PRELOAD={shim} exec {} \"$@\"\n", real.display());
        fs::write(programs.join("postgres"), script).unwrap();
        fs::set_permissions(programs.join("postgres"), fs::Permissions::from_mode(0o755)).unwrap();
        self.programs = programs;
    }

    fn ask(&self, words: &[&str]) -> (bool, String) {
        let mut tandem = Command::new(env!("CARGO_BIN_EXE_tandem"));
        tandem.args(words).arg(format!("--api=http://127.0.0.1:{}", self.ports[1]));
        let output = tandem.output().unwrap();
        (output.status.success(), String::from_utf8(output.stdout).unwrap())
    }

    fn until_shown(&self, word: &str) -> String {
        self.until(word, || Some(self.ask(&["status"]).1).filter(|shown| shown.contains(word)))
    }
}

#[test]
fn h26_a_disk_that_failed_an_fsync_is_not_started_from_unchecked() {
    let mut node = Daemon::new();
    theirs(&node.data());
    node.on_a_bad_disk();
    node.start();
    node.until("it takes writes", || node.sql("INSERT INTO theirs VALUES (43)"));

    let failing = node.dir.path().join("failing");
    fs::write(&failing, "").unwrap();
    assert_eq!(node.sql("INSERT INTO theirs VALUES (44)"), None, "its log cannot be made durable");
    let shown = node.until_shown("suspect");
    assert!(shown.contains("could not f"), "the server's own words: {shown}");
    let (_, why) = node.ask(&["explain", "orders"]);
    assert!(why.contains("its disk is suspect"), "{why}");
    assert!(node.ask(&["events"]).1.contains("instance.disk_suspect"));

    // Whoever comes next finds the mark: the disk works again, and nothing starts.
    fs::remove_file(&failing).unwrap();
    let mut daemon = node.child.take().unwrap();
    process::kill_tree(daemon.id().cast_signed());
    daemon.wait().unwrap();
    node.run();
    node.until_shown("suspect");
    assert!(process::in_directory(&node.data()).is_empty(), "it was started");

    // An operator who looked at the disk says so.
    let (taken, said) = node.ask(&["restart", "orders", "--node", "a"]);
    assert!(taken, "{said}");
    let answer = node.until("it is served again", || node.sql("SELECT sum(answer) FROM theirs"));
    assert!(answer == "85" || answer == "129", "{answer}");
}
