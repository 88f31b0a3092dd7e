//! Health checks: how it is found out whether a container is well.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::time::Stamp;

/// Words of a test, at most.
pub const TEST_WORDS_MAX: usize = 256;
/// Checks that are remembered of a container.
pub const HEALTH_LOG_MAX: usize = 5;
/// The shortest time that can be asked for.
pub const TIME_MIN: Duration = Duration::from_millis(1);

/// A command that is run in a container again and again. What is empty or zero is as the image says, else
/// [as usual](HealthCheck::or).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HealthCheck {
    /// `CMD` and the words of a command, `CMD-SHELL` and a line for the shell, or `NONE`. It ends with 0 if the container
    /// is healthy.
    pub test: Vec<String>,
    /// Time between the end of one and the next.
    pub interval: Duration,
    /// One that takes longer has failed.
    pub timeout: Duration,
    /// Failures within this time after the start do not count, unless one has succeeded.
    pub start_period: Duration,
    /// The interval within that time.
    pub start_interval: Duration,
    /// So many failures, one after the other, make it unhealthy.
    pub retries: u32,
}

/// A health check that cannot be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HealthCheckError {
    /// The test is none.
    #[error("Unknown type '{0}' in healthcheck (want NONE, CMD or CMD-SHELL)")]
    Test(String),
    /// There is nothing to run.
    #[error("the test of Healthcheck has no command")]
    Empty,
    /// Too much to run.
    #[error("the test of Healthcheck has {0} words; at most {TEST_WORDS_MAX} are allowed")]
    Long(usize),
    /// A time that is too short.
    #[error("{0} in Healthcheck cannot be less than one millisecond")]
    Time(&'static str),
}

impl HealthCheck {
    /// The usual time between checks.
    pub const INTERVAL: Duration = Duration::from_secs(30);
    /// The usual time that one may take.
    pub const TIMEOUT: Duration = Duration::from_secs(30);
    /// The usual interval while the container starts.
    pub const START_INTERVAL: Duration = Duration::from_secs(5);
    /// The usual number of failures.
    pub const RETRIES: u32 = 3;

    /// Whether it can be.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn check(&self) -> Result<(), HealthCheckError> {
        match self.test.iter().map(String::as_str).collect::<Vec<_>>()[..] {
            [] | ["NONE"] | ["CMD", _, ..] | ["CMD-SHELL", _] => {}
            ["NONE" | "CMD" | "CMD-SHELL", ..] => return Err(HealthCheckError::Empty),
            [other, ..] => return Err(HealthCheckError::Test(other.to_owned())),
        }
        if self.test.len() > TEST_WORDS_MAX {
            return Err(HealthCheckError::Long(self.test.len()));
        }
        let times = [
            ("Interval", self.interval),
            ("Timeout", self.timeout),
            ("StartPeriod", self.start_period),
            ("StartInterval", self.start_interval),
        ];
        match times.iter().find(|(_, time)| !time.is_zero() && *time < TIME_MIN) {
            Some((name, _)) => Err(HealthCheckError::Time(name)),
            None => Ok(()),
        }
    }

    /// What is left open is as the image says, else as usual; none where there is nothing to run.
    #[must_use]
    pub fn or(&self, image: &Self) -> Option<Self> {
        let time = |own: Duration, image: Duration, usual| match (own.is_zero(), image.is_zero()) {
            (false, _) => own,
            (true, false) => image,
            (true, true) => usual,
        };
        let test = if self.test.is_empty() { &image.test } else { &self.test };
        if test.len() < 2 {
            return None;
        }
        let retries = [self.retries, image.retries].into_iter().find(|retries| *retries > 0);
        Some(Self {
            test: test.clone(),
            interval: time(self.interval, image.interval, Self::INTERVAL),
            timeout: time(self.timeout, image.timeout, Self::TIMEOUT),
            start_period: time(self.start_period, image.start_period, Duration::ZERO),
            start_interval: time(self.start_interval, image.start_interval, Self::START_INTERVAL),
            retries: retries.unwrap_or(Self::RETRIES),
        })
    }
}

/// Whether a container is well.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HealthStatus {
    /// Not known yet.
    #[default]
    Starting,
    /// The last check succeeded.
    Healthy,
    /// Too many checks, one after the other, have failed.
    Unhealthy,
}

impl HealthStatus {
    /// How the Engine API calls it that a container is not checked.
    pub const NONE: &str = "none";
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Starting, Self::Healthy, Self::Unhealthy];

    /// As the Engine API writes it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Healthy => "healthy",
            Self::Unhealthy => "unhealthy",
        }
    }
}

/// What the checks of a container say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Health {
    /// Whether it is well.
    pub status: HealthStatus,
    /// Failures since the last success.
    pub failing_streak: u32,
    /// The last [`HEALTH_LOG_MAX`] checks, oldest first.
    pub log: Vec<Checked>,
}

/// One check that was made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Checked {
    /// When it began.
    pub start: Stamp,
    /// When it ended.
    pub end: Stamp,
    /// 0: healthy; [`Checked::NOT_RUN`].
    pub exit_code: i32,
    /// The beginning of what it wrote, or why it could not be run.
    pub output: String,
}

impl Checked {
    /// Exit code of a check that could not be run or took too long.
    pub const NOT_RUN: i32 = -1;
}

