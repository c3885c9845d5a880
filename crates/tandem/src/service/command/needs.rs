//! Tells what a command lacks on this machine, before a start misses it.
//! In: `CommandConfig`. Out: `Lack`s, in words.
//! It looks at files and asks who users are: not for a task that others wait for.
//! Not here: a start, which tells what it meets by itself (`fence/stub.rs`).
//! Tested by: `tests/needs.rs`.

use super::{CommandConfig, PATH, Probe};
use crate::runtime::user;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

/// Something that is not there, or cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lack {
    /// What.
    pub what: String,
    /// Why it is needed, or why it cannot be used.
    pub because: String,
    /// What helps.
    pub try_: String,
}

impl CommandConfig {
    /// All that is missing; whether its port is free matters only where it does not run.
    pub fn lacks(&self, runs_here: bool) -> Vec<Lack> {
        let mut lacks = Vec::new();
        if let Some(Err(error)) = self.run_as.as_deref().map(user::find) {
            lacks.push(Lack {
                what: "it cannot run as its user".to_owned(),
                because: error.to_string(),
                try_: "create the user, or set run_as".to_owned(),
            });
        }
        let folder = self.folder();
        // Its own one is made for it.
        if self.cwd != self.dir.join("work") && !folder.is_dir() {
            lacks.push(Lack {
                what: format!("its working folder {} is not there", folder.display()),
                because: "cwd names it".to_owned(),
                try_: "make the folder, or set cwd".to_owned(),
            });
        }
        lacks.extend(self.programs().into_iter().filter_map(|(key, program)| {
            let (what, because) = match self.found(&program) {
                None => (format!("{program} is not there"), format!("{key} runs it")),
                Some(path) if !is_program(&path) => {
                    (format!("{} cannot be run", path.display()), format!("{key} runs it"))
                }
                Some(_) => return None,
            };
            let try_ = format!("install it on this machine, or set {key}");
            Some(Lack { what, because, try_ })
        }));
        if let Some(because) = self.finds_its_port_free().err().filter(|_| !runs_here) {
            lacks.push(Lack {
                what: "its port is not free".to_owned(),
                because,
                try_: "end what uses it, or set port".to_owned(),
            });
        }
        lacks
    }

    fn programs(&self) -> Vec<(&'static str, String)> {
        let exec = match self.health.as_ref().map(|health| &health.probe) {
            Some(Probe::Exec(words)) => words.as_slice(),
            Some(Probe::Port(_)) | None => &[],
        };
        let all = [
            ("command", self.command.as_slice()),
            ("stop", &self.stop),
            ("on_start", &self.on_start),
            ("on_stop", &self.on_stop),
            ("on_partitions", &self.on_partitions),
            ("health.exec", exec),
        ];
        let first =
            |(key, words): (&'static str, &[String])| Some((key, self.fill(words.first()?)));
        all.into_iter().filter_map(first).collect()
    }

    /// Where a program is, as a start looks for it.
    fn found(&self, program: &str) -> Option<PathBuf> {
        if program.contains('/') {
            let path = self.folder().join(program);
            return path.exists().then_some(path);
        }
        let folders = self.env.get("PATH").map_or(PATH, String::as_str).split(':');
        let mut paths = folders.map(|folder| Path::new(folder).join(program));
        paths.find(|path| path.is_file())
    }
}

fn is_program(path: &Path) -> bool {
    let may_run = |found: std::fs::Metadata| found.permissions().mode() & 0o111 != 0;
    path.is_file() && path.metadata().is_ok_and(may_run)
}
