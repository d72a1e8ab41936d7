//! Reads the texts of `/proc`, as `proc(5)` describes them, into named numbers. A line or field
//! that doesn't parse is left out: the formats grow, and no sample is made up.

/// Takes a number: metric, instance, value.
pub(super) type Emit<'a> = dyn FnMut(&str, &str, i64) + 'a;

/// A number as the kernel writes it; the kernel's "unlimited" (above `i64::MAX`) is `i64::MAX`.
fn number(text: &str) -> Option<i64> {
    text.parse().ok().or_else(|| {
        let large: u64 = text.parse().ok()?;
        Some(i64::try_from(large).unwrap_or(i64::MAX))
    })
}

/// Pairs names with the numbers in a row.
fn row<'a>(
    names: impl IntoIterator<Item = &'a str>,
    fields: impl IntoIterator<Item = &'a str>,
    instance: &str,
    emit: &mut Emit<'_>,
) {
    for (name, field) in names.into_iter().zip(fields) {
        if let Some(value) = number(field) {
            emit(name, instance, value);
        }
    }
}

/// `/proc/stat`: ticks per CPU and in all, and counters of the whole machine. The row of interrupt
/// sums is left to `/proc/interrupts`, but for its total.
pub(super) fn stat(text: &str, emit: &mut Emit<'_>) {
    const TICKS: [&str; 10] = [
        "user",
        "nice",
        "system",
        "idle",
        "iowait",
        "irq",
        "softirq",
        "steal",
        "guest",
        "guest_nice",
    ];
    for line in text.lines() {
        let mut fields = line.split_ascii_whitespace();
        let Some(name) = fields.next() else { continue };
        if name.starts_with("cpu") {
            row(TICKS, fields, name, emit);
        } else {
            row([name], fields, "", emit);
        }
    }
}

/// `/proc/interrupts`: a column per CPU. Lines that never fired on a CPU are left out: with many
/// CPUs they are nearly all.
pub(super) fn interrupts(text: &str, emit: &mut Emit<'_>) {
    per_cpu(text, &mut |metric, cpu, value| {
        if value != 0 {
            emit(metric, cpu, value);
        }
    });
}

/// `/proc/softirqs`: a column per CPU.
pub(super) fn softirqs(text: &str, emit: &mut Emit<'_>) {
    per_cpu(text, emit);
}

fn per_cpu(text: &str, emit: &mut Emit<'_>) {
    let mut lines = text.lines();
    let cpus = lines.next().unwrap_or_default();
    for line in lines {
        let Some((name, counts)) = line.split_once(':') else {
            continue;
        };
        let columns = cpus.split_ascii_whitespace();
        for (cpu, count) in columns.zip(counts.split_ascii_whitespace()) {
            // The counts end where the description begins.
            let Some(value) = number(count) else { break };
            emit(name.trim(), cpu, value);
        }
    }
}

/// `/proc/meminfo`: `Name:  value kB`.
pub(super) fn meminfo(text: &str, emit: &mut Emit<'_>) {
    for line in text.lines() {
        if let Some((name, value)) = line.split_once(':') {
            row([name], value.split_ascii_whitespace(), "", emit);
        }
    }
}

/// `/proc/vmstat`: `name value`.
pub(super) fn vmstat(text: &str, emit: &mut Emit<'_>) {
    for line in text.lines() {
        if let Some((name, value)) = line.split_once(' ') {
            row([name], [value], "", emit);
        }
    }
}

/// `/proc/diskstats`: major, minor, name, counters.
pub(super) fn diskstats(text: &str, emit: &mut Emit<'_>) {
    const COUNTERS: [&str; 17] = [
        "reads",
        "reads_merged",
        "sectors_read",
        "read_ms",
        "writes",
        "writes_merged",
        "sectors_written",
        "write_ms",
        "in_flight",
        "busy_ms",
        "weighted_ms",
        "discards",
        "discards_merged",
        "sectors_discarded",
        "discard_ms",
        "flushes",
        "flush_ms",
    ];
    for line in text.lines() {
        let mut fields = line.split_ascii_whitespace().skip(2);
        if let Some(device) = fields.next() {
            row(COUNTERS, fields, device, emit);
        }
    }
}

