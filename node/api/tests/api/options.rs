//! Options of plain containers: each is done, or is so anyway, or is refused by name.

use covey_state::network::Protocol;
use hyper::StatusCode;
use serde_json::{Value, json};

use crate::{Daemon, client::Client, joining::run};

async fn create(client: &Client, config: &Value, host: &Value) -> (StatusCode, String) {
    let mut body = json!({"Image": "busybox", "Cmd": ["sleep"], "HostConfig": host});
    body.as_object_mut().unwrap().extend(config.as_object().unwrap().clone());
    let reply = client.post("/containers/create?name=box", &body.to_string()).await;
    let message = if reply.status.is_success() { String::new() } else { reply.message() };
    (reply.status, message)
}

/// CTR-03
#[tokio::test]
async fn settings_of_the_kernel_reach_the_container_and_are_shown() {
    let daemon = Daemon::start().await;
    let client = daemon.client();
    let wanted = json!({"net.ipv4.ip_forward": "1", "kernel.msgmax": "9"});
    run(&client, "box", &json!({"Sysctls": wanted}), &json!({})).await.unwrap();
    assert_eq!(json!(daemon.engine.made("box").spec.sysctls), wanted);
    assert_eq!(client.get("/containers/box/json").await.json()["HostConfig"]["Sysctls"], wanted);
    for (name, says) in [
        ("vm.swappiness", "sysctl \"vm.swappiness\" is not in a separate kernel namespace"),
        ("net/../kernel/core_pattern", "sysctl \"net/../kernel/core_pattern\" is not valid"),
    ] {
        let (status, message) = create(&client, &json!({}), &json!({"Sysctls": {name: "1"}})).await;
        assert_eq!(status, StatusCode::BAD_REQUEST);
        assert!(message.starts_with(says), "{message}");
    }
}

/// SVC-02
#[tokio::test]
async fn settings_of_the_kernel_are_in_the_spec_of_a_service() {
    let daemon = Daemon::manager().await;
    let client = daemon.client();
    let service = |name: &str| {
        let container = json!({"Image": "nginx", "Sysctls": {name: "1"}});
        json!({"Name": "web", "TaskTemplate": {"ContainerSpec": container}}).to_string()
    };
    let refused = client.post("/services/create", &service("vm.swappiness")).await;
    assert_eq!(refused.status, StatusCode::BAD_REQUEST);
    assert_eq!(
        client.post("/services/create", &service("net.core.somaxconn")).await.status,
        StatusCode::CREATED
    );
    let shown = client.get("/services/web").await.json();
    let sysctls = &shown["Spec"]["TaskTemplate"]["ContainerSpec"]["Sysctls"];
    assert_eq!(*sysctls, json!({"net.core.somaxconn": "1"}));
}

/// CTR-03
#[tokio::test]
async fn exposed_ports_are_kept_and_shown_while_they_can_be_reached() {
    let daemon = Daemon::start().await;
    let client = daemon.client();
    let exposed = json!({"81/tcp": {}, "53/udp": {}});
    let made = create(&client, &json!({"ExposedPorts": exposed}), &json!({"PublishAllPorts": true})).await;
    assert_eq!(made.0, StatusCode::CREATED, "{made:?}");
    let request = daemon.engine.made("box");
    let exposed_in = request.exposed.iter().map(|one| (one.port, one.protocol)).collect::<Vec<_>>();
    assert_eq!(exposed_in, [(53, Protocol::Udp), (81, Protocol::Tcp)]);
    // The image's own port, too.
    let mut published: Vec<_> = request.ports.iter().map(|port| (port.target, port.published)).collect();
    published.sort_unstable();
    assert_eq!(published, [(53, 0), (80, 0), (81, 0)]);

    let ports = async || client.get("/containers/box/json").await.json()["NetworkSettings"]["Ports"].clone();
    assert_eq!(ports().await, json!({}), "it does not run");
    client.post("/containers/box/start", "").await;
    assert_eq!(ports().await["81/tcp"][0]["HostPort"], "32768");
    assert_eq!(client.get("/containers/box/json").await.json()["Config"]["ExposedPorts"], exposed);
    let (status, message) = create(&client, &json!({"ExposedPorts": {"0/tcp": {}}}), &json!({})).await;
    assert_eq!(
        (status, message.as_str()),
        (StatusCode::BAD_REQUEST, "invalid target port 0: it lies between 1 and 65535")
    );

    let host = json!({"Image": "busybox", "ExposedPorts": exposed, "HostConfig": {"NetworkMode": "host"}});
    client.post("/containers/create?name=hosted", &host.to_string()).await;
    client.post("/containers/hosted/start", "").await;
    let shown = client.get("/containers/hosted/json").await.json();
    assert_eq!(shown["NetworkSettings"]["Ports"], json!({}), "they are the host's");
}

