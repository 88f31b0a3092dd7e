//! Signals as people write them.

use nix::sys::signal::Signal;

/// The number of `SIGTERM`, `term` or `15`; `None` for anything else.
pub(crate) fn parse(text: &str) -> Option<i32> {
    if let Ok(number) = text.parse::<i32>() {
        return (1..=libc::SIGRTMAX()).contains(&number).then_some(number);
    }
    let name = text.to_ascii_uppercase();
    let name = name.strip_prefix("SIG").unwrap_or(&name);
    let real_time = |from: &str, number: i32| -> Option<i32> {
        let rest = name.strip_prefix(from)?;
        if rest.is_empty() { Some(number) } else { rest.parse::<i32>().ok()?.checked_add(number) }
    };
    let number = format!("SIG{name}").parse::<Signal>().ok().map(|signal| signal as i32);
    number
        .or_else(|| real_time("RTMIN", libc::SIGRTMIN()))
        .or_else(|| real_time("RTMAX", libc::SIGRTMAX()))
        .filter(|n| (1..=libc::SIGRTMAX()).contains(n))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// CTR-06
    #[test]
    fn signals_are_read_as_docker_reads_them() {
        for (text, number) in [
            ("SIGTERM", Some(15)),
            ("kill", Some(9)),
            ("2", Some(2)),
            ("RTMIN+3", Some(libc::SIGRTMIN() + 3)),
        ] {
            assert_eq!(parse(text), number, "{text}");
        }
        for text in ["", "0", "SIGNOTHING", "4000", "RTMAX+1", "-1", "RTMIN+2147483647"] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
