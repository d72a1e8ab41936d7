//! The thread that writes flights to files, so that no shard ever waits for one: when a shard
//! stalls, and when it is asked to.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use crate::flight::{Flight, Why, write_trace};
use crate::metrics::ShardMetrics;
use crate::shard::clock;

/// Stalls are dumped at most this often: on a machine that stands still now and then, a trace of
/// each would fill the disk, and writing it would make the next.
const STALLS_EVERY: Duration = Duration::from_secs(60);
/// Files that are kept, the newest ones.
const FILES_MAX: usize = 8;
/// What the log says of a file.
const WRITTEN: &str = "wrote the flight recorder's events to a file, for ui.perfetto.dev to show";
/// Requests for a dump that may wait.
const WAITING_MAX: usize = 4;

/// Asks for a dump, from anywhere.
#[derive(Clone, Debug)]
pub struct DumpHandle(SyncSender<Why>);

impl DumpHandle {
    /// Asks for a dump. Doesn't wait for it; the log says where it is.
    pub fn dump(&self) {
        if self.0.try_send(Why::Asked).is_err() {
            tracing::warn!("the flight is being recorded to a file already");
        }
    }
}

/// The thread; it ends when this is dropped.
#[derive(Debug)]
pub(crate) struct FlightDumper {
    bell: SyncSender<Why>,
    stopping: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl FlightDumper {
    /// Starts to wait for reasons to write the flight of these shards into `directory`, which is
    /// made when it is needed.
    ///
    /// # Errors
    /// When no thread can be had.
    pub(crate) fn start(shards: Arc<[Arc<ShardMetrics>]>, directory: PathBuf) -> io::Result<Self> {
        let (bell, asked) = sync_channel(WAITING_MAX);
        for shard in shards.iter() {
            shard.flight.connect(bell.clone());
        }
        let stopping = Arc::new(AtomicBool::new(false));
        let over = Arc::clone(&stopping);
        let thread = std::thread::Builder::new()
            .name("flight".to_owned())
            .spawn(move || serve(&asked, &over, &shards, &directory))?;
        Ok(Self {
            bell,
            stopping,
            thread: Some(thread),
        })
    }

    /// Asks for dumps.
    pub(crate) fn handle(&self) -> DumpHandle {
        DumpHandle(self.bell.clone())
    }
}

impl Drop for FlightDumper {
    fn drop(&mut self) {
        self.stopping.store(true, Ordering::Relaxed);
        // Full, it is awake, and sees that it is over.
        let _ = self.bell.try_send(Why::Stop);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn serve(asked: &Receiver<Why>, over: &AtomicBool, shards: &[Arc<ShardMetrics>], directory: &Path) {
    let mut last_stall: Option<Instant> = None;
    while let Ok(why) = asked.recv() {
        if over.load(Ordering::Relaxed) {
            return;
        }
        let reason = match why {
            Why::Stop => return,
            Why::Asked => "asked for".to_owned(),
            Why::Stall { shard, took_ns } => {
                if last_stall.is_some_and(|last| last.elapsed() < STALLS_EVERY) {
                    continue;
                }
                last_stall = Some(Instant::now());
                let ms = took_ns as f64 / 1e6;
                format!("shard {shard} took {ms:.1} ms for a turn")
            }
        };
        let stalled = matches!(why, Why::Stall { .. });
        let word = if stalled { "stall" } else { "asked" };
        match dump(shards, directory, word, reason.clone()) {
            Ok(file) if stalled => tracing::warn!(reason, file = %file.display(), "{WRITTEN}"),
            Ok(file) => tracing::info!(reason, file = %file.display(), "{WRITTEN}"),
            Err(error) => tracing::warn!(
                reason,
                %error,
                directory = %directory.display(),
                "the flight recorder's events can't be written to a file"
            ),
        }
    }
}

/// What the recorders of all shards hold now.
pub(crate) fn copy_flight(reason: String, shards: &[Arc<ShardMetrics>]) -> Flight {
    let now = clock::now();
    let recorders = shards.iter().map(|shard| &shard.flight);
    Flight::copy(reason, (now.unix_us, now.mono_ns), recorders)
}

fn dump(
    shards: &[Arc<ShardMetrics>],
    directory: &Path,
    word: &str,
    reason: String,
) -> io::Result<PathBuf> {
    // First of all: the events go on being written over.
    let flight = copy_flight(reason, shards);
    fs::create_dir_all(directory)?;
    let at = SystemTime::UNIX_EPOCH + Duration::from_micros(flight.unix_us.unsigned_abs());
    let at = humantime::format_rfc3339_millis(at).to_string();
    let name = format!("flight-{}-{word}.json", at.replace(':', ""));
    let path = directory.join(name);
    let temporary = crate::data_dir::temporary(&path);
    let mut out = BufWriter::new(File::create(&temporary)?);
    write_trace(&flight, &mut out)?;
    out.flush()?;
    drop(out);
    fs::rename(&temporary, &path)?;
    remove_old(directory)?;
    Ok(path)
}

/// Removes all but the newest files of a directory, and what was never whole.
fn remove_old(directory: &Path) -> io::Result<()> {
    let mut files = Vec::new();
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if name.starts_with("flight-") && name.ends_with(".json") {
            files.push(path);
        } else if name.starts_with("flight-") && name.ends_with(crate::data_dir::TEMPORARY) {
            fs::remove_file(&path)?;
        }
    }
    // Their names sort as their times do.
    files.sort_unstable();
    let old = files.len().saturating_sub(FILES_MAX);
    files[..old].iter().try_for_each(fs::remove_file)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn directory(name: &str) -> PathBuf {
        let path =
            std::env::temp_dir().join(format!("ringway-flight-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        path
    }

    #[test]
    fn the_newest_files_are_kept() {
        let directory = directory("old");
        fs::create_dir_all(&directory).unwrap();
        for hour in 10..20 {
            let name = format!("flight-2026-01-01T{hour}0000.000Z-asked.json");
            fs::write(directory.join(name), b"{}").unwrap();
        }
        fs::write(directory.join("flight-x.json.tmp"), b"").unwrap();
        fs::write(directory.join("mine.json"), b"").unwrap();
        let path = dump(&[], &directory, "stall", "a test".to_owned()).unwrap();
        let names = fs::read_dir(&directory).unwrap();
        let mut names: Vec<_> = names.map(|entry| entry.unwrap().path()).collect();
        names.sort();
        assert_eq!(names.len(), FILES_MAX + 1, "{names:?}");
        assert!(names.contains(&path) && names.contains(&directory.join("mine.json")));
        assert!(names[0].to_string_lossy().contains("T13"), "{names:?}");
        fs::remove_dir_all(&directory).unwrap();
    }

    #[test]
    fn stalls_are_dumped_once_in_a_while_and_wishes_always() {
        let directory = directory("stalls");
        let shards: Arc<[_]> = vec![Arc::new(ShardMetrics::default())].into();
        let dumper = FlightDumper::start(Arc::clone(&shards), directory.clone()).unwrap();
        let files = || fs::read_dir(&directory).map_or(0, Iterator::count);
        let wait_for = |count: usize| {
            let start = Instant::now();
            while files() < count {
                assert!(
                    start.elapsed() < Duration::from_secs(60),
                    "{} files",
                    files()
                );
                std::thread::sleep(Duration::from_millis(5));
            }
        };
        shards[0].flight.stalled(0, 6_000_000);
        wait_for(1);
        shards[0].flight.stalled(0, 7_000_000);
        dumper.handle().dump();
        wait_for(2);
        drop(dumper);
        let mut names: Vec<_> = fs::read_dir(&directory)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        assert!(
            names[0].ends_with("-stall.json") && names[1].ends_with("-asked.json"),
            "{names:?}"
        );
        fs::remove_dir_all(&directory).unwrap();
    }
}
