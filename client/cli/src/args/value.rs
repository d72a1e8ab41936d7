//! Values on the command line that are more than a word: sizes, pairs, texts with escapes, profiles.

use clap::ValueEnum;
use ringway_client::Profile;

/// `KEY=VALUE`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct KeyValue {
    /// Before the first `=`; not empty.
    pub(crate) key: String,
    /// After it; may be empty.
    pub(crate) value: String,
}

/// What the client is tuned for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum ProfileArg {
    /// Small batches and fetches: records arrive as soon as they can
    Latency,
    /// What is right for most
    #[default]
    Balanced,
    /// Large batches and fetches: bulk loads
    Throughput,
}

impl From<ProfileArg> for Profile {
    fn from(profile: ProfileArg) -> Self {
        match profile {
            ProfileArg::Latency => Self::Latency,
            ProfileArg::Balanced => Self::Balanced,
            ProfileArg::Throughput => Self::Throughput,
        }
    }
}

/// Parses `KEY=VALUE`.
pub(super) fn key_value(text: &str) -> Result<KeyValue, String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok(KeyValue {
            key: key.to_owned(),
            value: value.to_owned(),
        }),
        _ => Err("it is KEY=VALUE".to_owned()),
    }
}

/// Parses a number of bytes, with K, M or G (KiB, MiB, GiB) behind it for powers of 1,024.
pub(super) fn bytes(text: &str) -> Result<usize, String> {
    let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
    let shift = match &text[digits.len()..] {
        "" => 0,
        "k" | "K" | "KiB" => 10,
        "m" | "M" | "MiB" => 20,
        "g" | "G" | "GiB" => 30,
        unit => return Err(format!("'{unit}' is not a unit: K, M and G are")),
    };
    let number: usize = digits
        .parse()
        .map_err(|error| format!("'{digits}': {error}"))?;
    match number.checked_mul(1 << shift) {
        Some(0) => Err("it is at least 1".to_owned()),
        Some(bytes) => Ok(bytes),
        None => Err("it is too large".to_owned()),
    }
}

/// Parses milliseconds since 1970 to microseconds; nothing for what is no such number.
pub(super) fn time_us(text: &str) -> Option<i64> {
    text.parse::<i64>().ok()?.checked_mul(1_000)
}

/// Parses a text with the escapes of [`unescape`]; it may not be empty.
pub(super) fn separator(text: &str) -> Result<Separator, String> {
    let bytes = unescape(text)?;
    if bytes.is_empty() {
        return Err("it has at least one byte".to_owned());
    }
    Ok(Separator(bytes))
}

/// Bytes between a key and its value; never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Separator(pub(crate) Vec<u8>);

/// Resolves `\n`, `\t`, `\r`, `\0`, `\\` and `\xHH`; everything else stands for itself.
pub(crate) fn unescape(text: &str) -> Result<Vec<u8>, String> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        out.extend_from_slice(&rest.as_bytes()[..at]);
        rest = &rest[at + 1..];
        let Some(escape) = rest.chars().next() else {
            return Err("a backslash at the end escapes nothing; write \\\\".to_owned());
        };
        rest = &rest[escape.len_utf8()..];
        match escape {
            'n' => out.push(b'\n'),
            't' => out.push(b'\t'),
            'r' => out.push(b'\r'),
            '0' => out.push(0),
            '\\' => out.push(b'\\'),
            'x' => {
                let digits = rest.get(..2).unwrap_or(rest);
                let hex = digits.len() == 2 && digits.bytes().all(|b| b.is_ascii_hexdigit());
                let byte = u8::from_str_radix(digits, 16).ok().filter(|_| hex);
                out.push(byte.ok_or("\\x takes two hexadecimal digits")?);
                rest = &rest[2..];
            }
            other => {
                return Err(format!(
                    "'\\{other}' is no escape: \\n \\t \\r \\0 \\xHH \\\\ are"
                ));
            }
        }
    }
    out.extend_from_slice(rest.as_bytes());
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_split_at_the_first_equals_sign() {
        let pair = key_value("a=b=c").unwrap();
        assert_eq!((pair.key.as_str(), pair.value.as_str()), ("a", "b=c"));
        assert_eq!(key_value("a=").unwrap().value, "");
        assert!(key_value("=b").is_err());
        assert!(key_value("ab").is_err());
    }

    #[test]
    fn sizes_have_units() {
        assert_eq!(bytes("65536"), Ok(65_536));
        assert_eq!(bytes("64K"), Ok(65_536));
        assert_eq!(bytes("1MiB"), Ok(1 << 20));
        for wrong in [
            "",
            "0",
            "-1",
            "1.5",
            "K",
            "1kB",
            "99999999999G",
            "18446744073709551616",
        ] {
            assert!(bytes(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn escapes_become_bytes() {
        assert_eq!(
            unescape("a\\tb\\x00\\xff\\\\é").unwrap(),
            b"a\tb\0\xff\\\xc3\xa9"
        );
        for wrong in ["\\", "\\q", "\\x1", "\\x+1", "\\xé", "\\é"] {
            assert!(unescape(wrong).is_err(), "{wrong}");
        }
        assert!(separator("").is_err());
        assert_eq!(separator("\\t").unwrap(), Separator(b"\t".to_vec()));
    }
}
