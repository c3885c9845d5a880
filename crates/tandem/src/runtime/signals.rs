//! Talks to whoever sends signals: waits until the process is asked to stop; hands on none that its
//! own starter ignores.
//! Tested by: below.

use crate::runtime::process;
use tokio::signal::unix::{SignalKind, signal};

/// Resolves at SIGTERM or SIGINT; never, if no handler can be set.
pub async fn asked_to_stop() {
    let (Ok(mut terminate), Ok(mut interrupt)) =
        (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
}

/// Has what is started from here begin with every signal at its default. What a starter ignores
/// (`nohup`, a script's job in the background) all programs below it ignore, a copy that shall
/// reload or end by it as well; what is caught is at its default in a program that is started
/// (execve(2)). To this process the signal does as little as before.
pub fn hand_on_defaults() {
    let ignored = process::ignored_signals().into_iter().map(SignalKind::from_raw);
    // Whatever starts a program puts this one back itself, as it ignored it.
    for kind in ignored.filter(|kind| *kind != SignalKind::pipe()) {
        // Some cannot be caught; what is left ignored is what it was.
        let _ = signal(kind);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    const HANDS_ON: &str = "HANDS_ON_DEFAULTS";
    const NAMES: [(&str, u64); 3] = [("HUP", 1), ("QUIT", 3), ("CHLD", 17)];

    #[tokio::test]
    #[ignore = "the other test runs it, with signals that are ignored"]
    async fn tells_what_a_program_below_it_ignores() {
        if std::env::var_os(HANDS_ON).is_some() {
            hand_on_defaults();
        }
        // Where SIGCHLD is ignored its end is told to nobody.
        let _ = Command::new("grep").args(["SigIgn", "/proc/self/status"]).status();
    }

    #[test]
    fn what_a_starter_ignores_is_not_handed_on() {
        let ignored = |hands_on: bool| {
            let names = NAMES.map(|(name, _)| name).join(",");
            let mut starter = Command::new("env");
            starter.arg(format!("--ignore-signal={names}")).arg(std::env::current_exe().unwrap());
            starter.args(["--ignored", "--exact", "--nocapture"]);
            starter.arg("runtime::signals::tests::tells_what_a_program_below_it_ignores");
            if hands_on {
                starter.env(HANDS_ON, "1");
            }
            let said = String::from_utf8(starter.output().unwrap().stdout).unwrap();
            let line = said.lines().find_map(|line| line.split_once("SigIgn:"));
            let mask = line.unwrap_or_else(|| panic!("{said}")).1.trim();
            let mask = u64::from_str_radix(mask, 16).unwrap();
            NAMES.map(|(_, number)| mask & (1 << (number - 1)) != 0)
        };
        assert_eq!(ignored(false), [true; 3], "else this shows nothing");
        assert_eq!(ignored(true), [false; 3]);
    }
}
