//! Decides whether a door by key counts as what is agreed says: two doors that do not count alike
//! would send one key to two owners.
//! In: what a door counts by, what is agreed. Out: whether it may lead anybody.
//! States: as the configuration says that the door was made by → (another one that can be read) as
//! that one says. One that only a newer release can read leaves it as it is, but for a table that
//! is newer than what was read last.
//! Keeps: INV-15 a key has one owner: by a table that is over (the copies turn that away) or by
//! what is agreed.
//! Not here: who is led where (`driver/guides/by_key.rs`).
//! Tested by: below.

use crate::config::{Command, Config};
use crate::driver::guides::by_key::Counts;
use tandem_core::clustering::load_balanced::key::Source;
use tandem_core::ids::{ConfigVersion, ServiceId};

/// By what a key belongs to a partition, and who is believed what it says of a client, where that
/// is a part of the key. It never changes of a door: what waits there was counted by it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Counting {
    partitions: u32,
    key: Source,
    trusted: Vec<String>,
    accept_proxy: Option<Option<Vec<String>>>,
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
            accept_proxy: (by_word && own.door.accept_proxy)
                .then(|| own.door.accept_proxy_from.clone()),
        })
    }
}

/// Whether a door that counts by that, as the configuration `read` says, counts by what is agreed.
/// Of a service that is taken out nothing is.
pub(super) fn counts(service: &ServiceId, by: Counting, read: ConfigVersion) -> Counts {
    let service = service.clone();
    let (mut read, mut is_agreed, mut seen) = (read, true, None);
    Box::new(move |state| {
        if seen.replace(state.config_version) != Some(state.config_version)
            && let Ok(config) = Config::parse(&state.config_text, "the agreed configuration")
        {
            let agreed = config.commands.get(&service).and_then(Counting::of);
            (read, is_agreed) = (state.config_version, agreed.as_ref() == Some(&by));
        }
        let table = state.services.get(&service).and_then(|it| it.partitions.as_ref());
        // What a key is stays what it is for as long as there is the table.
        is_agreed && table.is_some_and(|table| table.since <= read)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use tandem_core::cluster::partitions::Partitions;
    use tandem_core::cluster::state::{ClusterState, ServiceState};
    use tandem_core::ids::Epoch;

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

    /// The table that was made by that configuration is there.
    fn state(version: u64, text: &str, since: Option<u64>) -> ClusterState {
        let table = |since| Partitions::new(12, ConfigVersion(since), Epoch(0));
        let work = ServiceState { partitions: since.map(table), ..ServiceState::default() };
        ClusterState {
            config_version: ConfigVersion(version),
            config_text: text.to_owned(),
            services: [("work".into(), work)].into(),
            ..ClusterState::default()
        }
    }

    const OF_A_NEWER_RELEASE: &str = "of = \"a newer release\"";

    /// What two doors would take for two partitions, or for another client's.
    #[test]
    fn inv15_a_door_leads_only_by_what_is_agreed() {
        let own = text(KEY);
        let mut counts = counts(&"work".into(), by(&own).unwrap(), ConfigVersion(1));
        let mut version = 1;
        let mut is_it = |text: &str| {
            version += 1;
            let state = state(version, text, Some(1));
            let first = counts(&state);
            assert_eq!(first, counts(&state), "{text}");
            first
        };
        for other in [
            "partitions = 24\npartition_key = { header = \"X-Shop\" }".to_owned(),
            "partitions = 12\npartition_key = { cookie = \"sid\" }".to_owned(),
            [KEY, "\naccept_proxy = true"].concat(),
            [KEY, "\naccept_proxy = true\naccept_proxy_from = [\"10.0.0.1\"]"].concat(),
            [KEY, "\ntrusted = [\"10.0.0.0/8\"]"].concat(),
        ] {
            assert!(is_it(&own));
            assert!(is_it(OF_A_NEWER_RELEASE), "as it was");
            assert!(!is_it(&text(&other)), "{other}");
            assert!(!is_it(OF_A_NEWER_RELEASE), "as it was");
        }
        assert!(!is_it(NODES), "it is taken out");
        assert!(is_it(&text(&[KEY, "\nhold_max = \"7s\""].concat())), "that is no part of it");
        let cookie = text("partitions = 12\npartition_key = { cookie = \"sid\" }");
        let mut counts = super::counts(&"work".into(), by(&cookie).unwrap(), ConfigVersion(1));
        let proxied = [&cookie, "accept_proxy = true\n"].concat();
        assert!(counts(&state(2, &proxied, Some(1))), "it is not its word");
    }

    /// A newer release had a configuration agreed that this one cannot read, and this one restarts:
    /// the door is what the last one says that could be read.
    #[test]
    fn inv15_a_door_leads_by_no_table_that_it_cannot_read_the_key_of() {
        let begun = |read| counts(&"work".into(), by(&text(KEY)).unwrap(), ConfigVersion(read));
        let unread = |version, since| state(version, OF_A_NEWER_RELEASE, since);
        assert!(begun(4)(&unread(5, Some(2))), "it is the one that was there");
        let mut counts = begun(4);
        assert!(!counts(&unread(6, Some(6))), "its key may be another one");
        assert!(!counts(&unread(7, Some(6))), "the same");
        assert!(counts(&state(8, &text(KEY), Some(6))), "it is not");
        assert!(counts(&unread(9, Some(6))));
        assert!(!counts(&unread(10, None)), "it is taken out");
        assert!(!counts(&unread(11, Some(11))), "and put back");
        assert!(!begun(0)(&unread(1, Some(1))), "what it began with was never agreed");
        assert!(begun(0)(&state(1, &text(KEY), Some(1))));
    }
}
