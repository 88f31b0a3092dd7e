//! A small client of the Engine API over a Unix socket: what the sub-commands ask the daemon through.

mod error;
pub mod frames;
pub mod lines;
pub mod model;
pub mod target;

use std::{io, path::PathBuf};

use bytes::Bytes;
use futures_util::TryStreamExt;
use http_body_util::{BodyDataStream, BodyExt, Empty, Full, Limited, StreamBody, combinators::UnsyncBoxBody};
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Frame, Incoming},
    client::conn::http1,
    header,
    upgrade::Upgraded,
};
use hyper_util::rt::TokioIo;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;
use tokio::{io::AsyncRead, net::UnixStream};
use tokio_util::io::{ReaderStream, StreamReader};

pub use error::ClientError;
pub use target::Target;

/// The version of the API that is spoken.
pub const API_VERSION: &str = "1.51";
/// Bytes of a reply that is read whole.
const REPLY_BYTES_MAX: usize = 64 << 20;
/// Bytes of an upload that are read at once.
const UPLOAD_BYTES: usize = 64 << 10;

/// What is sent along with a request.
type Body = UnsyncBoxBody<Bytes, io::Error>;
/// A reply that is read as it comes.
pub type Reply = Box<dyn AsyncRead + Send + Unpin>;
/// A connection that has become a process's input and output.
pub type Session = TokioIo<Upgraded>;
/// What a request gives.
pub type Result<T> = std::result::Result<T, ClientError>;

/// Asks the daemon behind one socket. Each request has a connection of its own: a Unix socket costs next to nothing.
#[derive(Clone, Debug)]
pub struct Client {
    socket: PathBuf,
}

impl Client {
    /// A client of the daemon that listens at `socket`.
    pub fn new(socket: PathBuf) -> Self {
        Self { socket }
    }

    /// `GET`, the reply read as `T`.
    pub async fn get<T: DeserializeOwned>(&self, target: Target) -> Result<T> {
        parse(self.send(Method::GET, target, nothing(), None).await?).await
    }

    /// `GET`, the reply read as it comes.
    pub async fn stream(&self, target: Target) -> Result<Reply> {
        Ok(reader(self.send(Method::GET, target, nothing(), None).await?))
    }

    /// `POST` without a body; the reply is read and thrown away.
    pub async fn post(&self, target: Target) -> Result<()> {
        drain(self.send(Method::POST, target, nothing(), None).await?).await
    }

    /// `POST` of JSON, the reply read as `T`.
    pub async fn post_json<T: DeserializeOwned>(&self, target: Target, body: &impl Serialize) -> Result<T> {
        parse(self.send(Method::POST, target, json(body)?, Some("application/json")).await?).await
    }

    /// `POST` of JSON; the reply is read and thrown away.
    pub async fn send_json(&self, target: Target, body: &impl Serialize) -> Result<()> {
        drain(self.send(Method::POST, target, json(body)?, Some("application/json")).await?).await
    }

    /// `POST` without a body, the reply read as it comes.
    pub async fn post_stream(&self, target: Target) -> Result<Reply> {
        Ok(reader(self.send(Method::POST, target, nothing(), None).await?))
    }

    /// `POST` of a long body, the reply read as it comes.
    pub async fn upload(&self, target: Target, from: impl AsyncRead + Send + 'static) -> Result<Reply> {
        let chunks = ReaderStream::with_capacity(from, UPLOAD_BYTES).map_ok(Frame::data);
        let body = StreamBody::new(chunks).boxed_unsync();
        Ok(reader(self.send(Method::POST, target, body, Some("application/x-tar")).await?))
    }

    /// `POST` that turns the connection into the input and output of a process.
    pub async fn hijack(&self, target: Target, body: Option<&Value>) -> Result<Session> {
        let (body, kind) = match body {
            Some(value) => (json(value)?, Some("application/json")),
            None => (nothing(), None),
        };
        let request = self
            .request(Method::POST, &target, kind)
            .header(header::CONNECTION, "Upgrade")
            .header(header::UPGRADE, "tcp");
        let response = self.exchange(request.body(body).map_err(ClientError::Request)?).await?;
        if response.status() != StatusCode::SWITCHING_PROTOCOLS {
            return Err(ClientError::NotUpgraded(response.status().as_u16()));
        }
        hyper::upgrade::on(response).await.map(TokioIo::new).map_err(ClientError::Broken)
    }

