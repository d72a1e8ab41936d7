//! Commands: what the metadata log consists of, and their bytes in it.
//!
//! A command is a 16-bit version, a 16-bit kind and the kind's fields, little-endian; strings and
//! lists have their length before them.

use ringway_wire::request::{ConfigEntry, Head};
use ringway_wire::{DecodeError, NodeId, Reader, TopicId, Writer};

/// Version of the bytes that this build writes and reads. What it says never changes.
pub const COMMAND_VERSION: u16 = 1;

/// A change of the metadata, as it stands in the log. Nothing in it is left to the one who applies
/// it: ids and times are the proposer's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// The log's first command: gives the cluster its identity.
    CreateCluster {
        /// Random.
        cluster_id: u128,
    },
    /// A broker's process has started.
    RegisterBroker {
        /// Its number in the cluster.
        node: NodeId,
        /// Random, made at each start.
        incarnation: u128,
    },
    /// Creates a topic.
    CreateTopic {
        /// Random.
        id: TopicId,
        /// Its name.
        name: String,
        /// Partitions; at least 1.
        partitions: u32,
        /// Replicas of each partition; 0 leaves it to the cluster.
        replication_factor: u16,
        /// Keys that differ from their defaults.
        config: Vec<ConfigEntry>,
        /// The proposer's time, in microseconds since 1970.
        created_us: i64,
    },
    /// Changes a topic's configuration.
    AlterTopic {
        /// Its name.
        name: String,
        /// The keys to set; an empty value goes back to the default.
        config: Vec<ConfigEntry>,
    },
    /// Deletes a topic with its records.
    DeleteTopic {
        /// Its name.
        name: String,
    },
    /// Sets producer ids aside for the proposer.
    ReserveProducerIds {
        /// How many.
        count: u32,
    },
    /// Adds partitions to a topic.
    AddPartitions {
        /// Its name.
        name: String,
        /// Partitions that it shall have: more than it has.
        partitions: u32,
    },
}

