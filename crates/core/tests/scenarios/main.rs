//! Runs the stories in `crates/core/scenarios`: what is given, what happens, and then the whole
//! plan of the controller and of every node. `UPDATE=1` rewrites the `then` parts.

mod story;
mod words;

use std::fs;
use std::path::Path;
use story::Story;

#[test]
fn every_story_ends_as_written() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios");
    let update = std::env::var_os("UPDATE").is_some();
    let mut files: Vec<_> = fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "txt"))
        .collect();
    files.sort();
    assert!(files.len() >= 9, "the stories are gone");
    let mut wrong = Vec::new();
    for path in files {
        let text = fs::read_to_string(&path).unwrap();
        let (told, then) = text.split_once("\nthen\n").unwrap_or((text.trim_end(), ""));
        let plans = Story::parse(told).unwrap_or_else(|line| panic!("{path:?}: {line}")).plans();
        if plans == then {
            continue;
        }
        if update {
            fs::write(&path, format!("{told}\nthen\n{plans}")).unwrap();
        } else {
            wrong.push(format!("{}\nwritten:\n{then}now:\n{plans}", path.display()));
        }
    }
    assert!(wrong.is_empty(), "{}\nUPDATE=1 rewrites them", wrong.join("\n"));
}
