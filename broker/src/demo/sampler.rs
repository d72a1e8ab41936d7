//! The thread that reads `/proc`: one file or process after the other, around and around, as often
//! as the wanted rate asks for. Every sample was read from the kernel when it says it was.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::mpsc;

use super::clock::Clock;
use super::cpu;
use super::parse::{self, Emit};
use super::sample::{Encoder, Encoding, Reading, Source};

/// Samples that are wanted in a second: the promised 50,000 and some to spare.
const SAMPLES_PER_SECOND: u32 = 60_000;
/// How long the thread sleeps when it has read what was due.
const TICK: Duration = Duration::from_millis(1);
/// How much lost time is made up for; a longer one is lost, and shows in the rate.
const DEBT_MAX: Duration = Duration::from_secs(1);
/// Looks in a row without a sleep: bounds the tick where files have become unreadable.
const LOOKS_PER_TICK_MAX: u32 = 4_096;
/// Readings on their way to the client; when that many wait, sampling waits too.
const READINGS_MAX: usize = 256;
type Parse = fn(&str, &mut Emit<'_>);

/// Every file but those of processes, as it is called below `/proc`.
const FILES: [(Source, &str, Parse); 14] = [
    (Source::Cpu, "stat", parse::stat),
    (Source::Interrupts, "interrupts", parse::interrupts),
    (Source::SoftInterrupts, "softirqs", parse::softirqs),
    (Source::Memory, "meminfo", parse::meminfo),
    (Source::Paging, "vmstat", parse::vmstat),
    (Source::Disks, "diskstats", parse::diskstats),
    (Source::Network, "net/dev", parse::net_dev),
    (Source::Protocols, "net/snmp", parse::net_snmp),
    (Source::Protocols, "net/netstat", parse::net_snmp),
    (Source::Sockets, "net/sockstat", parse::sockstat),
    (Source::Sockets, "net/sockstat6", parse::sockstat),
    (Source::Pressure, "pressure/cpu", |text, emit| {
        parse::pressure("cpu", text, emit);
    }),
    (Source::Pressure, "pressure/memory", |text, emit| {
        parse::pressure("memory", text, emit);
    }),
    (Source::Pressure, "pressure/io", |text, emit| {
        parse::pressure("io", text, emit);
    }),
];

/// What was read, by source.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct SourceCount {
    /// Readings that gave samples.
    pub(super) readings: u64,
    /// Samples in them.
    pub(super) samples: u64,
}

/// Counts of all sources, by their numbers.
pub(super) type SourceCounts = [SourceCount; Source::ALL.len()];

/// What the thread did.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sampled {
    /// What was read.
    pub(super) counts: SourceCounts,
    /// The CPU time that it took.
    pub(super) cpu_time: Duration,
}

/// The files, and whose turn it is.
struct Rotation {
    root: PathBuf,
    files: Vec<(Source, File, Parse)>,
    processes: Vec<u32>,
    /// Files first, then processes.
    next: usize,
    encoder: Encoder,
    clock: Clock,
    text: Vec<u8>,
}

impl Rotation {
    /// Opens what there is below `root`; files that this kernel doesn't have are left out.
    fn open(root: &Path, clock: Clock) -> Self {
        let open = |&(source, name, parse): &(Source, &str, Parse)| {
            Some((source, File::open(root.join(name)).ok()?, parse))
        };
        let mut rotation = Self {
            root: root.to_owned(),
            files: FILES.iter().filter_map(open).collect(),
            processes: Vec::new(),
            next: 0,
            encoder: Encoder::default(),
            clock,
            text: Vec::new(),
        };
        rotation.list_processes();
        rotation
    }

    fn list_processes(&mut self) {
        self.processes.clear();
        let Ok(entries) = std::fs::read_dir(&self.root) else {
            return;
        };
        for entry in entries.flatten() {
            let number: Option<u32> = entry
                .file_name()
                .to_str()
                .and_then(|name| name.parse().ok());
            self.processes.extend(number);
        }
    }

