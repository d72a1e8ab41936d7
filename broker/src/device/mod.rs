//! The disk under a shard: carries out the engine's operations on the shard's own ring, past the
//! page cache. What has no latency bound goes to the housekeeper instead.
//!
//! Files are opened through the ring as well: a path that is in the kernel's caches (a segment that
//! was just made) opens at once, and one that isn't makes a worker thread read directories, not
//! the shard.

mod error;
mod files;
mod hand_over;
#[cfg(test)]
mod real;

use std::collections::{HashMap, VecDeque};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::Arc;

use ringway_engine::buffer::{Block, Slice};
use ringway_engine::device::{DeviceError, Done, FileId, Op, OpId, Outcome, SegmentName};
use ringway_engine::limits::BLOCK_BYTES;
use ringway_wire::TopicPartition;

use crate::data_dir::Layout;
use crate::flight::{DeviceKind, Event};
use crate::metrics::ShardMetrics;
use crate::shard::ring::{Completion, Memory, Owner, PARTS_MAX, Ring, Role};

pub(crate) use error::device_error;
use files::{Descriptor, Files};
pub(crate) use hand_over::After;

/// An operation that is not done.
#[derive(Debug)]
struct Pending {
    file: Option<FileId>,
    started_ns: u64,
    bytes: u64,
    step: Step,
}

#[derive(Debug)]
enum Step {
    Flush,
    Sync,
    Write {
        position: u64,
        left: VecDeque<Slice>,
        durable: bool,
    },
    Read {
        position: u64,
        buffer: Option<Block>,
        filled: usize,
        wanted: usize,
    },
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Disk {
    layout: Layout,
    anchor: OwnedFd,
    files: Files,
    pending: HashMap<OpId, Pending>,
    done: VecDeque<Done>,
    metrics: Arc<ShardMetrics>,
}

impl Disk {
    /// A disk that keeps at most `open_max` segments open when none of them is in use.
    pub(crate) fn new(
        layout: Layout,
        anchor: OwnedFd,
        open_max: usize,
        metrics: Arc<ShardMetrics>,
    ) -> Self {
        Self {
            layout,
            anchor,
            files: Files::new(open_max),
            pending: HashMap::new(),
            done: VecDeque::new(),
            metrics,
        }
    }

    /// Says which segment a number stands for.
    pub(crate) fn declare(&mut self, file: FileId, log: TopicPartition, name: SegmentName) {
        self.files.declare(file, log, name);
    }

    /// Starts an operation of those that the ring carries out.
    ///
    /// # Panics
    /// When it is one of the housekeeper's.
    pub(crate) fn submit(&mut self, ring: &mut Ring, id: OpId, op: Op, now_ns: u64) {
        let (file, step) = match op {
            Op::Flush => (None, Step::Flush),
            Op::Sync { file } => (Some(file), Step::Sync),
            Op::Write {
                file,
                position,
                parts,
                durable,
            } => {
                let step = Step::Write {
                    position: position.0,
                    left: parts.into(),
                    durable,
                };
                (Some(file), step)
            }
            Op::Read {
                file,
                position,
                buffer,
                bytes,
            } => {
                let step = Step::Read {
                    position: position.0,
                    buffer: Some(buffer),
                    filled: 0,
                    wanted: bytes,
                };
                (Some(file), step)
            }
            other => panic!("the housekeeper carries out {other:?}"),
        };
        let checked = check_blocks(&step);
        let pending = Pending {
            file: file.filter(|_| checked.is_ok()),
            started_ns: now_ns,
            bytes: step.bytes(),
            step,
        };
        self.pending.insert(id, pending);
        match checked {
            Ok(()) => self.start(ring, id, file),
            Err(text) => self.finish(id, Err(DeviceError::Failed(text)), now_ns),
        }
        self.metrics.device_in_flight.set(self.pending.len() as u64);
    }

    /// Issues an operation now, or when its file is open.
    fn start(&mut self, ring: &mut Ring, id: OpId, file: Option<FileId>) {
        let Some(file) = file else {
            let anchor = self.anchor.as_raw_fd();
            ring.sync(owner(id), anchor);
            return;
        };
        match self.files.acquire(file) {
            Descriptor::Open(descriptor) => self.issue(ring, id, descriptor),
            Descriptor::Opening => self.files.wait(file, id),
            Descriptor::Closed => {
                self.files.wait(file, id);
                self.open(ring, file);
            }
            Descriptor::Unknown => {
                self.finish(id, Err(undeclared(file)), 0);
            }
        }
    }

    fn open(&mut self, ring: &mut Ring, file: FileId) {
        if let Some((log, name)) = self.files.opening(file) {
            let path = self.layout.segment(log, name);
            let opener = Owner {
                role: Role::Open,
                id: file.0,
            };
            ring.open_direct(opener, error::c_path(&path));
        }
    }