    /// `DELETE`, the reply read as `T` (`serde_json::Value::Null` where there is none).
    pub async fn delete<T: DeserializeOwned>(&self, target: Target) -> Result<T> {
        parse(self.send(Method::DELETE, target, nothing(), None).await?).await
    }

    fn request(&self, method: Method, target: &Target, kind: Option<&str>) -> hyper::http::request::Builder {
        let request = Request::builder()
            .method(method)
            .uri(format!("/v{API_VERSION}{target}"))
            .header(header::HOST, "covey")
            .header(header::USER_AGENT, concat!("covey/", env!("CARGO_PKG_VERSION")));
        match kind {
            Some(kind) => request.header(header::CONTENT_TYPE, kind),
            None => request,
        }
    }

    async fn send(
        &self,
        method: Method,
        target: Target,
        body: Body,
        kind: Option<&str>,
    ) -> Result<Response<Incoming>> {
        let request = self.request(method, &target, kind).body(body).map_err(ClientError::Request)?;
        self.exchange(request).await
    }

    async fn exchange(&self, request: Request<Body>) -> Result<Response<Incoming>> {
        let stream = UnixStream::connect(&self.socket).await.map_err(|error| self.unreachable(error))?;
        let (mut sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(ClientError::Broken)?;
        // Ends with the reply, or with the session that it became; an error of it is also the reply's.
        tokio::spawn(connection.with_upgrades());
        let response = sender.send_request(request).await.map_err(ClientError::Broken)?;
        let status = response.status();
        if status.is_client_error() || status.is_server_error() {
            return Err(ClientError::Refused { status: status.as_u16(), message: refusal(response).await? });
        }
        Ok(response)
    }

    fn unreachable(&self, source: io::Error) -> ClientError {
        let socket = self.socket.display().to_string();
        match source.kind() {
            io::ErrorKind::PermissionDenied => ClientError::Forbidden { socket },
            reason => ClientError::NoDaemon { socket, reason },
        }
    }
}

fn nothing() -> Body {
    Empty::new().map_err(|never| match never {}).boxed_unsync()
}

fn json(body: &impl Serialize) -> Result<Body> {
    let bytes = serde_json::to_vec(body).map_err(ClientError::Shape)?;
    Ok(Full::from(bytes).map_err(|never| match never {}).boxed_unsync())
}

fn reader(response: Response<Incoming>) -> Reply {
    Box::new(StreamReader::new(BodyDataStream::new(response.into_body()).map_err(io::Error::other)))
}

async fn whole(response: Response<Incoming>) -> Result<Bytes> {
    let body = Limited::new(response.into_body(), REPLY_BYTES_MAX);
    Ok(body.collect().await.map_err(ClientError::Reply)?.to_bytes())
}

async fn drain(response: Response<Incoming>) -> Result<()> {
    whole(response).await.map(drop)
}

async fn parse<T: DeserializeOwned>(response: Response<Incoming>) -> Result<T> {
    let bytes = whole(response).await?;
    let text: &[u8] = if bytes.is_empty() { b"null" } else { &bytes };
    serde_json::from_slice(text).map_err(ClientError::Shape)
}

/// What the daemon says is wrong: `message` of the body, or the body itself where it is no JSON.
async fn refusal(response: Response<Incoming>) -> Result<String> {
    let status = response.status();
    let bytes = whole(response).await?;
    let message = serde_json::from_slice::<Value>(&bytes)
        .ok()
        .and_then(|body| body.get("message")?.as_str().map(str::to_owned))
        .unwrap_or_else(|| String::from_utf8_lossy(&bytes).trim().to_owned());
    Ok(if message.is_empty() { format!("the request was refused with status {status}") } else { message })
}
