//! A daemon for tests: answers from a table and remembers what it was asked.

use std::{convert::Infallible, path::PathBuf, sync::Arc};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{Request, Response, StatusCode, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::{io::AsyncWriteExt, net::UnixListener, sync::watch};

use crate::client::Client;

/// What a request gets.
#[derive(Clone)]
pub enum Reply {
    /// 200 and this.
    Json(Value),
    /// This status and message.
    Refuse(u16, &'static str),
    /// 200 and these bytes.
    Bytes(Vec<u8>),
    /// The connection changes hands; these bytes are written and it is closed.
    Upgrade(Vec<u8>),
    /// One after the other; the last one stays.
    Each(Vec<Self>),
}

/// `GET /path` without version and query, and what it gets.
type Table = Vec<(String, Reply)>;
/// `METHOD /path?query` without the version, and the body.
type Asked = (String, Value);

/// A daemon on a socket of its own; it ends with the test's runtime.
pub struct Daemon {
    socket: PathBuf,
    asked: watch::Receiver<Vec<Asked>>,
    _dir: tempfile::TempDir,
}

impl Daemon {
    pub fn start<const N: usize>(table: [(&str, Reply); N]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("covey.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        let table: Table = table.map(|(line, reply)| (line.to_owned(), reply)).into();
        let table = Arc::new(table);
        let (remember, asked) = watch::channel(Vec::new());
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (table, remember) = (table.clone(), remember.clone());
                let service = service_fn(move |request| answer(request, table.clone(), remember.clone()));
                tokio::spawn(
                    http1::Builder::new().serve_connection(TokioIo::new(stream), service).with_upgrades(),
                );
            }
        });
        Self { socket, asked, _dir: dir }
    }

    pub fn client(&self) -> Client {
        Client::new(self.socket.clone())
    }

    /// All requests so far.
    pub fn asked(&self) -> Vec<Asked> {
        self.asked.borrow().clone()
    }

    /// The last request that was no `GET`.
    pub fn last(&self) -> Asked {
        self.asked().into_iter().rfind(|(line, _)| !line.starts_with("GET")).unwrap()
    }
}

async fn answer(
    mut request: Request<Incoming>,
    table: Arc<Table>,
    remember: watch::Sender<Vec<Asked>>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let target = request.uri().to_string();
    let target = target.strip_prefix("/v1.51").unwrap_or(&target).to_owned();
    let line = format!("{} {target}", request.method());
    let upgrade = hyper::upgrade::on(&mut request);
    let body = request.into_body().collect().await.unwrap().to_bytes();
    let body = serde_json::from_slice(&body).unwrap_or(Value::Null);
    let path = line.split('?').next().unwrap_or_default().to_owned();
    let path_of = |asked: &str| asked.split('?').next() == Some(path.as_str());
    let before = remember.borrow().iter().filter(|(asked, _)| path_of(asked)).count();
    remember.send_modify(|asked| asked.push((line, body)));
    let reply = table.iter().find(|(known, _)| *known == path).map(|(_, reply)| reply.clone());
    Ok(respond(reply.unwrap_or(Reply::Refuse(404, "page not found")), before, upgrade))
}

fn respond(reply: Reply, before: usize, upgrade: hyper::upgrade::OnUpgrade) -> Response<Full<Bytes>> {
    let with = |status: u16, bytes: Vec<u8>| {
        let mut response = Response::new(Full::from(bytes));
        *response.status_mut() = StatusCode::from_u16(status).unwrap();
        response
    };
    match reply {
        Reply::Json(value) => with(200, value.to_string().into_bytes()),
        Reply::Bytes(bytes) => with(200, bytes),
        Reply::Refuse(status, message) => {
            with(status, json!({ "message": message }).to_string().into_bytes())
        }
        Reply::Each(replies) => {
            let at = before.min(replies.len() - 1);
            respond(replies[at].clone(), before, upgrade)
        }
        Reply::Upgrade(bytes) => {
            tokio::spawn(async move {
                let mut connection = TokioIo::new(upgrade.await.unwrap());
                connection.write_all(&bytes).await.unwrap();
                connection.shutdown().await.unwrap();
            });
            let mut response = with(101, Vec::new());
            response.headers_mut().insert("connection", "Upgrade".parse().unwrap());
            response.headers_mut().insert("upgrade", "tcp".parse().unwrap());
            response
        }
    }
}