    /// The next look. It has no samples if the file can't be read or the process has ended.
    fn look(&mut self) -> Reading {
        if self.next >= self.files.len() + self.processes.len() {
            self.next = 0;
            self.list_processes();
        }
        let turn = self.next;
        self.next += 1;
        let at = self.clock.moment();
        let mut text = std::mem::take(&mut self.text);
        let reading = match self.files.get(turn) {
            Some((source, file, parse)) => {
                let mut reading = self.encoder.begin(*source, at);
                if read_whole(file, &mut text).is_ok() {
                    let text = String::from_utf8_lossy(&text);
                    parse(&text, &mut |metric, instance, value| {
                        reading.add(metric, instance, value);
                    });
                }
                reading.end()
            }
            None => {
                let mut reading = self.encoder.begin(Source::Processes, at);
                if let Some(process) = self.processes.get(turn - self.files.len()) {
                    let directory = self.root.join(process.to_string());
                    look_at_process(&directory, *process, &mut text, &mut reading);
                }
                reading.end()
            }
        };
        self.text = text;
        reading
    }
}

fn look_at_process(directory: &Path, process: u32, text: &mut Vec<u8>, reading: &mut Encoding<'_>) {
    let read = |name, text: &mut Vec<u8>| read_whole(&File::open(directory.join(name))?, text);
    if read("stat", text).is_err() {
        return;
    }
    let stat = String::from_utf8_lossy(text);
    let instance = format!("{process} {}", parse::process_name(&stat));
    let mut emit = |metric: &str, instance: &str, value| reading.add(metric, instance, value);
    parse::process_stat(&stat, &instance, &mut emit);
    drop(stat);
    if read("statm", text).is_ok() {
        parse::process_statm(&String::from_utf8_lossy(text), &instance, &mut emit);
    }
}

