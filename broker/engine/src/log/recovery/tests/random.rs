//! Random logs with random accidents against the model, and random bytes against nothing at all.

use proptest::prelude::*;
use ringway_wire::Offset;

use super::written::{Disk, LOG, Log};
use crate::device::SegmentName;
use crate::log::CheckpointEntry;

#[derive(Clone, Debug)]
enum Act {
    Append {
        records: u32,
        value_bytes: usize,
        producer: u64,
    },
    Roll {
        side: bool,
        recycled: bool,
    },
    Epoch,
    Checkpoint,
}

fn act() -> impl Strategy<Value = Act> {
    let value_bytes = prop_oneof![8 => 0..3_000_usize, 1 => 0..150_000_usize];
    let append = (1..5_u32, value_bytes, 0..4_u64);
    prop_oneof![
        10 => append.prop_map(|(records, value_bytes, producer)| Act::Append {
            records, value_bytes, producer,
        }),
        1 => (any::<bool>(), any::<bool>()).prop_map(|(side, recycled)| Act::Roll {
            side, recycled,
        }),
        1 => Just(Act::Epoch),
        1 => Just(Act::Checkpoint),
    ]
}

#[derive(Clone, Debug)]
enum Accident {
    None,
    /// A bit of a batch not before the checkpoint.
    Flip {
        batch: prop::sample::Index,
        bit: prop::sample::Index,
    },
    /// The active segment from a sector on.
    Tear {
        sector: prop::sample::Index,
        filling: u8,
    },
}

fn accident() -> impl Strategy<Value = Accident> {
    prop_oneof![
        Just(Accident::None),
        any::<(prop::sample::Index, prop::sample::Index)>()
            .prop_map(|(batch, bit)| Accident::Flip { batch, bit }),
        any::<(prop::sample::Index, u8)>()
            .prop_map(|(sector, filling)| Accident::Tear { sector, filling }),
    ]
}

const FILE: usize = 3 << 20;

/// The log that the acts make, its last checkpoint, and how many batches that covers.
fn written(acts: &[Act]) -> (Log, Option<CheckpointEntry>, usize) {
    let mut log = Log::new(LOG, FILE);
    let mut checkpoint = None;
    let mut covered = 0;
    for act in acts {
        match *act {
            Act::Append {
                records,
                value_bytes,
                producer,
            } => {
                let bytes = 1_000 + records as usize * (value_bytes + 32);
                if log.room() < bytes {
                    log.roll(FILE, true);
                }
                log.append(records, value_bytes, producer);
            }
            Act::Roll { side, recycled } if log.state.position.0 > 0 => {
                let former = if recycled {
                    log.active_file().clone()
                } else {
                    vec![0; FILE]
                };
                log.roll_into(former, side);
            }
            Act::Roll { .. } => {}
            Act::Epoch => log.open_epoch(),
            Act::Checkpoint => {
                checkpoint = Some(log.checkpoint());
                covered = log.batches.len();
            }
        }
    }
    (log, checkpoint, covered)
}

fn happen(log: &mut Log, accident: &Accident, covered: usize) {
    match accident {
        Accident::None => {}
        Accident::Flip { batch, bit } => {
            if covered < log.batches.len() {
                let batch = covered + batch.index(log.batches.len() - covered);
                let placed = log.batches[batch].clone();
                let bit = placed.position as usize * 8 + bit.index(placed.bytes.len() * 8);
                let name = SegmentName::Base(placed.segment);
                log.disk.segments.get_mut(&name).unwrap()[bit / 8] ^= 1 << (bit % 8);
            }
        }
        Accident::Tear { sector, filling } => {
            let from = log
                .batches
                .get(covered)
                .filter(|next| next.segment == log.state.base);
            let start = from.map_or(log.state.position.0, |from| from.position);
            let sectors = FILE / 512 - start.div_ceil(512) as usize;
            if sectors > 0 {
                let sector = start.div_ceil(512) as usize + sector.index(sectors.min(100));
                log.active_file()[sector * 512..].fill(*filling);
            }
        }
    }
}

proptest! {
    #[test]
    fn the_longest_whole_prefix_comes_back(
        acts in prop::collection::vec(act(), 1..40), accident in accident(), use_it: bool,
    ) {
        let (mut log, checkpoint, covered) = written(&acts);
        let (checkpoint, covered) = if use_it { (checkpoint, covered) } else { (None, 0) };
        let covered = if checkpoint.is_some() { covered } else { 0 };
        happen(&mut log, &accident, covered);
        let count = log.whole_from(covered);
        // Sealed segments with a side file are not read again: a flip in one of them is found
        // only if recovery came through it.
        let end = log.states[count].replay.chain.next_offset;
        let sealed_behind = log.disk.sides.keys().any(|&base| base >= log.states[count].base)
            && count < log.batches.len();
        let recovered = log.recover(checkpoint.clone());
        if sealed_behind {
            prop_assert!(recovered.next_offset >= end);
        } else {
            log.assert_recovered(&recovered, count);
            let later = log.disk.segments.keys().filter(|name| match name {
                SegmentName::Base(base) => *base > end,
                SegmentName::Next => false,
            });
            prop_assert_eq!(recovered.orphans.len(), later.count());
            prop_assert!(checkpoint.is_none() || recovered.damage.is_empty());
        }
        prop_assert_eq!(recovered.log_start, Offset(0));
        let again = log.recover(checkpoint);
        prop_assert_eq!(recovered, again, "a recovery repeats itself");
    }

    /// Whatever stands in the files, recovery ends, within its bounds, and never panics.
    #[test]
    fn arbitrary_files_are_survived(
        acts in prop::collection::vec(act(), 1..12),
        pieces in prop::collection::vec(
            (any::<prop::sample::Index>(), any::<prop::sample::Index>(), 1..5_000_usize), 0..8),
        lengths in prop::collection::vec(any::<prop::sample::Index>(), 5),
        names in prop::collection::vec(any::<prop::sample::Index>(), 5),
        bad_blocks in prop::collection::vec(0..30_u64, 0..3),
        bytes in prop::collection::vec(any::<u8>(), 64),
    ) {
        let (log, checkpoint, _) = written(&acts);
        let mut disk = Disk::default();
        let files: Vec<_> = log.disk.segments.values().collect();
        let bases: Vec<_> = log.states.iter().map(|state| state.replay.chain.next_offset).collect();
        for (name, length) in names.iter().zip(&lengths) {
            let file = files[name.index(files.len())];
            let name = match name.index(bases.len() + 1) {
                0 => SegmentName::Next,
                ordinal => SegmentName::Base(bases[ordinal - 1]),
            };
            let mut file = file[..length.index(FILE)].to_vec();
            for (from, to, count) in &pieces {
                let (from, to) = (from.index(100_000), to.index(100_000));
                if file.len() > from.max(to) + count {
                    file.copy_within(from..from + count, to);
                    let start = to.min(file.len() - bytes.len());
                    file[start..start + bytes.len()].copy_from_slice(&bytes);
                }
            }
            disk.bad_blocks.extend(bad_blocks.iter().map(|&block| (name, block)));
            disk.segments.insert(name, file);
        }
        disk.sides = log.disk.sides.clone();
        for checkpoint in [None, checkpoint] {
            let recovered = disk.recover(LOG, checkpoint);
            prop_assert!(recovered.log_start <= recovered.next_offset);
            if let Some(active) = recovered.active {
                prop_assert!(active.base <= recovered.next_offset);
                prop_assert!(recovered.sealed.iter().all(|sealed| sealed.base < active.base));
            }
        }
    }
}
