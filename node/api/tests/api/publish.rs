//! Published ports, as raw clients see them.

use covey_api::engine::{Container, Endpoint, ExposedPort, NetworkRef};
use covey_state::{
    Id,
    container::ContainerSpec,
    network::{PORTS_MAX, Protocol, PublishMode, PublishedPort},
};
use hyper::StatusCode;
use serde_json::{Value, json};

use crate::{Daemon, client::Client};

fn service(name: &str, ports: &Value) -> String {
    json!({
        "Name": name,
        "TaskTemplate": {"ContainerSpec": {"Image": "nginx"}},
        "EndpointSpec": {"Ports": ports},
    })
    .to_string()
}

async fn create(client: &Client, name: &str, ports: &Value) -> Value {
    let reply = client.post("/services/create", &service(name, ports)).await;
    assert_eq!(reply.status, StatusCode::CREATED, "{:?}", reply.body);
    client.get(&format!("/services/{name}")).await.json()
}

/// PRT-01, PRT-03, PRT-06, PRT-13, PRT-14
#[tokio::test]
async fn published_ports_are_shown_as_they_were_asked_for_and_as_they_are() {
    let daemon = Daemon::manager().await;
    let client = daemon.client();
    let shown = create(
        &client,
        "web",
        &json!([
            {"TargetPort": 80, "PublishedPort": 8080},
            {"TargetPort": 80},
            {"Name": "dns", "Protocol": "udp", "TargetPort": 53, "PublishedPort": 5353, "PublishMode": "host"},
            {"TargetPort": 443, "PublishedPort": 8443, "HostIP": "127.0.0.1"},
        ]),
    )
    .await;
    let port = |published: Option<u16>| {
        let mut port = json!({"Protocol": "tcp", "TargetPort": 80, "PublishMode": "ingress"});
        if let Some(published) = published {
            port["PublishedPort"] = json!(published);
        }
        port
    };
    let rest = [
        json!({"Name": "dns", "Protocol": "udp", "TargetPort": 53, "PublishedPort": 5353, "PublishMode": "host"}),
        json!({
            "Protocol": "tcp", "TargetPort": 443, "PublishedPort": 8443, "PublishMode": "ingress",
            "HostIP": "127.0.0.1",
        }),
    ];
    let asked = json!({"Mode": "vip", "Ports": [port(Some(8080)), port(None), rest[0], rest[1]]});
    assert_eq!(shown["Spec"]["EndpointSpec"], asked);
    assert_eq!(shown["Endpoint"]["Spec"], asked);
    assert_eq!(shown["Endpoint"]["Ports"], json!([port(Some(8080)), port(Some(30000)), rest[0], rest[1]]));
    let status = client.get("/tasks").await.json()[0]["Status"].clone();
    assert_eq!(status["PortStatus"], json!({"Ports": [rest[0]]}));

    // Written back, it stays as it is.
    let path = format!("/services/web/update?version={}", shown["Version"]["Index"]);
    assert_eq!(client.post(&path, &shown["Spec"].to_string()).await.status, StatusCode::OK);
    let again = client.get("/services/web").await.json();
    assert_eq!(again["Endpoint"], shown["Endpoint"]);
}

