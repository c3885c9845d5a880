//! Talks to pg_controldata, pg_waldump and the history files: what a stopped instance holds.
//! In: a data directory that nobody writes to. Out: `Stopped`.
//! Keeps: H6 the history is read, not guessed from a timeline's number; H39 where the shutdown
//! checkpoint *ends* is known, so that a standby can be proven to have it.
//! Tested by: below, and `tests/postgres_adapter.rs`.

use super::{Error, Postgres, files};
use std::collections::BTreeMap;
use tandem_core::facts::Fork;
use tandem_core::ids::{SystemId, TimelineId};
use tandem_core::lsn::Lsn;

/// The state in pg_control.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ControlState {
    /// Made by initdb or a copy, never ran.
    StartingUp,
    /// A primary that was stopped cleanly.
    ShutDown,
    /// A standby that was stopped cleanly.
    ShutDownInRecovery,
    /// A primary that was interrupted while it stopped.
    ShuttingDown,
    /// Interrupted while it recovered from a crash.
    InCrashRecovery,
    /// A standby that was interrupted, or a copy that has not run yet.
    InArchiveRecovery,
    /// A primary that was interrupted.
    InProduction,
}

impl ControlState {
    /// Whether the data was last written by a primary.
    pub const fn was_primary(self) -> bool {
        match self {
            Self::ShutDown | Self::ShuttingDown | Self::InProduction | Self::InCrashRecovery => {
                true
            }
            Self::StartingUp | Self::ShutDownInRecovery | Self::InArchiveRecovery => false,
        }
    }

    /// Whether it was stopped by a shutdown that wrote its checkpoint.
    pub const fn is_clean(self) -> bool {
        matches!(self, Self::ShutDown | Self::ShutDownInRecovery)
    }
}

/// A stopped instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stopped {
    /// Identity of the data.
    pub system: SystemId,
    /// Timeline of the last checkpoint, or of the recovery's end if that is later.
    pub timeline: TimelineId,
    /// How it ended.
    pub state: ControlState,
    /// Where the last checkpoint's record begins.
    pub checkpoint: Lsn,
    /// End of what is certainly there: of the shutdown checkpoint's record for a primary that was
    /// stopped cleanly, of the consistent part for a standby; elsewhere the checkpoint.
    pub end: Lsn,
    /// A standby must replay up to here.
    pub min_recovery: Lsn,
    /// Whether pages carry checksums.
    pub checksums: bool,
    /// Where each ancestor of the timeline ended, oldest first.
    pub forks: Vec<Fork>,
}

impl Postgres {
    /// Reads pg_control and the timeline's history.
    ///
    /// # Errors
    /// `Tool`, `Answer` if the output is not understood, `NoData`.
    pub async fn inspect_stopped(&self) -> Result<Stopped, Error> {
        self.check_data().await?;
        let data = self.data_dir().display().to_string();
        let finished = self.run("pg_controldata", ["-D", &data]).await?;
        let output = finished.ok("pg_controldata")?;
        let (mut stopped, segment_bytes) = parse(&output).ok_or_else(|| Error::Answer {
            doing: "reading pg_control",
            answer: output.chars().take(400).collect(),
        })?;
        stopped.forks = self.forks(stopped.timeline).await?;
        if stopped.state == ControlState::ShutDown {
            stopped.end = self.end_of_record(&stopped, segment_bytes).await?;
        }
        Ok(stopped)
    }

    /// Where each ancestor of a timeline ended, oldest first.
    ///
    /// # Errors
    /// `File`, `Answer` for a damaged history.
    pub async fn forks(&self, timeline: TimelineId) -> Result<Vec<Fork>, Error> {
        if timeline.0 <= 1 {
            return Ok(Vec::new());
        }
        let path = self.data_dir().join(format!("pg_wal/{:08X}.history", timeline.0));
        files::blocking(move || {
            let text = files::read(&path)?
                .ok_or_else(|| Error::file("read", &path)(std::io::ErrorKind::NotFound.into()))?;
            parse_history(&text)
                .ok_or(Error::Answer { doing: "reading a timeline's history", answer: text })
        })
        .await
    }

    /// The greatest timeline whose history is here: a promotion writes that before anything else.
    ///
    /// # Errors
    /// `File`.
    pub async fn newest_timeline(&self) -> Result<Option<TimelineId>, Error> {
        let folder = self.data_dir().join("pg_wal");
        files::blocking(move || {
            let entries = std::fs::read_dir(&folder).map_err(Error::file("read", &folder))?;
            let number = |name: &str| {
                let digits = name.strip_suffix(".history")?;
                u32::from_str_radix(digits, 16).ok().map(TimelineId)
            };
            Ok(entries.flatten().filter_map(|entry| number(entry.file_name().to_str()?)).max())
        })
        .await
    }

    async fn end_of_record(&self, stopped: &Stopped, segment_bytes: u64) -> Result<Lsn, Error> {
        let wal = self.data_dir().join("pg_wal").display().to_string();
        let (start, timeline) = (stopped.checkpoint.to_string(), stopped.timeline.to_string());
        let arguments = ["-p", &wal, "-t", &timeline, "-s", &start, "-n", "1"];
        let output = self.run("pg_waldump", arguments).await?.ok("pg_waldump")?;
        let bytes = output
            .lines()
            .find(|line| line.contains("CHECKPOINT_SHUTDOWN"))
            .and_then(record_bytes)
            .ok_or(Error::Answer { doing: "reading the shutdown checkpoint", answer: output })?;
        Ok(end_of(stopped.checkpoint, bytes, segment_bytes))
    }
}

