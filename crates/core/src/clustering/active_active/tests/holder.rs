//! What a node shows and releases.

use super::*;
use crate::clustering::active_active::holder::{
    Floor, Holder, HolderView, Holding, Refused, Shown,
};
use crate::ids::Revision;

/// What node `a` knows: partition 0 is its own, under epoch 1, in its first sitting.
struct Own {
    work: ServiceState,
    seat: ServiceState,
    own: InstanceFacts,
    ends: u64,
    holder: Holder,
}

impl Own {
    fn new() -> Self {
        let mut case = case(3);
        case.go();
        let own = case.facts[&NodeId::from("a")].last_known().instances[&seat("a")].clone();
        let (work, seat) = (&case.state.services[&work()], &case.state.services[&seat("a")]);
        Self { work: work.clone(), seat: seat.clone(), own, ends: 0, holder: Holder::default() }
    }

    fn see<T>(&mut self, look: impl FnOnce(&mut Holder, &HolderView<'_>) -> T) -> T {
        let view = HolderView {
            me: &"a".into(),
            work: &self.work,
            seat: &self.seat,
            own: &self.own,
            ends: self.ends,
            release_max: Duration::from_secs(10),
        };
        look(&mut self.holder, &view)
    }

    fn show(&mut self) -> Option<Vec<Holding>> {
        match self.see(|holder, view| holder.show(view, NOW)) {
            Shown::NotYet => None,
            Shown::These { partitions, .. } => Some(partitions),
        }
    }

    /// What must be durable before what is shown may be told.
    fn durable(&mut self) -> Option<Floor> {
        match self.see(|holder, view| holder.show(view, NOW)) {
            Shown::NotYet => None,
            Shown::These { durable, .. } => durable,
        }
    }

    fn release(&mut self) -> Vec<u32> {
        let release = self.see(|holder, view| holder.release(view, NOW));
        release.released.keys().map(|it| it.0).collect()
    }

    fn change(&mut self, epoch: u64, what: What) {
        let change = Change { partition: PartitionId(0), epoch: Epoch(epoch), what };
        assert_eq!(self.work.partitions.as_mut().unwrap().apply(&[change]), 1);
        self.work.revision = self.work.revision.next();
    }
}

const MINE: Holding = Holding { partition: PartitionId(0), epoch: Epoch(1), releasing: None };

#[test]
fn a_release_waits_for_the_process_and_what_it_is_told_of_it_is_durable_before() {
    let mut own = Own::new();
    assert_eq!(own.show(), Some(vec![MINE]));
    assert_eq!(own.durable(), None, "nothing is asked back");
    let confirm = |own: &mut Own, epoch| own.holder.confirm(PartitionId(0), Epoch(epoch));
    assert_eq!(confirm(&mut own, 1), Err(Refused::NotAsked));
    own.change(1, What::Release("b".into()));
    let releasing = Some(NOW.plus(Duration::from_secs(10)));
    assert_eq!(own.show(), Some(vec![Holding { releasing, ..MINE }]));
    let floor = Floor { table: ConfigVersion(1), revision: own.work.revision };
    assert_eq!(own.durable(), Some(floor));
    own.holder.is_durable(floor);
    assert_eq!(own.durable(), None, "not written again");
    assert_eq!(confirm(&mut own, 1), Err(Refused::NotYet), "nobody was told");
    assert_eq!(own.release(), [0; 0]);
    assert_eq!(confirm(&mut own, 2), Err(Refused::NotItsOwn));
    assert_eq!(confirm(&mut own, 1), Ok(()));
    assert_eq!(own.release(), [0]);
    assert_eq!(own.release(), [0], "told again");
    // A daemon that begins from an older state shows nothing of it: not that it is owned, after
    // which a word that is repeated would be about work that began anew.
    let mut restarted = Own { holder: Holder::new(floor), ..Own::new() };
    assert_eq!(restarted.show(), None);
    restarted.work = own.work.clone();
    assert_eq!(restarted.show(), Some(vec![Holding { releasing, ..MINE }]));
    own.change(1, What::Keep);
    assert_eq!(own.show(), Some(vec![Holding { epoch: Epoch(2), ..MINE }]));
    assert_eq!(own.release(), [0; 0], "that epoch is over");
}

/// More was agreed while a file was written: the copy is told the file at once, and answers.
#[test]
fn a_word_about_what_was_put_out_counts_whatever_was_shown_since() {
    let mut own = Own::new();
    own.change(1, What::Release("b".into()));
    let shown = own.show().unwrap();
    let confirm = |own: &mut Own| own.holder.confirm(PartitionId(0), Epoch(1));
    own.see(|holder, view| holder.put_out(&[MINE], view));
    assert_eq!(confirm(&mut own), Err(Refused::NotYet), "that said nothing of it");
    own.see(|holder, view| holder.put_out(&shown, view));
    own.work.revision = own.work.revision.next();
    assert_eq!(own.show(), Some(shown));
    assert_eq!(confirm(&mut own), Ok(()));
    assert_eq!(own.release(), [0]);
}

#[test]
fn what_was_confirmed_of_another_table_is_not_released_of_this_one() {
    let mut own = Own::new();
    own.change(1, What::Release("b".into()));
    own.show();
    own.release();
    assert_eq!(own.holder.confirm(PartitionId(0), Epoch(1)), Ok(()));
    assert_eq!(own.release(), [0]);
    // Taken out and put back, with nothing seen in between.
    let mut table = own.work.partitions.clone().unwrap();
    table.since = ConfigVersion(3);
    own.work.partitions = Some(table);
    let release = own.see(|holder, view| holder.release(view, NOW));
    assert_eq!((release.table, release.released.len()), (ConfigVersion(1), 0), "not shown yet");
    own.show();
    let release = own.see(|holder, view| holder.release(view, NOW));
    assert_eq!((release.table, release.released.len()), (ConfigVersion(3), 0));
}

#[test]
fn the_end_of_the_copy_releases_what_it_was_shown_as_its_own() {
    let mut own = Own::new();
    own.show();
    own.change(1, What::Release("b".into()));
    own.show();
    assert_eq!(own.release(), [0; 0]);
    own.ends += 1;
    assert_eq!(own.release(), [0], "the next one saw that it begins nothing");
    let mut own = Own::new();
    own.show();
    own.change(1, What::Release("b".into()));
    own.show();
    own.ends += 1;
    assert_eq!(own.release(), [0; 0], "the next one may have read what was told before");
    let mut own = Own::new();
    own.change(1, What::Release("b".into()));
    own.show();
    own.own.process = Process::Stopped;
    assert_eq!(own.release(), [0]);
    let late = NOW.plus(Duration::from_secs(10));
    let mut own = Own::new();
    own.change(1, What::Release("b".into()));
    own.show();
    let release = own.see(|holder, view| holder.release(view, late));
    assert_eq!(release.overdue, [PartitionId(0)]);
}

#[test]
fn a_copy_of_another_sitting_and_a_state_of_before_show_nothing() {
    let mut own = Own::new();
    own.seat.sitting = Term(2);
    assert_eq!(own.show(), Some(vec![]), "it is about to be ended");
    let mut own = Own::new();
    own.own.promoted = Term(2);
    assert_eq!(own.show(), None, "the agreed state here is older than the copy");
    let mut own = Own::new();
    own.holder = Holder::new(Floor { table: ConfigVersion(2), revision: Revision(0) });
    assert_eq!(own.show(), None, "another table");
}

/// A door that has not heard that it was put back counts keys as before.
#[test]
fn inv15_a_copy_knows_which_epochs_were_of_an_earlier_table() {
    let before = |own: &mut Own| match own.see(|holder, view| holder.show(view, NOW)) {
        Shown::NotYet => None,
        Shown::These { before, .. } => Some(before),
    };
    let mut own = Own::new();
    assert_eq!(before(&mut own), Some(Epoch(0)), "there was none");
    let mut case = case(3);
    case.go();
    let with = case.state.spec.clone();
    for services in [BTreeMap::new(), with.services.clone()] {
        let spec = ClusterSpec { services, ..with.clone() };
        let config = Box::new(Config { text: String::new(), spec });
        let expected = case.state.config_version;
        assert_eq!(case.state.apply(&Command::Configure { expected, config }), Applied::Changed);
    }
    own.work = case.state.services[&work()].clone();
    let max = own.work.partitions.as_ref().map(|table| table.epoch_max());
    assert_eq!(before(&mut own), max, "whoever gets one gets a later epoch");
    assert_eq!(before(&mut own), Some(Epoch(1)));
}