/// PRT-05, PRT-11
#[tokio::test]
async fn what_keeps_a_port_from_answering_is_the_error_of_the_tasks_that_run() {
    let daemon = Daemon::manager().await;
    let client = daemon.client();
    let web = create(&client, "web", &json!([{"TargetPort": 80, "PublishedPort": 8080}])).await;
    create(&client, "other", &json!([])).await;
    assert_eq!(web["Endpoint"].get("Errors"), None);
    let errors =
        ["port 8080/tcp is held on w1 by another process", "port 81/udp is held on w1 by container 12"];
    errors.iter().for_each(|error| daemon.control.fault(web["ID"].as_str().unwrap().parse().unwrap(), error));

    assert_eq!(client.get("/services/web").await.json()["Endpoint"]["Errors"], json!(errors));
    assert_eq!(client.get("/services/other").await.json()["Endpoint"].get("Errors"), None);
    let status = async |service: &str, desired: &str| {
        let of_service = format!("%22service%22%3A%5B%22{service}%22%5D");
        let filters = format!("%7B{of_service}%2C%22desired-state%22%3A%5B%22{desired}%22%5D%7D");
        let tasks = client.get(&format!("/tasks?filters={filters}")).await.json();
        tasks[0]["Status"].clone()
    };
    let running = status("web", "running").await;
    assert_eq!((&running["State"], &running["Err"]), (&json!("running"), &json!(errors.join("; "))));
    assert_eq!(status("other", "running").await.get("Err"), None);

    // A task that has ended has errors of its own only.
    let mut spec = web["Spec"].clone();
    spec["TaskTemplate"]["ForceUpdate"] = json!(1);
    let path = format!("/services/web/update?version={}", web["Version"]["Index"]);
    assert_eq!(client.post(&path, &spec.to_string()).await.status, StatusCode::OK);
    let ended = status("web", "shutdown").await;
    assert_eq!((&ended["State"], ended.get("Err")), (&json!("shutdown"), None));
    assert_ne!(status("web", "running").await.get("Err"), None);
}

/// PRT-02, PRT-10, PRT-11
#[tokio::test]
async fn ports_are_added_and_taken_away_and_belong_to_one_service() {
    let daemon = Daemon::manager().await;
    let client = daemon.client();
    let shown = create(&client, "web", &json!([{"TargetPort": 80, "PublishedPort": 8080}])).await;
    let taken = client
        .post("/services/create", &service("two", &json!([{"TargetPort": 81, "PublishedPort": 8080}])))
        .await;
    assert_eq!(taken.status, StatusCode::BAD_REQUEST);
    let id = shown["ID"].as_str().unwrap();
    assert_eq!(
        taken.message(),
        format!("port '8080' is already in use by service 'web' ({id}) as an ingress port")
    );
    let mut spec = shown["Spec"].clone();
    spec["EndpointSpec"]["Ports"] = json!([{"TargetPort": 81}]);
    let path = format!("/services/web/update?version={}", shown["Version"]["Index"]);
    assert_eq!(client.post(&path, &spec.to_string()).await.status, StatusCode::OK);
    let shown = client.get("/services/web").await.json();
    assert_eq!(shown["Endpoint"]["Ports"][0]["PublishedPort"], 30000);
    assert_eq!(shown["PreviousSpec"]["EndpointSpec"]["Ports"][0]["PublishedPort"], 8080);
    create(&client, "two", &json!([{"TargetPort": 81, "PublishedPort": 8080}])).await;
}

/// PRT-10, moby#26696: Docker's client does not know the address, and must not widen who reaches the port.
#[tokio::test]
async fn a_port_keeps_its_address_unless_a_client_says_otherwise() {
    let daemon = Daemon::manager().await;
    let client = daemon.client();
    let at = |ip: &str, published: u16| json!({"TargetPort": 80, "PublishedPort": published, "HostIP": ip});
    create(&client, "web", &json!([at("10.0.0.1", 8080), at("10.0.0.2", 8080), at("10.0.0.3", 81)])).await;
    let update = async |ports: &Value| {
        let shown = client.get("/services/web").await.json();
        let mut spec = shown["Spec"].clone();
        spec["EndpointSpec"]["Ports"] = ports.clone();
        let path = format!("/services/web/update?version={}", shown["Version"]["Index"]);
        assert_eq!(client.post(&path, &spec.to_string()).await.status, StatusCode::OK);
        let ports = client.get("/services/web").await.json()["Spec"]["EndpointSpec"]["Ports"].clone();
        let ports = ports
            .as_array()
            .unwrap()
            .iter()
            .map(|port| (port["PublishedPort"].clone(), port["HostIP"].clone()));
        ports.collect::<Vec<_>>()
    };
    let without = |published: u16| json!({"Protocol": "tcp", "TargetPort": 80, "PublishedPort": published, "PublishMode": "ingress"});
    let kept = update(&json!([without(81), without(8080), without(8080), without(82)])).await;
    let is = |published: u16, ip: Value| (json!(published), ip);
    assert_eq!(
        kept,
        [
            is(81, json!("10.0.0.3")),
            is(8080, json!("10.0.0.1")),
            is(8080, json!("10.0.0.2")),
            is(82, Value::Null)
        ]
    );
    // One of two that are named stays where it is, and the other one is meant by what has no name.
    let kept = update(&json!([at("10.0.0.1", 8080), without(8080), at("", 81)])).await;
    assert_eq!(kept, [is(8080, json!("10.0.0.1")), is(8080, json!("10.0.0.2")), is(81, Value::Null)]);
}

