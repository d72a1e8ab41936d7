//! The cache beside a model: plain arrays of bytes for what reads see and what is durable.

use super::*;

const DISK_BYTES: usize = 64 * SECTOR_BYTES;

fn apply(disk: &mut [u8], runs: &[Run]) {
    for run in runs {
        let start = run.offset as usize + run.part.start;
        disk[start..start + run.part.len()].copy_from_slice(&run.bytes[run.part.clone()]);
    }
}

fn read(cache: &WriteCache, durable: &[u8]) -> Vec<u8> {
    let mut bytes = durable.to_vec();
    cache.lay_over(0, &mut bytes);
    bytes
}

fn random_write(random: &mut Random) -> (u64, Vec<u8>) {
    let first = random.below(60);
    let sectors = 1 + random.below(4);
    let bytes = vec![random.next_u64() as u8; sectors as usize * SECTOR_BYTES];
    (first * SECTOR_BYTES as u64, bytes)
}

#[test]
fn reads_see_the_newest_and_syncs_make_durable_what_came_before() {
    for seed in 0..50 {
        let mut random = Random::new(seed);
        let mut cache = WriteCache::default();
        let mut durable = vec![0; DISK_BYTES];
        let mut model = durable.clone();
        let mut marks = vec![(cache.mark(), model.clone())];
        let mut newest_mark = 0;
        for _ in 0..200 {
            match random.below(10) {
                0 => {
                    // Any earlier sync ends now, and covers what had come before it.
                    let (mark, then) = marks.swap_remove(random.below(marks.len() as u64) as usize);
                    apply(&mut durable, &cache.take_before(mark));
                    if mark >= newest_mark {
                        assert!(durable == then, "seed {seed}");
                        newest_mark = mark;
                    }
                    marks.push((cache.mark(), model.clone()));
                }
                1 => {
                    let taken = cache.take_down_to(8 * SECTOR_BYTES);
                    assert!(cache.bytes() <= 8 * SECTOR_BYTES);
                    apply(&mut durable, &taken);
                    newest_mark = newest_mark.max(cache.mark() - cache.pending.len() as u64);
                }
                _ => {
                    let (offset, bytes) = random_write(&mut random);
                    cache.write(offset, &bytes);
                    model[offset as usize..][..bytes.len()].copy_from_slice(&bytes);
                }
            }
            assert_eq!(read(&cache, &durable), model, "seed {seed}");
        }
        apply(&mut durable, &cache.take_before(cache.mark()));
        assert_eq!(durable, model);
        assert_eq!(cache.bytes(), 0);
        assert!(cache.newest.is_empty());
    }
}

#[test]
fn an_unaligned_read_is_laid_over_exactly() {
    let mut cache = WriteCache::default();
    cache.write(512, &[7; 512]);
    let mut buffer = [1; 1024];
    cache.lay_over(300, &mut buffer);
    assert!(buffer[..212].iter().all(|byte| *byte == 1));
    assert!(buffer[212..724].iter().all(|byte| *byte == 7));
    assert!(buffer[724..].iter().all(|byte| *byte == 1));
}

#[test]
fn a_sync_does_not_cover_a_later_write() {
    let mut cache = WriteCache::default();
    cache.write(0, &[1; 512]);
    let mark = cache.mark();
    cache.write(0, &[2; 512]);
    let taken = cache.take_before(mark);
    assert_eq!(taken.len(), 1);
    assert_eq!(taken[0].bytes[0], 1);
    assert_eq!(read(&cache, &[0; 512]), [2; 512]);
}

#[test]
fn what_a_failed_sync_has_lost_reads_back_and_is_never_given_out() {
    let mut cache = WriteCache::default();
    cache.write(0, &[1; 512]);
    cache.doom_before(cache.mark());
    assert_eq!(read(&cache, &[0; 512]), [1; 512]);
    assert!(cache.take_before(cache.mark()).is_empty());
    assert!(cache.decide(1, 512).survivors.is_empty());
    assert_eq!(read(&cache, &[0; 512]), [1; 512]);
    cache.clear();
    assert_eq!(read(&cache, &[0; 512]), [0; 512]);
}

#[test]
fn a_seed_decides_the_same_whatever_the_order_of_arrival() {
    let writes: Vec<(u64, Vec<u8>)> = (0..40)
        .map(|index| (index * 2048, vec![index as u8; 2048]))
        .collect();
    for seed in 0..20 {
        let (mut forth, mut back) = (WriteCache::default(), WriteCache::default());
        writes
            .iter()
            .for_each(|(offset, bytes)| forth.write(*offset, bytes));
        writes
            .iter()
            .rev()
            .for_each(|(offset, bytes)| back.write(*offset, bytes));
        let (forth, back) = (forth.decide(seed, 512), back.decide(seed, 512));
        let mut disks = [vec![0; 40 * 2048], vec![0; 40 * 2048]];
        apply(&mut disks[0], &forth.survivors);
        apply(&mut disks[1], &back.survivors);
        assert_eq!(disks[0], disks[1], "seed {seed}");
        assert_eq!(forth.report.dropped_sectors, back.report.dropped_sectors);
    }
}

#[test]
fn cuts_drop_keep_and_tear_and_never_tear_a_block() {
    let block_bytes = 4096;
    let (mut dropped, mut kept, mut torn) = (0, 0, 0);
    for seed in 0..100 {
        let mut cache = WriteCache::default();
        let fill = (seed as u8).max(1);
        (0..8_u64).for_each(|index| cache.write(index * 16384, &vec![fill; 16384]));
        let fate = cache.decide(seed, block_bytes);
        let mut disk = vec![0; 8 * 16384];
        apply(&mut disk, &fate.survivors);
        let zeros = disk
            .chunks(SECTOR_BYTES)
            .filter(|sector| sector[0] == 0)
            .count() as u64;
        assert_eq!(
            fate.report.dropped_sectors, zeros,
            "the report counts what is gone"
        );
        assert_eq!(fate.report.kept_sectors + zeros, 8 * 32);
        for range in &fate.report.dropped {
            let range = range.start as usize..range.end as usize;
            assert!(disk[range].iter().all(|byte| *byte == 0));
        }
        for block in disk.chunks(block_bytes) {
            assert!(
                block.iter().all(|byte| *byte == block[0]),
                "a block was torn"
            );
        }
        dropped += fate.report.dropped_sectors;
        kept += fate.report.kept_sectors;
        torn += fate.report.torn_writes;
    }
    assert!(
        dropped > 1000 && kept > 1000 && torn > 100,
        "{dropped} {kept} {torn}"
    );
}

#[test]
fn an_older_version_may_survive_a_newer_one() {
    let survived = |seed| {
        let mut cache = WriteCache::default();
        cache.write(0, &[1; 512]);
        cache.write(0, &[2; 512]);
        let mut disk = [0; 512];
        apply(&mut disk, &cache.decide(seed, 512).survivors);
        disk[0]
    };
    let mut seen = [false; 3];
    (0..200).for_each(|seed| seen[usize::from(survived(seed))] = true);
    assert_eq!(seen, [true; 3]);
}
