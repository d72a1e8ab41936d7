//! Amounts as people write them, and the known name nearest to a wrong one. Shared by the topic
//! configuration here and the broker's own.

use std::time::Duration;

/// Why a text is not an amount.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnitError {
    /// It doesn't start with a whole number.
    #[error("{text:?} is not a whole number with an optional unit ({units})")]
    Number {
        /// The text.
        text: String,
        /// The units that are understood.
        units: &'static str,
    },
    /// The unit is not known.
    #[error("{unit:?} is not a unit here; known are {units}")]
    Unit {
        /// What stands behind the number.
        unit: String,
        /// The units that are understood.
        units: &'static str,
    },
    /// The amount is beyond 64 bits.
    #[error("{0:?} is too large a number")]
    TooLarge(String),
}

const BYTE_UNITS: &str = "B, KiB, MiB, GiB, TiB, kB, MB, GB, TB";
const TIME_UNITS: &str = "us, ms, s, m, h, d, w";

/// Reads bytes: a whole number, which may have a unit (`KiB` = 1024, `kB` = 1000, …).
///
/// # Errors
/// [`UnitError`] says what is not understood.
pub fn bytes(text: &str) -> Result<u64, UnitError> {
    amount(text, BYTE_UNITS, |unit| {
        Some(match unit {
            "" | "B" => 1,
            "K" | "KiB" => 1 << 10,
            "M" | "MiB" => 1 << 20,
            "G" | "GiB" => 1 << 30,
            "T" | "TiB" => 1 << 40,
            "kB" | "KB" => 1_000,
            "MB" => 1_000_000,
            "GB" => 1_000_000_000,
            "TB" => 1_000_000_000_000,
            _ => return None,
        })
    })
}

/// Reads a length of time: a whole number, in milliseconds unless it has a unit.
///
/// # Errors
/// [`UnitError`] says what is not understood.
pub fn duration(text: &str) -> Result<Duration, UnitError> {
    let micros = amount(text, TIME_UNITS, |unit| {
        Some(match unit {
            "us" => 1,
            "" | "ms" => 1_000,
            "s" => 1_000_000,
            "m" | "min" => 60_000_000,
            "h" => 3_600_000_000,
            "d" => 86_400_000_000,
            "w" => 7 * 86_400_000_000,
            _ => return None,
        })
    })?;
    Ok(Duration::from_micros(micros))
}

fn amount(
    text: &str,
    units: &'static str,
    factor: impl Fn(&str) -> Option<u64>,
) -> Result<u64, UnitError> {
    let trimmed = text.trim();
    let split = trimmed
        .find(|c: char| !c.is_ascii_digit() && c != '_')
        .unwrap_or(trimmed.len());
    let (digits, unit) = trimmed.split_at(split);
    let digits = digits.replace('_', "");
    if digits.is_empty() {
        let text = text.chars().take(40).collect();
        return Err(UnitError::Number { text, units });
    }
    let too_large = || UnitError::TooLarge(text.chars().take(40).collect());
    let number: u64 = digits.parse().map_err(|_| too_large())?;
    let unit = unit.trim();
    let factor = factor(unit).ok_or_else(|| UnitError::Unit {
        unit: unit.chars().take(20).collect(),
        units,
    })?;
    number.checked_mul(factor).ok_or_else(too_large)
}

/// The known name that `name` was most likely meant to be, if any is near enough to be worth
/// naming.
#[must_use]
pub fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // Names are short; a long one is none of ours, and comparing it would cost its square.
    if name.len() > 64 {
        return None;
    }
    known
        .into_iter()
        .map(|candidate| (strsim::jaro_winkler(name, candidate), candidate))
        .filter(|(likeness, _)| *likeness > 0.75)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_have_units() {
        assert_eq!(bytes("4096"), Ok(4096));
        assert_eq!(bytes("256 MiB"), Ok(256 << 20));
        assert_eq!(bytes("1_000kB"), Ok(1_000_000));
        assert_eq!(bytes("0"), Ok(0));
        let error = bytes("3 furlongs").unwrap_err().to_string();
        assert!(
            error.contains("furlongs") && error.contains("KiB"),
            "{error}"
        );
        assert!(matches!(bytes("-1"), Err(UnitError::Number { .. })));
        assert!(matches!(bytes(""), Err(UnitError::Number { .. })));
        assert!(matches!(
            bytes("99999999999 TiB"),
            Err(UnitError::TooLarge(_))
        ));
        assert!(matches!(
            bytes("99999999999999999999"),
            Err(UnitError::TooLarge(_))
        ));
    }

    #[test]
    fn times_are_milliseconds_unless_they_say_so() {
        assert_eq!(duration("250"), Ok(Duration::from_millis(250)));
        assert_eq!(duration("7d"), Ok(Duration::from_secs(7 * 86_400)));
        assert_eq!(duration("30 s"), Ok(Duration::from_secs(30)));
        assert!(duration("5 parsecs").is_err());
    }

    #[test]
    fn a_slip_finds_its_name_and_nonsense_finds_none() {
        let known = ["retention_ms", "retention_bytes", "codec"];
        assert_eq!(nearest("retention-ms", known), Some("retention_ms"));
        assert_eq!(nearest("retentionbytes", known), Some("retention_bytes"));
        assert_eq!(nearest("zzzz", known), None);
        assert_eq!(nearest(&"r".repeat(10_000), known), None);
    }
}