/// PRT-06, PRT-11
#[tokio::test]
async fn bad_ports_are_one_clear_error() {
    let daemon = Daemon::manager().await;
    let client = daemon.client();
    let many: Vec<_> = (1..=PORTS_MAX + 1).map(|port| json!({"TargetPort": port})).collect();
    let too_many = format!("EndpointSpec: a service publishes at most {PORTS_MAX} ports: not {}", many.len());
    for (ports, message) in [
        (
            json!([{"TargetPort": 0, "PublishedPort": 80}]),
            "invalid target port 0: it lies between 1 and 65535",
        ),
        (json!([{"TargetPort": 65536}]), "invalid target port 65536: it lies between 1 and 65535"),
        (
            json!([{"TargetPort": 80, "PublishedPort": 65536}]),
            "invalid published port 65536: it lies between 0 (any) and 65535",
        ),
        (
            json!([{"TargetPort": 80, "PublishedPort": 8080}, {"TargetPort": 81, "PublishedPort": 8080}]),
            "EndpointSpec: duplicate published ports provided: 8080/tcp",
        ),
        (json!(many), &too_many),
    ] {
        let reply = client.post("/services/create", &service("bad", &ports)).await;
        assert_eq!((reply.status, reply.message()), (StatusCode::BAD_REQUEST, message.to_owned()));
    }
    let dnsrr = json!({
        "Name": "rr", "TaskTemplate": {"ContainerSpec": {"Image": "nginx"}},
        "EndpointSpec": {"Mode": "dnsrr", "Ports": [{"TargetPort": 80}]},
    });
    let reply = client.post("/services/create", &dnsrr.to_string()).await;
    assert_eq!(
        reply.message(),
        "EndpointSpec: port published with ingress mode can't be used with dnsrr mode"
    );
    assert!(daemon.control.store().services().next().is_none());
    create(&client, "many", &json!(many[1..])).await;
}

async fn run(client: &Client, name: &str, body: &Value) {
    let mut body = body.clone();
    body["Image"] = json!("busybox");
    body["Cmd"] = json!(["sleep"]);
    let reply = client.post(&format!("/containers/create?name={name}"), &body.to_string()).await;
    assert_eq!(reply.status, StatusCode::CREATED, "{:?}", reply.body);
    client.post(&format!("/containers/{name}/start"), "").await;
}

