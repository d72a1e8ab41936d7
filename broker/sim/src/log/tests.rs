//! The simulation's own tests: it repeats itself exactly, it passes, and it finds planted bugs.

use super::{Points, Run, run};

#[test]
fn the_same_seed_gives_the_same_run() {
    for seed in 0..20 {
        let once = run(Run {
            points: Points::Some(50),
            ..Run::new(seed)
        })
        .expect("it passes");
        let again = run(Run {
            points: Points::Some(0),
            ..Run::new(seed)
        })
        .expect("it passes");
        assert_eq!(
            (once.trace.hash(), once.trace.count(), once.operations),
            (again.trace.hash(), again.trace.count(), again.operations),
            "seed {seed}"
        );
    }
}