    fn issue(&mut self, ring: &mut Ring, id: OpId, descriptor: RawFd) {
        let pending = self
            .pending
            .get_mut(&id)
            .expect("an issued operation is pending");
        match &mut pending.step {
            Step::Flush | Step::Sync => {
                ring.sync(owner(id), descriptor);
            }
            Step::Write {
                position,
                left,
                durable,
            } => {
                let parts: Vec<Slice> = left.drain(..left.len().min(PARTS_MAX)).collect();
                ring.write(owner(id), descriptor, *position, parts, *durable);
            }
            Step::Read {
                position,
                buffer,
                filled,
                wanted,
            } => {
                let buffer = buffer
                    .take()
                    .expect("a read has its buffer when it is issued");
                let place = (*filled, *wanted - *filled);
                let position = *position + *filled as u64;
                ring.read(owner(id), descriptor, position, buffer, place);
            }
        }
    }

    /// Takes a completion of an operation or of an opening.
    pub(crate) fn complete(&mut self, ring: &mut Ring, completion: Completion, now_ns: u64) {
        match completion.owner.role {
            Role::Open => self.opened(ring, completion, now_ns),
            _ => self.advanced(ring, completion, now_ns),
        }
        self.metrics.device_in_flight.set(self.pending.len() as u64);
    }

    /// The next operation that is done.
    pub(crate) fn next_done(&mut self) -> Option<Done> {
        self.done.pop_front()
    }

    fn opened(&mut self, ring: &mut Ring, completion: Completion, now_ns: u64) {
        let file = FileId(completion.owner.id);
        match (completion.result, completion.descriptor) {
            (Ok(_), Some(_)) if self.files.may_be_another(file) => self.open(ring, file),
            (Ok(_), Some(descriptor)) => {
                let raw = descriptor.as_raw_fd();
                for id in self.files.opened(file, descriptor) {
                    self.issue(ring, id, raw);
                }
            }
            (Err(error), _) => {
                let missing = error.raw_os_error() == Some(libc::ENOENT);
                if missing && self.files.try_other_name(file) {
                    self.open(ring, file);
                    return;
                }
                let error = self.open_error(file, &error);
                for id in self.files.not_opened(file) {
                    self.finish(id, Err(error.clone()), now_ns);
                }
            }
            (Ok(_), None) => unreachable!("an opening that succeeds has a descriptor"),
        }
    }

    fn open_error(&self, file: FileId, error: &io::Error) -> DeviceError {
        let path = match self.files.segment(file) {
            Some((log, name)) => self.layout.segment(log, name),
            None => return DeviceError::Failed("the segment is being removed".to_owned()),
        };
        if error.raw_os_error() == Some(libc::EINVAL) {
            return DeviceError::Failed(format!(
                "opening {}: the file system refuses direct I/O (O_DIRECT)",
                path.display()
            ));
        }
        device_error("opening", &path, error)
    }

    fn advanced(&mut self, ring: &mut Ring, completion: Completion, now_ns: u64) {
        let id = OpId(completion.owner.id);
        let pending = self
            .pending
            .get_mut(&id)
            .expect("a completed operation is pending");
        let file = pending.file;
        let outcome = match completion.result {
            Err(error) => Some(Err(self.failure(id, &error))),
            Ok(bytes) => {
                if matches!(pending.step, Step::Write { .. }) {
                    self.metrics.device_written_bytes.add(bytes.into());
                }
                pending.step.advance(bytes as usize, completion.memory)
            }
        };
        match outcome {
            Some(result) => self.finish(id, result, now_ns),
            None => match file.map(|file| self.files.descriptor(file)) {
                Some(Some(descriptor)) => self.issue(ring, id, descriptor),
                _ => unreachable!("a file is open as long as an operation uses it"),
            },
        }
    }

    fn failure(&self, id: OpId, error: &io::Error) -> DeviceError {
        let pending = &self.pending[&id];
        let action = match pending.step {
            Step::Flush => "flushing the device by",
            Step::Sync => "syncing",
            Step::Write { .. } => "writing",
            Step::Read { .. } => "reading",
        };
        let path = match pending.file.and_then(|file| self.files.segment(file)) {
            Some((log, name)) => self.layout.segment(log, name),
            None => self.layout.root().join("anchor"),
        };
        device_error(action, &path, error)
    }

