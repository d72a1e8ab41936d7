//! Figures as people read them.

/// A count with thousands apart: `1,234,567`.
pub(crate) fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (place, digit) in digits.char_indices() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Bytes in decimal units with three digits: `5.21 MB`.
pub(crate) fn bytes(number: f64) -> String {
    scaled(number, 1e3, &["B", "kB", "MB", "GB", "TB"])
}

/// A time given in microseconds: `87.2 µs`, `1.42 ms`, `2.10 s`.
pub(crate) fn time_us(us: f64) -> String {
    scaled(us, 1e3, &["µs", "ms", "s"])
}

fn scaled(mut number: f64, step: f64, units: &[&str]) -> String {
    let mut place = 0;
    // What would be rounded up to four digits belongs to the next unit.
    while number >= step * 0.9995 && place + 1 < units.len() {
        number /= step;
        place += 1;
    }
    let decimals = match number {
        _ if number == 0.0 => 0,
        ..9.995 => 2,
        ..99.95 => 1,
        _ => 0,
    };
    format!("{number:.decimals$} {}", units[place])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_have_three_digits_and_a_unit() {
        assert_eq!(count(0), "0");
        assert_eq!(count(999), "999");
        assert_eq!(count(1_234_567), "1,234,567");
        assert_eq!(time_us(0.0), "0 µs");
        assert_eq!(time_us(87.24), "87.2 µs");
        assert_eq!(time_us(999.7), "1.00 ms");
        assert_eq!(time_us(1_420.0), "1.42 ms");
        assert_eq!(time_us(12_345_678.0), "12.3 s");
        assert_eq!(bytes(5_210_000.0), "5.21 MB");
        assert_eq!(bytes(999.0), "999 B");
    }
}
