//! Talks to `state.json`: what this node promised about the instance, and what it was doing to it.
//! In / Out: `StateFile`. Keeps: INV-2 a promise is on disk before `change_state` returns; INV-5 it
//! never goes back, and what is missing beside data is never taken for "nothing promised"; H19 a
//! sentinel outlives the process that set it; H36.
//! Tested by: below, `tests/postgres_adapter.rs`.

use super::{Error, Postgres, files, last_words};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::path::Path;
use std::sync::{Arc, PoisonError};
use tandem_core::ids::{Term, TimelineId};

const VERSION: u32 = 1;

/// What must survive a crash of the node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StateFile {
    version: u32,
    /// Follows no primary of a smaller term.
    pub promised: Term,
    /// The last term for which a promotion was begun.
    pub promoted: Term,
    /// The last term in which it was set up to follow.
    pub followed: Term,
    /// The timeline that the primary of `followed` made; 0 where that is not known (H6).
    #[serde(default)]
    pub followed_timeline: TimelineId,
    /// The term in whose promotion the data's timeline began, if it began here (H6).
    pub timeline_term: Term,
    /// The data was last written as a primary.
    pub was_primary: bool,
    /// What was being done to the data directory.
    pub sentinel: Option<Sentinel>,
    /// Why a human must look.
    pub quarantined: Option<String>,
    /// What the server said of a write that may be lost, before it ended (H26).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suspect: Option<String>,
    /// Up to there its log was judged.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub log_judged: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands out references")]
const fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl Default for StateFile {
    fn default() -> Self {
        Self {
            version: VERSION,
            promised: Term(0),
            promoted: Term(0),
            followed: Term(0),
            followed_timeline: TimelineId(0),
            timeline_term: Term(0),
            was_primary: false,
            sentinel: None,
            quarantined: None,
            suspect: None,
            log_judged: 0,
        }
    }
}

impl StateFile {
    /// Is fed by the primary of a term, whose timeline is known if it serves the term already.
    pub fn follow(&mut self, term: Term, timeline: Option<TimelineId>) {
        self.promised = self.promised.max(term);
        self.followed = self.followed.max(term);
        self.followed_timeline = timeline.unwrap_or(self.followed_timeline);
        self.was_primary = false;
    }
}

/// Something that leaves a mixture behind when it is interrupted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Sentinel {
    /// initdb.
    Founding,
    /// A base backup.
    Cloning,
    /// pg_rewind.
    Rewinding,
    /// Taking over data that somebody else made: nothing is lost, and it is begun again.
    Adopting,
}

impl fmt::Display for Sentinel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Founding => "foundation",
            Self::Cloning => "base backup",
            Self::Rewinding => "rewind",
            Self::Adopting => "adoption",
        })
    }
}

/// Whether a state may be begun where there is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum WhereMissing {
    OnlyWithoutData,
    Begin,
}

#[derive(Deserialize)]
struct OnlyVersion {
    version: u32,
}

impl StateFile {
    fn load(path: &Path) -> Result<Option<Self>, Error> {
        let Some(text) = files::read(path)? else {
            return Ok(None);
        };
        let damaged = |source| Error::StateDamaged { path: path.to_owned(), source };
        // The version first: what else a newer file holds cannot be known here (H46).
        let OnlyVersion { version } = serde_json::from_str(&text).map_err(damaged)?;
        if version != VERSION {
            return Err(Error::StateVersion { path: path.to_owned(), version, known: VERSION });
        }
        serde_json::from_str(&text).map(Some).map_err(damaged)
    }

    pub(super) fn save(&self, path: &Path) -> Result<(), Error> {
        if let Some(old) = Self::load(path)? {
            for (from, to) in [(old.promised, self.promised), (old.promoted, self.promoted)] {
                if to < from {
                    return Err(Error::GoesBack { from, to });
                }
            }
        }
        let text = serde_json::to_string_pretty(self)
            .map_err(|source| Error::StateDamaged { path: path.to_owned(), source })?;
        files::replace_durably(path, &text, None)
    }
}

impl Postgres {
    /// Reads the state; the empty one where there is neither a file nor data.
    ///
    /// # Errors
    /// `StateDamaged`, `StateVersion`, or `StateMissing` where there is data: a lost promise is
    /// never taken for "nothing promised".
    pub async fn load_state(&self) -> Result<StateFile, Error> {
        let (path, data) = (self.state_path(), self.data_dir());
        files::blocking(move || match StateFile::load(&path)? {
            Some(state) => Ok(state),
            None if files::is_empty(&data)? => Ok(StateFile::default()),
            None => Err(Error::StateMissing { path }),
        })
        .await
    }

