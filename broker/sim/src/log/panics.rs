//! Panics of the engine become failures of a run, with the place where they happened.

use std::backtrace::Backtrace;
use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind, set_hook, take_hook};
use std::sync::Once;

/// What the hook keeps for the thread that is in a run.
enum Watch {
    Off,
    On {
        backtrace: bool,
        seen: Option<String>,
    },
}

thread_local! {
    static WATCH: RefCell<Watch> = const { RefCell::new(Watch::Off) };
}

static HOOK: Once = Once::new();

/// Those lines of a backtrace that lie in our own sources.
fn way(backtrace: &str) -> String {
    let place = |line: &&str| line.contains(" at ./broker/") && !line.contains("panics.rs");
    backtrace
        .lines()
        .filter(place)
        .map(|line| format!("\n  {}", line.trim()))
        .collect()
}

/// Runs `body`; a panic in it is an error with its text, its place and, if asked for, the way
/// there. Panics elsewhere are reported as ever.
pub(super) fn caught<T>(backtrace: bool, body: impl FnOnce() -> T) -> Result<T, String> {
    HOOK.call_once(|| {
        let others = take_hook();
        set_hook(Box::new(move |info| {
            let watched = WATCH.with_borrow_mut(|watch| match watch {
                Watch::Off => false,
                Watch::On { backtrace, seen } => {
                    let way = backtrace.then(|| way(&Backtrace::force_capture().to_string()));
                    *seen = Some(format!("{info}{}", way.unwrap_or_default()));
                    true
                }
            });
            if !watched {
                others(info);
            }
        }));
    });
    WATCH.set(Watch::On {
        backtrace,
        seen: None,
    });
    let outcome = catch_unwind(AssertUnwindSafe(body));
    let Watch::On { seen, .. } = WATCH.replace(Watch::Off) else {
        unreachable!("it was just switched on");
    };
    outcome.map_err(|_| seen.unwrap_or_else(|| "panicked".to_owned()))
}
