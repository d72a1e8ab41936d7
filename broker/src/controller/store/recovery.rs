//! What a start makes of the files it finds: the state, the place to go on, and the torn tail that
//! a crash may have left.

use std::io;

use ringway_engine::meta::{Command, Metadata, SnapshotError};
use ringway_wire::DecodeError;

use super::files::Files;
use super::format::{
    self, ALIGNMENT, FormatError, LOG_HEADER_BYTES, LogHeader, Record, SnapshotHeader,
};

/// Why the metadata can't be had.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OpenError {
    /// The operating system refused something.
    #[error("{doing} {name} in the metadata directory: {source}")]
    Io {
        /// What was being done.
        doing: &'static str,
        /// The file.
        name: String,
        /// What the system said.
        source: io::Error,
    },
    /// A file isn't what it should be, and no crash explains it.
    #[error(
        "{name} in the metadata directory is damaged: {problem}; the broker can't tell which topics \
         there are: see dmesg for what the disk says, and put the metadata directory back from a \
         copy"
    )]
    Damaged {
        /// The file.
        name: String,
        /// What is wrong with it, and where.
        problem: String,
    },
    /// A file is from another version.
    #[error(
        "{name} in the metadata directory can't be read: {problem}; start the version that wrote it"
    )]
    Version {
        /// The file.
        name: String,
        /// Which version it is.
        problem: String,
    },
}

/// The tail that was cut off.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Cut {
    /// The file.
    pub(crate) name: String,
    /// Where it was cut.
    pub(crate) position: u64,
    /// How much was cut.
    pub(crate) bytes: u64,
}

/// What was found.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) state: Metadata,
    /// The log to go on with, and where.
    pub(super) log: String,
    pub(super) end: u64,
    pub(super) last_index: u64,
    pub(super) last_crc: u32,
    pub(super) cut: Option<Cut>,
}

fn io_error<'a>(doing: &'static str, name: &'a str) -> impl FnOnce(io::Error) -> OpenError + 'a {
    move |source| OpenError::Io {
        doing,
        name: name.to_owned(),
        source,
    }
}

fn damaged(name: &str, problem: impl Into<String>) -> OpenError {
    OpenError::Damaged {
        name: name.to_owned(),
        problem: problem.into(),
    }
}

fn format_error(name: &str, error: &FormatError) -> OpenError {
    match error {
        FormatError::Version(_) => OpenError::Version {
            name: name.to_owned(),
            problem: error.to_string(),
        },
        _ => damaged(name, error.to_string()),
    }
}

/// Reads what is there, cuts a torn tail, removes leftovers, and begins a log where there is none.
pub(super) fn recover<F: Files>(files: &mut F) -> Result<Found, OpenError> {
    let names = files.list().map_err(io_error("listing", "files"))?;
    let (leftovers, names): (Vec<_>, Vec<_>) = names
        .into_iter()
        .partition(|name| format::is_temporary(name));
    for name in leftovers {
        files.remove(&name).map_err(io_error("removing", &name))?;
    }
    let mut found = newest_snapshot(files, &names)?;
    // The newest log begins after the newest snapshot, or is the one that the snapshot was about
    // to replace. Older ones are leftovers of a replacement that was cut short.
    let mut logs: Vec<u64> = names
        .iter()
        .filter_map(|n| format::parse_log_name(n))
        .collect();
    logs.sort_unstable();
    match logs.pop() {
        Some(first_index) => read_log(files, first_index, &mut found)?,
        None if found.last_index == 0 => begin(files, &mut found)?,
        None => {
            let name = format::snapshot_name(found.last_index);
            return Err(damaged(&name, "the log that goes with it is gone"));
        }
    }
    let superfluous = logs.into_iter().map(format::log_name);
    let snapshots = names.iter().filter(|name| {
        format::parse_snapshot_name(name).is_some_and(|index| index < found.snapshot_index)
    });
    for name in superfluous.chain(snapshots.cloned()) {
        files.remove(&name).map_err(io_error("removing", &name))?;
    }
    Ok(found.into_found())
}

/// The state so far, while it is being put together.
struct Progress {
    state: Metadata,
    snapshot_index: u64,
    log: String,
    end: u64,
    last_index: u64,
    last_crc: u32,
    cut: Option<Cut>,
}

impl Progress {
    fn into_found(self) -> Found {
        Found {
            state: self.state,
            log: self.log,
            end: self.end,
            last_index: self.last_index,
            last_crc: self.last_crc,
            cut: self.cut,
        }
    }
}

