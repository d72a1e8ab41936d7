//! A data directory that nobody runs a broker on, opened to be looked at: nothing in it is
//! changed, and no broker starts on it meanwhile.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ringway_engine::log::{CheckpointEntry, merge};
use ringway_engine::meta::{Metadata, Topic};
use ringway_wire::{PartitionIndex, TopicId, TopicPartition};

use super::finding::Finding;
use crate::controller;
use crate::data_dir::{self, DataDirError, Layout};

/// How long the last writes of a broker that was killed are waited for.
const LAST_WRITES_MAX: Duration = Duration::from_secs(60);

/// Why a data directory can't be looked at.
#[derive(Debug, thiserror::Error)]
pub enum LogToolError {
    /// It isn't one, or somebody has it.
    #[error("{0}")]
    DataDir(#[from] DataDirError),
    /// The operating system refused something.
    #[error("reading {}: {source}", path.display())]
    Io {
        /// What was to be read.
        path: PathBuf,
        /// What was said.
        source: io::Error,
    },
    /// The topic that was named isn't there.
    #[error("there is no topic {name:?} in {}: there {}", path.display(), known_topics(known))]
    UnknownTopic {
        /// What was asked for.
        name: String,
        /// The data directory.
        path: PathBuf,
        /// The topics that there are.
        known: Vec<String>,
    },
    /// The partition that was named isn't there.
    #[error("topic {topic} has no partition {partition}: it has {count}, counted from 0")]
    UnknownPartition {
        /// The topic.
        topic: String,
        /// What was asked for.
        partition: u32,
        /// How many there are.
        count: usize,
    },
    /// Whoever reads the output went away, or it can't be written.
    #[error("standard output: {0}")]
    Output(#[source] io::Error),
}

fn known_topics(known: &[String]) -> String {
    match known {
        [] => "is none".to_owned(),
        [one] => format!("is {one} only"),
        known if known.len() <= 20 => format!("are {}", known.join(", ")),
        known => format!("are {} others", known.len()),
    }
}

/// Which part of a data directory is looked at.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selection {
    /// The data directory.
    pub data_dir: PathBuf,
    /// Only this topic, by its name or by the 32 digits of its id.
    pub topic: Option<String>,
    /// Only this partition of the topic.
    pub partition: Option<u32>,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) layout: Layout,
    /// The newest checkpointed entry of each partition.
    pub(super) checkpoints: BTreeMap<TopicPartition, CheckpointEntry>,
    topics: BTreeMap<TopicId, Topic>,
    /// What the metadata knows, or why that can't be read.
    metadata: Result<Metadata, String>,
    /// Found while opening.
    pub(super) damage: Vec<Finding>,
    pub(super) notes: Vec<Finding>,
    /// Held as long as anybody looks.
    _lock: Option<File>,
}

impl Place {
    /// Opens a data directory. Where a broker was killed and its last writes are on their way,
    /// waits for them and tells `progress` about it.
    ///
    /// # Errors
    /// [`LogToolError`] says who has it, or what is wrong with it.
    pub(super) fn open(
        root: &Path,
        progress: impl FnMut(&str, Duration),
    ) -> Result<Self, LogToolError> {
        let io_error = |source| LogToolError::Io {
            path: root.to_owned(),
            source,
        };
        let root = root.canonicalize().map_err(io_error)?;
        let layout = Layout::new(&root);
        let lock = data_dir::look(&root, LAST_WRITES_MAX, progress)?;
        let mut place = Self {
            checkpoints: BTreeMap::new(),
            topics: BTreeMap::new(),
            metadata: Err(String::new()),
            damage: Vec::new(),
            notes: Vec::new(),
            layout,
            _lock: lock,
        };
        place.read_metadata();
        place.read_checkpoints()?;
        Ok(place)
    }

    fn read_metadata(&mut self) {
        let looked = controller::look_at_metadata(&self.layout.metadata());
        match looked {
            Ok((metadata, cut)) => {
                if let Some(cut) = cut {
                    let problem = format!(
                        "{} bytes behind the last whole record: a command that nobody was told of",
                        cut.bytes
                    );
                    let note = Finding::new("metadata_tail", problem)
                        .in_file(format!("metadata/{}", cut.name))
                        .at(cut.position);
                    self.notes.push(note);
                }
                let topic = |topic: &Topic| (topic.id, topic.clone());
                self.topics = metadata.topics().map(topic).collect();
                self.metadata = Ok(metadata);
            }
            Err(error) => {
                let error = error.to_string();
                self.damage.push(Finding::new("metadata", error.clone()));
                self.metadata = Err(error);
            }
        }
    }

