//! The single node's metadata log on disk: records that were synced before anybody heard of them,
//! and now and then a snapshot in place of all before it.
//!
//! ```text
//! log-<first index>         a header, then records one after another
//! snapshot-<index>          the state after the record of that index
//! *.tmp                     being made; removed at start
//! ```
//!
//! What a crash can leave: a torn tail of records nobody was told of, which is cut; a temporary
//! file; a snapshot beside the log that it replaces. Anything else is damage, and is refused.

mod files;
mod format;
mod recovery;

use std::io;
use std::path::Path;

use ringway_engine::meta::{Command, Metadata};

pub(crate) use files::{DiskFiles, Files};
pub(crate) use recovery::{Cut, OpenError};

use files::Untouched;
use format::{LOG_HEADER_BYTES, LogHeader, Record, SnapshotHeader};

/// Bytes of log after which a snapshot takes its place. A start reads no more than about so much.
const SNAPSHOT_AFTER_BYTES: u64 = 1 << 20;

/// Why commands didn't get into the log.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum AppendError {
    /// The disk is full. Nothing has changed; it can be tried again.
    #[error("the disk is full ({0}): free some space, and try again")]
    Full(String),
    /// Nothing can be trusted to be durable any more.
    #[error(
        "the metadata log can't be written any more ({0}): see dmesg for what the disk says, mend \
         it and restart the broker"
    )]
    Failed(String),
}

/// The log and its snapshots. Calls return when what they did is durable.
#[derive(Debug)]
pub(crate) struct Store<F> {
    files: F,
    /// The file that is appended to.
    log: String,
    /// Where its next record goes.
    end: u64,
    /// Index and CRC of the last record.
    last_index: u64,
    last_crc: u32,
    /// Every record up to this one is durable.
    durable_index: u64,
    /// Bytes of log at which the next snapshot is due.
    snapshot_at: u64,
    /// Why nothing can be written any more, if so.
    failed: Option<String>,
}

impl<F: Files> Store<F> {
    /// Opens the log, or begins one, and replays it.
    ///
    /// # Errors
    /// [`OpenError`] names the file and what is wrong with it.
    pub(crate) fn open(mut files: F) -> Result<(Self, Metadata, Option<Cut>), OpenError> {
        let found = recovery::recover(&mut files)?;
        let store = Self {
            files,
            log: found.log,
            end: found.end,
            last_index: found.last_index,
            last_crc: found.last_crc,
            durable_index: found.last_index,
            snapshot_at: SNAPSHOT_AFTER_BYTES,
            failed: None,
        };
        Ok((store, found.state, found.cut))
    }

    /// Appends commands and makes them durable. Returns the first one's index; the others follow.
    ///
    /// # Errors
    /// [`AppendError::Full`] leaves the log as it was. After [`AppendError::Failed`] it is not
    /// known whether the commands are there; nothing more is accepted.
    pub(crate) fn append(&mut self, commands: &[Command]) -> Result<u64, AppendError> {
        if let Some(reason) = &self.failed {
            return Err(AppendError::Failed(reason.clone()));
        }
        let first = self.last_index + 1;
        let (mut index, mut crc) = (self.last_index, self.last_crc);
        let mut bytes = Vec::new();
        for command in commands {
            index += 1;
            let record = Record {
                index,
                durable_index: self.durable_index,
                prev_crc: crc,
                payload: &command.to_bytes(),
            };
            crc = record.encode(&mut bytes);
        }
        if let Err(error) = self.files.write_at(&self.log, self.end, &bytes) {
            return Err(self.write_failed(&error));
        }
        let synced = self.files.sync(&self.log);
        synced.map_err(|error| self.fail("syncing", &error))?;
        self.end += bytes.len() as u64;
        self.last_index = index;
        self.last_crc = crc;
        self.durable_index = index;
        Ok(first)
    }

