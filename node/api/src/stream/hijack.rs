//! Connections that change hands: after the reply's head they carry a process's input and output.

use axum::{
    body::Body,
    http::{HeaderValue, Request, Response, StatusCode, header},
};
use bytes::Bytes;
use futures_util::StreamExt;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    sync::mpsc,
};

use super::{frame, framed_type};
use crate::{
    engine::{Attached, OutputStream},
    failure::Failure,
    log::Output,
    version::ApiVersion,
};

/// Bytes of input that are handed on at once.
const INPUT_BYTES: usize = 16 << 10;

/// Only those outputs of a process that the client asked for.
pub fn select(output: OutputStream, stdout: bool, stderr: bool) -> OutputStream {
    let wanted = move |output| match output {
        Output::Stdout => stdout,
        Output::Stderr => stderr,
    };
    output
        .filter(move |chunk| std::future::ready(chunk.as_ref().map_or(true, |(from, _)| wanted(*from))))
        .boxed()
}

/// Hands the connection of `request` to a process. A client that asked for an upgrade gets `101` and both
/// directions; another one gets `200` and the output, for its input would have to come in the request's body.
pub fn reply(mut request: Request<Body>, api: ApiVersion, attached: Attached) -> Response<Body> {
    let content_type = HeaderValue::from_static(framed_type(api));
    let mut response = Response::new(Body::empty());
    if request.headers().contains_key(header::UPGRADE) {
        let upgrade = hyper::upgrade::on(&mut request);
        // The session outlives the request; it ends with the process or with the client.
        tokio::spawn(async move {
            match upgrade.await {
                Ok(connection) => session(connection, attached).await,
                Err(error) => tracing::debug!(%error, "a client left before its connection changed hands"),
            }
        });
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
        response.headers_mut().insert(header::UPGRADE, HeaderValue::from_static("tcp"));
    } else {
        let Attached { input, output } = attached;
        drop(input);
        *response.body_mut() =
            Body::from_stream(output.map(|chunk| Ok::<_, std::convert::Infallible>(framed(chunk))));
    }
    response.headers_mut().insert(header::CONTENT_TYPE, content_type);
    response
}

fn framed(chunk: Result<(Output, Bytes), Failure>) -> Bytes {
    match chunk {
        Ok((output, bytes)) => frame::output(output, &bytes),
        Err(failure) => frame::failure(&failure),
    }
}

async fn session(connection: Upgraded, attached: Attached) {
    let (from, to) = tokio::io::split(TokioIo::new(connection));
    let Attached { input, output } = attached;
    let output = write_output(to, output);
    tokio::pin!(output);
    tokio::select! {
        () = &mut output => return,
        () = read_input(from, input) => {}
    }
    // The client closed its half: that was the end of the input, not of the session.
    output.await;
}

async fn read_input(mut from: impl AsyncRead + Unpin, input: Option<mpsc::Sender<Bytes>>) {
    let mut buffer = vec![0; INPUT_BYTES];
    while let Ok(length) = from.read(&mut buffer).await {
        if length == 0 {
            return;
        }
        if let Some(input) = &input
            && input.send(Bytes::copy_from_slice(&buffer[..length])).await.is_err()
        {
            return;
        }
    }
}

async fn write_output(mut to: impl AsyncWrite + Unpin, mut output: OutputStream) {
    while let Some(chunk) = output.next().await {
        if to.write_all(&framed(chunk)).await.is_err() || to.flush().await.is_err() {
            return;
        }
    }
    if let Err(error) = to.shutdown().await {
        tracing::debug!(%error, "a client left at the end of its session");
    }
}