fn parse(output: &str) -> Option<(Stopped, u64)> {
    let fields: BTreeMap<&str, &str> = output
        .lines()
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.trim(), value.trim()))
        .collect();
    let number = |name: &str| fields.get(name)?.parse::<u64>().ok();
    let lsn = |name: &str| fields.get(name)?.parse::<Lsn>().ok();
    let state = match *fields.get("Database cluster state")? {
        "starting up" => ControlState::StartingUp,
        "shut down" => ControlState::ShutDown,
        "shut down in recovery" => ControlState::ShutDownInRecovery,
        "shutting down" => ControlState::ShuttingDown,
        "in crash recovery" => ControlState::InCrashRecovery,
        "in archive recovery" => ControlState::InArchiveRecovery,
        "in production" => ControlState::InProduction,
        _ => return None,
    };
    let checkpoint = lsn("Latest checkpoint location")?;
    let min_recovery = lsn("Minimum recovery ending location")?;
    let timeline = number("Latest checkpoint's TimeLineID")?
        .max(number("Min recovery ending loc's timeline")?);
    let stopped = Stopped {
        system: SystemId(number("Database system identifier")?),
        timeline: TimelineId(u32::try_from(timeline).ok()?),
        state,
        checkpoint,
        end: checkpoint.max(min_recovery),
        min_recovery,
        checksums: number("Data page checksum version")? > 0,
        forks: Vec::new(),
    };
    Some((stopped, number("Bytes per WAL segment")?))
}

/// `1<tab>0/3000148<tab>no recovery target specified`, comments and empty lines aside.
fn parse_history(text: &str) -> Option<Vec<Fork>> {
    text.lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(|line| {
            let mut words = line.split_whitespace();
            let timeline = TimelineId(words.next()?.parse().ok()?);
            Some(Fork { timeline, end: words.next()?.parse().ok()? })
        })
        .collect()
}

/// `rmgr: XLOG  len (rec/tot):    114/   114, tx: ...`
fn record_bytes(line: &str) -> Option<u64> {
    let (_, rest) = line.split_once("len (rec/tot):")?;
    let (_, rest) = rest.split_once('/')?;
    rest.split(',').next()?.trim().parse().ok()
}

const PAGE: u64 = 8192;

/// Where a record of `bytes` that begins at `start` ends: records are aligned to 8 bytes and go
/// around the header that each page begins with, which is longer on a segment's first page.
fn end_of(start: Lsn, bytes: u64, segment_bytes: u64) -> Lsn {
    let mut left = bytes.next_multiple_of(8);
    let mut at = start.0;
    loop {
        let room = PAGE - at % PAGE;
        if left <= room {
            return Lsn(at + left);
        }
        left -= room;
        at += room;
        at += if at.is_multiple_of(segment_bytes) { 40 } else { 24 };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OUTPUT: &str = "\
pg_control version number:            1300
Database system identifier:           7434567890123456789
Database cluster state:               shut down
Latest checkpoint location:           0/3000148
Latest checkpoint's REDO location:    0/3000148
Latest checkpoint's TimeLineID:       2
Latest checkpoint's PrevTimeLineID:   2
Time of latest checkpoint:            Sun 22 Nov 2026 06:00:00 PM UTC
Minimum recovery ending location:     0/0
Min recovery ending loc's timeline:   0
Bytes per WAL segment:                16777216
Data page checksum version:           1
";

    #[test]
    fn control_data_is_read() {
        let (stopped, segment_bytes) = parse(OUTPUT).unwrap();
        assert_eq!(segment_bytes, 16 << 20);
        assert_eq!(stopped.system, SystemId(7_434_567_890_123_456_789));
        assert_eq!(stopped.timeline, TimelineId(2));
        assert_eq!(stopped.state, ControlState::ShutDown);
        assert_eq!(stopped.checkpoint, Lsn(0x300_0148));
        assert!(stopped.checksums);
        assert_eq!(parse("Database cluster state: dreaming"), None);
    }

    #[test]
    fn histories_are_read() {
        let text = "1\t0/3000148\tno recovery target specified\n\n2\t0/5000000\treason\n# x\n";
        let fork = |timeline, end| Fork { timeline: TimelineId(timeline), end: Lsn(end) };
        assert_eq!(parse_history(text), Some(vec![fork(1, 0x300_0148), fork(2, 0x500_0000)]));
        assert_eq!(parse_history("1 nonsense"), None);
    }

    #[test]
    fn a_records_end_goes_around_page_headers() {
        let line =
            "rmgr: XLOG        len (rec/tot):    114/   114, tx:          0, lsn: 0/03000148";
        assert_eq!(record_bytes(line), Some(114));
        let segment = 16 << 20;
        assert_eq!(end_of(Lsn(0x300_0148), 114, segment), Lsn(0x300_0148 + 120));
        assert_eq!(end_of(Lsn(8192 - 120), 114, segment), Lsn(8192));
        assert_eq!(end_of(Lsn(8192 - 20 - 4), 114, segment), Lsn(8192 + 24 + 96));
        assert_eq!(end_of(Lsn(segment - 8), 114, segment), Lsn(segment + 40 + 112));
    }
}
