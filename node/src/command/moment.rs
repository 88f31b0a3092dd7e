//! Moments as people type them: RFC 3339, seconds since 1970, or how long ago.

use anyhow::{Result, bail};
use time::{Duration, OffsetDateTime, format_description::well_known::Rfc3339};

use super::quantity::Nanos;

/// The present.
pub fn now() -> OffsetDateTime {
    OffsetDateTime::now_utc()
}

/// The moment that `text` names, as the API has it: seconds since 1970 with nine decimals.
///
/// # Errors
/// It names none.
pub fn parse(text: &str, now: OffsetDateTime) -> Result<String> {
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let (seconds, decimals) = text.split_once('.').unwrap_or((text, "0"));
    if is_number(seconds) && is_number(decimals) && decimals.len() <= 9 {
        return Ok(text.to_owned());
    }
    let moment = match (OffsetDateTime::parse(text, &Rfc3339), text.parse::<Nanos>()) {
        (Ok(moment), _) => moment,
        (_, Ok(Nanos(ago))) => now.saturating_sub(Duration::nanoseconds(ago)),
        _ => bail!(
            "{text}: not a time; use 2026-01-02T15:04:05Z, seconds since 1970, or how long ago, such as 10m"
        ),
    };
    let nanos = moment.unix_timestamp_nanos();
    Ok(format!("{}.{:09}", nanos.div_euclid(1_000_000_000), nanos.rem_euclid(1_000_000_000)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_have_three_forms() {
        let now = OffsetDateTime::from_unix_timestamp(1_000).unwrap();
        assert_eq!(parse("1970-01-01T00:00:07.5Z", now).unwrap(), "7.500000000");
        assert_eq!(parse("1970-01-01T01:00:07+01:00", now).unwrap(), "7.000000000");
        assert_eq!(parse("42.25", now).unwrap(), "42.25");
        assert_eq!(parse("10m", now).unwrap(), "400.000000000");
        for wrong in ["", "yesterday", "1.x", "-5"] {
            assert!(parse(wrong, now).is_err(), "{wrong}");
        }
    }
}
