//! Decides pg_hba.conf: our lines around the owner's.
//! In: the file as it is. Out: the file as it shall be; the owner's lines are kept as they are.
//! The daemon's role is let in over the unix socket only; the replication role only for
//! replication and for pg_rewind. Rewritten before every start, since a rewind brings the other
//! node's file along (H20).
//! Tested by: below.

const BEGIN: &str = "# BEGIN tandem: written before every start, edits between the marks are lost";
const END: &str = "# END tandem";

const FIRST: &[&str] = &[
    "local all tandem scram-sha-256",
    "host all tandem all reject",
    "host replication tandem_replication all scram-sha-256",
    "host postgres tandem_replication all scram-sha-256",
    "host all tandem_replication all reject",
];
const LAST: &[&str] = &["local all all scram-sha-256", "host all all all scram-sha-256"];

/// The text with our lines first, then the owner's, then a last line for everybody with a password.
pub(super) fn text(present: &str, extra: &[String]) -> String {
    let mut lines = vec![BEGIN];
    lines.extend(FIRST);
    lines.extend(extra.iter().map(String::as_str));
    lines.push(END);
    let mut in_ours = false;
    for line in present.lines() {
        match line {
            BEGIN => in_ours = true,
            END => in_ours = false,
            _ if !in_ours => lines.push(line),
            _ => {}
        }
    }
    lines.push(BEGIN);
    lines.extend(LAST);
    lines.push(END);
    lines.join("\n") + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writing_twice_is_writing_once_and_keeps_the_owners_lines() {
        let once = text("# mine\nhost x y 10.0.0.0/8 trust\n", &["host a b all md5".into()]);
        assert_eq!(text(&once, &["host a b all md5".into()]), once);
        assert!(once.contains("\nhost x y 10.0.0.0/8 trust\n"));
        let without = text(&once, &[]);
        assert!(!without.contains("md5"), "{without}");
    }
}