    /// A full disk is survivable if what was half written can be taken back.
    fn write_failed(&mut self, error: &io::Error) -> AppendError {
        if !is_full(error) {
            return self.fail("writing", error);
        }
        match self.files.set_len(&self.log, self.end) {
            Ok(()) => AppendError::Full(error.to_string()),
            Err(error) => self.fail("taking a half-written record back from", &error),
        }
    }

    fn fail(&mut self, doing: &str, error: &io::Error) -> AppendError {
        let reason = format!("{doing} {}: {error}", self.log);
        self.failed = Some(reason.clone());
        AppendError::Failed(reason)
    }

    /// Whether the log has grown enough for [`Self::snapshot`].
    pub(crate) const fn wants_snapshot(&self) -> bool {
        self.failed.is_none() && self.end >= self.snapshot_at
    }

    /// Puts a snapshot of `state`, which is the one after the last record, in place of the log.
    ///
    /// # Errors
    /// On [`AppendError::Full`] the log goes on as it was, and is tried again when it has doubled.
    pub(crate) fn snapshot(&mut self, state: &Metadata) -> Result<(), AppendError> {
        assert_eq!(
            state.applied(),
            self.last_index,
            "a snapshot stands for the whole log"
        );
        if let Some(reason) = &self.failed {
            return Err(AppendError::Failed(reason.clone()));
        }
        // An empty log has nothing that a snapshot could stand for.
        if self.end <= LOG_HEADER_BYTES as u64 {
            return Ok(());
        }
        self.snapshot_at = self.end * 2;
        let snapshot = SnapshotHeader {
            index: self.last_index,
            last_crc: self.last_crc,
        };
        let bytes = snapshot.encode(&state.to_snapshot());
        self.create(&format::snapshot_name(self.last_index), &bytes)?;

        let header = LogHeader {
            first_index: self.last_index + 1,
            prev_crc: self.last_crc,
        };
        let log = format::log_name(header.first_index);
        self.create(&log, &header.encode())?;
        let before = std::mem::replace(&mut self.log, log);
        self.end = LOG_HEADER_BYTES as u64;
        self.snapshot_at = SNAPSHOT_AFTER_BYTES;
        self.remove_all_but(self.last_index, &before);
        Ok(())
    }

    /// Makes a file that is whole or not there.
    fn create(&mut self, name: &str, bytes: &[u8]) -> Result<(), AppendError> {
        match create_whole(&mut self.files, name, bytes) {
            Ok(()) => Ok(()),
            Err(error) if is_full(&error) => {
                // Left over, it would only be removed at the next start.
                let _ = self.files.remove(&format::temporary(name));
                Err(AppendError::Full(error.to_string()))
            }
            Err(error) => Err(self.fail(&format!("making {name} beside"), &error)),
        }
    }

    /// Removes what the snapshot at `index` has made superfluous. What stays is removed at the
    /// next start, so errors don't matter.
    fn remove_all_but(&mut self, index: u64, log: &str) {
        let _ = self.files.remove(log);
        for name in self.files.list().unwrap_or_default() {
            if format::parse_snapshot_name(&name).is_some_and(|other| other < index) {
                let _ = self.files.remove(&name);
            }
        }
    }

    #[cfg(test)]
    fn snapshot_after(&mut self, bytes: u64) {
        self.snapshot_at = bytes;
    }
}

/// What a start would find in a metadata directory, without changing anything in it.
///
/// # Errors
/// As [`Store::open`].
pub(crate) fn look(directory: &Path) -> Result<(Metadata, Option<Cut>), OpenError> {
    let files = Untouched(DiskFiles::already_in(directory));
    let (_, metadata, cut) = Store::open(files)?;
    Ok((metadata, cut))
}

/// Writes a file under a temporary name, makes it durable, then gives it its name.
fn create_whole<F: Files>(files: &mut F, name: &str, bytes: &[u8]) -> io::Result<()> {
    let temporary = format::temporary(name);
    files.create(&temporary)?;
    files.write_at(&temporary, 0, bytes)?;
    files.sync(&temporary)?;
    files.rename(&temporary, name)?;
    files.sync_directory()
}

fn is_full(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
    )
}

#[cfg(test)]
mod tests;
