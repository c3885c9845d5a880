//! Talks to the small file of a singleton: what its node promised, and for what it last began.
//! In / Out: `State`. Written whole, durable before the call returns.
//! Keeps: INV-2 a promise is durable before it is told; INV-5 terms never go back; H36 a file that
//! was cut while it was written is not there yet.
//! Tested by: `tests.rs`.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Write as _};
use std::path::{Path, PathBuf};
use tandem_core::ids::Term;

/// The file's name.
const NAME: &str = "singleton";

/// What the keeper was last told to run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Runs {
    /// The command itself.
    #[default]
    Command,
    /// A hook.
    Hook,
}

/// What is durable.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct State {
    /// Starts nothing for a smaller term.
    pub promised: Term,
    /// The last term for which something was started.
    pub begun: Term,
    /// What that was.
    pub runs: Runs,
    /// How it was run (`CommandConfig::recipe`); 0 where that was not kept yet.
    pub recipe: u64,
}

impl State {
    /// Where it is kept.
    pub fn path(dir: &Path) -> PathBuf {
        dir.join(NAME)
    }

    /// What was stored last; nothing promised where there is no file.
    ///
    /// # Errors
    /// It cannot be read: then nothing may be promised or started.
    pub fn load(dir: &Path) -> io::Result<Self> {
        match fs::read_to_string(Self::path(dir)) {
            Ok(text) => Self::parse(&text)
                .ok_or_else(|| io::Error::other("it is damaged, or not one of Tandem's")),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(error),
        }
    }

    fn parse(text: &str) -> Option<Self> {
        let mut state = Self::default();
        let (mut promised, mut begun) = (None, None);
        for line in text.lines() {
            match line.split_once(' ')? {
                ("promised", term) => promised = Some(Term(term.parse().ok()?)),
                ("begun", term) => begun = Some(Term(term.parse().ok()?)),
                ("runs", "command") => state.runs = Runs::Command,
                ("runs", "hook") => state.runs = Runs::Hook,
                ("recipe", recipe) => state.recipe = recipe.parse().ok()?,
                _ => return None,
            }
        }
        // Half a file would be a promise that is forgotten.
        (state.promised, state.begun) = (promised?, begun?);
        Some(state)
    }

    /// Makes it durable.
    ///
    /// # Errors
    /// It may or may not be there: nothing may follow from it.
    pub fn store(&self, dir: &Path) -> io::Result<()> {
        let (path, temporary) = (Self::path(dir), dir.join("singleton.new"));
        let mut file = File::create(&temporary)?;
        let runs = match self.runs {
            Runs::Command => "command",
            Runs::Hook => "hook",
        };
        let Self { promised, begun, recipe, .. } = self;
        write!(file, "promised {promised}\nbegun {begun}\nruns {runs}\nrecipe {recipe}\n")?;
        file.sync_all()?;
        fs::rename(&temporary, &path)?;
        File::open(dir)?.sync_all()
    }
}
