//! What the demo publishes: one counter of this machine, read at one moment, as an rkyv archive.
//! A reading is all samples that one look at one file of `/proc` gave.

use rkyv::rancor::Error;
use rkyv::util::AlignedVec;
use rkyv::with::InlineAsBox;
use rkyv::{Archive, Serialize};

/// Where samples come from. Each source numbers its samples and keeps to one partition.
#[derive(Archive, Serialize, Clone, Copy, Debug, PartialEq, Eq)]
#[rkyv(compare(PartialEq), derive(Clone, Copy, Debug))]
#[repr(u8)]
pub(super) enum Source {
    /// `/proc/stat`: time per CPU, context switches, processes.
    Cpu,
    /// `/proc/interrupts`: per line and CPU, those that fired.
    Interrupts,
    /// `/proc/softirqs`: per kind and CPU.
    SoftInterrupts,
    /// `/proc/meminfo`.
    Memory,
    /// `/proc/vmstat`: pages, faults, reclaim.
    Paging,
    /// `/proc/diskstats`: per block device.
    Disks,
    /// `/proc/net/dev`: per interface.
    Network,
    /// `/proc/net/snmp` and `/proc/net/netstat`: IP, TCP and UDP.
    Protocols,
    /// `/proc/net/sockstat` and its twin for IPv6.
    Sockets,
    /// `/proc/pressure/*`: time lost to a lack of CPU, memory or I/O.
    Pressure,
    /// `/proc/PID/stat` and `statm` of every process.
    Processes,
}

impl Source {
    /// Every source, in the order of their numbers.
    pub(super) const ALL: [Self; 11] = [
        Self::Cpu,
        Self::Interrupts,
        Self::SoftInterrupts,
        Self::Memory,
        Self::Paging,
        Self::Disks,
        Self::Network,
        Self::Protocols,
        Self::Sockets,
        Self::Pressure,
        Self::Processes,
    ];

    /// The name: the tag of the source's records.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Interrupts => "interrupts",
            Self::SoftInterrupts => "soft-interrupts",
            Self::Memory => "memory",
            Self::Paging => "paging",
            Self::Disks => "disks",
            Self::Network => "network",
            Self::Protocols => "protocols",
            Self::Sockets => "sockets",
            Self::Pressure => "pressure",
            Self::Processes => "processes",
        }
    }

    /// The partition of the source's records.
    pub(super) const fn partition(self, partitions: u32) -> u32 {
        self as u32 % partitions
    }
}

/// One counter at one moment.
#[derive(Archive, Serialize, Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sample<'a> {
    /// Ordinal among the source's samples: 0, 1, 2, …
    pub(super) sequence: u64,
    /// When the reading of its file began, in nanoseconds of the demo's monotonic clock.
    pub(super) time_ns: u64,
    /// What the kernel said, in the kernel's unit; at most `i64::MAX`.
    pub(super) value: i64,
    /// The counter's name, mostly the kernel's.
    #[rkyv(with = InlineAsBox)]
    pub(super) metric: &'a str,
    /// Which of several: a CPU, a device, an interface, a protocol, a process; may be empty.
    #[rkyv(with = InlineAsBox)]
    pub(super) instance: &'a str,
    /// Where it was read.
    pub(super) source: Source,
}

/// The samples of one look at one file, encoded.
#[derive(Debug)]
pub(super) struct Reading {
    pub(super) source: Source,
    /// When the reading began, in microseconds since 1970.
    pub(super) timestamp_us: i64,
    bytes: Vec<u8>,
    /// Where each sample ends in `bytes`.
    ends: Vec<usize>,
}

impl Reading {
    /// How many samples it has.
    pub(super) const fn len(&self) -> usize {
        self.ends.len()
    }

    /// The samples' archives.
    pub(super) fn values(&self) -> impl Iterator<Item = &[u8]> {
        let mut start = 0;
        self.ends
            .iter()
            .map(move |&end| &self.bytes[std::mem::replace(&mut start, end)..end])
    }
}

/// Numbers and encodes samples.
#[derive(Debug, Default)]
pub(super) struct Encoder {
    sequences: [u64; Source::ALL.len()],
    scratch: AlignedVec,
}

impl Encoder {
    /// Begins a reading.
    pub(super) const fn begin(&mut self, source: Source, at: Moment) -> Encoding<'_> {
        Encoding {
            encoder: self,
            time_ns: at.time_ns,
            reading: Reading {
                source,
                timestamp_us: at.timestamp_us,
                bytes: Vec::new(),
                ends: Vec::new(),
            },
        }
    }
}