    fn read_checkpoints(&mut self) -> Result<(), LogToolError> {
        let mut newest = Vec::new();
        for (shard, slots) in data_dir::checkpoints(&self.layout)? {
            let both = slots.unreadable.len() > 1;
            for (slot, error) in &slots.unreadable {
                let path = self.layout.checkpoint(shard, *slot);
                let file = self.shown(&path);
                if both {
                    let problem = format!("neither slot of the checkpoint can be read: {error}");
                    self.damage
                        .push(Finding::new("checkpoint", problem).in_file(file));
                } else {
                    let problem = format!(
                        "can't be read ({error}), as a crash leaves it; the other slot is used"
                    );
                    self.notes
                        .push(Finding::new("checkpoint_slot", problem).in_file(file));
                }
            }
            newest.extend(slots.newest);
        }
        self.checkpoints = merge(newest);
        Ok(())
    }

    /// A path from the data directory on.
    pub(super) fn shown(&self, path: &Path) -> String {
        let inner = path.strip_prefix(self.layout.root()).unwrap_or(path);
        inner.display().to_string()
    }

    /// A topic's name, or its id where no name is known.
    pub(super) fn name(&self, topic: TopicId) -> String {
        match self.topics.get(&topic) {
            Some(topic) => topic.name.clone(),
            None => topic.to_string(),
        }
    }

    /// What the metadata says of a topic.
    pub(super) fn topic(&self, id: TopicId) -> Option<&Topic> {
        self.topics.get(&id)
    }

    /// The cluster's identity, where the metadata can be read.
    pub(super) fn cluster_id(&self) -> Option<u128> {
        self.metadata.as_ref().ok().map(Metadata::cluster_id)
    }

    /// The partitions to look at: those that have a directory or are known of, in the order of
    /// their topics' names.
    ///
    /// # Errors
    /// When the one that was asked for isn't there, or a directory can't be read.
    pub(super) fn select(
        &mut self,
        selection: &Selection,
    ) -> Result<Vec<TopicPartition>, LogToolError> {
        let mut all = self.directories()?;
        for topic in self.topics.values() {
            all.extend(topic.indexed().map(|(index, _)| topic.at(index)));
        }
        // Of a topic that nobody knows any more, what a checkpoint promised is nobody's loss.
        let known =
            |log: &&TopicPartition| self.metadata.is_err() || self.topics.contains_key(&log.topic);
        all.extend(self.checkpoints.keys().filter(known));
        if let Some(wanted) = &selection.topic {
            let names: BTreeSet<_> = all.iter().map(|log| log.topic).collect();
            let is_wanted = |id: &TopicId| self.name(*id) == *wanted || id.to_string() == *wanted;
            let Some(topic) = names.iter().copied().find(is_wanted) else {
                return Err(LogToolError::UnknownTopic {
                    name: wanted.clone(),
                    path: self.layout.root().to_owned(),
                    known: names.iter().map(|id| self.name(*id)).collect(),
                });
            };
            all.retain(|log| log.topic == topic);
            if let Some(partition) = selection.partition {
                let count = all.len();
                all.retain(|log| log.partition.0 == partition);
                if all.is_empty() {
                    return Err(LogToolError::UnknownPartition {
                        topic: self.name(topic),
                        partition,
                        count,
                    });
                }
            }
        }
        let mut ordered: Vec<_> = all.into_iter().collect();
        ordered.sort_by_cached_key(|log| (self.name(log.topic), *log));
        Ok(ordered)
    }

    /// Every partition that has a directory; what no broker made is noted.
    fn directories(&mut self) -> Result<BTreeSet<TopicPartition>, LogToolError> {
        let mut found = BTreeSet::new();
        let topics = self.layout.topics();
        for (name, path) in entries(&topics)? {
            let Some(topic) = data_dir::parse_topic(&name) else {
                self.note_foreign(&path);
                continue;
            };
            if self.metadata.is_ok() && !self.topics.contains_key(&topic) {
                let problem = "the metadata has no such topic: it was deleted, and goes at the \
                               next start";
                let note = Finding::new("deleted_topic", problem).in_file(self.shown(&path));
                self.notes.push(note);
            }
            for (name, path) in entries(&path)? {
                match name.parse() {
                    Ok(partition) => drop(found.insert(TopicPartition {
                        topic,
                        partition: PartitionIndex(partition),
                    })),
                    Err(_) => self.note_foreign(&path),
                }
            }
        }
        Ok(found)
    }

    /// Something in the directory that no broker made.
    pub(super) fn note_foreign(&mut self, path: &Path) {
        let problem = "no broker made this, and none starts on this directory while it is there";
        let note = Finding::new("foreign", problem).in_file(self.shown(path));
        self.notes.push(note);
    }
}

/// Names and paths in a directory, in order; none where there is no directory.
pub(super) fn entries(directory: &Path) -> Result<Vec<(String, PathBuf)>, LogToolError> {
    let io_error = |source| LogToolError::Io {
        path: directory.to_owned(),
        source,
    };
    let listed = match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        result => result.map_err(io_error)?,
    };
    let mut found = Vec::new();
    for entry in listed {
        let entry = entry.map_err(io_error)?;
        let name = entry.file_name().to_string_lossy().into_owned();
        found.push((name, entry.path()));
    }
    found.sort_unstable();
    Ok(found)
}
