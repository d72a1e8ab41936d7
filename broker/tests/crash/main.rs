//! Real brokers on real disks, treated badly: killed, cut off from power, given disks that fail
//! and clients that lie. What producers were told and what consumers saw is written down outside
//! the broker, and held against what is there in the end.
//!
//! More than the usual: `RINGWAY_CRASH_KILLS=50`, `RINGWAY_CRASH_CUTS=20`, `RINGWAY_CRASH_SEED=7`,
//! `RINGWAY_TAIL_BYTES=1000000000`. That the power cuts would find a careless broker out is seen by
//! `broken.sh`, which builds two of them.

mod checker;
mod faults;
mod history;
mod hostile;
mod identity;
mod load;
mod memory;
mod plain;
mod power_cut;
mod shutdown;
mod sigkill;
mod site;
mod tail;