/// CTR-03: what a container is shown with can be asked for again.
#[tokio::test]
async fn what_is_so_anyway_is_accepted_and_shown() {
    let daemon = Daemon::start().await;
    let client = daemon.client();
    run(&client, "box", &json!({}), &json!({})).await.unwrap();
    let shown = client.get("/containers/box/json").await.json()["HostConfig"].clone();
    for (field, value) in [
        ("IpcMode", json!("private")),
        ("CgroupnsMode", json!("private")),
        ("ShmSize", json!(64 << 20)),
        ("LogConfig", json!({"Type": "json-file", "Config": {}})),
        ("Runtime", json!("covey")),
    ] {
        assert_eq!(shown[field], value, "{field}");
    }
    run(&client, "again", &shown, &json!({})).await.unwrap();
}

/// CTR-03
#[tokio::test]
async fn what_would_be_left_out_is_refused_by_name() {
    let daemon = Daemon::start().await;
    let client = daemon.client();
    for (field, value, option) in [
        ("IpcMode", json!("host"), "--ipc"),
        ("CgroupnsMode", json!("host"), "--cgroupns"),
        ("LogConfig", json!({"Type": "syslog"}), "--log-driver (other than json-file without --log-opt)"),
        (
            "LogConfig",
            json!({"Type": "json-file", "Config": {"max-size": "1m"}}),
            "--log-driver (other than json-file without --log-opt)",
        ),
        ("PidMode", json!("host"), "--pid"),
        ("UTSMode", json!("host"), "--uts"),
        ("MemorySwap", json!(-1), "--memory-swap"),
        ("MaskedPaths", json!([]), "--security-opt systempaths"),
    ] {
        let (status, message) = create(&client, &json!({}), &json!({field: value})).await;
        assert_eq!(status, StatusCode::NOT_IMPLEMENTED, "{field}");
        assert_eq!(message, format!("not yet: {option} is not available yet"));
    }
    let (status, _) = create(&client, &json!({"NetworkDisabled": true}), &json!({})).await;
    assert_eq!(status, StatusCode::NOT_IMPLEMENTED);
    assert!(daemon.engine.names().is_empty());
}

/// CTR-02: clients pull what is not found.
#[tokio::test]
async fn an_image_for_another_platform_is_not_the_one_that_is_asked_for() {
    let daemon = Daemon::start().await;
    let client = daemon.client();
    let ask = async |platform: &str| {
        let path = format!("/containers/create?platform={platform}");
        client.post(&path, r#"{"Image": "busybox", "Cmd": ["sleep"]}"#).await.status
    };
    for (platform, status) in [
        ("linux%2Famd64", StatusCode::CREATED),
        ("linux", StatusCode::CREATED),
        ("linux%2Fs390x", StatusCode::NOT_FOUND),
        ("windows%2Famd64", StatusCode::BAD_REQUEST),
    ] {
        assert_eq!(ask(platform).await, status, "{platform}");
    }
}

/// STK-12: `docker stack rm` asks for what there is to remove.
#[tokio::test]
async fn there_are_no_secrets_and_no_configs_to_list() {
    let daemon = Daemon::start().await;
    let client = daemon.client();
    assert_eq!(client.get("/secrets").await.status, StatusCode::SERVICE_UNAVAILABLE);
    daemon.control.form_cluster();
    for list in ["/secrets", "/configs"] {
        let filters = "?filters=%7B%22label%22%3A%7B%22com.docker.stack.namespace%3Dst%22%3Atrue%7D%7D";
        let reply = client.get(&format!("{list}{filters}")).await;
        assert_eq!((reply.status, &reply.body[..]), (StatusCode::OK, &b"[]"[..]));
        let one = client.get(&format!("{list}/x")).await;
        assert_eq!(one.status, StatusCode::NOT_FOUND);
        assert!(one.message().ends_with(" x not found"), "{}", one.message());
        let made = client.post(&format!("{list}/create"), "{}").await;
        assert_eq!(made.status, StatusCode::NOT_IMPLEMENTED);
    }
}
