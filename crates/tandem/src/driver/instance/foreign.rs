//! Decides that data of another cluster stays as it is until a human has looked.
//! In: the own facts, the agreed identity of the data. Out: `Data::Quarantined`, with what may
//! help.
//! Folders get mixed up when machines are moved and restored. To copy over what was found would be
//! the end of somebody else's database; an operator says so with `tandem reinit`.
//! A copy that never followed nor led is the rest of an interrupted founding, and goes.
//! Keeps: H35. Tested by: below, and `tests/bad_days.rs`.

use tandem_core::facts::{Data, InstanceFacts, Process};
use tandem_core::ids::{SystemId, Term};

/// Quarantines stopped data whose identity is not the agreed one.
pub(super) fn keep(own: &mut InstanceFacts, agreed: Option<SystemId>) {
    let (Some(found), Some(agreed)) = (own.system, agreed) else { return };
    let was_used = own.promoted > Term(0) || own.followed > Term(0);
    if found == agreed || !was_used || own.process != Process::Stopped || own.data != Data::Present
    {
        return;
    }
    own.data = Data::Quarantined {
        reason: format!(
            "TDM0508: the data is of another cluster (system identifier {}, agreed is {}), and was \
             not touched; move it to where it belongs, or give it up with tandem reinit",
            found.0, agreed.0
        ),
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn foreign_data_is_kept_and_the_rest_of_a_founding_is_not() {
        let found = |system, followed| InstanceFacts {
            data: Data::Present,
            system: Some(SystemId(system)),
            followed: Term(followed),
            ..InstanceFacts::default()
        };
        let after = |mut own: InstanceFacts, agreed| {
            keep(&mut own, agreed);
            own.data
        };
        let Data::Quarantined { reason } = after(found(1, 3), Some(SystemId(2))) else { panic!() };
        assert!(reason.contains("TDM0508") && reason.contains("tandem reinit"), "{reason}");
        assert_eq!(after(found(1, 0), Some(SystemId(2))), Data::Present, "an interrupted founding");
        assert_eq!(after(found(2, 3), Some(SystemId(2))), Data::Present, "our own");
        assert_eq!(after(found(1, 3), None), Data::Present, "nothing is agreed yet");
        let runs = InstanceFacts { process: Process::Standby, ..found(1, 3) };
        assert_eq!(after(runs, Some(SystemId(2))), Data::Present, "judged once it is stopped");
    }
}