    fn finish(&mut self, id: OpId, result: Result<Outcome, DeviceError>, now_ns: u64) {
        let pending = self
            .pending
            .remove(&id)
            .expect("a finished operation was pending");
        if let Some(file) = pending.file {
            self.files.release(file);
        }
        let took_ns = now_ns.saturating_sub(pending.started_ns);
        pending.step.count(&self.metrics, took_ns);
        self.metrics.flight.record(Event::Device {
            kind: pending.step.kind(),
            id: id.0,
            started_ns: pending.started_ns,
            took_ns,
            bytes: pending.bytes,
            failed: result.is_err(),
        });
        if result.is_err() {
            self.metrics.device_errors.add(1);
        }
        self.done.push_back(Done { op: id, result });
    }
}

impl Step {
    /// What a completion makes of the operation; `None` when it has to go on.
    fn advance(&mut self, bytes: usize, memory: Memory) -> Option<Result<Outcome, DeviceError>> {
        match (self, memory) {
            (Self::Flush | Self::Sync, _) => Some(Ok(Outcome::Done)),
            (Self::Write { position, left, .. }, Memory::Parts { parts, .. }) => {
                let written: usize = parts.iter().map(|part| part.len()).sum();
                if bytes < written && (bytes == 0 || !bytes.is_multiple_of(BLOCK_BYTES)) {
                    let text = format!("only {bytes} of {written} bytes were written");
                    return Some(Err(DeviceError::Failed(text)));
                }
                *position += bytes as u64;
                for part in unwritten(parts, bytes).into_iter().rev() {
                    left.push_front(part);
                }
                left.is_empty().then_some(Ok(Outcome::Done))
            }
            (
                Self::Read {
                    buffer,
                    filled,
                    wanted,
                    ..
                },
                Memory::Block(block),
            ) => {
                *filled += bytes;
                let over = bytes == 0 || *filled == *wanted || !bytes.is_multiple_of(BLOCK_BYTES);
                if !over {
                    *buffer = Some(block);
                    return None;
                }
                Some(Ok(Outcome::Read {
                    buffer: block,
                    bytes: *filled,
                }))
            }
            (step, memory) => unreachable!("{step:?} doesn't have {memory:?}"),
        }
    }

    /// Bytes that it is about.
    fn bytes(&self) -> u64 {
        match self {
            Self::Flush | Self::Sync => 0,
            Self::Write { left, .. } => left.iter().map(|part| part.len() as u64).sum(),
            Self::Read { wanted, .. } => *wanted as u64,
        }
    }

    const fn kind(&self) -> DeviceKind {
        match self {
            Self::Flush => DeviceKind::Flush,
            Self::Sync => DeviceKind::Sync,
            Self::Write { durable: true, .. } => DeviceKind::DurableWrite,
            Self::Write { .. } => DeviceKind::Write,
            Self::Read { .. } => DeviceKind::Read,
        }
    }

    fn count(&self, metrics: &ShardMetrics, took_ns: u64) {
        match self {
            Self::Flush | Self::Sync => {
                metrics.device_syncs.add(1);
                metrics.device_sync.observe(took_ns);
            }
            Self::Write { .. } => {
                metrics.device_writes.add(1);
                metrics.device_write.observe(took_ns);
            }
            Self::Read { filled, .. } => {
                metrics.device_reads.add(1);
                metrics.device_read_bytes.add(*filled as u64);
                metrics.device_read.observe(took_ns);
            }
        }
    }
}

fn undeclared(file: FileId) -> DeviceError {
    DeviceError::Failed(format!("{file:?} was not declared: a defect of the broker"))
}

fn owner(id: OpId) -> Owner {
    Owner {
        role: Role::Disk,
        id: id.0,
    }
}

/// The parts after the first `bytes`.
fn unwritten(parts: Vec<Slice>, bytes: usize) -> Vec<Slice> {
    let mut skip = bytes;
    let mut rest = Vec::new();
    for part in parts {
        let length = part.len();
        if skip < length {
            rest.push(part.slice(skip..length));
        }
        skip = skip.saturating_sub(length);
    }
    rest
}

/// Direct I/O moves whole blocks. Devices with smaller ones would let less pass, and it would fail
/// on the next machine.
fn check_blocks(step: &Step) -> Result<(), String> {
    let whole = |number: usize| number.is_multiple_of(BLOCK_BYTES);
    let (action, fine) = match step {
        Step::Flush | Step::Sync => return Ok(()),
        Step::Write { position, left, .. } => {
            let aligned = |part: &Slice| whole(part.len()) && whole(part.as_ptr() as usize);
            let parts = !left.is_empty() && left.iter().all(aligned);
            ("write", parts && whole(*position as usize))
        }
        Step::Read {
            position, wanted, ..
        } => (
            "read",
            *wanted > 0 && whole(*wanted) && whole(*position as usize),
        ),
    };
    match fine {
        true => Ok(()),
        false => Err(format!(
            "a {action} is not of whole blocks of {BLOCK_BYTES} bytes"
        )),
    }
}

#[cfg(test)]
mod tests;
