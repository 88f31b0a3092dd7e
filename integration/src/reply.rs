//! A command that was run to its end, and what it said.

use std::process::{Command, Output, Stdio};

/// Seconds after which a command that a test runs is given up, unless the test says otherwise.
pub const PATIENCE: u32 = 60;

/// What a command answered.
#[derive(Clone, Debug)]
pub struct Reply {
    /// The command as a person would type it.
    pub line: String,
    /// Its exit code; 124 when it was given up.
    pub code: i32,
    /// Its standard output.
    pub out: String,
    /// Its standard error.
    pub err: String,
}

impl Reply {
    /// Standard output of a command that has to succeed, without the space around it.
    ///
    /// # Panics
    /// When it failed.
    #[track_caller]
    pub fn ok(&self) -> &str {
        assert!(self.code == 0, "{} fails with {}:\n{}{}", self.line, self.code, self.out, self.err);
        self.out.trim()
    }

    /// Standard error of a command that has to fail, without the space around it.
    ///
    /// # Panics
    /// When it succeeded, or did not end.
    #[track_caller]
    pub fn refused(&self) -> &str {
        assert!(self.code != 0, "{} succeeds:\n{}{}", self.line, self.out, self.err);
        assert!(self.code != 124, "{} does not end:\n{}{}", self.line, self.out, self.err);
        self.err.trim()
    }

    /// Like [`Reply::refused`], for a reason with these words in it.
    ///
    /// # Panics
    /// When it succeeded, or gave another reason.
    #[track_caller]
    pub fn refused_with(&self, words: &str) {
        let reason = self.refused();
        assert!(reason.contains(words), "{}: {words:?} is not in {reason:?}", self.line);
    }
}

/// Runs a command of at most `seconds`, without standard input.
///
/// # Panics
/// When it cannot be started.
pub fn run(program: &str, args: &[&str], env: &[(&str, &str)], seconds: u32) -> Reply {
    let mut command = Command::new("timeout");
    command.arg("--kill-after=1").arg(seconds.to_string()).arg(program).args(args);
    command.envs(env.iter().copied()).stdin(Stdio::null());
    for name in ["DOCKER_CONTEXT", "DOCKER_API_VERSION", "DOCKER_TLS_VERIFY"] {
        command.env_remove(name);
    }
    let Output { status, stdout, stderr } =
        command.output().unwrap_or_else(|error| panic!("{program}: {error}"));
    Reply {
        line: format!("{program} {}", args.join(" ")),
        code: status.code().unwrap_or(-1),
        out: String::from_utf8_lossy(&stdout).into_owned(),
        err: String::from_utf8_lossy(&stderr).into_owned(),
    }
}