/// CTR-03
#[tokio::test]
async fn plain_containers_publish_ports_of_their_host() {
    let daemon = Daemon::start().await;
    let client = daemon.client();
    let host = json!({
        "PortBindings": {"80/tcp": [{"HostIp": "", "HostPort": "8080"}], "53/udp": [{"HostIp": "127.0.0.1", "HostPort": ""}]},
        "Dns": ["9.9.9.9"],
    });
    run(&client, "web", &json!({"HostConfig": host})).await;
    let shown = client.get("/containers/web/json").await.json();
    assert_eq!(
        shown["NetworkSettings"]["Ports"],
        json!({
            "53/udp": [{"HostIp": "127.0.0.1", "HostPort": "32768"}],
            "80/tcp": [{"HostIp": "0.0.0.0", "HostPort": "8080"}, {"HostIp": "::", "HostPort": "8080"}],
        })
    );
    assert_eq!(shown["HostConfig"]["PortBindings"]["80/tcp"], json!([{"HostIp": "", "HostPort": "8080"}]));
    assert_eq!(shown["HostConfig"]["Dns"], json!(["9.9.9.9"]));
    let filtered = async |key: &str, ports: &str| {
        let filters = format!("%7B%22{key}%22%3A%5B%22{ports}%22%5D%7D");
        client.get(&format!("/containers/json?filters={filters}")).await.json()
    };
    // As moby#40405 has it: by the port of the host, or by that of the container.
    let listed = filtered("publish", "8079-8081").await;
    assert_eq!(filtered("expose", "80").await, listed);
    assert_eq!(filtered("publish", "80").await, json!([]));
    assert_eq!(filtered("publish", "8080%2Fudp").await, json!([]));
    assert_eq!(
        listed[0]["Ports"],
        json!([
            {"IP": "0.0.0.0", "PrivatePort": 80, "PublicPort": 8080, "Type": "tcp"},
            {"IP": "127.0.0.1", "PrivatePort": 53, "PublicPort": 32768, "Type": "udp"},
            {"IP": "::", "PrivatePort": 80, "PublicPort": 8080, "Type": "tcp"},
        ])
    );
    // The image says 80, the user says 90.
    run(&client, "all", &json!({"ExposedPorts": {"90/tcp": {}}, "HostConfig": {"PublishAllPorts": true}}))
        .await;
    let published: Vec<_> = daemon.engine.made("all").ports.iter().map(|port| port.target).collect();
    assert_eq!(published, [80, 90]);
    client.post("/containers/web/stop", "").await;
    let stopped = client.get("/containers/web/json").await.json();
    assert_eq!(stopped["NetworkSettings"]["Ports"], json!({}));
    for (body, begins) in [
        (json!({"PortBindings": {"80": [{"HostPort": "65536"}]}}), "invalid published port 65536"),
        (json!({"PortBindings": {"0": []}}), "invalid target port 0"),
        (
            json!({"PortBindings": {"80": [{"HostPort": "80"}], "81": [{"HostPort": "80"}]}}),
            "duplicate published ports",
        ),
        (json!({"Dns": ["here"]}), "bad nameserver address"),
    ] {
        let body = json!({"Image": "busybox", "HostConfig": body});
        let reply = client.post("/containers/create", &body.to_string()).await;
        assert_eq!(reply.status, StatusCode::BAD_REQUEST, "{body}");
        assert!(reply.message().starts_with(begins), "{}", reply.message());
    }
}

