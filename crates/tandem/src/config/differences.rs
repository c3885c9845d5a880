//! Tells what a configuration changes, key by key: what an owner sees before or after it counts.
//! In: two `Config`s. Out: a line for each key that differs; a node or service that comes or goes
//! is one line.
//! Not here: whether it may be changed (`change.rs`), the values as written (`show.rs`).
//! Tested by: below.

use super::Config;
use super::show::show;
use std::collections::BTreeMap;

/// More lines than this are counted.
const LINES_MAX: usize = 50;

type Values = BTreeMap<String, String>;

/// What the new one changes.
pub fn differences(old: &Config, new: &Config) -> Vec<String> {
    let (old, new) = (values(old), values(new));
    let mut lines = Vec::new();
    for (before, after, word) in [(&old, &new, "is gone"), (&new, &old, "is new")] {
        let mut tops: Vec<&str> = before.keys().filter_map(|key| top(key)).collect();
        tops.dedup();
        let is_there = |it: &str| after.keys().any(|key| top(key) == Some(it));
        lines.extend(tops.into_iter().filter(|it| !is_there(it)).map(|it| format!("{it} {word}")));
    }
    let stays = |key: &str, other: &Values| {
        top(key).is_none_or(|it| other.keys().any(|key| top(key) == Some(it)))
    };
    const NOTHING: &str = "nothing";
    for (key, is) in new.iter().filter(|(key, _)| stays(key, &old)) {
        let was = old.get(key).map_or(NOTHING, String::as_str);
        if was != is {
            lines.push(format!("{key}: {was} becomes {is}"));
        }
    }
    for (key, was) in old.iter().filter(|(key, _)| stays(key, &new) && !new.contains_key(*key)) {
        if was != NOTHING {
            lines.push(format!("{key}: {was} becomes {NOTHING}"));
        }
    }
    let more = lines.len().saturating_sub(LINES_MAX);
    lines.truncate(LINES_MAX);
    lines.extend((more > 0).then(|| format!("and {more} more")));
    lines
}

fn values(config: &Config) -> Values {
    let word = |value: Option<String>| value.unwrap_or_else(|| "nothing".to_owned());
    show(config).into_iter().map(|it| (it.key, word(it.value))).collect()
}

/// The node or service that a key is of.
fn top(key: &str) -> Option<&str> {
    let rest = key.strip_prefix("services.").or_else(|| key.strip_prefix("nodes."))?;
    let name = rest.split('.').next()?;
    key.get(..key.len() - rest.len() + name.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    const OLD: &str = r#"
cluster = "shop"
[nodes.a]
address = "10.0.0.1:7400"
[services.cache]
kind = "tcp"
clustering = "load-balanced"
replication = "none"
listen = 6379
upstreams = ["10.0.0.11:6379"]
[services.old]
kind = "tcp"
clustering = "load-balanced"
replication = "none"
listen = 6380
upstreams = ["10.0.0.11:6380"]
"#;

    fn said(old: &str, new: &str) -> Vec<String> {
        let config = |text| Config::parse(text, "t.toml").unwrap();
        differences(&config(old), &config(new))
    }

    #[test]
    fn each_key_that_differs_is_a_line_and_what_comes_or_goes_is_one() {
        assert_eq!(said(OLD, &format!("# a remark\n{OLD}")), Vec::<String>::new());
        let new = OLD.replace("services.old", "services.new").replace("6379\n", "6399\n");
        let lines = said(OLD, &new);
        assert_eq!(
            lines,
            [
                "services.old is gone",
                "services.new is new",
                "services.cache.listen: 6379 becomes 6399",
            ]
        );
        let held = OLD.replace("listen = 6379", "listen = 6379\nrate_limit = { total = \"9/s\" }");
        let lines = said(OLD, &held);
        assert!(lines.contains(&"services.cache.rate_limit.total: nothing becomes 9/s".into()));
        assert!(said(&held, OLD).iter().any(|it| it.ends_with("9/s becomes nothing")));
    }
}
