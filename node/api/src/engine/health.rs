//! Whether a container is well.

use covey_state::time::Stamp;

/// What the checks of a container say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Health {
    /// Whether it is well.
    pub status: HealthStatus,
    /// Failures since the last success.
    pub failing_streak: u32,
    /// The last checks, oldest first.
    pub log: Vec<Checked>,
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

/// One check that was made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Checked {
    /// When it began.
    pub start: Stamp,
    /// When it ended.
    pub end: Stamp,
    /// 0: healthy; -1: it could not be run or took too long.
    pub exit_code: i32,
    /// The beginning of what it wrote, or why it could not be run.
    pub output: String,
}
