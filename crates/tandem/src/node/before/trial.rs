//! Talks to PostgreSQL's programs on this machine about a configuration that is not agreed yet.
//! In: `Config`. Out: problems of its PostgreSQL settings, each at its place.
//! One mistyped name would keep every server from loading anything of its files, the commit rule
//! too, and the next start from succeeding: so it is found before anybody agrees on it.
//! A machine without PostgreSQL refuses nothing.
//! Not here: what an owner may not set at all (`config`), asking other nodes
//! (`operations/members/settings.rs`).
//! Tested by: `tests/members`, `tests/bad_days`.

use crate::config::{self, Config, NotTaken, nearest};
use crate::service::postgres::Binaries;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::PathBuf;
use tandem_core::ids::ServiceId;

/// Settings of one service that PostgreSQL is to judge.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::node) struct Trial {
    service: ServiceId,
    bin_dir: Option<PathBuf>,
    settings: BTreeMap<String, String>,
}

/// Everything that a file sets, or only what differs from another: what runs already must not be
/// in the way of a change that has nothing to do with it.
pub(in crate::node) fn trials(config: &Config, running: Option<&Config>) -> Vec<Trial> {
    let trial = |(service, it): (&ServiceId, &config::Service)| {
        let before = running.and_then(|running| running.services.get(service));
        let before = before.filter(|before| before.bin_dir == it.bin_dir);
        let is_new = |name: &String, value: &String| {
            before.is_none_or(|before| before.settings.get(name) != Some(value))
        };
        let settings = it.settings.iter().filter(|(name, value)| is_new(name, value));
        Trial {
            service: service.clone(),
            bin_dir: it.bin_dir.clone(),
            settings: settings.map(|(name, value)| (name.clone(), value.clone())).collect(),
        }
    };
    let all = config.services.iter().map(trial);
    all.filter(|trial| !trial.settings.is_empty()).collect()
}

/// What the PostgreSQL of this machine does not take.
pub(in crate::node) async fn judge(trials: &[Trial]) -> Vec<NotTaken> {
    let mut refused = Vec::new();
    for Trial { service, bin_dir, settings } in trials {
        let Ok(binaries) = Binaries::find(bin_dir.as_deref()).await else { continue };
        let found = match binaries.try_settings(settings).await {
            Ok(found) => found,
            Err(error) => {
                tracing::warn!(%service, %error, "PostgreSQL could not be asked about settings");
                continue;
            }
        };
        let names = if found.iter().any(|it| it.unknown) {
            binaries.setting_names().await.unwrap_or_default()
        } else {
            Vec::new()
        };
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        refused.extend(found.into_iter().map(|it| NotTaken {
            service: service.clone(),
            nearest: nearest(&it.name, &names).filter(|_| it.unknown).map(str::to_owned),
            name: it.name,
            because: it.because,
            major: binaries.major(),
            unknown: it.unknown,
        }));
    }
    refused
}

/// The problems of a whole file, as this machine sees them.
pub(in crate::node) async fn problems(config: &Config) -> Vec<config::Problem> {
    config::not_taken(config, &judge(&trials(config, None)).await)
}
