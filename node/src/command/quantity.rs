//! Numbers with units, as people type them: durations, bytes, CPUs.

use std::str::FromStr;

/// A text is no number with a unit.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QuantityError {
    /// SVC-14
    #[error("not a duration: use numbers with the units ns, us, ms, s, m and h, such as 10m30s")]
    Duration,
    /// RES-04
    #[error("not a size: use a number, with the unit b, k, m, g or t where it helps, such as 128m")]
    Bytes,
    /// RES-04
    #[error("not a number of CPUs: use one with at most nine decimals, such as .25 or 2")]
    Cpus,
    /// It has the form, but no 64-bit number can hold it.
    #[error("too large")]
    Range,
}

/// A duration in nanoseconds, written as in Go: `10m30s`, `1.5h`, `0` (SVC-14).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Nanos(pub i64);

/// A size in bytes: `128mb`, `1GB`, base 1024 (RES-04).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bytes(pub i64);

/// Billionths of a CPU: `.25`, `2` (RES-04).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cpus(pub i64);

impl FromStr for Nanos {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, QuantityError> {
        if text == "0" {
            return Ok(Self(0));
        }
        let (mut rest, mut total) = (text, 0_i64);
        while !rest.is_empty() {
            let (number, after) = split_number(rest).ok_or(QuantityError::Duration)?;
            let unit = after.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(after.len());
            let scale = match &after[..unit] {
                "ns" => 1,
                "us" | "µs" | "μs" => 1_000,
                "ms" => 1_000_000,
                "s" => 1_000_000_000,
                "m" => 60_000_000_000,
                "h" => 3_600_000_000_000,
                _ => return Err(QuantityError::Duration),
            };
            total =
                scaled(number, scale).and_then(|part| total.checked_add(part)).ok_or(QuantityError::Range)?;
            rest = &after[unit..];
        }
        if text.is_empty() { Err(QuantityError::Duration) } else { Ok(Self(total)) }
    }
}

impl FromStr for Bytes {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, QuantityError> {
        let (number, unit) = split_number(text).ok_or(QuantityError::Bytes)?;
        let unit = unit.trim_start().to_ascii_lowercase();
        let letter = unit.strip_suffix("ib").or_else(|| unit.strip_suffix('b')).unwrap_or(&unit);
        let power = match letter {
            "" if unit != "ib" => 0,
            "k" => 1,
            "m" => 2,
            "g" => 3,
            "t" => 4,
            "p" => 5,
            _ => return Err(QuantityError::Bytes),
        };
        scaled(number, 1024_i64.pow(power)).map(Self).ok_or(QuantityError::Range)
    }
}

impl FromStr for Cpus {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, QuantityError> {
        match split_number(text) {
            Some((number, "")) if number.1.len() <= 9 => {
                scaled(number, 1_000_000_000).map(Self).ok_or(QuantityError::Range)
            }
            _ => Err(QuantityError::Cpus),
        }
    }
}

/// Digits before and after the point.
type Number<'a> = (&'a str, &'a str);

/// The number at the start of `text`, and what follows.
fn split_number(text: &str) -> Option<(Number<'_>, &str)> {
    let digits = |text: &str| text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (whole, rest) = text.split_at(digits(text));
    let (decimals, rest) = match rest.strip_prefix('.') {
        Some(after) => after.split_at(digits(after)),
        None => ("", rest),
    };
    (!whole.is_empty() || !decimals.is_empty()).then_some(((whole, decimals), rest))
}

/// `number` times `scale`, cut off to a whole number; `None` where it is too large.
fn scaled((whole, decimals): Number<'_>, scale: i64) -> Option<i64> {
    let whole: i64 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    // More decimals than 18 cannot change the result by one.
    let decimals = &decimals[..decimals.len().min(18)];
    let numerator: i128 = if decimals.is_empty() { 0 } else { decimals.parse().ok()? };
    let fraction = numerator * i128::from(scale) / 10_i128.pow(u32::try_from(decimals.len()).ok()?);
    whole.checked_mul(scale)?.checked_add(i64::try_from(fraction).ok()?)
}

/// Nanoseconds as Go writes them: `10m30s`.
pub fn duration_text(nanos: i64) -> String {
    if nanos == 0 {
        return "0s".to_owned();
    }
    let seconds = nanos / 1_000_000_000;
    if seconds == 0 {
        return match nanos {
            ..1_000 => format!("{nanos}ns"),
            1_000..1_000_000 => format!("{}µs", decimal(nanos, 1_000)),
            _ => format!("{}ms", decimal(nanos, 1_000_000)),
        };
    }
    let (hours, minutes) = (seconds / 3600, seconds / 60 % 60);
    let rest = decimal(nanos % 60_000_000_000, 1_000_000_000);
    match (hours, minutes) {
        (0, 0) => format!("{rest}s"),
        (0, _) => format!("{minutes}m{rest}s"),
        _ => format!("{hours}h{minutes}m{rest}s"),
    }
}