/// `/proc/net/dev`: `interface: counters`, received ones first.
pub(super) fn net_dev(text: &str, emit: &mut Emit<'_>) {
    const COUNTERS: [&str; 16] = [
        "rx_bytes",
        "rx_packets",
        "rx_errors",
        "rx_dropped",
        "rx_fifo",
        "rx_frame",
        "rx_compressed",
        "rx_multicast",
        "tx_bytes",
        "tx_packets",
        "tx_errors",
        "tx_dropped",
        "tx_fifo",
        "tx_collisions",
        "tx_carrier",
        "tx_compressed",
    ];
    for line in text.lines().skip(2) {
        if let Some((interface, counters)) = line.split_once(':') {
            let counters = counters.split_ascii_whitespace();
            row(COUNTERS, counters, interface.trim(), emit);
        }
    }
}

/// `/proc/net/snmp` and `/proc/net/netstat`: a line of names, then one of numbers, per protocol.
pub(super) fn net_snmp(text: &str, emit: &mut Emit<'_>) {
    let mut lines = text.lines();
    while let (Some(names), Some(values)) = (lines.next(), lines.next()) {
        let (Some((protocol, names)), Some((same, values))) =
            (names.split_once(':'), values.split_once(':'))
        else {
            continue;
        };
        if protocol == same {
            let (names, values) = (
                names.split_ascii_whitespace(),
                values.split_ascii_whitespace(),
            );
            row(names, values, protocol, emit);
        }
    }
}

/// `/proc/net/sockstat`: `TCP: name value name value …`.
pub(super) fn sockstat(text: &str, emit: &mut Emit<'_>) {
    for line in text.lines() {
        let Some((protocol, pairs)) = line.split_once(':') else {
            continue;
        };
        let mut fields = pairs.split_ascii_whitespace();
        while let (Some(name), Some(value)) = (fields.next(), fields.next()) {
            row([name], [value], protocol, emit);
        }
    }
}

/// `/proc/pressure/RESOURCE`: the total of each line, in microseconds; the averages are only
/// smoothed views of it.
pub(super) fn pressure(resource: &str, text: &str, emit: &mut Emit<'_>) {
    for line in text.lines() {
        let share = line.split(' ').next().unwrap_or_default();
        if let Some((_, total)) = line.rsplit_once("total=") {
            row([share], [total], resource, emit);
        }
    }
}

/// `/proc/PID/stat`: those of its fields that count something. The name in brackets may have
/// anything in it, brackets included.
pub(super) fn process_stat(text: &str, instance: &str, emit: &mut Emit<'_>) {
    /// By their place behind the name, from 0, which is the state.
    const FIELDS: [(usize, &str); 15] = [
        (7, "minor_faults"),
        (8, "minor_faults_children"),
        (9, "major_faults"),
        (10, "major_faults_children"),
        (11, "user_ticks"),
        (12, "system_ticks"),
        (13, "user_ticks_children"),
        (14, "system_ticks_children"),
        (15, "priority"),
        (16, "nice"),
        (17, "threads"),
        (20, "virtual_bytes"),
        (21, "resident_pages"),
        (36, "last_cpu"),
        (39, "io_delay_ticks"),
    ];
    let Some((_, fields)) = text.rsplit_once(") ") else {
        return;
    };
    let mut wanted = FIELDS.into_iter().peekable();
    for (place, field) in fields.split_ascii_whitespace().enumerate() {
        if let Some((_, name)) = wanted.next_if(|(wanted, _)| *wanted == place) {
            row([name], [field], instance, emit);
        }
    }
}

/// The name in `/proc/PID/stat`.
pub(super) fn process_name(text: &str) -> &str {
    let name = text
        .split_once('(')
        .and_then(|(_, rest)| rest.rsplit_once(") "));
    name.map_or("", |(name, _)| name)
}

