//! The ground rules of the API: what every request and every reply keeps to.

use std::time::Duration;

use covey_api::Limits;
use hyper::{Method, StatusCode};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::timeout,
};

use crate::Daemon;

const PATIENCE: Duration = Duration::from_secs(10);

/// API-05
#[tokio::test]
async fn a_ping_tells_who_answers_and_where_the_node_stands() {
    let daemon = Daemon::start().await;
    let client = daemon.client();
    let head = client.send(Method::HEAD, "/_ping", &[], "").await;
    assert_eq!(head.status, StatusCode::OK);
    for (name, value) in [
        ("api-version", "1.51"),
        ("ostype", "linux"),
        ("docker-experimental", "false"),
        ("builder-version", "1"),
        ("server", "Docker/0.1.0 (linux)"),
        ("swarm", "inactive"),
        ("cache-control", "no-cache, no-store, must-revalidate"),
        ("pragma", "no-cache"),
        ("content-type", "text/plain; charset=utf-8"),
        ("content-length", "0"),
    ] {
        assert_eq!(head.header(name), value, "{name}");
    }
    assert_eq!(&client.get("/v1.24/_ping").await.body[..], b"OK");
    daemon.control.form_cluster();
    assert_eq!(client.get("/_ping").await.header("swarm"), "active/manager");
    daemon.control.become_worker();
    assert_eq!(client.get("/_ping").await.header("swarm"), "active/worker");
}

/// API-05
#[tokio::test]
async fn every_version_from_1_24_to_1_51_is_spoken_and_no_other() {
    let daemon = Daemon::start().await;
    let client = daemon.client();
    for path in ["/version", "/v1.24/version", "/v1.41/version", "/v1.51/version"] {
        let version = client.get(path).await.json();
        assert_eq!((&version["ApiVersion"], &version["MinAPIVersion"]), (&json!("1.51"), &json!("1.24")));
        assert_eq!((&version["Version"], &version["Arch"]), (&json!("0.1.0"), &json!("amd64")));
    }
    let new = client.get("/v1.52/version").await;
    assert_eq!(new.status, StatusCode::BAD_REQUEST);
    assert_eq!(new.header("api-version"), "1.51");
    assert_eq!(new.message(), "client version 1.52 is too new. Maximum supported API version is 1.51");
    assert!(client.get("/v1.23/version").await.message().contains("is too old"));
}

#[tokio::test]
async fn what_nobody_serves_is_a_page_not_found() {
    let daemon = Daemon::start().await;
    let client = daemon.client();
    for reply in [
        client.get("/nowhere").await,
        client.get("/v1.51/nowhere").await,
        client.post("/version", "{}").await,
        client.get("/images/no-question").await,
    ] {
        assert_eq!(reply.status, StatusCode::NOT_FOUND);
        assert_eq!(reply.message(), "page not found");
    }
    let later = client.post("/containers/a/pause", "").await;
    assert_eq!(later.status, StatusCode::NOT_IMPLEMENTED);
    assert_eq!(later.message(), "not yet: docker pause is not available yet");
}

