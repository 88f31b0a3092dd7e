//! Containers, execs, images and events, as raw clients see them.

use std::time::Duration;

use http_body_util::BodyExt;
use hyper::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::timeout,
};

use crate::{
    Daemon,
    client::{Client, unframe},
};

const PATIENCE: Duration = Duration::from_secs(10);

async fn create(client: &Client, name: &str, argv: &[&str]) -> String {
    let body =
        json!({"Image": "busybox", "Cmd": argv, "OpenStdin": true, "HostConfig": {"NetworkMode": "none"}});
    let reply = client.post(&format!("/containers/create?name={name}"), &body.to_string()).await;
    assert_eq!(reply.status, StatusCode::CREATED, "{:?}", reply.body);
    reply.json()["Id"].as_str().unwrap().to_owned()
}

/// CTR-01, CTR-04
#[tokio::test]
async fn a_container_lives_from_create_to_remove() {
    let daemon = Daemon::start().await;
    let client = daemon.client();
    let id = create(&client, "web", &["sleep", "9"]).await;
    assert_eq!(&client.get("/containers/json").await.body[..], b"[]");
    assert_eq!(client.post("/containers/web/start", "{}").await.status, StatusCode::NO_CONTENT);
    assert_eq!(client.post("/containers/web/start", "").await.status, StatusCode::NOT_MODIFIED);
    let list = client.get("/containers/json").await.json();
    assert_eq!(
        (&list[0]["Id"], &list[0]["Names"], &list[0]["Ports"]),
        (&json!(id), &json!(["/web"]), &json!([]))
    );
    assert_eq!((&list[0]["Command"], &list[0]["State"]), (&json!("sleep 9"), &json!("running")));
    assert!(list[0]["Status"].as_str().unwrap().starts_with("Up "));
    let inspect = client.get(&format!("/containers/{}/json", &id[..6])).await.json();
    assert_eq!(
        (&inspect["Path"], &inspect["Args"], &inspect["Name"]),
        (&json!("sleep"), &json!(["9"]), &json!("/web"))
    );
    assert_eq!((&inspect["State"]["Running"], &inspect["State"]["Pid"]), (&json!(true), &json!(4242)));
    assert_eq!(inspect["HostConfig"]["NetworkMode"], "none");
    assert_eq!(client.delete("/containers/web").await.status, StatusCode::CONFLICT);
    assert_eq!(client.post("/containers/web/stop?t=1", "").await.status, StatusCode::NO_CONTENT);
    assert_eq!(client.post("/containers/web/kill?signal=KILL", "").await.status, StatusCode::CONFLICT);
    let status = client.get("/containers/json?all=True").await.json()[0]["Status"].clone();
    assert!(status.as_str().unwrap().starts_with("Exited (143) "), "{status}");
    assert_eq!(client.delete("/containers/web?force=1&v=1").await.status, StatusCode::NO_CONTENT);
    let gone = client.get("/containers/web/json").await;
    assert_eq!((gone.status, gone.message().as_str()), (StatusCode::NOT_FOUND, "No such container: web"));
    assert!(daemon.engine.names().is_empty());
}