/// `/proc/PID/statm`: sizes in pages. The fields that have been zero since Linux 2.6 are left out.
pub(super) fn process_statm(text: &str, instance: &str, emit: &mut Emit<'_>) {
    let names = ["size", "resident", "shared", "text", "", "data"];
    row(
        names,
        text.split_ascii_whitespace(),
        instance,
        &mut |name, instance, value| {
            if !name.is_empty() {
                emit(name, instance, value);
            }
        },
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(parse: impl FnOnce(&mut Emit<'_>)) -> Vec<(String, String, i64)> {
        let mut found = Vec::new();
        parse(&mut |metric, instance, value| {
            found.push((metric.to_owned(), instance.to_owned(), value));
        });
        found
    }

    fn expect(parse: impl FnOnce(&mut Emit<'_>), expected: &[(&str, &str, i64)]) {
        let found = all(parse);
        let found: Vec<_> = found
            .iter()
            .map(|(metric, instance, value)| (metric.as_str(), instance.as_str(), *value))
            .collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn cpus_have_their_ticks_and_the_machine_its_counters() {
        let text = "cpu  5 6\ncpu1 1 2 3\nintr 99 0 1 2\nctxt 7\nsoftirq 10 1\n\nodd x\n";
        expect(
            |emit| stat(text, emit),
            &[
                ("user", "cpu", 5),
                ("nice", "cpu", 6),
                ("user", "cpu1", 1),
                ("nice", "cpu1", 2),
                ("system", "cpu1", 3),
                ("intr", "", 99),
                ("ctxt", "", 7),
                ("softirq", "", 10),
            ],
        );
    }

    #[test]
    fn interrupts_stop_at_the_description_and_skip_silence() {
        let text = "           CPU0       CPU2\n 24:  1  0  IO-APIC   5-edge  ACPI:Ged\n\
                    NMI:  3  4   Non-maskable interrupts\nERR:  9\n";
        expect(
            |emit| interrupts(text, emit),
            &[
                ("24", "CPU0", 1),
                ("NMI", "CPU0", 3),
                ("NMI", "CPU2", 4),
                ("ERR", "CPU0", 9),
            ],
        );
        let text = "       CPU0  CPU1\n  HI:  0  5\n";
        expect(
            |emit| softirqs(text, emit),
            &[("HI", "CPU0", 0), ("HI", "CPU1", 5)],
        );
    }

    #[test]
    fn memory_and_paging_are_name_and_value() {
        expect(
            |emit| meminfo("MemTotal:  8  kB\nHugePages_Free:   0\nbroken\n", emit),
            &[("MemTotal", "", 8), ("HugePages_Free", "", 0)],
        );
        expect(
            |emit| {
                vmstat(
                    "nr_free_pages 3\nbroken\npgfault 18446744073709551615\n",
                    emit,
                )
            },
            &[("nr_free_pages", "", 3), ("pgfault", "", i64::MAX)],
        );
    }

    #[test]
    fn disks_and_interfaces_have_their_counters() {
        let found = all(|emit| {
            diskstats(
                " 254       0 vda 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18\n 7 0 loop0 1\n",
                emit,
            );
        });
        assert_eq!(found.len(), 18);
        assert_eq!(found[4], ("writes".into(), "vda".into(), 5));
        assert_eq!(found[16], ("flush_ms".into(), "vda".into(), 17));
        assert_eq!(found[17], ("reads".into(), "loop0".into(), 1));
        let text =
            "Inter-| Receive\n face |bytes\n    lo: 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16\n";
        let found = all(|emit| net_dev(text, emit));
        assert_eq!(found.len(), 16);
        assert_eq!(found[8], ("tx_bytes".into(), "lo".into(), 9));
    }

    #[test]
    fn protocols_pair_names_with_numbers() {
        let text = "Tcp: MaxConn ActiveOpens\nTcp: -1 5\nUdp: A\nIp: 4\nUdp: A B\nUdp: 1 2\n";
        expect(
            |emit| net_snmp(text, emit),
            &[
                ("MaxConn", "Tcp", -1),
                ("ActiveOpens", "Tcp", 5),
                ("A", "Udp", 1),
                ("B", "Udp", 2),
            ],
        );
        expect(
            |emit| sockstat("sockets: used 19\nTCP: inuse 2 orphan 0\nRAW:\n", emit),
            &[
                ("used", "sockets", 19),
                ("inuse", "TCP", 2),
                ("orphan", "TCP", 0),
            ],
        );
    }

    #[test]
    fn pressure_is_its_total() {
        let text = "some avg10=0.00 avg60=1.20 total=123\nfull avg10=0.00 total=4\n";
        expect(
            |emit| pressure("io", text, emit),
            &[("some", "io", 123), ("full", "io", 4)],
        );
    }

    #[test]
    fn processes_may_have_any_name() {
        let mut text = "42 (a) b) S".to_owned();
        for place in 1..50 {
            text.push_str(&format!(" {place}"));
        }
        assert_eq!(process_name(&text), "a) b");
        let found = all(|emit| process_stat(&text, "42 a) b", emit));
        assert_eq!(found.len(), 15);
        assert_eq!(found[0], ("minor_faults".into(), "42 a) b".into(), 7));
        assert_eq!(found[14], ("io_delay_ticks".into(), "42 a) b".into(), 39));
        assert!(all(|emit| process_stat("42 (half", "", emit)).is_empty());
        let found = all(|emit| process_statm("1 2 3 4 0 6 0\n", "42", emit));
        let names: Vec<_> = found.iter().map(|(name, ..)| name.as_str()).collect();
        assert_eq!(names, ["size", "resident", "shared", "text", "data"]);
    }
}