    /// Changes the state and makes it durable, then returns it. One change at a time: a promise
    /// that is saved while a copy sets its sentinel must not undo it.
    ///
    /// # Errors
    /// `GoesBack` for a smaller term than is recorded; as `load_state`, so that a promise never
    /// begins a record over data whose promises are lost, or that is somebody else's; `File`.
    pub async fn change_state<F>(&self, change: F) -> Result<StateFile, Error>
    where
        F: FnOnce(&mut StateFile) + Send + 'static,
    {
        self.change_where(WhereMissing::OnlyWithoutData, change).await
    }

    /// As `change_state`, and begins a record where there is data without one: only for what takes
    /// the data over, or replaces it.
    ///
    /// # Errors
    /// As `change_state`, but `StateMissing`.
    pub async fn begin_state<F>(&self, change: F) -> Result<StateFile, Error>
    where
        F: FnOnce(&mut StateFile) + Send + 'static,
    {
        self.change_where(WhereMissing::Begin, change).await
    }

    async fn change_where<F>(&self, missing: WhereMissing, change: F) -> Result<StateFile, Error>
    where
        F: FnOnce(&mut StateFile) + Send + 'static,
    {
        let (path, turn) = (self.state_path(), Arc::clone(&self.state_turn));
        let data = self.data_dir();
        files::blocking(move || {
            let _turn = turn.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(parent) = path.parent() {
                std::fs::create_dir_all(parent).map_err(Error::file("create", parent))?;
            }
            let mut state = match (StateFile::load(&path)?, missing) {
                (Some(state), _) => state,
                (None, WhereMissing::Begin) => StateFile::default(),
                (None, WhereMissing::OnlyWithoutData) if files::is_empty(&data)? => {
                    StateFile::default()
                }
                (None, WhereMissing::OnlyWithoutData) => return Err(Error::StateMissing { path }),
            };
            change(&mut state);
            state.save(&path)?;
            Ok(state)
        })
        .await
    }

    /// Whether the data may be taken over or replaced was decided by the caller.
    pub(super) async fn set_sentinel(&self, sentinel: Option<Sentinel>) -> Result<(), Error> {
        let log = self.log_file();
        self.begin_state(move |state| {
            state.sentinel = sentinel;
            // What an earlier copy's server said is nothing about this one's.
            if sentinel.is_some() {
                state.log_judged = last_words::length(&log);
            }
        })
        .await
        .map(|_| ())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_promise_survives_and_never_goes_back() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state.json");
        assert_eq!(StateFile::load(&path).unwrap(), None);
        let state = StateFile {
            promised: Term(7),
            sentinel: Some(Sentinel::Rewinding),
            ..StateFile::default()
        };
        state.save(&path).unwrap();
        assert_eq!(StateFile::load(&path).unwrap().as_ref(), Some(&state));
        let back = StateFile { promised: Term(6), ..state };
        assert!(matches!(back.save(&path), Err(Error::GoesBack { .. })));
    }

    #[test]
    fn damage_is_an_error_and_not_a_default() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state.json");
        for text in ["", "{", "{\"version\":1}", "{\"version\":1,\"promised\":1,\"else\":2}"] {
            std::fs::write(&path, text).unwrap();
            assert!(matches!(StateFile::load(&path), Err(Error::StateDamaged { .. })), "{text}");
        }
        std::fs::write(&path, "{\"version\":2,\"new\":1}").unwrap();
        assert!(matches!(StateFile::load(&path), Err(Error::StateVersion { .. })));
    }

    /// A promise that does not fit on the disk was not made, and the one before it stays (H27).
    #[test]
    fn a_full_disk_keeps_the_last_promise() {
        let dir = tempfile::tempdir().unwrap();
        let Ok(_disk) = crate::dev::disk::Disk::mount(dir.path(), 1 << 20) else {
            println!("SKIPPED: a disk that can be filled needs the right to mount");
            return;
        };
        let path = dir.path().join("state.json");
        let kept = StateFile { promised: Term(7), ..StateFile::default() };
        kept.save(&path).unwrap();
        crate::dev::disk::fill(dir.path()).unwrap();
        let quarantined = Some("x".repeat(8192));
        let next = StateFile { promised: Term(8), quarantined, ..StateFile::default() };
        let error = next.save(&path).unwrap_err();
        assert!(matches!(error, Error::DiskFull { .. }), "{error:?}");
        assert_eq!(StateFile::load(&path).unwrap(), Some(kept));
        std::fs::remove_file(dir.path().join("filler")).unwrap();
        next.save(&path).unwrap();
        assert_eq!(StateFile::load(&path).unwrap().map(|state| state.promised), Some(Term(8)));
    }
}