/// PRT-12
#[tokio::test]
async fn a_container_behind_an_ingress_port_shows_its_own_port_only() {
    let daemon = Daemon::manager().await;
    let client = daemon.client();
    let host_port = PublishedPort {
        protocol: Protocol::Udp,
        target: 53,
        published: 5353,
        mode: PublishMode::Host,
        ..PublishedPort::default()
    };
    let endpoint = |network, name: &str, net: &str| Endpoint {
        network,
        name: name.into(),
        addresses: vec![net.parse().unwrap()],
        chosen: Vec::new(),
        gateways: Vec::new(),
        mac: "02:fc:64:40:01:02".into(),
        aliases: Vec::new(),
    };
    let edge = endpoint(NetworkRef::Bridge, "bridge", "100.64.1.2/32");
    daemon.engine.run_task(Container {
        id: "7".repeat(64),
        name: "web.1.x".into(),
        exposed: vec![ExposedPort { port: 80, protocol: Protocol::Tcp }],
        ports: vec![host_port],
        spec: ContainerSpec {
            labels: [("com.docker.swarm.task.id".into(), "x".into())].into(),
            ..ContainerSpec::default()
        },
        endpoints: vec![endpoint(NetworkRef::Cluster(Id::new(7)), "front", "10.0.0.3/24"), edge],
        ingress: true,
        ..Container::default()
    });
    let list = client.get("/containers/json").await.json();
    let ports = list[0]["Ports"].as_array().unwrap();
    assert_eq!(ports[0], json!({"PrivatePort": 80, "Type": "tcp"}));
    assert_eq!(ports[1], json!({"IP": "0.0.0.0", "PrivatePort": 53, "PublicPort": 5353, "Type": "udp"}));
    let shown = client.get("/containers/web.1.x/json").await.json();
    assert_eq!(shown["NetworkSettings"]["Ports"]["80/tcp"], Value::Null);
    assert!(shown["NetworkSettings"]["Ports"].as_object().unwrap().contains_key("80/tcp"));
    assert_eq!(shown["Config"]["ExposedPorts"], json!({"80/tcp": {}}));
    // The edge is its place in the ingress network.
    let networks = shown["NetworkSettings"]["Networks"].as_object().unwrap();
    assert_eq!(networks.keys().collect::<Vec<_>>(), ["front", "ingress"]);
    assert_eq!(networks["ingress"]["IPAddress"], "100.64.1.2");
    assert_eq!(shown["NetworkSettings"]["IPAddress"], "");
    for (network, has) in [("bridge", false), ("docker_gwbridge", true), ("ingress", true)] {
        let shown = client.get(&format!("/networks/{network}")).await.json();
        assert_eq!(shown["Containers"].get("7".repeat(64)).is_some(), has, "{network}");
        if network == "ingress" {
            assert_eq!(networks["ingress"]["NetworkID"], shown["Id"]);
            assert_eq!(networks["ingress"]["EndpointID"], shown["Containers"]["7".repeat(64)]["EndpointID"]);
        }
    }
    let on_ingress = client.get("/containers/json?filters=%7B%22network%22%3A%5B%22ingress%22%5D%7D").await;
    assert_eq!(on_ingress.json().as_array().unwrap().len(), 1);
}

/// CLU-03, CLU-09
#[tokio::test]
async fn pools_and_the_data_path_are_chosen_at_the_beginning() {
    let daemon = Daemon::start().await;
    let client = daemon.client();
    let body = json!({
        "DefaultAddrPool": ["10.20.0.0/16", "10.30.0.0/16"], "SubnetSize": 26, "DataPathPort": 7789,
        "DataPathAddr": "eth1", "EdgeAddrPool": ["100.80.0.0/12"], "EdgeBlockSize": 25,
    });
    assert_eq!(client.post("/swarm/init", &body.to_string()).await.status, StatusCode::OK);
    let spec = daemon.control.store().cluster().unwrap().spec.clone();
    assert_eq!((spec.data_path_port, spec.networks.v4_subnet, spec.edge.v4_block), (7789, 26, 25));
    for shown in
        [client.get("/swarm").await.json(), client.get("/info").await.json()["Swarm"]["Cluster"].clone()]
    {
        assert_eq!(shown["DefaultAddrPool"], json!(["10.20.0.0/16", "10.30.0.0/16", "fd00:c0e8::/40"]));
        assert_eq!((&shown["SubnetSize"], &shown["DataPathPort"]), (&json!(26), &json!(7789)));
        assert_eq!(
            (&shown["EdgeAddrPool"][0], &shown["EdgeBlockSize"]),
            (&json!("100.80.0.0/12"), &json!(25))
        );
    }
    client.post("/swarm/leave?force=1", "").await;
    let body = r#"{"RemoteAddrs":["10.0.0.1"],"JoinToken":"t","DataPathAddr":"10.1.0.2"}"#;
    assert_eq!(client.post("/swarm/join", body).await.status, StatusCode::OK);
    assert_eq!(daemon.control.joined().unwrap().data_path, "10.1.0.2");
    let plugins = client.get("/info").await.json()["Plugins"].clone();
    assert_eq!(plugins["Network"], json!(["bridge", "host", "null", "overlay"]));
    assert_eq!(plugins["Volume"], json!(["local"]));
}
