//! Which file each of the engine's numbers stands for, and the descriptors of those in use or used
//! lately.

use std::collections::{BTreeMap, HashMap};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use ringway_engine::device::{FileId, OpId, SegmentName};
use ringway_wire::{Offset, TopicPartition};

/// Whether a file can be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Descriptor {
    /// It can.
    Open(RawFd),
    /// It is being opened.
    Opening,
    /// It has to be opened.
    Closed,
    /// Nobody said which file it is.
    Unknown,
}

#[derive(Debug)]
struct File {
    log: TopicPartition,
    name: SegmentName,
    /// The name that it is being given.
    next_name: Option<SegmentName>,
    /// Names left to be tried: a rename may overtake an opening.
    tries_left: u32,
    /// The name that it is being opened by.
    opening_by: SegmentName,
    state: State,
    waiting: Vec<OpId>,
    users: u32,
    used_at: u64,
    forgotten: bool,
}

#[derive(Debug)]
enum State {
    Closed,
    Opening,
    Open(OwnedFd),
}

/// See the module.
#[derive(Debug)]
pub(super) struct Files {
    files: HashMap<FileId, File>,
    /// Open files that nobody uses now, by when they were last used.
    unused: BTreeMap<u64, FileId>,
    /// Open files.
    open: usize,
    uses: u64,
    open_max: usize,
}

impl Files {
    pub(super) fn new(open_max: usize) -> Self {
        Self {
            files: HashMap::new(),
            unused: BTreeMap::new(),
            open: 0,
            uses: 0,
            open_max: open_max.max(1),
        }
    }

    pub(super) fn declare(&mut self, id: FileId, log: TopicPartition, name: SegmentName) {
        let file = File {
            log,
            name,
            next_name: None,
            tries_left: 0,
            opening_by: name,
            state: State::Closed,
            waiting: Vec::new(),
            users: 0,
            used_at: 0,
            forgotten: false,
        };
        self.files.entry(id).or_insert(file);
    }

    pub(super) fn segment(&self, id: FileId) -> Option<(TopicPartition, SegmentName)> {
        self.files.get(&id).map(|file| (file.log, file.name))
    }

    /// The name that a file is being given.
    pub(super) fn next_name(&self, id: FileId) -> Option<SegmentName> {
        self.files.get(&id)?.next_name
    }

    pub(super) fn naming(&mut self, id: FileId, base: Offset) {
        if let Some(file) = self.files.get_mut(&id) {
            file.next_name = Some(SegmentName::Base(base));
        }
    }

    pub(super) fn named(&mut self, id: FileId, done: bool) {
        if let Some(file) = self.files.get_mut(&id)
            && let Some(name) = file.next_name.take()
            && done
        {
            file.name = name;
        }
    }

    /// A file for one more user.
    pub(super) fn acquire(&mut self, id: FileId) -> Descriptor {
        let Some(file) = self.files.get_mut(&id) else {
            return Descriptor::Unknown;
        };
        file.users += 1;
        match &file.state {
            State::Closed => Descriptor::Closed,
            State::Opening => Descriptor::Opening,
            State::Open(descriptor) => {
                self.unused.remove(&file.used_at);
                Descriptor::Open(descriptor.as_raw_fd())
            }
        }
    }

    pub(super) fn descriptor(&self, id: FileId) -> Option<RawFd> {
        match &self.files.get(&id)?.state {
            State::Open(descriptor) => Some(descriptor.as_raw_fd()),
            _ => None,
        }
    }

    /// One user fewer.
    pub(super) fn release(&mut self, id: FileId) {
        let Some(file) = self.files.get_mut(&id) else {
            return;
        };
        file.users -= 1;
        if file.forgotten && file.users == 0 {
            self.close(id);
            self.files.remove(&id);
            return;
        }
        self.keep(id);
    }

    /// An operation that goes on when the file is open.
    pub(super) fn wait(&mut self, id: FileId, op: OpId) {
        if let Some(file) = self.files.get_mut(&id) {
            file.waiting.push(op);
        }
    }

    /// The name to open the file by.
    pub(super) fn opening(&mut self, id: FileId) -> Option<(TopicPartition, SegmentName)> {
        let file = self.files.get_mut(&id)?;
        if !matches!(file.state, State::Opening) {
            file.state = State::Opening;
            // The name, the one that it is being given, and both again: a renaming may begin or
            // end at any time in between.
            file.tries_left = 4;
        }
        let name = match (file.tries_left.is_multiple_of(2), file.next_name) {
            (false, Some(next)) => next,
            _ => file.name,
        };
        file.opening_by = name;
        Some((file.log, name))
    }

    /// Whether what was just opened may be another file: a slow opening of `next.log` that was
    /// renamed meanwhile can find the one after it. As long as the renaming isn't known here to be
    /// over, no other can have been asked for.
    pub(super) fn may_be_another(&self, id: FileId) -> bool {
        let Some(file) = self.files.get(&id) else {
            return false;
        };
        file.opening_by == SegmentName::Next && file.name != SegmentName::Next
    }

    /// Whether another name is left to be tried after one was missing.
    pub(super) fn try_other_name(&mut self, id: FileId) -> bool {
        let Some(file) = self.files.get_mut(&id) else {
            return false;
        };
        file.tries_left = file.tries_left.saturating_sub(1);
        file.tries_left > 0
    }

