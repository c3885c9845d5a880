use super::*;
use crate::config::{needs_restart, show, unsafe_change};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

const ROUNDS: u64 = 4_000;

/// Pieces that a file is likely to have in the wrong place.
const PIECES: &[&str] = &[
    "\"",
    "'",
    "[",
    "]",
    "[[",
    "{",
    "}",
    "=",
    ".",
    ",",
    "\n",
    "\r\n",
    "\t",
    "#",
    "\\",
    "\\u0000",
    "é",
    "日本",
    "\u{feff}",
    "\u{1b}",
    "-1",
    "0",
    "65536",
    "9223372036854775808",
    "1e999",
    "nan",
    "true",
    "\"\"",
    "1979-05-27T07:32:00Z",
    "\"99999999999999999999d\"",
    "[nodes.a]",
    "[services]",
    "nodes = 1\n",
    "timing = 1\n",
    "postgresql.a.b.c = 1\n",
    "role = \"witness\"\n",
    "acks = 3\n",
];

fn mutate(text: &str, random: &mut StdRng) -> String {
    let mut bytes = text.as_bytes().to_vec();
    for _ in 0..random.random_range(1..=4) {
        let at = random.random_range(0..=bytes.len());
        let end = (at + random.random_range(0..=12)).min(bytes.len());
        match random.random_range(0..5) {
            0 => {
                bytes.drain(at..end);
            }
            1 if at < bytes.len() => bytes[at] = random.random_range(0..=255),
            2 => {
                let piece = PIECES[random.random_range(0..PIECES.len())];
                bytes.splice(at..at, piece.bytes());
            }
            3 => {
                let piece = PIECES[random.random_range(0..PIECES.len())];
                bytes.splice(at..end, piece.bytes());
            }
            _ => {
                let copied = bytes[at..end].to_vec();
                let to = random.random_range(0..=bytes.len());
                bytes.splice(to..to, copied);
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Whatever stands in the file: no panic, and every problem has a place in it.
#[test]
fn no_file_makes_the_reader_panic() {
    let before = good();
    let mut usable = 0;
    for seed in 0..ROUNDS {
        let mut random = StdRng::seed_from_u64(seed);
        let text = mutate(GOOD, &mut random);
        let found = match Config::parse(&text, "t.toml") {
            Ok(config) => {
                usable += 1;
                assert!(!show(&config).is_empty());
                let mut found = unsafe_change(&before, &config);
                found.extend(needs_restart(&before, &config));
                found.extend(config.warnings);
                found
            }
            Err(found) => {
                assert!(found.iter().any(Problem::is_error), "seed {seed}: refused for nothing");
                found
            }
        };
        for problem in found {
            assert!(text.get(problem.span.clone()).is_some(), "seed {seed}: {problem:?}");
            assert!(problem.line <= text.split('\n').count(), "seed {seed}: {problem:?}");
            let shown = problem.render();
            assert!(shown.contains('^') && !shown.contains('\u{1b}'), "seed {seed}: {shown}");
            assert!(
                !problem.because.is_empty() && !problem.try_.is_empty(),
                "seed {seed}: {shown}"
            );
        }
    }
    assert!((100..ROUNDS).contains(&usable), "{usable} of {ROUNDS} were usable");
}
