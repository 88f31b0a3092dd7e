//! A process in the foreground: its output comes here, standard input and signals go there.

use std::{io, task::Poll};

use tokio::{
    io::AsyncWriteExt,
    signal::unix::{Signal, SignalKind, signal},
};

use crate::{
    client::{Session, frames},
    command::terminal,
};

/// Copies standard input, where it is wanted, and both outputs until the process has closed its own.
///
/// # Errors
/// A stream broke, or the daemon said that it failed.
pub async fn run(session: Session, interactive: bool) -> io::Result<()> {
    let (mut from, mut to) = tokio::io::split(session);
    let (mut stdout, mut stderr) = (terminal::output()?, terminal::errors()?);
    let output = frames::copy(&mut from, &mut stdout, &mut stderr);
    let stdin = if interactive { Some(terminal::input()?) } else { None };
    let input = async {
        if let Some(mut stdin) = stdin {
            // A process that no longer reads is no failure: its output says how it went.
            let _ = tokio::io::copy(&mut stdin, &mut to).await;
            // The end of the input is told to the process by closing this half.
            let _ = to.shutdown().await;
        }
        std::future::pending::<()>().await;
    };
    tokio::select! {
        done = output => done,
        () = input => Ok(()),
    }
}

/// The signals that a person or a script sends to a command in the foreground, by name.
const FORWARDED: [(&str, SignalKind); 6] = [
    ("SIGINT", SignalKind::interrupt()),
    ("SIGTERM", SignalKind::terminate()),
    ("SIGHUP", SignalKind::hangup()),
    ("SIGQUIT", SignalKind::quit()),
    ("SIGUSR1", SignalKind::user_defined1()),
    ("SIGUSR2", SignalKind::user_defined2()),
];

/// Signals to this process, caught from the moment on that this is made.
pub struct Signals(Vec<(&'static str, Signal)>);

impl Signals {
    /// # Errors
    /// The system has no room for a handler.
    pub fn catch() -> io::Result<Self> {
        FORWARDED
            .into_iter()
            .map(|(name, kind)| Ok((name, signal(kind)?)))
            .collect::<io::Result<_>>()
            .map(Self)
    }

    /// The name of the next one.
    pub async fn next(&mut self) -> &'static str {
        std::future::poll_fn(|context| {
            // Where none is ready all were polled, so each of them wakes this task.
            let mut ready = self.0.iter_mut().filter_map(|(name, signal)| {
                if signal.poll_recv(context).is_ready() { Some(*name) } else { None }
            });
            ready.next().map_or(Poll::Pending, Poll::Ready)
        })
        .await
    }
}