/// Reads a file from its start, whose length nobody knows before.
fn read_whole(file: &File, text: &mut Vec<u8>) -> io::Result<()> {
    const STEP: usize = 16 << 10;
    let mut filled = 0;
    loop {
        text.resize(text.len().max(filled + STEP), 0);
        match file.read_at(&mut text[filled..], filled as u64) {
            Ok(0) => break,
            Ok(bytes) => filled += bytes,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    text.truncate(filled);
    Ok(())
}

/// How many samples are due.
#[derive(Debug)]
struct Pace {
    per_second: u32,
    earned_until_ns: u64,
    /// Samples due, in billionths; negative after a large reading.
    due: i128,
}

const BILLION: i128 = 1_000_000_000;

impl Pace {
    /// One sample is due at once: a run that is ended before it began has something to show, too.
    const fn new(per_second: u32, now_ns: u64) -> Self {
        Self {
            per_second,
            earned_until_ns: now_ns,
            due: BILLION,
        }
    }

    /// Counts the time until `now_ns`.
    fn earn(&mut self, now_ns: u64) {
        let rate = i128::from(self.per_second);
        self.due += rate * i128::from(now_ns - self.earned_until_ns);
        self.due = self.due.min(rate * DEBT_MAX.as_nanos() as i128);
        self.earned_until_ns = now_ns;
    }

    /// Counts samples that were read.
    const fn spend(&mut self, samples: usize) {
        self.due -= samples as i128 * BILLION;
    }

    const fn is_due(&self) -> bool {
        self.due >= BILLION
    }
}

/// The thread at work.
pub(super) struct Sampler {
    thread: JoinHandle<Sampled>,
    stop: Arc<AtomicBool>,
}

impl Sampler {
    /// Starts reading what lies below `root`, normally `/proc`, for some time. The readings end
    /// when it is over, when it is stopped, or when nobody takes them any more.
    ///
    /// # Errors
    /// When no thread can be had.
    pub(super) fn start(
        root: &Path,
        clock: Clock,
        time: Duration,
    ) -> io::Result<(Self, mpsc::Receiver<Reading>)> {
        let (readings, taken) = mpsc::channel(READINGS_MAX);
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let rotation = Rotation::open(root, clock);
        let thread = std::thread::Builder::new()
            .name("demo-sampler".to_owned())
            .spawn(move || Sampled {
                counts: sample(rotation, time, &stopped, &readings),
                cpu_time: cpu::of_this_thread(),
            })?;
        Ok((Self { thread, stop }, taken))
    }

    /// A handle that ends the sampling early.
    pub(super) fn stop_handle(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.stop)
    }

    /// Waits for the end, and says what was read.
    pub(super) fn join(self) -> Sampled {
        self.stop.store(true, Ordering::Relaxed);
        match self.thread.join() {
            Ok(sampled) => sampled,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }
}

fn sample(
    mut rotation: Rotation,
    time: Duration,
    stop: &AtomicBool,
    readings: &mpsc::Sender<Reading>,
) -> SourceCounts {
    let clock = rotation.clock;
    let mut counts = SourceCounts::default();
    let start_ns = clock.now_ns();
    let end_ns = start_ns.saturating_add(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX));
    let mut pace = Pace::new(SAMPLES_PER_SECOND, start_ns);
    loop {
        for _ in 0..LOOKS_PER_TICK_MAX {
            if !pace.is_due() {
                break;
            }
            let reading = rotation.look();
            pace.spend(reading.len());
            if reading.len() == 0 {
                continue;
            }
            let count = &mut counts[reading.source as usize];
            count.readings += 1;
            count.samples += reading.len() as u64;
            if readings.blocking_send(reading).is_err() {
                return counts;
            }
        }
        if clock.now_ns() >= end_ns || stop.load(Ordering::Relaxed) {
            return counts;
        }
        std::thread::sleep(TICK);
        pace.earn(clock.now_ns());
    }
}

#[cfg(test)]
mod tests {
    use super::super::sample::Decoder;
    use super::*;

    #[test]
    fn the_pace_is_kept_over_large_readings_and_forgets_long_pauses() {
        let mut pace = Pace::new(1_000, 0);
        assert!(pace.is_due());
        pace.spend(1);
        pace.earn(999_999);
        assert!(!pace.is_due());
        pace.earn(1_000_000);
        assert!(pace.is_due());
        pace.spend(10);
        pace.earn(9_999_999);
        assert!(!pace.is_due(), "ten milliseconds were spent");
        pace.earn(11_000_000);
        assert!(pace.is_due());
        pace.spend(1);
        pace.earn(60_000_000_000);
        pace.spend(999);
        assert!(pace.is_due());
        pace.spend(1);
        assert!(!pace.is_due(), "a minute's pause counts as a second");
    }

    #[test]
    fn this_machine_has_samples_in_every_turn() {
        let mut rotation = Rotation::open(Path::new("/proc"), Clock::start());
        let turns = rotation.files.len() + rotation.processes.len();
        assert!(rotation.processes.contains(&std::process::id()));
        let mut decoder = Decoder::default();
        let mut next = [0; Source::ALL.len()];
        let mut own = 0;
        for _ in 0..2 * turns {
            let reading = rotation.look();
            for value in reading.values() {
                let sample = decoder.sample(value).unwrap();
                let next = &mut next[sample.source as usize];
                assert_eq!(sample.sequence, *next);
                *next += 1;
                own += u32::from(
                    sample.metric == "threads"
                        && sample
                            .instance
                            .starts_with(&format!("{} ", std::process::id())),
                );
            }
        }
        let seen = |source: Source| next[source as usize] > 0;
        assert!(
            [
                Source::Cpu,
                Source::Memory,
                Source::Paging,
                Source::Processes
            ]
            .into_iter()
            .all(seen)
        );
        assert!(own >= 1, "this process is among those looked at");
    }

    #[test]
    fn a_file_longer_than_a_step_is_read_whole() {
        let path = std::env::temp_dir().join(format!("ringway-demo-text-{}", std::process::id()));
        let content: Vec<u8> = (0..50_000_u32).map(|byte| byte as u8).collect();
        std::fs::write(&path, &content).unwrap();
        let file = File::open(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        let mut text = vec![9; 70_000];
        read_whole(&file, &mut text).unwrap();
        assert_eq!(text, content);
        let mut text = Vec::new();
        read_whole(&file, &mut text).unwrap();
        assert_eq!(text, content);
    }

    #[test]
    fn stopping_ends_the_readings() {
        let (sampler, mut readings) = Sampler::start(
            Path::new("/proc"),
            Clock::start(),
            Duration::from_secs(3_600),
        )
        .unwrap();
        let mut taken = SourceCounts::default();
        while taken.iter().map(|count| count.samples).sum::<u64>() < 1_000 {
            let reading = readings.blocking_recv().unwrap();
            taken[reading.source as usize].readings += 1;
            taken[reading.source as usize].samples += reading.len() as u64;
        }
        sampler.stop_handle().store(true, Ordering::Relaxed);
        while let Some(reading) = readings.blocking_recv() {
            taken[reading.source as usize].readings += 1;
            taken[reading.source as usize].samples += reading.len() as u64;
        }
        assert_eq!(sampler.join().counts, taken);
    }
}
