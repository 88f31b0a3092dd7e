//! Ages in Docker's words: `44 seconds ago`, `About a minute ago`.

use time::{Duration, OffsetDateTime, format_description::well_known::Rfc3339};

/// A span of time in words (SVC-22).
pub fn humanise(span: Duration) -> String {
    let (seconds, minutes) = (span.whole_seconds(), span.whole_minutes());
    // Hours are rounded, all else is cut off.
    let hours = (span + Duration::minutes(30)).whole_hours();
    let (days, whole_days) = (hours / 24, span.whole_hours() / 24);
    match () {
        () if seconds < 1 => "Less than a second".to_owned(),
        () if seconds == 1 => "1 second".to_owned(),
        () if seconds < 60 => format!("{seconds} seconds"),
        () if minutes == 1 => "About a minute".to_owned(),
        () if minutes < 60 => format!("{minutes} minutes"),
        () if hours == 1 => "About an hour".to_owned(),
        () if hours < 48 => format!("{hours} hours"),
        () if days < 14 => format!("{days} days"),
        () if days < 60 => format!("{} weeks", days / 7),
        () if days < 730 => format!("{} months", days / 30),
        () => format!("{} years", whole_days / 365),
    }
}

/// How long ago `then` was, in words. What lies in the future of this clock was just now.
pub fn ago(then: OffsetDateTime, now: OffsetDateTime) -> String {
    format!("{} ago", humanise((now - then).max(Duration::ZERO)))
}

/// How long ago the moment `text` was, in words, beginning in lower case; empty where it is no moment.
pub fn ago_rfc3339(text: &str, now: OffsetDateTime) -> String {
    let Ok(then) = OffsetDateTime::parse(text, &Rfc3339) else {
        return String::new();
    };
    let words = ago(then, now);
    let mut letters = words.chars();
    letters.next().map_or_else(String::new, |first| first.to_lowercase().chain(letters).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// SVC-22
    #[test]
    fn spans_have_dockers_words() {
        let cases = [
            (0, "Less than a second"),
            (1, "1 second"),
            (44, "44 seconds"),
            (59, "59 seconds"),
            (60, "About a minute"),
            (119, "About a minute"),
            (120, "2 minutes"),
            (59 * 60 + 59, "59 minutes"),
            (3600, "About an hour"),
            (89 * 60 + 59, "About an hour"),
            (90 * 60, "2 hours"),
            (47 * 3600, "47 hours"),
            (48 * 3600, "2 days"),
            (13 * 86_400, "13 days"),
            (14 * 86_400, "2 weeks"),
            (59 * 86_400, "8 weeks"),
            (60 * 86_400, "2 months"),
            (729 * 86_400, "24 months"),
            (730 * 86_400, "2 years"),
            (1100 * 86_400, "3 years"),
        ];
        for (seconds, words) in cases {
            assert_eq!(humanise(Duration::seconds(seconds)), words, "{seconds}");
        }
        assert_eq!(humanise(Duration::milliseconds(999)), "Less than a second");
    }

    /// SVC-22
    #[test]
    fn ages_follow_a_state_in_lower_case() {
        let now = OffsetDateTime::from_unix_timestamp(1_000_000).unwrap();
        assert_eq!(ago_rfc3339("1970-01-12T13:45:56.5Z", now), "43 seconds ago");
        assert_eq!(ago_rfc3339("1970-01-12T13:45:40.000000001Z", now), "59 seconds ago");
        assert_eq!(ago_rfc3339("1970-01-12T13:45:00Z", now), "about a minute ago");
        assert_eq!(ago_rfc3339("1970-01-13T00:00:00Z", now), "less than a second ago");
        assert_eq!(ago_rfc3339("", now), "");
    }
}
