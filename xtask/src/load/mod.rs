//! Runs what the benchmarks load proxies with: requests at a fixed rate, connections that do
//! nothing, an endpoint that takes its time. No runtime: nothing but the
//! system's own timers stands between a measurement and what it measures.

mod answer;
mod endpoint;
mod idle;
mod rate;

use anyhow::{Context, Result, bail};
use std::collections::BTreeMap;

/// `key=value` words. Each is used once; what is left over is an error.
struct Options<'a>(BTreeMap<&'a str, &'a str>);

impl<'a> Options<'a> {
    fn of(words: &[&'a str]) -> Result<Self> {
        let pair = |word: &&'a str| word.split_once('=').with_context(|| format!("{word}: no ="));
        words.iter().map(pair).collect::<Result<_>>().map(Self)
    }

    fn number(&mut self, key: &str, default: u64) -> Result<u64> {
        let Some(text) = self.0.remove(key) else { return Ok(default) };
        text.parse().with_context(|| format!("{key}={text}: no number"))
    }

    fn text(&mut self, key: &str) -> Result<String> {
        self.0.remove(key).map(str::to_owned).with_context(|| format!("{key}= is missing"))
    }

    fn end(self) -> Result<()> {
        match self.0.keys().next() {
            Some(key) => bail!("{key}=: there is no such option"),
            None => Ok(()),
        }
    }
}

pub fn run(words: &[&str]) -> Result<()> {
    match words {
        ["rate", options @ ..] => rate::run(Options::of(options)?),
        ["idle", options @ ..] => idle::run(Options::of(options)?),
        ["endpoint", options @ ..] => endpoint::run(Options::of(options)?),
        _ => bail!("no such load: {}", words.join(" ")),
    }
}
