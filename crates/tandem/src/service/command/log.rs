//! Talks to the file that a command prints to: keeps it within bounds.
//! The command has it open, so it is copied and emptied rather than moved: a line that is printed
//! in between is lost.
//! Tested by: `tests.rs`.

use super::CommandConfig;
use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;

impl CommandConfig {
    /// Moves the log aside if it has grown too long; whether it had.
    ///
    /// # Errors
    /// The disk's.
    pub fn bound_log(&self) -> io::Result<bool> {
        let path = self.log_file();
        let length = match fs::symlink_metadata(&path) {
            Ok(found) if found.is_file() => found.len(),
            Ok(_) => return Ok(false),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(error),
        };
        if length <= self.log_bytes_max {
            return Ok(false);
        }
        let (aside, new) = (self.dir.join("output.log.1"), self.dir.join("output.log.new"));
        let mut options = OpenOptions::new();
        let mut from = options.read(true).write(true);
        from = from.custom_flags(rustix::fs::OFlags::NOFOLLOW.bits() as i32);
        let mut from = from.open(&path)?;
        // Not through a link that the command's user could have put in its place.
        let _ = fs::remove_file(&new);
        let mut options = OpenOptions::new();
        let mut to = options.write(true).create_new(true).mode(0o640).open(&new)?;
        io::copy(&mut from, &mut to)?;
        from.set_len(0)?;
        fs::rename(&new, &aside)?;
        Ok(true)
    }
}
