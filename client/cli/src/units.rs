//! Numbers for people: counts with separators, bytes and rates with units.

use std::time::Duration;

/// A count with a comma before each group of three digits.
pub(crate) fn count(count: u64) -> String {
    let digits = count.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.char_indices() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// Bytes in powers of 1,000, to three digits.
pub(crate) fn bytes(bytes: f64) -> String {
    let mut value = bytes;
    let mut unit = "B";
    for larger in ["kB", "MB", "GB", "TB"] {
        if value < 999.5 {
            break;
        }
        value /= 1_000.0;
        unit = larger;
    }
    match value {
        _ if unit == "B" => format!("{value:.0} {unit}"),
        value if value < 9.995 => format!("{value:.2} {unit}"),
        value if value < 99.95 => format!("{value:.1} {unit}"),
        value => format!("{value:.0} {unit}"),
    }
}

/// How many a second; 0 when no time went by.
pub(crate) fn rate(amount: u64, time: Duration) -> f64 {
    match time.as_secs_f64() {
        seconds if seconds > 0.0 => amount as f64 / seconds,
        _ => 0.0,
    }
}

/// `one` or, for any other number, `many`.
pub(crate) fn plural<'a>(count: u64, one: &'a str, many: &'a str) -> &'a str {
    if count == 1 { one } else { many }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_have_commas() {
        let counts = [0, 999, 1_000, 12_345, 2_000_000].map(count);
        assert_eq!(counts, ["0", "999", "1,000", "12,345", "2,000,000"]);
    }

    #[test]
    fn bytes_have_three_digits() {
        let cases = [
            0.0,
            17.0,
            999.0,
            999.9,
            1_234.0,
            99_960.0,
            13_888_896.0,
            5e15,
        ];
        let expected = [
            "0 B", "17 B", "999 B", "1.00 kB", "1.23 kB", "100 kB", "13.9 MB", "5000 TB",
        ];
        assert_eq!(cases.map(bytes), expected);
    }

    #[test]
    fn no_time_is_no_rate() {
        assert_eq!(rate(5, Duration::ZERO), 0.0);
        assert_eq!(rate(5, Duration::from_millis(500)), 10.0);
    }
}