    /// The operations that can go on now.
    pub(super) fn opened(&mut self, id: FileId, descriptor: OwnedFd) -> Vec<OpId> {
        let Some(file) = self.files.get_mut(&id) else {
            return Vec::new();
        };
        file.state = State::Open(descriptor);
        let waiting = std::mem::take(&mut file.waiting);
        self.open += 1;
        self.keep(id);
        waiting
    }

    /// The operations that can't go on.
    pub(super) fn not_opened(&mut self, id: FileId) -> Vec<OpId> {
        let Some(file) = self.files.get_mut(&id) else {
            return Vec::new();
        };
        file.state = State::Closed;
        std::mem::take(&mut file.waiting)
    }

    /// Closes a file for good, now or after its last user.
    pub(super) fn forget(&mut self, id: FileId) {
        let Some(file) = self.files.get_mut(&id) else {
            return;
        };
        file.forgotten = true;
        if file.users == 0 {
            self.close(id);
            self.files.remove(&id);
        }
    }

    /// Closes all files of a partition for good.
    pub(super) fn forget_partition(&mut self, log: TopicPartition) {
        let files = self.files.iter().filter(|(_, file)| file.log == log);
        let ids: Vec<FileId> = files.map(|(&id, _)| id).collect();
        for id in ids {
            self.forget(id);
        }
    }

    /// Keeps an open file for its next user, if it has none now and there is room.
    fn keep(&mut self, id: FileId) {
        if let Some(file) = self.files.get_mut(&id)
            && file.users == 0
            && matches!(file.state, State::Open(_))
        {
            self.uses += 1;
            file.used_at = self.uses;
            self.unused.insert(self.uses, id);
        }
        while self.open > self.open_max
            && let Some((_, oldest)) = self.unused.pop_first()
        {
            self.close(oldest);
        }
    }

    fn close(&mut self, id: FileId) {
        if let Some(file) = self.files.get_mut(&id)
            && matches!(file.state, State::Open(_))
        {
            self.unused.remove(&file.used_at);
            self.open -= 1;
            file.state = State::Closed;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File as Opened;

    use super::*;

    fn descriptor() -> OwnedFd {
        Opened::open("/dev/null").unwrap().into()
    }

    fn declared(count: u64, open_max: usize) -> Files {
        let mut files = Files::new(open_max);
        for number in 0..count {
            files.declare(FileId(number), TopicPartition::default(), SegmentName::Next);
        }
        files
    }

    #[test]
    fn a_file_that_is_being_named_is_looked_for_by_both_names() {
        let id = FileId(0);
        let mut files = declared(1, 1);
        let base = SegmentName::Base(Offset(7));
        assert_eq!(files.acquire(id), Descriptor::Closed);
        files.wait(id, OpId(1));
        let opening = files.opening(id).unwrap().1;
        assert_eq!(opening, SegmentName::Next);
        // The naming begins after the opening did.
        files.naming(id, Offset(7));
        assert!(files.try_other_name(id));
        assert_eq!(files.opening(id).unwrap().1, base);
        files.named(id, true);
        assert_eq!(files.opened(id, descriptor()), [OpId(1)]);
        assert_eq!(files.segment(id).unwrap().1, base);
        files.release(id);
        assert!(matches!(files.acquire(id), Descriptor::Open(_)));
    }

    #[test]
    fn an_opening_that_a_renaming_overtook_is_not_believed() {
        let id = FileId(0);
        let mut files = declared(1, 1);
        files.acquire(id);
        files.wait(id, OpId(1));
        assert_eq!(files.opening(id).unwrap().1, SegmentName::Next);
        files.naming(id, Offset(7));
        assert!(!files.may_be_another(id), "nobody else has the name yet");
        files.named(id, true);
        assert!(files.may_be_another(id));
        let base = SegmentName::Base(Offset(7));
        assert_eq!(files.opening(id).unwrap().1, base);
        assert!(!files.may_be_another(id));
        assert_eq!(files.opened(id, descriptor()), [OpId(1)]);
    }

    #[test]
    fn a_file_that_is_nowhere_is_given_up() {
        let id = FileId(0);
        let mut files = declared(1, 1);
        files.acquire(id);
        files.wait(id, OpId(1));
        files.opening(id);
        assert_eq!((0..10).take_while(|_| files.try_other_name(id)).count(), 3);
        assert_eq!(files.not_opened(id), [OpId(1)]);
        files.release(id);
        assert_eq!(
            files.acquire(id),
            Descriptor::Closed,
            "the next operation tries again"
        );
    }

    #[test]
    fn the_longest_unused_are_closed_and_those_in_use_are_not() {
        let mut files = declared(4, 2);
        for number in 0..4 {
            let id = FileId(number);
            files.acquire(id);
            files.opening(id);
            files.opened(id, descriptor());
            if number != 0 {
                files.release(id);
            }
        }
        let open: Vec<bool> = (0..4)
            .map(|number| files.descriptor(FileId(number)).is_some())
            .collect();
        assert_eq!(open, [true, false, false, true]);
        files.forget(FileId(0));
        assert!(
            files.descriptor(FileId(0)).is_some(),
            "it is closed after its last user"
        );
        files.release(FileId(0));
        assert_eq!(files.acquire(FileId(0)), Descriptor::Unknown);
    }
}
