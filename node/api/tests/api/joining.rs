//! Plain containers in networks, and services in the network of their hosts, as raw clients see them.

use covey_api::engine::{Container, NetworkRef};
use hyper::StatusCode;
use serde_json::{Value, json};

use crate::{Daemon, client::Client, networks::create};

/// A container that runs; or why not, with the status.
pub async fn run(client: &Client, name: &str, host: &Value, endpoints: &Value) -> Result<(), (u16, String)> {
    let body = json!({
        "Image": "busybox", "Cmd": ["sleep"], "HostConfig": host, "NetworkingConfig": {"EndpointsConfig": endpoints},
    });
    let reply = client.post(&format!("/containers/create?name={name}"), &body.to_string()).await;
    if reply.status != StatusCode::CREATED {
        return Err((reply.status.as_u16(), reply.message()));
    }
    client.post(&format!("/containers/{name}/start"), "").await;
    Ok(())
}

/// NET-01, CTR-03
#[tokio::test]
async fn a_users_network_of_one_host_is_made_used_and_removed() {
    let daemon = Daemon::start().await;
    let client = daemon.client();
    let id = create(&client, &json!({"Name": "here", "Driver": "bridge", "Labels": {"a": "b"}})).await;
    let shown = client.get("/networks/here").await.json();
    assert_eq!((&shown["Driver"], &shown["Scope"]), (&json!("bridge"), &json!("local")));
    assert_eq!(shown["IPAM"]["Config"], json!([{"Subnet": "172.18.0.0/16", "Gateway": "172.18.0.1"}]));
    let place = json!({"here": {"Aliases": ["db"], "IPAMConfig": {"IPv4Address": "172.18.0.9"}}});
    run(&client, "one", &json!({"NetworkMode": "here"}), &place).await.unwrap();

    let one = client.get("/containers/one/json").await.json();
    assert_eq!(one["HostConfig"]["NetworkMode"], "here");
    let settings = &one["NetworkSettings"]["Networks"]["here"];
    for (field, value) in [
        ("NetworkID", json!(id)),
        ("IPAddress", json!("172.18.0.9")),
        ("IPPrefixLen", json!(16)),
        ("Gateway", json!("172.18.0.1")),
        ("IPAMConfig", json!({"IPv4Address": "172.18.0.9"})),
        ("MacAddress", json!("02:fc:ac:12:00:02")),
        ("Aliases", json!(["db"])),
        ("DNSNames", json!(["one", "db", one["Id"].as_str().unwrap()[..12]])),
    ] {
        assert_eq!(settings[field], value, "{field}");
    }
    let members = client.get("/networks/here").await.json()["Containers"].clone();
    let member = &members[one["Id"].as_str().unwrap()];
    assert_eq!(
        (&member["Name"], &member["IPv4Address"], &member["EndpointID"]),
        (&json!("one"), &json!("172.18.0.9/16"), &settings["EndpointID"])
    );
    let listed = client.get("/containers/json?filters=%7B%22network%22%3A%5B%22here%22%5D%7D").await.json();
    assert_eq!(listed.as_array().unwrap().len(), 1);

    let refusal = client.delete("/networks/here").await;
    assert_eq!(refusal.status, StatusCode::FORBIDDEN);
    assert!(
        refusal
            .message()
            .starts_with("error while removing network: network here has active endpoints (name:\"one\"")
    );
    client.delete("/containers/one?force=1").await;
    assert_eq!(client.delete("/networks/here").await.status, StatusCode::NO_CONTENT);
    assert_eq!(client.get("/networks/here").await.status, StatusCode::NOT_FOUND);
}

/// NET-19, C-30
#[tokio::test]
async fn plain_containers_join_attachable_overlays_only() {
    let daemon = Daemon::manager().await;
    let client = daemon.client();
    let id = create(&client, &json!({"Name": "open", "Driver": "overlay", "Attachable": true})).await;
    create(&client, &json!({"Name": "closed", "Driver": "overlay"})).await;
    let none = json!({});
    for _ in 0..2 {
        let (status, message) =
            run(&client, "x1", &json!({"NetworkMode": "closed"}), &none).await.unwrap_err();
        let expected = "Could not attach to network closed: rpc error: code = PermissionDenied desc = network closed \
                        not manually attachable";
        assert_eq!((status, message.as_str()), (403, expected));
        // Not 404, which clients would take for a missing image.
        let missing = run(&client, "x2", &json!({"NetworkMode": "lost"}), &none).await.unwrap_err();
        assert_eq!(missing, (400, "network lost not found".to_owned()));
        daemon.control.become_worker();
    }
    // A worker that does not carry the network asks for it.
    run(&client, "box", &json!({"NetworkMode": "open"}), &none).await.unwrap();
    let made = daemon.engine.made("box");
    assert_eq!(made.networks[0].network, NetworkRef::Cluster(id.parse().unwrap()));
    assert_eq!(made.network.to_string(), "open");
}