/// CTR-02
#[tokio::test]
async fn a_missing_image_is_a_404_so_that_clients_pull() {
    let daemon = Daemon::start().await;
    let reply = daemon.client().post("/containers/create", r#"{"Image":"nginx"}"#).await;
    assert_eq!((reply.status, reply.message().as_str()), (StatusCode::NOT_FOUND, "No such image: nginx"));
}

/// CTR-03
#[tokio::test]
async fn options_of_run_that_are_not_built_yet_are_refused_by_name() {
    let daemon = Daemon::start().await;
    let client = daemon.client();
    for (body, what) in [
        (json!({"Tty": true}), "--tty"),
        (json!({"HostConfig": {"Links": ["db:db"]}}), "--link"),
        (json!({"Domainname": "lan"}), "--domainname"),
        (json!({"MacAddress": "02:00:00:00:00:01"}), "--mac-address"),
        (json!({"HostConfig": {"RestartPolicy": {"Name": "always"}}}), "--restart"),
        (
            json!({"HostConfig": {"Binds": ["data:/d"]}}),
            "a named volume (the source must be an absolute path)",
        ),
        (json!({"HostConfig": {"Privileged": true}}), "--privileged"),
        (json!({"Volumes": {"/data": {}}}), "anonymous volumes"),
    ] {
        let mut body = body;
        body["Image"] = json!("busybox");
        let reply = client.post("/containers/create", &body.to_string()).await;
        assert_eq!(reply.status, StatusCode::NOT_IMPLEMENTED, "{body}");
        assert_eq!(reply.message(), format!("not yet: {what} is not available yet"));
    }
    assert!(daemon.engine.names().is_empty());
}

/// CTR-03
#[tokio::test]
async fn a_container_finds_names_as_its_user_says() {
    let daemon = Daemon::manager().await;
    let client = daemon.client();
    let host = json!({
        "Dns": ["192.0.2.53"], "DnsSearch": ["corp"], "DnsOptions": ["ndots:2"],
        "ExtraHosts": ["db:10.0.0.9", "up:host-gateway"],
    });
    let body = json!({"Image": "busybox", "Cmd": ["sleep"], "HostConfig": host});
    let made = client.post("/containers/create?name=box", &body.to_string()).await;
    assert_eq!(made.status, StatusCode::CREATED, "{:?}", made.body);
    let shown = client.get("/containers/box/json").await.json()["HostConfig"].clone();
    for field in ["Dns", "DnsSearch", "DnsOptions"] {
        assert_eq!(shown[field], host[field]);
    }
    assert_eq!(shown["ExtraHosts"], json!(["db:10.0.0.9", "up:100.64.1.0"]));
    for (field, wrong) in
        [("DnsSearch", "a b"), ("DnsOptions", "a\nb"), ("ExtraHosts", "db"), ("Dns", "here")]
    {
        let body = json!({"Image": "busybox", "Cmd": ["sleep"], "HostConfig": {field: [wrong]}});
        let refusal = client.post("/containers/create", &body.to_string()).await;
        assert_eq!(refusal.status, StatusCode::BAD_REQUEST, "{field}");
    }
}

/// NET-33
#[tokio::test]
async fn ports_of_a_container_in_the_hosts_network_are_said_to_be_left_out() {
    let daemon = Daemon::start().await;
    let host = json!({"NetworkMode": "host", "PortBindings": {"80/tcp": [{"HostPort": "8080"}]}});
    let body = json!({"Image": "busybox", "Cmd": ["sleep"], "HostConfig": host});
    let made = daemon.client().post("/containers/create", &body.to_string()).await;
    let said = "Published ports are discarded when using host network mode";
    assert_eq!((made.status, &made.json()["Warnings"]), (StatusCode::CREATED, &json!([said])));
}

/// CTR-03: as with a sidecar, or when somebody looks at the network of another container.
#[tokio::test]
async fn a_container_in_the_network_of_another_has_nothing_of_its_own_there() {
    let daemon = Daemon::start().await;
    let client = daemon.client();
    let run = async |name: &str, config: Value, host: Value| {
        let mut body = json!({"Image": "busybox", "Cmd": ["sleep"], "HostConfig": host});
        body.as_object_mut().unwrap().extend(config.as_object().unwrap().clone());
        body["HostConfig"]["NetworkMode"] = json!("container:web");
        client.post(&format!("/containers/create?name={name}"), &body.to_string()).await
    };
    let missing = run("early", json!({}), json!({})).await;
    // Not 404: clients take that for a missing image.
    assert_eq!(
        (missing.status, missing.message()),
        (StatusCode::BAD_REQUEST, "No such container: web".into())
    );
    let web = create(&client, "web", &["sleep"]).await;
    for (config, host, what) in [
        (json!({"Hostname": "x"}), json!({}), "hostname and the network mode"),
        (json!({}), json!({"Dns": ["192.0.2.53"]}), "dns and the network mode"),
        (json!({}), json!({"ExtraHosts": ["a:10.0.0.1"]}), "custom host-to-IP mapping and the network mode"),
        (
            json!({}),
            json!({"PortBindings": {"80/tcp": [{"HostPort": "80"}]}}),
            "port publishing and the container type network mode",
        ),
        (
            json!({"ExposedPorts": {"80/tcp": {}}}),
            json!({}),
            "port exposing and the container type network mode",
        ),
    ] {
        let refusal = run("wrong", config, host).await;
        assert_eq!(refusal.status, StatusCode::BAD_REQUEST);
        assert_eq!(refusal.message(), format!("conflicting options: {what}"));
    }
    assert_eq!(run("side", json!({}), json!({})).await.status, StatusCode::CREATED);
    let side = client.get("/containers/side/json").await.json();
    assert_eq!(side["HostConfig"]["NetworkMode"], format!("container:{web}"));
    assert_eq!(side["NetworkSettings"]["Networks"], json!({}));
    let refusal = client.post("/networks/bridge/connect", r#"{"Container":"side"}"#).await;
    assert_eq!(refusal.status, StatusCode::FORBIDDEN);
}

/// CTR-08
#[tokio::test]
async fn logs_are_framed_by_stream() {
    let daemon = Daemon::start().await;
    let client = daemon.client();
    for (name, argv) in [("out", &["echo", "hi", "you"][..]), ("err", &["complain"])] {
        create(&client, name, argv).await;
        client.post(&format!("/containers/{name}/start"), "").await;
        client.post(&format!("/containers/{name}/wait"), "").await;
    }
    let reply = client.get("/containers/out/logs?stdout=1&stderr=1").await;
    assert_eq!(unframe(&reply.body), ("hi you\n".into(), String::new()));
    let reply = client.get("/containers/err/logs?stdout=1&stderr=1&tail=all").await;
    assert_eq!(unframe(&reply.body), (String::new(), "oh no\n".into()));
    assert_eq!(unframe(&client.get("/containers/err/logs?stdout=1").await.body).1, "");
}

/// `run` sets the watch before it starts the container: the head must not wait for the end.
#[tokio::test]
async fn the_head_of_wait_comes_before_the_end() {
    let daemon = Daemon::start().await;
    let client = daemon.client();
    create(&client, "aa", &["false"]).await;
    let path = "/containers/aa/wait?condition=next-exit";
    let waiting = timeout(PATIENCE, client.open(Method::POST, path, &[], "")).await.unwrap();
    assert_eq!(waiting.status(), StatusCode::OK);
    client.post("/containers/aa/start", "").await;
    let body = timeout(PATIENCE, waiting.into_body().collect()).await.unwrap().unwrap().to_bytes();
    assert_eq!(serde_json::from_slice::<Value>(&body).unwrap(), json!({"StatusCode": 1}));
    let wrong = client.post("/containers/aa/wait?condition=never", "").await;
    assert_eq!(wrong.status, StatusCode::BAD_REQUEST);
}

/// CTR-09
#[tokio::test]
async fn attach_carries_both_directions_and_a_half_close_is_the_end_of_input() {
    let daemon = Daemon::start().await;
    let client = daemon.client();
    create(&client, "cat", &["cat"]).await;
    let (head, mut stream) =
        client.hijack("/containers/cat/attach?stream=1&stdin=1&stdout=1&stderr=1", "").await;
    let head = head.to_lowercase();
    for line in
        ["connection: upgrade", "upgrade: tcp", "content-type: application/vnd.docker.multiplexed-stream"]
    {
        assert!(head.contains(line), "{head}");
    }
    client.post("/containers/cat/start", "").await;
    stream.write_all(b"meow\n").await.unwrap();
    stream.shutdown().await.unwrap();
    let mut output = Vec::new();
    timeout(PATIENCE, stream.read_to_end(&mut output)).await.unwrap().unwrap();
    assert_eq!(unframe(&output).0, "meow\n");
    let waited = client.post("/containers/cat/wait", "").await.json();
    assert_eq!(waited["StatusCode"], 0);
}

/// CTR-09: without `Upgrade` the reply is a plain stream.
#[tokio::test]
async fn old_clients_attach_without_an_upgrade() {
    let daemon = Daemon::start().await;
    let client = daemon.client();
    create(&client, "aa", &["echo", "x"]).await;
    let path = "/v1.41/containers/aa/attach?stream=1&stdout=1";
    let attached = client.open(Method::POST, path, &[], "").await;
    assert_eq!(attached.status(), StatusCode::OK);
    assert_eq!(attached.headers()["content-type"], "application/vnd.docker.raw-stream");
    client.post("/containers/aa/start", "").await;
    let output = timeout(PATIENCE, attached.into_body().collect()).await.unwrap().unwrap().to_bytes();
    assert_eq!(unframe(&output).0, "x\n");
}

/// CTR-07
#[tokio::test]
async fn a_process_is_run_in_a_container() {
    let daemon = Daemon::start().await;
    let client = daemon.client();
    create(&client, "aa", &["sleep"]).await;
    let body = r#"{"Cmd":["complain"],"AttachStdout":true,"AttachStderr":true}"#;
    assert_eq!(client.post("/containers/aa/exec", body).await.status, StatusCode::CONFLICT);
    client.post("/containers/aa/start", "").await;
    let id = client.post("/containers/aa/exec", body).await.json()["Id"].as_str().unwrap().to_owned();
    assert_eq!(id.len(), 64);
    assert_eq!(client.get(&format!("/exec/{id}/json")).await.json()["ExitCode"], Value::Null);
    let (_, mut stream) =
        client.hijack(&format!("/exec/{id}/start"), r#"{"Detach":false,"Tty":false}"#).await;
    let mut output = Vec::new();
    timeout(PATIENCE, stream.read_to_end(&mut output)).await.unwrap().unwrap();
    assert_eq!(unframe(&output), (String::new(), "oh no\n".into()));
    // The exit code is there as soon as the stream has ended.
    let inspect = client.get(&format!("/exec/{id}/json")).await.json();
    assert_eq!((&inspect["ExitCode"], &inspect["Running"]), (&json!(3), &json!(false)));
    assert_eq!(inspect["ProcessConfig"]["entrypoint"], "complain");
    assert_eq!(client.post(&format!("/exec/{id}/start"), "{}").await.status, StatusCode::CONFLICT);
    assert_eq!(client.get("/exec/none/json").await.message(), "No such exec instance: none");
}

/// CTR-02, CTR-08
#[tokio::test]
async fn a_pull_tells_its_progress_and_its_failure() {
    let daemon = Daemon::start().await;
    let client = daemon.client();
    let reply = client.post("/images/create?fromImage=nginx&tag=1", "").await;
    assert_eq!(reply.header("content-type"), "application/json");
    let lines: Vec<Value> =
        reply.body.split(|byte| *byte == b'\n').filter_map(|l| serde_json::from_slice(l).ok()).collect();
    assert_eq!(lines.len(), 4);
    let step =
        json!({"id": "0123456789ab", "status": "Downloading", "progressDetail": {"current": 1, "total": 2}});
    assert_eq!(lines[1], step);
    assert_eq!(lines[3]["status"], "Status: Downloaded newer image for nginx:1");
    let missing = client.post("/images/create?fromImage=missing&tag=latest", "").await;
    assert_eq!(missing.status, StatusCode::NOT_FOUND);
    assert_eq!(missing.message(), "manifest for missing:latest not found");
    assert_eq!(client.post("/images/create?fromImage=UP", "").await.status, StatusCode::BAD_REQUEST);
}

/// CTR-06
#[tokio::test]
async fn images_are_listed_tagged_loaded_and_removed() {
    let daemon = Daemon::start().await;
    let client = daemon.client();
    let list = client.get("/images/json").await.json();
    assert_eq!((&list[0]["RepoTags"], &list[0]["Size"]), (&json!(["busybox:latest"]), &json!(4_000_000)));
    let inspect = client.get("/images/busybox/json").await.json();
    assert_eq!((&inspect["Os"], &inspect["Config"]["Cmd"]), (&json!("linux"), &json!(["sh"])));
    let tag = client.post("/images/busybox/tag?repo=127.0.0.1:5000/a/b&tag=v1", "").await;
    assert_eq!(tag.status, StatusCode::CREATED);
    let inspect = client.get("/images/127.0.0.1:5000/a/b:v1/json").await.json();
    assert_eq!(inspect["RepoTags"], json!(["busybox:latest", "127.0.0.1:5000/a/b:v1"]));
    let tar = [("content-type", "application/x-tar")];
    let loaded = client.send(Method::POST, "/images/load?quiet=1", &tar, "12345").await;
    assert_eq!(loaded.json(), json!({"stream": "Loaded image: busybox:5\n"}));
    let imported = client.send(Method::POST, "/images/create?fromSrc=-&repo=mine", &tar, "123").await.json();
    assert!(imported["status"].as_str().unwrap().ends_with(" mine:latest 3"), "{imported}");
    let removed = client.delete("/images/busybox").await.json();
    assert_eq!(removed[0], json!({"Untagged": "busybox:latest"}));
    assert_eq!(client.delete("/images/busybox").await.status, StatusCode::NOT_FOUND);
}

/// API-05, LOG-06
#[tokio::test]
async fn events_of_the_cluster_and_of_containers_come_in_one_stream() {
    let daemon = Daemon::manager().await;
    let client = daemon.client();
    let mut live =
        client.open(Method::GET, "/events?filters=%7B%22event%22%3A%5B%22create%22%5D%7D", &[], "").await;
    create(&client, "aa", &["true"]).await;
    let spec = json!({"Name": "web", "TaskTemplate": {"ContainerSpec": {"Image": "nginx"}}});
    client.post("/services/create", &spec.to_string()).await;
    let mut seen = Vec::new();
    while !(has(&seen, "container", "aa") && has(&seen, "service", "web")) {
        let frame = timeout(PATIENCE, live.body_mut().frame()).await.unwrap().unwrap().unwrap();
        seen.push(serde_json::from_slice::<Value>(frame.data_ref().unwrap()).unwrap());
    }
    let service = seen.iter().find(|event| event["Type"] == "service").unwrap();
    assert_eq!((&service["scope"], &service["Action"]), (&json!("swarm"), &json!("create")));
    assert!(service.get("status").is_none());
    let container = seen.iter().find(|event| event["Type"] == "container").unwrap();
    assert_eq!((&container["scope"], &container["status"]), (&json!("local"), &json!("create")));

    let service = client.get("/services/web").await.json();
    let mut spec = service["Spec"].clone();
    spec["Mode"]["Replicated"]["Replicas"] = json!(3);
    client
        .post(&format!("/services/web/update?version={}", service["Version"]["Index"]), &spec.to_string())
        .await;
    // What is past can be asked for; the stream then ends at `until`.
    let past = "/events?since=1&until=4000000000&filters=%7B%22type%22%3A%5B%22service%22%5D%2C%22event%22%3A%5B%22update%22%5D%7D";
    let mut events = client.open(Method::GET, past, &[], "").await;
    let frame = timeout(PATIENCE, events.body_mut().frame()).await.unwrap().unwrap().unwrap();
    let update: Value = serde_json::from_slice(frame.data_ref().unwrap()).unwrap();
    let attributes = json!({"name": "web", "replicas.old": "1", "replicas.new": "3"});
    assert_eq!(update["Actor"]["Attributes"], attributes);
    let ended = timeout(PATIENCE, client.get("/events?since=1&until=2")).await.unwrap();
    assert_eq!(ended.status, StatusCode::OK);
}

fn has(events: &[Value], kind: &str, name: &str) -> bool {
    events.iter().any(|event| event["Type"] == kind && event["Actor"]["Attributes"]["name"] == name)
}

/// LOG-06
#[tokio::test]
async fn stats_are_told_once_or_again_and_again() {
    let daemon = Daemon::start().await;
    let client = daemon.client();
    create(&client, "aa", &["sleep"]).await;
    client.post("/containers/aa/start", "").await;
    let once = client.get("/containers/aa/stats?stream=0&one-shot=1").await.json();
    assert_eq!((&once["name"], &once["memory_stats"]["usage"]), (&json!("/aa"), &json!(1 << 20)));
    let mut live = client.open(Method::GET, "/containers/aa/stats", &[], "").await;
    let frame = timeout(PATIENCE, live.body_mut().frame()).await.unwrap().unwrap().unwrap();
    assert_eq!(serde_json::from_slice::<Value>(frame.data_ref().unwrap()).unwrap()["name"], "/aa");
}

/// TSK-18
#[tokio::test]
async fn what_a_client_began_is_finished_though_it_leaves() {
    let daemon = Daemon::start().await;
    let client = daemon.client();
    create(&client, "slow", &["sleep"]).await;
    client.post("/containers/slow/start", "").await;
    let request = b"POST /containers/slow/stop HTTP/1.1\r\nHost: d\r\nContent-Length: 0\r\n\r\n";
    let stopping = client.raw(request).await;
    timeout(PATIENCE, daemon.engine.stopping.notified()).await.unwrap();
    drop(stopping);
    client.get("/_ping").await;
    daemon.engine.go_on.notify_one();
    let ended = timeout(PATIENCE, client.post("/containers/slow/wait", "")).await.unwrap().json();
    assert_eq!(ended["StatusCode"], 143);
}
