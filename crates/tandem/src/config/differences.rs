//! Tells what a configuration changes, key by key: what an owner sees before or after it counts.
//! In: two `Config`s. Out: a line for each key that differs; a node or service that comes or goes
//! is one line.
//! Not here: whether it may be changed (`change.rs`), the values as written (`show.rs`).
//! Tested by: below.

use super::Config;
use super::show::show;
use super::valid::Command;
use std::collections::{BTreeMap, BTreeSet};
use tandem_core::ids::ServiceId;

/// More lines than this are counted.
const LINES_MAX: usize = 50;

type Values = BTreeMap<String, String>;

/// What the new one changes.
pub fn differences(old: &Config, new: &Config) -> Vec<String> {
    let unshown = unshown(old, new);
    let (old, new) = (values(old), values(new));
    let (old_tops, new_tops) = (tops(&old), tops(&new));
    let mut lines = Vec::new();
    lines.extend(old_tops.difference(&new_tops).map(|it| format!("{it} is gone")));
    lines.extend(new_tops.difference(&old_tops).map(|it| format!("{it} is new")));
    let stays = |key: &str, other: &BTreeSet<&str>| top(key).is_none_or(|it| other.contains(it));
    const NOTHING: &str = "nothing";
    for (key, is) in new.iter().filter(|(key, _)| stays(key, &old_tops)) {
        let was = old.get(key).map_or(NOTHING, String::as_str);
        if was != is {
            lines.push(format!("{key}: {was} becomes {is}"));
        }
    }
    for (key, was) in old.iter().filter(|(key, _)| stays(key, &new_tops) && !new.contains_key(*key))
    {
        if was != NOTHING {
            lines.push(format!("{key}: {was} becomes {NOTHING}"));
        }
    }
    lines.extend(unshown);
    let more = lines.len().saturating_sub(LINES_MAX);
    lines.truncate(LINES_MAX);
    lines.extend((more > 0).then(|| format!("and {more} more")));
    lines
}

fn values(config: &Config) -> Values {
    let word = |value: Option<String>| value.unwrap_or_else(|| "nothing".to_owned());
    show(config).into_iter().map(|it| (it.key, word(it.value))).collect()
}

/// What counts and is shown in part: the values of `env`, which may be secrets, and where one word
/// ends and the next begins.
fn unshown(old: &Config, new: &Config) -> Vec<String> {
    let stay = old.commands.iter().filter_map(|(id, it)| Some((id, it, new.commands.get(id)?)));
    stay.flat_map(|(id, old, new)| unshown_of(id, old, new)).collect()
}

fn unshown_of(id: &ServiceId, old: &Command, new: &Command) -> Vec<String> {
    let both = old.env.iter().filter_map(|(name, it)| Some((name, it, new.env.get(name)?)));
    let changed = both.filter(|(_, before, after)| before != after);
    let mut lines: Vec<String> =
        changed.map(|(name, ..)| format!("services.{id}.env.{name} has another value")).collect();
    for (key, before) in lists(old) {
        let after = lists(new).into_iter().find(|(other, _)| *other == key);
        let after = after.map(|(_, words)| words).unwrap_or_default();
        if before != after && before.join(" ") == after.join(" ") {
            lines.push(format!("services.{id}.{key}: {before:?} becomes {after:?}"));
        }
    }
    lines
}

fn lists(it: &Command) -> Vec<(&'static str, &[String])> {
    let mut lists: Vec<(&str, &[String])> = vec![
        ("command", &it.command),
        ("stop", &it.stop),
        ("on_start", &it.on_start),
        ("on_stop", &it.on_stop),
    ];
    lists.extend(it.partitions.as_ref().map(|it| ("on_partitions", &it.on_partitions[..])));
    lists
}

fn tops(values: &Values) -> BTreeSet<&str> {
    values.keys().filter_map(|key| top(key)).collect()
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

    #[test]
    fn what_is_shown_in_part_is_told_without_saying_what_it_is() {
        let jobs = |env: &str, words: &str| {
            format!(
                "cluster = \"shop\"\n[nodes.a]\naddress = \"10.0.0.1:7400\"\n[services.jobs]\n\
                 kind = \"command\"\nclustering = \"active-passive\"\nreplication = \"none\"\n\
                 command = [{words}]\nenv = {{ MODE = \"{env}\" }}\n"
            )
        };
        let old = jobs("live", "\"/bin/a\", \"b c\"");
        let lines = said(&old, &jobs("test", "\"/bin/a\", \"b c\""));
        assert_eq!(lines, ["services.jobs.env.MODE has another value"]);
        let lines = said(&old, &jobs("live", "\"/bin/a\", \"b\", \"c\""));
        assert!(lines.len() == 1 && lines[0].starts_with("services.jobs.command: "), "{lines:?}");
        assert_eq!(said(&old, &old), Vec::<String>::new());
    }
}