/// NET-19, NET-33
#[tokio::test]
async fn containers_are_connected_and_disconnected() {
    let daemon = Daemon::start().await;
    let client = daemon.client();
    create(&client, &json!({"Name": "here"})).await;
    run(&client, "box", &json!({}), &json!({})).await.unwrap();
    run(&client, "alone", &json!({"NetworkMode": "none"}), &json!({})).await.unwrap();
    run(&client, "hosted", &json!({"NetworkMode": "host"}), &json!({})).await.unwrap();
    let connect = async |network: &str, container: &str| {
        let body = json!({"Container": container, "EndpointConfig": {"Aliases": ["b"]}}).to_string();
        let reply = client.post(&format!("/networks/{network}/connect"), &body).await;
        if reply.status == StatusCode::OK { "ok".to_owned() } else { reply.message() }
    };
    assert_eq!(connect("here", "box").await, "ok");
    assert_eq!(connect("here", "box").await, "endpoint with name box already exists in network here");
    assert_eq!(connect("lost", "box").await, "network lost not found");
    assert_eq!(connect("here", "lost").await, "No such container: lost");
    assert!(connect("here", "alone").await.contains("private (none) mode"));
    assert!(connect("here", "hosted").await.starts_with("container sharing network namespace"));
    assert!(connect("host", "box").await.starts_with("container sharing network namespace"));
    let mut task = Container { id: "5".repeat(64), name: "web.1.x".into(), ..Container::default() };
    task.spec.labels.insert("com.docker.swarm.task.id".into(), "x".into());
    daemon.engine.run_task(task);
    assert!(connect("here", "web.1.x").await.starts_with("container web.1.x belongs to task x"));

    let networks = client.get("/containers/box/json").await.json()["NetworkSettings"]["Networks"].clone();
    assert_eq!(networks.as_object().unwrap().keys().collect::<Vec<_>>(), ["bridge", "here"]);
    // One that was made in a network of a user is at the edge for its way out only.
    run(&client, "inner", &json!({"NetworkMode": "here"}), &json!({})).await.unwrap();
    daemon.engine.give_way_out("inner");
    assert_eq!(
        connect("bridge", "inner").await,
        "network-scoped aliases are only supported for user-defined networks"
    );
    let body = json!({"Container": "inner"}).to_string();
    assert_eq!(client.post("/networks/bridge/connect", &body).await.status, StatusCode::OK);
    assert!(connect("bridge", "box").await.starts_with("endpoint with name box already exists"));

    let body = r#"{"Container":"box","Force":true}"#;
    assert_eq!(client.post("/networks/here/disconnect", body).await.status, StatusCode::OK);
    let again = client.post("/networks/here/disconnect", body).await;
    assert!(again.message().ends_with("is not connected to network here"), "{}", again.message());
}

/// NET-20, NET-33
#[tokio::test]
async fn a_service_may_be_in_the_network_of_its_hosts() {
    let daemon = Daemon::manager().await;
    let client = daemon.client();
    let front = create(&client, &json!({"Name": "front", "Driver": "overlay"})).await;
    let spec = |networks: &[&str], port: &str| {
        let networks: Vec<_> = networks.iter().map(|network| json!({"Target": network})).collect();
        let ports = json!([{"TargetPort": 80, "PublishedPort": 8080, "PublishMode": port}]);
        json!({
            "Name": "web",
            "TaskTemplate": {"ContainerSpec": {"Image": "nginx"}, "Networks": networks},
            "EndpointSpec": {"Ports": if port.is_empty() { json!([]) } else { ports }},
        })
    };
    let both = "the network of the host cannot be used together with other networks";
    let ingress = "EndpointSpec: port published with ingress mode can't be used with the network of the host";
    let refusals = [
        (spec(&["host", "front"], ""), both),
        (spec(&["front", "host"], ""), both),
        (spec(&["host"], "ingress"), ingress),
    ];
    for (spec, begins) in &refusals {
        let reply = client.post("/services/create", &spec.to_string()).await;
        assert_eq!(reply.status, StatusCode::BAD_REQUEST);
        assert!(reply.message().starts_with(begins), "{}", reply.message());
    }
    // Clients look its id up: it is the same on every node.
    let host = client.get("/networks/host?scope=swarm").await.json()["Id"].clone();
    let id = host.as_str().unwrap();
    let made = client.post("/services/create", &spec(&[id], "host").to_string()).await;
    assert_eq!(made.status, StatusCode::CREATED, "{:?}", made.body);
    let shown = client.get("/services/web").await.json();
    assert_eq!(shown["Spec"]["TaskTemplate"]["Networks"], json!([{"Target": host}]));
    assert!(shown["Endpoint"].get("VirtualIPs").is_none());
    assert_eq!(shown["Endpoint"]["Ports"][0]["PublishMode"], "host");
    let tasks = client.get("/tasks").await.json();
    assert_eq!(tasks[0]["Spec"]["Networks"], json!([{"Target": host}]));

    for networks in [&["front"], &["host"]] {
        let version = client.get("/services/web").await.json()["Version"]["Index"].clone();
        let path = format!("/services/web/update?version={version}");
        let update = client.post(&path, &spec(networks, "").to_string()).await;
        assert_eq!(update.status, StatusCode::OK, "{:?}", update.body);
        let shown = client.get("/services/web").await.json();
        let overlay = networks[0] == "front";
        let target = if overlay { json!(front) } else { host.clone() };
        assert_eq!(shown["Spec"]["TaskTemplate"]["Networks"], json!([{"Target": target}]));
        assert_eq!(shown["Endpoint"].get("VirtualIPs").is_some(), overlay);
    }
}
