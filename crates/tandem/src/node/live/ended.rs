//! Tells the others of which services nothing is left on this node.
//! In: what is agreed, which folders somebody has. Out: `Ended`.
//! Keeps: INV-12, INV-13 what needs no lease is told to be over only by a configuration that does
//! not have it, with which the next start begins as well; and only once no driver has its folder,
//! nor what ends copies that an earlier daemon left.
//! Not here: who rests on it (`tandem_core::clustering::copies::left`).
//! Tested by: `tests/copies`.

use super::Live;
use tandem_core::cluster::state::ClusterState;
use tandem_core::facts::Ended;
use tandem_core::ids::ServiceId;

impl Live {
    /// Tells of what was taken out and needed no lease whether something is left of it here.
    pub(super) fn tell_what_ended(&self, state: &ClusterState) {
        let version = state.config_version;
        if state.cluster.is_none() || self.version != version || self.kept != version {
            // What was told before counts by the configuration that it was told of.
            return;
        }
        let beside = state.taken_out.iter().filter(|(_, out)| out.beside);
        let is_over = |it: &&ServiceId| self.ground.folders.is_free(it);
        let services = beside.map(|(service, _)| service).filter(is_over).cloned().collect();
        self.ground.hub.nothing_left(Ended { version, services });
    }
}