fn newest_snapshot<F: Files>(files: &F, names: &[String]) -> Result<Progress, OpenError> {
    let mut progress = Progress {
        state: Metadata::default(),
        snapshot_index: 0,
        log: String::new(),
        end: 0,
        last_index: 0,
        last_crc: 0,
        cut: None,
    };
    let Some(index) = names
        .iter()
        .filter_map(|n| format::parse_snapshot_name(n))
        .max()
    else {
        return Ok(progress);
    };
    let name = &format::snapshot_name(index);
    let bytes = files.read(name).map_err(io_error("reading", name))?;
    let (header, state) =
        SnapshotHeader::decode(&bytes).map_err(|error| format_error(name, &error))?;
    progress.state = Metadata::from_snapshot(state).map_err(|error| match error {
        SnapshotError::Version(_) => OpenError::Version {
            name: name.clone(),
            problem: error.to_string(),
        },
        error => damaged(name, error.to_string()),
    })?;
    if header.index != index || progress.state.applied() != index {
        return Err(damaged(
            name,
            "it is the snapshot of another place in the log",
        ));
    }
    progress.snapshot_index = index;
    progress.last_index = index;
    progress.last_crc = header.last_crc;
    Ok(progress)
}

fn begin<F: Files>(files: &mut F, progress: &mut Progress) -> Result<(), OpenError> {
    let header = LogHeader {
        first_index: 1,
        prev_crc: 0,
    };
    let name = format::log_name(1);
    super::create_whole(files, &name, &header.encode()).map_err(io_error("creating", &name))?;
    progress.log = name;
    progress.end = LOG_HEADER_BYTES as u64;
    Ok(())
}

fn read_log<F: Files>(
    files: &mut F,
    first_index: u64,
    progress: &mut Progress,
) -> Result<(), OpenError> {
    let name = format::log_name(first_index);
    let bytes = files.read(&name).map_err(io_error("reading", &name))?;
    let header = LogHeader::decode(&bytes).map_err(|error| format_error(&name, &error))?;
    if header.first_index != first_index {
        return Err(damaged(&name, "it is another log"));
    }
    if first_index > progress.snapshot_index + 1 {
        let missing = format!(
            "it begins with record {first_index}, and there is nothing after record {}",
            progress.snapshot_index
        );
        return Err(damaged(&name, missing));
    }
    let snapshot = (progress.snapshot_index, progress.last_crc);
    progress.last_index = first_index - 1;
    progress.last_crc = header.prev_crc;
    check_seam(&name, snapshot, progress)?;
    let mut position = LOG_HEADER_BYTES;
    while let Some((record, crc, length)) = next_record(&bytes[position..], progress) {
        replay(&name, position, &record, progress)?;
        progress.last_index = record.index;
        progress.last_crc = crc;
        position += length;
        check_seam(&name, snapshot, progress)?;
    }
    if position < bytes.len() {
        let gone = progress.last_index + 1;
        if is_durable(&bytes[position..], gone) || gone <= snapshot.0 {
            let problem = format!("record {gone} at byte {position} was durable and isn't right");
            return Err(damaged(&name, problem));
        }
        // Gone for good before anything comes in its place.
        files
            .set_len(&name, position as u64)
            .map_err(io_error("cutting", &name))?;
        files.sync(&name).map_err(io_error("syncing", &name))?;
        progress.cut = Some(Cut {
            name: name.clone(),
            position: position as u64,
            bytes: (bytes.len() - position) as u64,
        });
    } else if progress.last_index < snapshot.0 {
        return Err(damaged(
            &name,
            format!("it ends before the snapshot at {}", snapshot.0),
        ));
    }
    progress.log = name;
    progress.end = position as u64;
    Ok(())
}

/// Where log and snapshot meet, they have to agree.
fn check_seam(name: &str, snapshot: (u64, u32), progress: &Progress) -> Result<(), OpenError> {
    if progress.last_index == snapshot.0 && progress.last_crc != snapshot.1 {
        return Err(damaged(
            name,
            format!("it doesn't fit the snapshot at {}", snapshot.0),
        ));
    }
    Ok(())
}

fn next_record<'a>(bytes: &'a [u8], progress: &Progress) -> Option<(Record<'a>, u32, usize)> {
    Record::decode(bytes).filter(|(record, ..)| {
        record.index == progress.last_index + 1 && record.prev_crc == progress.last_crc
    })
}

fn replay(
    name: &str,
    position: usize,
    record: &Record<'_>,
    progress: &mut Progress,
) -> Result<(), OpenError> {
    let command = Command::from_bytes(record.payload).map_err(|error| match error {
        DecodeError::Illegal { .. } => OpenError::Version {
            name: name.to_owned(),
            problem: format!("record {} at byte {position}: {error}", record.index),
        },
        error => damaged(
            name,
            format!("record {} at byte {position}: {error}", record.index),
        ),
    })?;
    if record.index > progress.snapshot_index {
        // A command that was refused is refused again.
        let _ = progress.state.apply(&command, record.index);
    }
    Ok(())
}

/// Whether a later record proves that the one of `index`, which isn't right, once was durable.
fn is_durable(bytes: &[u8], index: u64) -> bool {
    (0..bytes.len()).step_by(ALIGNMENT).any(|start| {
        let later = Record::decode(&bytes[start..]);
        later.is_some_and(|(record, ..)| record.durable_index >= index)
    })
}
