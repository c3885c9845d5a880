//! Keeps at which port a copy under a lease is looked for: at the one with which its service began
//! here. Doors of all nodes find a copy by it, and nodes adopt a file one after the other.
//! In: `Config`, what is agreed. Out: a port; what waits for the daemons' restart.
//! Not here: doors (`leased.rs`, `led.rs`), copies side by side, whose port does not change.
//! Tested by: below, `tests/copies`.

use crate::config::{self, Command, Config};
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use tandem_core::cluster::state::ClusterState;
use tandem_core::ids::{ConfigVersion, ServiceId};

/// Where each service began.
#[derive(Debug, Default)]
pub(in crate::node) struct Ports(Mutex<BTreeMap<ServiceId, Begun>>);

#[derive(Debug)]
struct Begun {
    port: Option<u16>,
    /// The configuration that said so: a service that came with a later one is another one.
    read: ConfigVersion,
}

fn leased(config: &Config) -> impl Iterator<Item = (&ServiceId, &Command)> {
    config.commands.iter().filter(|(_, command)| command.copies.is_none())
}

impl Ports {
    /// Of a daemon that begins with that configuration.
    pub(in crate::node) fn of((read, config): (ConfigVersion, &Config)) -> Self {
        let begun = |it: &Command| Begun { port: it.port, read };
        Self(Mutex::new(leased(config).map(|(id, it)| (id.clone(), begun(it))).collect()))
    }

    /// Takes over another configuration: what waits.
    pub(in crate::node) fn follow(
        &self,
        (read, config): (ConfigVersion, &Config),
        agreed: &ClusterState,
    ) -> Vec<String> {
        let mut all = self.all();
        all.retain(|service, begun| {
            let since = agreed.services.get(service).map_or(read, |state| state.since);
            leased(config).any(|(id, _)| id == service) && since <= begun.read
        });
        let mut waits = Vec::new();
        for (service, command) in leased(config) {
            let begun = || Begun { port: command.port, read };
            if all.entry(service.clone()).or_insert_with(begun).port != command.port {
                waits.push(config::port_waits(service));
            }
        }
        waits
    }

    /// The port of a command of that configuration.
    pub(super) fn at(&self, service: &ServiceId, command: &Command) -> Option<u16> {
        self.all().get(service).map_or(command.port, |begun| begun.port)
    }

    fn all(&self) -> MutexGuard<'_, BTreeMap<ServiceId, Begun>> {
        // Nothing panics while it holds the lock.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tandem_core::cluster::state::ServiceState;

    fn with(port: Option<u16>) -> Config {
        let jobs = port.map(|port| {
            format!(
                "[services.jobs]\nreplication = \"none\"\nclustering = \"active-passive\"\n\
                 kind = \"command\"\nport = {port}\ncommand = [\"/bin/jobs\"]\n"
            )
        });
        let nodes = "cluster = \"t\"\n[nodes.a]\naddress = \"192.0.2.1:7400\"\n";
        Config::parse(&(nodes.to_owned() + &jobs.unwrap_or_default()), "t").unwrap()
    }

    fn agreed(since: u64) -> ClusterState {
        let jobs = ServiceState { since: ConfigVersion(since), ..ServiceState::default() };
        ClusterState { services: [("jobs".into(), jobs)].into(), ..ClusterState::default() }
    }

    #[test]
    fn a_copy_is_where_it_began_until_its_service_was_taken_out() {
        let jobs = "jobs".into();
        let ports = Ports::of((ConfigVersion(2), &with(Some(9001))));
        let at = |port| ports.at(&jobs, &with(Some(port)).commands[&jobs]);
        let follow = |version, port, since| {
            ports.follow((ConfigVersion(version), &with(port)), &agreed(since))
        };
        assert_eq!(follow(2, Some(9001), 1), [""; 0]);
        let waits = follow(3, Some(9002), 1);
        assert!(waits.len() == 1 && waits[0].contains("jobs has the new port"), "{waits:?}");
        assert_eq!(at(9002), Some(9001));
        assert_eq!(ports.follow((ConfigVersion(4), &with(None)), &agreed(9)), [""; 0]);
        assert_eq!(follow(5, Some(9002), 5), [""; 0], "it begins");
        assert_eq!(at(9002), Some(9002));
        assert_eq!(follow(7, Some(9003), 7), [""; 0], "nobody saw it go");
        assert_eq!(at(9003), Some(9003));
        // A daemon that was away, with what it had kept.
        let ports = Ports::of((ConfigVersion(2), &with(Some(9001))));
        assert_eq!(ports.follow((ConfigVersion(7), &with(Some(9003))), &agreed(7)), [""; 0]);
        assert_eq!(ports.at(&jobs, &with(Some(9003)).commands[&jobs]), Some(9003));
    }
}