impl Health {
    /// Time until the next check of a container that has run for so long.
    pub fn pause(&self, check: &HealthCheck, age: Duration) -> Duration {
        let starting = self.status == HealthStatus::Starting && age < check.start_period;
        if starting { check.start_interval } else { check.interval }
    }

    /// Takes in a check of a container that had run for so long when it began. True where the status is another one now.
    pub fn handle(&mut self, check: &HealthCheck, age: Duration, checked: Checked) -> bool {
        let before = self.status;
        if checked.exit_code == 0 {
            (self.status, self.failing_streak) = (HealthStatus::Healthy, 0);
        } else if before != HealthStatus::Starting || age >= check.start_period {
            self.failing_streak = self.failing_streak.saturating_add(1);
            if self.failing_streak >= check.retries {
                self.status = HealthStatus::Unhealthy;
            }
        }
        if self.log.len() == HEALTH_LOG_MAX {
            self.log.remove(0);
        }
        self.log.push(checked);
        self.status != before
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn test(words: &[&str]) -> HealthCheck {
        HealthCheck { test: words.iter().map(|word| (*word).to_owned()).collect(), ..HealthCheck::default() }
    }

    /// TSK-14
    #[test]
    fn what_is_left_open_is_as_the_image_says_or_as_usual() {
        let image = HealthCheck { retries: 7, ..test(&["CMD", "image"]) };
        let own = HealthCheck { interval: Duration::from_secs(1), ..HealthCheck::default() };
        let both = own.or(&image).expect("a check");
        assert_eq!((both.test, both.retries, both.interval), (image.test.clone(), 7, own.interval));
        assert_eq!((both.timeout, both.start_period), (HealthCheck::TIMEOUT, Duration::ZERO));
        assert_eq!(test(&["NONE"]).or(&image), None);
        assert_eq!(own.or(&HealthCheck::default()), None, "there is nothing to run");
    }

    /// TSK-14
    #[test]
    fn what_cannot_be_is_refused() {
        for good in [&[][..], &["NONE"], &["CMD", "a", "b"], &["CMD-SHELL", "a || exit 1"]] {
            assert_eq!(test(good).check(), Ok(()));
        }
        for bad in [&["CMD"][..], &["CMD-SHELL"], &["CMD-SHELL", "a", "b"], &["NONE", "a"]] {
            assert_eq!(test(bad).check(), Err(HealthCheckError::Empty));
        }
        assert_eq!(test(&["RUN", "a"]).check(), Err(HealthCheckError::Test("RUN".to_owned())));
        let short = HealthCheck { timeout: Duration::from_micros(1), ..HealthCheck::default() };
        assert_eq!(short.check(), Err(HealthCheckError::Time("Timeout")));
        let long = vec!["a"; TEST_WORDS_MAX];
        assert_eq!(test(&[&["CMD"][..], &long].concat()).check(), Err(HealthCheckError::Long(257)));
    }

    const S: Duration = Duration::from_secs(1);

    fn checked_twice() -> HealthCheck {
        let own = HealthCheck { retries: 2, start_period: 10 * S, ..test(&["CMD", "true"]) };
        own.or(&HealthCheck::default()).expect("a check")
    }

    fn ended(exit_code: i32) -> Checked {
        Checked { start: Stamp(0), end: Stamp(0), exit_code, output: String::new() }
    }

    /// TSK-14
    #[test]
    fn so_many_failures_one_after_the_other_make_it_unhealthy_and_one_success_healthy() {
        let (check, mut health) = (checked_twice(), Health::default());
        assert!(!health.handle(&check, 20 * S, ended(1)));
        assert!(health.handle(&check, 20 * S, ended(1)), "the second failure counts");
        assert_eq!((health.status, health.failing_streak), (HealthStatus::Unhealthy, 2));
        assert!(health.handle(&check, 20 * S, ended(0)));
        assert_eq!((health.status, health.failing_streak), (HealthStatus::Healthy, 0));
        assert!(!health.handle(&check, 20 * S, ended(Checked::NOT_RUN)));
        assert!(!health.handle(&check, 20 * S, ended(0)), "it was healthy all the while");
    }

    /// TSK-14
    #[test]
    fn failures_do_not_count_while_it_starts_until_it_was_healthy_once() {
        let (check, mut health) = (checked_twice(), Health::default());
        for _ in 0..3 {
            assert!(!health.handle(&check, 9 * S, ended(1)));
        }
        assert_eq!((health.status, health.failing_streak), (HealthStatus::Starting, 0));
        assert_eq!(health.pause(&check, 9 * S), HealthCheck::START_INTERVAL);
        assert_eq!(health.pause(&check, 10 * S), HealthCheck::INTERVAL);
        assert!(health.handle(&check, 9 * S, ended(0)));
        assert_eq!(health.pause(&check, 9 * S), HealthCheck::INTERVAL);
        assert!(!health.handle(&check, 9 * S, ended(1)));
        assert_eq!(health.failing_streak, 1);
    }

    #[test]
    fn only_the_last_checks_are_remembered() {
        let (check, mut health) = (checked_twice(), Health::default());
        for code in 0..9 {
            health.handle(&check, S, ended(code));
        }
        let codes: Vec<i32> = health.log.iter().map(|checked| checked.exit_code).collect();
        assert_eq!(codes, [4, 5, 6, 7, 8]);
    }
}