/// QRM-12, SVC-16
#[tokio::test]
async fn cluster_requests_are_refused_outside_a_cluster_and_on_workers() {
    let daemon = Daemon::start().await;
    let client = daemon.client();
    let paths = ["/swarm", "/nodes", "/nodes/a", "/services", "/services/a", "/tasks", "/tasks/a"];
    for path in paths {
        let reply = client.get(path).await;
        assert_eq!(reply.status, StatusCode::SERVICE_UNAVAILABLE, "{path}");
        assert!(reply.message().starts_with("This node is not a swarm manager. Use \"docker swarm init\""));
    }
    daemon.control.become_worker();
    for path in paths {
        assert_eq!(
            client.get(path).await.message(),
            "This node is not a swarm manager. Worker nodes can't be used to view or modify cluster state. Please \
             run this command on a manager node or promote the current node to a manager."
        );
    }
    assert_eq!(
        client.post("/services/create", r#"{"Name":"a"}"#).await.status,
        StatusCode::SERVICE_UNAVAILABLE
    );
    assert_eq!(client.get("/containers/json").await.status, StatusCode::OK);
}

#[tokio::test]
async fn filters_have_two_encodings_and_known_keys() {
    let daemon = Daemon::manager().await;
    let client = daemon.client();
    for filters in ["%7B%22name%22%3A%5B%22m%22%5D%7D", "%7B%22name%22%3A%7B%22m%22%3Atrue%7D%7D"] {
        let nodes = client.get(&format!("/nodes?filters={filters}")).await.json();
        assert_eq!(nodes.as_array().unwrap().len(), 1);
        assert_eq!(nodes[0]["Description"]["Hostname"], "m1");
    }
    for path in ["/nodes", "/services", "/tasks", "/containers/json", "/volumes", "/networks", "/events"] {
        let reply = client.get(&format!("{path}?filters=%7B%22colour%22%3A%5B%22red%22%5D%7D")).await;
        assert_eq!(reply.status, StatusCode::BAD_REQUEST);
        assert_eq!(reply.message(), "invalid filter 'colour'");
    }
}

#[tokio::test]
async fn lists_are_never_null() {
    let daemon = Daemon::manager().await;
    let client = daemon.client();
    for path in ["/services", "/tasks", "/containers/json"] {
        assert_eq!(&client.get(path).await.body[..], b"[]", "{path}");
    }
    assert_eq!(client.get("/volumes").await.json(), json!({"Volumes": [], "Warnings": []}));
    let networks = client.get("/networks").await.json();
    let names: Vec<_> = networks.as_array().unwrap().iter().map(|n| n["Name"].as_str().unwrap()).collect();
    assert_eq!(names, ["bridge", "docker_gwbridge", "host", "ingress", "none"]);
}

#[tokio::test]
async fn a_bad_body_is_one_clear_error() {
    let daemon = Daemon::manager().await;
    let client = daemon.client();
    for (body, begins) in [
        ("{", "invalid JSON: "),
        (r#"{"Name":7}"#, "invalid JSON: "),
        (r#"{"TaskTemplate":[]}"#, "invalid JSON: "),
        ("{}{}", "invalid JSON: "),
        ("", "ContainerSpec: image reference must be provided"),
        (r#"{"Name":null,"TaskTemplate":null}"#, "ContainerSpec: image reference must be provided"),
        (
            r#"{"TaskTemplate":{"ContainerSpec":{"Image":"UP PER"}}}"#,
            "ContainerSpec: \"UP PER\" is not a valid",
        ),
    ] {
        let reply = client.post("/services/create", body).await;
        assert_eq!(reply.status, StatusCode::BAD_REQUEST, "{body}");
        assert!(reply.message().starts_with(begins), "{body}: {}", reply.message());
    }
    let form = [("content-type", "application/x-www-form-urlencoded")];
    let reply = client.send(Method::POST, "/services/create", &form, "{}").await;
    assert!(reply.message().ends_with("must be 'application/json'"), "{}", reply.message());
    let charset = [("content-type", "application/json; charset=utf-8")];
    let reply = client.send(Method::POST, "/services/create", &charset, "{}").await;
    assert!(reply.message().starts_with("ContainerSpec: "));
}

#[tokio::test]
async fn a_body_of_100_mb_is_refused_and_the_daemon_goes_on() {
    const BYTES: usize = 100 << 20;
    let daemon = Daemon::manager().await;
    let head = format!(
        "POST /services/create HTTP/1.1\r\nHost: d\r\nContent-Type: application/json\r\nContent-Length: {BYTES}\r\n\r\n"
    );
    let mut stream = daemon.client().raw(head.as_bytes()).await;
    let chunk = vec![b' '; 1 << 20];
    for _ in 0..BYTES / chunk.len() {
        stream.write_all(&chunk).await.unwrap();
    }
    let mut reply = vec![0; 4096];
    let length = timeout(PATIENCE, stream.read(&mut reply)).await.unwrap().unwrap();
    let reply = str::from_utf8(&reply[..length]).unwrap();
    assert!(reply.starts_with("HTTP/1.1 413 ") && reply.contains("larger than 16777216 bytes"), "{reply}");
    assert_eq!(daemon.client().get("/_ping").await.status, StatusCode::OK);
}

#[tokio::test]
async fn requests_that_are_never_finished_time_out() {
    let short = Duration::from_millis(50);
    let daemon = Daemon::with_limits(Limits { head: short, body: short, ..Limits::default() }).await;
    daemon.control.form_cluster();
    let mut head = daemon.client().raw(b"GET /_ping HTTP/1.1\r\nHost: do").await;
    let mut rest = Vec::new();
    timeout(PATIENCE, head.read_to_end(&mut rest)).await.unwrap().unwrap();
    let request = b"POST /services/create HTTP/1.1\r\nHost: d\r\nContent-Length: 10\r\n\r\n{";
    let mut body = daemon.client().raw(request).await;
    rest.clear();
    timeout(PATIENCE, body.read_to_end(&mut rest)).await.unwrap().unwrap();
    assert!(rest.starts_with(b"HTTP/1.1 408 "), "{}", String::from_utf8_lossy(&rest));
    let mut garbage = daemon.client().raw(b"\x16\x03\x01 this is not HTTP\r\n\r\n").await;
    timeout(PATIENCE, garbage.read_to_end(&mut rest)).await.unwrap().unwrap();
    assert_eq!(daemon.client().get("/_ping").await.status, StatusCode::OK);
}

#[tokio::test]
async fn a_connection_serves_many_requests_and_versions() {
    let daemon = Daemon::start().await;
    let requests = b"GET /v1.24/_ping HTTP/1.1\r\nHost: d\r\n\r\nGET /v9.9/_ping HTTP/1.1\r\nHost: d\r\n\r\n\
                     GET /_ping HTTP/1.1\r\nHost: d\r\nConnection: close\r\n\r\n";
    let mut stream = daemon.client().raw(requests).await;
    let mut replies = String::new();
    timeout(PATIENCE, stream.read_to_string(&mut replies)).await.unwrap().unwrap();
    assert_eq!(replies.matches("HTTP/1.1 200 OK").count(), 2, "{replies}");
    assert_eq!(replies.matches("HTTP/1.1 400 Bad Request").count(), 1, "{replies}");
}

#[tokio::test]
async fn a_bug_in_a_route_is_an_answer_and_not_the_end() {
    let daemon = Daemon::start().await;
    let client = daemon.client();
    let reply = client.get("/containers/panic/json").await;
    assert_eq!(reply.status, StatusCode::INTERNAL_SERVER_ERROR);
    assert!(reply.message().starts_with("internal error"));
    assert_eq!(client.get("/_ping").await.status, StatusCode::OK);
}
