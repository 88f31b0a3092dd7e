//! What a person sees: lines on standard output, complaints on standard error.

use std::{
    fmt,
    io::{self, IsTerminal, Write},
    os::fd::AsFd,
};

use tokio::fs::File;

/// Writes one line to standard output.
///
/// # Errors
/// Nobody reads it.
pub fn say(line: impl fmt::Display) -> io::Result<()> {
    writeln!(stdout(), "{line}")
}

/// Writes text that has its own line ends to standard output.
///
/// # Errors
/// Nobody reads it.
pub fn print(text: &str) -> io::Result<()> {
    stdout().write_all(text.as_bytes())
}

/// Writes one line to standard error; where nobody reads it, nobody is told.
pub fn complain(line: &str) {
    let _ = writeln!(stderr(), "{line}");
}

/// Writes each warning of the daemon to standard error.
pub fn warn(warnings: &[String]) {
    warnings.iter().for_each(|warning| complain(&format!("WARNING: {warning}")));
}

/// True if a person watches the progress of a work, which is shown on standard error.
pub fn is_watched() -> bool {
    io::stderr().is_terminal()
}

/// Standard input, for tasks.
///
/// # Errors
/// It is closed, or no descriptor is left.
pub fn input() -> io::Result<File> {
    file(io::stdin())
}

/// Standard output, for tasks: each write has to be flushed.
///
/// # Errors
/// It is closed, or no descriptor is left.
pub fn output() -> io::Result<File> {
    file(io::stdout())
}

/// Standard error, for tasks: each write has to be flushed.
///
/// # Errors
/// It is closed, or no descriptor is left.
pub fn errors() -> io::Result<File> {
    file(io::stderr())
}

fn file(stream: impl AsFd) -> io::Result<File> {
    let descriptor = stream.as_fd().try_clone_to_owned()?;
    Ok(File::from_std(std::fs::File::from(descriptor)))
}

#[cfg(not(test))]
fn stdout() -> impl Write {
    io::stdout().lock()
}

#[cfg(not(test))]
fn stderr() -> impl Write {
    io::stderr().lock()
}

// Tests look at the texts themselves, and are quiet.
#[cfg(test)]
fn stdout() -> impl Write {
    io::sink()
}

#[cfg(test)]
fn stderr() -> impl Write {
    io::sink()
}