impl Command {
    /// The command's bytes.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = Writer::default();
        out.u16(COMMAND_VERSION);
        match self {
            Self::CreateCluster { cluster_id } => {
                out.u16(1);
                out.u128(*cluster_id);
            }
            Self::RegisterBroker { node, incarnation } => {
                out.u16(2);
                out.u32(node.0);
                out.u128(*incarnation);
            }
            Self::CreateTopic {
                id,
                name,
                partitions,
                replication_factor,
                config,
                created_us,
            } => {
                out.u16(3);
                out.u128(id.0);
                out.string(name);
                out.u32(*partitions);
                out.u16(*replication_factor);
                out.list(config, |out, entry| entry.encode(out));
                out.i64(*created_us);
            }
            Self::AlterTopic { name, config } => {
                out.u16(4);
                out.string(name);
                out.list(config, |out, entry| entry.encode(out));
            }
            Self::DeleteTopic { name } => {
                out.u16(5);
                out.string(name);
            }
            Self::ReserveProducerIds { count } => {
                out.u16(6);
                out.u32(*count);
            }
            Self::AddPartitions { name, partitions } => {
                out.u16(7);
                out.string(name);
                out.u32(*partitions);
            }
        }
        out.into_bytes()
    }

    /// Reads a command from all of `bytes`.
    ///
    /// # Errors
    /// [`DecodeError`] names the first field that is wrong; a version or kind of a later build is
    /// illegal here.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes);
        let version = reader.u16("command version")?;
        if version != COMMAND_VERSION {
            return Err(DecodeError::Illegal {
                field: "command version",
                value: version.into(),
            });
        }
        let kind = reader.u16("command kind")?;
        let command = Self::decode(kind, &mut reader)?;
        reader.finish()?;
        Ok(command)
    }

    fn decode(kind: u16, reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(match kind {
            1 => Self::CreateCluster {
                cluster_id: reader.u128("cluster_id")?,
            },
            2 => Self::RegisterBroker {
                node: NodeId(reader.u32("node")?),
                incarnation: reader.u128("incarnation")?,
            },
            3 => Self::CreateTopic {
                id: TopicId(reader.u128("id")?),
                name: reader.string("name")?.to_owned(),
                partitions: reader.u32("partitions")?,
                replication_factor: reader.u16("replication_factor")?,
                config: reader.list("config", 4, ConfigEntry::decode)?,
                created_us: reader.i64("created_us")?,
            },
            4 => Self::AlterTopic {
                name: reader.string("name")?.to_owned(),
                config: reader.list("config", 4, ConfigEntry::decode)?,
            },
            5 => Self::DeleteTopic {
                name: reader.string("name")?.to_owned(),
            },
            6 => Self::ReserveProducerIds {
                count: reader.u32("count")?,
            },
            7 => Self::AddPartitions {
                name: reader.string("name")?.to_owned(),
                partitions: reader.u32("partitions")?,
            },
            kind => {
                return Err(DecodeError::Illegal {
                    field: "command kind",
                    value: kind.into(),
                });
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn every_kind() -> Vec<(Command, &'static str)> {
        let entry = |key: &str, value: &str| ConfigEntry {
            key: key.to_owned(),
            value: value.to_owned(),
        };
        vec![
            (
                Command::CreateCluster { cluster_id: 0x0102 },
                "0100 0100 02010000000000000000000000000000",
            ),
            (
                Command::RegisterBroker {
                    node: NodeId(1),
                    incarnation: 7,
                },
                "0100 0200 01000000 07000000000000000000000000000000",
            ),
            (
                Command::CreateTopic {
                    id: TopicId(0xab),
                    name: "ab".to_owned(),
                    partitions: 4,
                    replication_factor: 1,
                    config: vec![entry("codec", "none")],
                    created_us: -1,
                },
                "0100 0300 ab000000000000000000000000000000 0200 6162 04000000 0100 \
                 01000000 0500 636f646563 0400 6e6f6e65 ffffffffffffffff",
            ),
            (
                Command::AlterTopic {
                    name: "t".to_owned(),
                    config: vec![entry("codec", "")],
                },
                "0100 0400 0100 74 01000000 0500 636f646563 0000",
            ),
            (
                Command::DeleteTopic {
                    name: "t".to_owned(),
                },
                "0100 0500 0100 74",
            ),
            (
                Command::ReserveProducerIds { count: 1_000 },
                "0100 0600 e8030000",
            ),
            (
                Command::AddPartitions {
                    name: "t".to_owned(),
                    partitions: 9,
                },
                "0100 0700 0100 74 09000000",
            ),
        ]
    }

    #[test]
    fn bytes_are_fixed() {
        for (command, golden) in every_kind() {
            let bytes: String = command
                .to_bytes()
                .iter()
                .map(|b| format!("{b:02x}"))
                .collect();
            assert_eq!(bytes, golden.replace(' ', ""), "{command:?}");
            assert_eq!(Command::from_bytes(&command.to_bytes()), Ok(command));
        }
    }

    #[test]
    fn no_cut_or_longer_bytes_are_a_command() {
        for (command, _) in every_kind() {
            let mut bytes = command.to_bytes();
            for end in 0..bytes.len() {
                assert!(
                    Command::from_bytes(&bytes[..end]).is_err(),
                    "{command:?} cut at {end}"
                );
            }
            bytes.push(0);
            assert_eq!(Command::from_bytes(&bytes), Err(DecodeError::Trailing(1)));
        }
    }

    #[test]
    fn later_versions_and_kinds_are_refused() {
        let mut bytes = Command::ReserveProducerIds { count: 1 }.to_bytes();
        bytes[0] = 2;
        assert!(
            Command::from_bytes(&bytes)
                .unwrap_err()
                .to_string()
                .contains("version")
        );
        bytes[0] = 1;
        bytes[2] = 99;
        assert!(
            Command::from_bytes(&bytes)
                .unwrap_err()
                .to_string()
                .contains("kind")
        );
    }
}
