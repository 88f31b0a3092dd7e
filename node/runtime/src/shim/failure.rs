//! Why a container or a process in it did not start, on its way from the helper to the daemon.

use std::{fmt, io, io::Write as _, os::fd::BorrowedFd};

/// A start failed: the text is for the user, the code is what `run` ends with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    /// 127: there is no such program; 126: it may not be run; 128: the container could not be built.
    pub code: i32,
    pub text: String,
}

impl Failure {
    /// The container could not be built.
    pub(crate) fn build(text: impl fmt::Display) -> Self {
        Self { code: 128, text: text.to_string() }
    }

    /// As [`Failure::build`], saying what was tried: `… .map_err(Failure::at("mount /proc"))`.
    pub(crate) fn at<E: fmt::Display>(what: impl fmt::Display) -> impl FnOnce(E) -> Self {
        move |error| Self::build(format_args!("{what}: {error}"))
    }

    /// Sends it to whoever waits at the other end of `pipe`.
    pub(crate) fn report(&self, pipe: BorrowedFd<'_>) -> io::Result<()> {
        let mut file = std::fs::File::from(pipe.try_clone_to_owned()?);
        file.write_all(format!("{} {}\0", self.code, self.text.replace('\0', " ")).as_bytes())
    }

    /// The failure among the messages of a report, each ended by a NUL; none means that all went well.
    pub(crate) fn parse(report: &str) -> Option<Self> {
        report.split('\0').find_map(|message| {
            let (code, text) = message.split_once(' ')?;
            Some(Self { code: code.parse().ok()?, text: text.to_owned() })
        })
    }
}

/// An error of the kernel, in the words that container tools use.
pub(crate) fn words(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(libc::ENOENT) => "no such file or directory".to_owned(),
        Some(libc::EACCES) => "permission denied".to_owned(),
        Some(libc::ENOTDIR) => "not a directory".to_owned(),
        Some(libc::ENOEXEC) => "exec format error".to_owned(),
        _ => error.to_string(),
    }
}