/// A quotient with as many decimals as it needs; `unit` is a power of ten.
fn decimal(value: i64, unit: i64) -> String {
    let digits = unit.ilog10() as usize;
    let text = format!("{}.{:0digits$}", value / unit, value % unit);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// Bytes in units of 1000 with three digits, as `images` shows them: `4.26MB`.
pub fn size_text(bytes: u64) -> String {
    scale_down(bytes, 1000.0, 3, &["B", "kB", "MB", "GB", "TB", "PB"])
}

/// Bytes in units of 1024 with four digits, as `info` and `inspect --pretty` show them: `7.764GiB`.
pub fn memory_text(bytes: u64) -> String {
    scale_down(bytes, 1024.0, 4, &["B", "KiB", "MiB", "GiB", "TiB", "PiB"])
}

#[allow(clippy::cast_precision_loss, reason = "three or four digits are shown")]
fn scale_down(bytes: u64, base: f64, digits: usize, units: &[&str]) -> String {
    let (mut size, mut unit) = (bytes as f64, 0);
    while size >= base && unit + 1 < units.len() {
        size /= base;
        unit += 1;
    }
    let whole = if size >= 1000.0 {
        4
    } else if size >= 100.0 {
        3
    } else if size >= 10.0 {
        2
    } else {
        1
    };
    let text = format!("{size:.*}", digits.saturating_sub(whole));
    let text = if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
    format!("{text}{}", units[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    /// SVC-14
    #[test]
    fn durations_are_read_as_go_reads_them() {
        let read = |text: &str| text.parse::<Nanos>().map(|nanos| nanos.0);
        assert_eq!(read("10m30s"), Ok(630_000_000_000));
        assert_eq!(read("1.5h"), Ok(5_400_000_000_000));
        assert_eq!(read("0"), Ok(0));
        assert_eq!(read("100ms"), Ok(100_000_000));
        assert_eq!(read("1h2m3s4ms5us6ns"), Ok(3_723_004_005_006));
        assert_eq!(read(".5s"), Ok(500_000_000));
        for wrong in ["", "5", "s", "5x", "-5s", "5 s", "1.2.3s", "."] {
            assert_eq!(read(wrong), Err(QuantityError::Duration), "{wrong}");
        }
        assert_eq!(read("9999999999h"), Err(QuantityError::Range));
    }

    /// RES-04
    #[test]
    fn sizes_are_powers_of_1024() {
        let read = |text: &str| text.parse::<Bytes>().map(|bytes| bytes.0);
        assert_eq!(read("128mb"), Ok(134_217_728));
        assert_eq!(read("128m"), Ok(134_217_728));
        assert_eq!(read("128MiB"), Ok(134_217_728));
        assert_eq!(read("1GB"), Ok(1_073_741_824));
        assert_eq!(read("1.5k"), Ok(1536));
        assert_eq!(read("7"), Ok(7));
        assert_eq!(read("7b"), Ok(7));
        for wrong in ["", "m", "-1m", "1x", "1ib", "1 2", "0x10"] {
            assert_eq!(read(wrong), Err(QuantityError::Bytes), "{wrong}");
        }
        assert_eq!(read("99999999t"), Err(QuantityError::Range));
    }

    /// RES-04
    #[test]
    fn cpus_are_billionths() {
        let read = |text: &str| text.parse::<Cpus>().map(|cpus| cpus.0);
        assert_eq!(read(".25"), Ok(250_000_000));
        assert_eq!(read("0.5"), Ok(500_000_000));
        assert_eq!(read("2"), Ok(2_000_000_000));
        assert_eq!(read("0.000000001"), Ok(1));
        for wrong in ["", ".", "1.0000000001", "-1", "1e3", "half"] {
            assert_eq!(read(wrong), Err(QuantityError::Cpus), "{wrong}");
        }
    }

    /// SVC-14
    #[test]
    fn durations_are_written_as_go_writes_them() {
        for text in ["0s", "5s", "10m30s", "1h0m0s", "100ms", "1.5s", "7ns", "2.5µs", "1h2m3.000000004s"] {
            assert_eq!(duration_text(text.parse::<Nanos>().unwrap().0), text);
        }
    }

    /// CTR-06
    #[test]
    fn sizes_are_written_with_few_digits() {
        assert_eq!(size_text(0), "0B");
        assert_eq!(size_text(999), "999B");
        assert_eq!(size_text(4_262_822), "4.26MB");
        assert_eq!(size_text(109_000_000), "109MB");
        assert_eq!(size_text(1_000_000_000), "1GB");
        assert_eq!(memory_text(134_217_728), "128MiB");
        assert_eq!(memory_text(8_336_000_000), "7.764GiB");
    }
}
