//! Log lines: what is asked for, and what comes.

use bytes::Bytes;
use covey_state::time::Stamp;

/// Which of a process's outputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Output {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// Which lines are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogQuery {
    /// Lines of standard output.
    pub stdout: bool,
    /// Lines of standard error.
    pub stderr: bool,
    /// Go on with lines that are written later.
    pub follow: bool,
    /// Only lines from this moment on.
    pub since: Option<Stamp>,
    /// Only lines before this moment.
    pub until: Option<Stamp>,
    /// Only the last so many of those written so far; `None`: all.
    pub tail: Option<u64>,
}

/// One line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogLine {
    /// When it was written.
    pub at: Stamp,
    /// Where.
    pub output: Output,
    /// What, with its newline where there was one.
    pub text: Bytes,
}
