//! Decides whether a door by key counts as what is agreed says: two doors that do not count alike
//! would send one key to two owners.
//! In: what a door counts by, what is agreed. Out: whether it may lead anybody.
//! Not here: who is led where (`driver/guides/by_key.rs`).
//! Tested by: below.

use crate::config::{Command, Config};
use crate::driver::guides::by_key::Counts;
use tandem_core::clustering::load_balanced::key::Source;
use tandem_core::ids::{ConfigVersion, ServiceId};
use tokio::sync::watch;

/// By what a key belongs to a partition, and who is believed what it says of a client, where that
/// is a part of the key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Counting {
    partitions: u32,
    key: Source,
    trusted: Vec<String>,
    accept_proxy: bool,
}

impl Counting {
    /// None: it has no such door.
    pub(super) fn of(command: &Command) -> Option<Self> {
        let partitions = command.partitions.as_ref()?;
        let own = partitions.door.as_ref()?;
        let by_word = matches!(own.key, Source::Address | Source::Header(_));
        let http = own.door.http.as_ref().filter(|_| by_word);
        Some(Self {
            partitions: partitions.count,
            key: own.key.clone(),
            trusted: http.map(|http| http.trusted.clone()).unwrap_or_default(),
            accept_proxy: by_word && own.door.accept_proxy,
        })
    }
}

/// Whether a door that counts by that, or by nothing while it changes, counts by what is agreed. Of
/// a service that is taken out nothing is.
pub(super) fn counts(service: &ServiceId, by: watch::Receiver<Option<Counting>>) -> Counts {
    let service = service.clone();
    let (mut version, mut agreed) = (None::<ConfigVersion>, None);
    Box::new(move |state| {
        if version.replace(state.config_version) != Some(state.config_version) {
            // What only a newer release can read goes on as it is.
            if let Ok(config) = Config::parse(&state.config_text, "the agreed configuration") {
                agreed = config.commands.get(&service).map(Counting::of);
            }
        }
        agreed.as_ref().is_none_or(|agreed| *agreed == *by.borrow())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use tandem_core::cluster::state::ClusterState;

    const KEY: &str = "partitions = 12\npartition_key = { header = \"X-Shop\" }";
    const NODES: &str = "cluster = \"shop\"\n[nodes.a]\naddress = \"127.0.0.1:7400\"\n";

    fn text(more: &str) -> String {
        format!(
            "{NODES}[services.work]\nkind = \"command\"\nclustering = \"active-active\"\n\
             replication = \"none\"\ncommand = [\"/srv/work\"]\nlisten = 8080\nport = 9080\n\
             door = \"http\"\n{more}\n"
        )
    }

    fn by(text: &str) -> Option<Counting> {
        Counting::of(&Config::parse(text, "t").unwrap().commands[&"work".into()])
    }

    /// What two doors would take for two partitions, or for another client's.
    #[test]
    fn a_door_leads_only_by_what_is_agreed() {
        let door = watch::Sender::new(by(&text(KEY)));
        let mut counts = counts(&"work".into(), door.subscribe());
        let mut version = 0;
        let mut is_it = |text: &str| {
            version += 1;
            let mut state = ClusterState::default();
            (state.config_version, state.config_text) = (ConfigVersion(version), text.to_owned());
            let first = counts(&state);
            assert_eq!(first, counts(&state), "{text}");
            first
        };
        for other in [
            "partitions = 24\npartition_key = { header = \"X-Shop\" }".to_owned(),
            "partitions = 12\npartition_key = { cookie = \"sid\" }".to_owned(),
            [KEY, "\naccept_proxy = true"].concat(),
            [KEY, "\ntrusted = [\"10.0.0.0/8\"]"].concat(),
        ] {
            let other = text(&other);
            assert!(is_it(&text(KEY)));
            assert!(!is_it(&other), "{other}");
            assert!(!is_it("of = \"a newer release\""), "as it was");
            door.send_replace(None);
            assert!(!is_it(&other), "it changes");
            door.send_replace(by(&other));
            assert!(is_it(&other), "{other}");
            assert!(!is_it(&text(KEY)), "{other}");
            assert!(is_it(NODES), "it is taken out");
            door.send_replace(by(&text(KEY)));
        }
        assert!(is_it(&text(&[KEY, "\nhold_max = \"7s\""].concat())), "that is no part of it");
        assert!(is_it("of = \"a newer release\""), "as it was");
        let cookie = "partitions = 12\npartition_key = { cookie = \"sid\" }";
        door.send_replace(by(&text(cookie)));
        assert!(is_it(&text(&[cookie, "\naccept_proxy = true"].concat())), "it is not its word");
    }
}