/// One moment on both clocks.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Moment {
    /// Nanoseconds of the demo's monotonic clock.
    pub(super) time_ns: u64,
    /// Microseconds since 1970.
    pub(super) timestamp_us: i64,
}

/// A reading that is being filled.
#[derive(Debug)]
pub(super) struct Encoding<'a> {
    encoder: &'a mut Encoder,
    time_ns: u64,
    reading: Reading,
}

impl Encoding<'_> {
    /// Adds a sample.
    pub(super) fn add(&mut self, metric: &str, instance: &str, value: i64) {
        let source = self.reading.source;
        let sequence = &mut self.encoder.sequences[source as usize];
        let sample = Sample {
            sequence: *sequence,
            time_ns: self.time_ns,
            value,
            metric,
            instance,
            source,
        };
        *sequence += 1;
        let mut scratch = std::mem::take(&mut self.encoder.scratch);
        scratch.clear();
        let scratch = rkyv::api::high::to_bytes_in::<_, Error>(&sample, scratch)
            .expect("writing to memory fails only without memory");
        self.reading.bytes.extend_from_slice(&scratch);
        self.reading.ends.push(self.reading.bytes.len());
        self.encoder.scratch = scratch;
    }

    /// The reading.
    pub(super) fn end(self) -> Reading {
        self.reading
    }
}

/// Reads samples where they stand. A record's value has no alignment of its own, so it is copied
/// to a place that has.
#[derive(Debug, Default)]
pub(super) struct Decoder {
    scratch: AlignedVec,
}

impl Decoder {
    /// The sample in `value`, with every byte checked.
    ///
    /// # Errors
    /// What is wrong with the bytes.
    pub(super) fn sample(&mut self, value: &[u8]) -> Result<Sample<'_>, String> {
        self.scratch.clear();
        self.scratch.extend_from_slice(value);
        let archived = rkyv::access::<ArchivedSample<'_>, Error>(&self.scratch)
            .map_err(|error| error.to_string())?;
        Ok(Sample {
            sequence: archived.sequence.to_native(),
            time_ns: archived.time_ns.to_native(),
            value: archived.value.to_native(),
            metric: &archived.metric,
            instance: &archived.instance,
            source: Source::ALL[archived.source as usize],
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_numbered_by_source_and_read_back() {
        let mut encoder = Encoder::default();
        let at = Moment {
            time_ns: 7,
            timestamp_us: 9,
        };
        let mut first = encoder.begin(Source::Cpu, at);
        first.add("user", "cpu0", 12);
        first.add("a name longer than eight bytes", "", -1);
        let first = first.end();
        let mut other = encoder.begin(Source::Disks, at);
        other.add("reads", "vda", i64::MAX);
        let other = other.end();
        let mut second = encoder.begin(Source::Cpu, at);
        second.add("user", "cpu0", 13);
        let second = second.end();

        assert_eq!((first.len(), first.timestamp_us), (2, 9));
        let mut decoder = Decoder::default();
        let mut found = Vec::new();
        for reading in [&first, &other, &second] {
            for value in reading.values() {
                let sample = decoder.sample(value).unwrap();
                assert_eq!((sample.time_ns, sample.source), (7, reading.source));
                found.push((sample.sequence, sample.metric.to_owned(), sample.value));
            }
        }
        let name = "a name longer than eight bytes";
        let expected = [
            (0, "user", 12),
            (1, name, -1),
            (0, "reads", i64::MAX),
            (2, "user", 13),
        ];
        assert_eq!(
            found,
            expected.map(|(sequence, name, value)| (sequence, name.to_owned(), value))
        );
    }

    #[test]
    fn bytes_that_are_no_sample_are_an_error() {
        let mut encoder = Encoder::default();
        let mut reading = encoder.begin(Source::Cpu, Moment::default());
        reading.add("user", "cpu0", 12);
        let reading = reading.end();
        let value = reading.values().next().unwrap();
        let mut decoder = Decoder::default();
        assert!(decoder.sample(value).is_ok());
        assert!(decoder.sample(&value[..value.len() - 1]).is_err());
        assert!(decoder.sample(b"").is_err());
        let mut no_source = value.to_vec();
        // The source is the archive's last field; behind it is only padding to a multiple of 8.
        let source = value.len() - 8;
        no_source[source] = 0xff;
        assert!(decoder.sample(&no_source).is_err());
    }

    #[test]
    fn sources_have_their_number_as_place() {
        for (place, source) in Source::ALL.into_iter().enumerate() {
            assert_eq!(source as usize, place);
        }
    }
}
