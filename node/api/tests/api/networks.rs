//! Networks, as raw clients see them.

use std::{net::IpAddr, time::Duration};

use covey_api::engine::{Container, Endpoint, NetworkRef};
use http_body_util::BodyExt;
use hyper::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::{
    Daemon,
    client::Client,
    control::{MANAGER, WORKER},
    joining::run,
};

const PATIENCE: Duration = Duration::from_secs(10);
const DEFAULTS: [&str; 5] = ["bridge", "docker_gwbridge", "host", "ingress", "none"];

pub async fn create(client: &Client, body: &Value) -> String {
    let reply = client.post("/networks/create", &body.to_string()).await;
    assert_eq!(reply.status, StatusCode::CREATED, "{:?}", reply.body);
    reply.json()["Id"].as_str().unwrap().to_owned()
}

async fn refused(client: &Client, body: &Value) -> (StatusCode, String) {
    let reply = client.post("/networks/create", &body.to_string()).await;
    (reply.status, reply.message())
}

async fn names(client: &Client, filters: &str) -> Vec<String> {
    let filters: String = filters
        .bytes()
        .map(
            |byte| {
                if byte.is_ascii_alphanumeric() { char::from(byte).into() } else { format!("%{byte:02x}") }
            },
        )
        .collect();
    let list = client.get(&format!("/networks?filters={filters}")).await.json();
    let mut names: Vec<String> =
        list.as_array().unwrap().iter().map(|network| network["Name"].as_str().unwrap().to_owned()).collect();
    names.sort_unstable();
    names
}

async fn run_service(client: &Client, name: &str, network: &str, extra: &Value) -> String {
    let mut spec = json!({
        "Name": name,
        "TaskTemplate": {"ContainerSpec": {"Image": "nginx"}, "Networks": [{"Target": network}]},
        "Mode": {"Replicated": {"Replicas": 2}},
    });
    for (key, value) in extra.as_object().into_iter().flatten() {
        spec[key] = value.clone();
    }
    let reply = client.post("/services/create", &spec.to_string()).await;
    assert_eq!(reply.status, StatusCode::CREATED, "{:?}", reply.body);
    reply.json()["ID"].as_str().unwrap().to_owned()
}

/// NET-01, NET-02, NET-03, NET-05
#[tokio::test]
async fn every_node_has_five_networks_at_once() {
    let daemon = Daemon::start().await;
    let client = daemon.client();
    assert_eq!(names(&client, "{}").await, ["bridge", "docker_gwbridge", "host", "none"]);
    daemon.control.form_cluster();
    for _ in 0..2 {
        assert_eq!(names(&client, "{}").await, DEFAULTS);
        assert_eq!(names(&client, r#"{"driver":{"overlay":true}}"#).await, ["ingress"]);
        assert_eq!(
            names(&client, r#"{"scope":["local"]}"#).await,
            ["bridge", "docker_gwbridge", "host", "none"]
        );
        assert_eq!(names(&client, r#"{"type":["builtin"]}"#).await, ["bridge", "host", "none"]);
        assert_eq!(names(&client, r#"{"name":["ridge"]}"#).await, ["bridge", "docker_gwbridge"]);
        assert_eq!(names(&client, r#"{"name":["^bridge$"]}"#).await, ["bridge"]);
        daemon.control.become_worker();
    }
    let list = client.get("/networks").await.json();
    let ids: Vec<_> =
        list.as_array().unwrap().iter().map(|network| network["Id"].as_str().unwrap()).collect();
    assert!(ids.iter().all(|id| id.len() == 64 || id.len() == 25), "{ids:?}");
    assert!(client.get(&format!("/networks/{}", &ids[0][..12])).await.json()["Name"] == "bridge");
}

/// NET-04, NET-07, NET-08
#[tokio::test]
async fn ingress_spans_all_nodes_and_cannot_be_removed() {
    let daemon = Daemon::manager().await;
    let client = daemon.client();
    let ingress = client.get("/networks/ingress").await.json();
    for (field, value) in [
        ("Scope", json!("swarm")),
        ("Driver", json!("overlay")),
        ("EnableIPv6", json!(false)),
        ("Internal", json!(false)),
        ("Attachable", json!(false)),
        ("Ingress", json!(true)),
        ("ConfigFrom", json!({"Network": ""})),
        ("ConfigOnly", json!(false)),
        ("Options", json!({"com.docker.network.driver.overlay.vxlanid_list": "4096"})),
        (
            "IPAM",
            json!({"Driver": "default", "Options": null, "Config": [{"Subnet": "100.64.0.0/10", "Gateway": "100.64.0.1"}]}),
        ),
        (
            "Peers",
            json!([{"Name": "m1-000000000000", "IP": "10.0.0.1"}, {"Name": "w1-000000000000", "IP": "10.0.0.2"}]),
        ),
    ] {
        assert_eq!(ingress[field], value, "{field}");
    }
    let sbox = &ingress["Containers"]["ingress-sbox"];
    assert_eq!((&sbox["Name"], &sbox["IPv4Address"]), (&json!("ingress-endpoint"), &json!("100.64.1.0/10")));
    assert_eq!(sbox["MacAddress"], "02:42:64:40:01:00");
    for name in DEFAULTS {
        let reply = client.delete(&format!("/networks/{name}")).await;
        assert_eq!(reply.status, StatusCode::FORBIDDEN);
        assert_eq!(reply.message(), format!("{name} is a pre-defined network and cannot be removed"));
    }
    let gateway = client.get("/networks/docker_gwbridge").await.json();
    // By this address containers reach their host.
    assert_eq!(gateway["IPAM"]["Config"][0], json!({"Subnet": "100.64.1.0/24", "Gateway": "100.64.1.0"}));
}

/// NET-10, NET-11, NET-12, NET-13, NET-27, NET-28
#[tokio::test]
async fn an_overlay_is_made_on_a_manager_and_shown_as_it_was_asked_for() {
    let daemon = Daemon::manager().await;
    let client = daemon.client();
    let id = create(
        &client,
        &json!({
            "Name": "mysql-network", "Driver": "overlay", "CheckDuplicate": true, "Attachable": true,
            "IPAM": {"Driver": "default", "Config": [
                {"Subnet": "192.168.0.0/16", "IPRange": "192.168.1.0/24", "Gateway": "192.168.0.100"},
                {"Subnet": "192.170.0.0/16", "Gateway": "192.170.0.100"},
            ]},
            "Options": {"com.docker.network.driver.mtu": "1400"},
            "Labels": {"HelloWorldService": ""},
        }),
    )
    .await;
    assert_eq!(id.len(), 25);
    for reference in ["mysql-network", &id, &id[..14]] {
        let network = client.get(&format!("/networks/{reference}?scope=swarm")).await.json();
        assert_eq!(
            network["IPAM"]["Config"],
            json!([
                {"Subnet": "192.168.0.0/16", "IPRange": "192.168.1.0/24", "Gateway": "192.168.0.100"},
                {"Subnet": "192.170.0.0/16", "Gateway": "192.170.0.100"},
            ])
        );
        assert_eq!(
            network["Options"],
            json!({
                "com.docker.network.driver.mtu": "1400",
                "com.docker.network.driver.overlay.vxlanid_list": "4097,4098",
            })
        );
        assert_eq!((&network["Id"], &network["Attachable"]), (&json!(id), &json!(true)));
        assert_eq!(network["Labels"], json!({"HelloWorldService": ""}));
        // It is not active here yet.
        assert_eq!(network["Created"], "0001-01-01T00:00:00Z");
        assert_eq!((&network["Containers"], network.get("Peers")), (&Value::Null, None));
    }
    assert_eq!(client.get("/networks/mysql-network?scope=local").await.status, StatusCode::NOT_FOUND);
    assert_eq!(
        names(&client, r#"{"label":["HelloWorldService"],"dangling":["true"]}"#).await,
        ["mysql-network"]
    );
    assert_eq!(
        names(&client, r#"{"type":["custom"]}"#).await,
        ["docker_gwbridge", "ingress", "mysql-network"]
    );
    let wrong = client.get("/networks?filters=%7B%22type%22%3A%5B%22odd%22%5D%7D").await;
    assert_eq!(
        (wrong.status, wrong.message().as_str()),
        (StatusCode::BAD_REQUEST, "invalid filter: 'type'='odd'")
    );
}

/// NET-10, QRM-12
#[tokio::test]
async fn overlays_are_made_by_managers_only() {
    let daemon = Daemon::start().await;
    let client = daemon.client();
    let overlay = json!({"Name": "net", "Driver": "overlay"});
    let (status, message) = refused(&client, &overlay).await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(message.starts_with("This node is not a swarm manager. Use \"docker swarm init\""));
    daemon.control.form_cluster();
    daemon.control.become_worker();
    assert!(refused(&client, &overlay).await.1.contains("Worker nodes can't be used"));
}

/// NET-12, NET-14
#[tokio::test]
async fn a_network_that_cannot_be_is_one_clear_error_and_leaves_no_trace() {
    let daemon = Daemon::manager().await;
    let client = daemon.client();
    create(
        &client,
        &json!({"Name": "one", "Driver": "overlay", "IPAM": {"Config": [{"Subnet": "10.0.0.0/16"}]}}),
    )
    .await;
    let with = |name: &str, subnet: &str| json!({"Name": name, "Driver": "overlay", "IPAM": {"Config": [{"Subnet": subnet}]}});
    for (body, status, begins) in [
        (with("two", "10.0.1.0/24"), 400, "subnet 10.0.1.0/24 overlaps"),
        (with("two", "10.1.0.0/31"), 400, "subnet 10.1.0.0/31 is too small"),
        (with("two", "fd00::"), 400, "invalid network config: subnet fd00:: has no prefix length"),
        (with("one", "10.1.0.0/16"), 409, "network with name one already exists"),
        (json!({"Name": "one"}), 409, "network with name one already exists"),
        (json!({"Name": "host"}), 403, "operation is not permitted on predefined host network"),
        (
            json!({"Name": "ingress", "Driver": "overlay"}),
            403,
            "operation is not permitted on predefined ingress",
        ),
        (json!({"Name": "two", "Driver": "host"}), 403, "only one instance of \"host\" network is allowed"),
        (json!({"Name": "two", "Driver": "weave"}), 404, "plugin \"weave\" not found"),
        (json!({"Name": "two", "Driver": "overlay", "Ingress": true}), 501, "not yet: --ingress"),
        (json!({"Name": "two", "ConfigOnly": true}), 501, "not yet: --config-only"),
        (json!({"Name": ""}), 400, "network name \"\" is not valid"),
        (
            json!({"Name": "two", "Driver": "overlay", "Options": {"encrypted": ""}}),
            501,
            "not yet: --opt encrypted",
        ),
        (
            json!({"Name": "two", "Driver": "overlay",
                   "Options": {"com.docker.network.driver.overlay.vxlanid_list": "4096"}}),
            400,
            "VXLAN id 4096 is not valid",
        ),
    ] {
        let (got, message) = refused(&client, &body).await;
        assert!(got.as_u16() == status && message.starts_with(begins), "{body}: {got} {message}");
    }
    assert_eq!(daemon.control.store().networks().count(), 1);
    let gone = client.get("/networks/two").await;
    assert_eq!((gone.status, gone.message().as_str()), (StatusCode::NOT_FOUND, "network two not found"));
}

/// NET-14, C-29
#[tokio::test]
async fn a_public_range_is_warned_about() {
    let daemon = Daemon::manager().await;
    let body = r#"{"Name":"n","Driver":"overlay","IPAM":{"Config":[{"Subnet":"192.170.0.0/16"}]}}"#;
    let reply = daemon.client().post("/networks/create", body).await.json();
    assert!(reply["Warning"].as_str().unwrap().starts_with("192.170.0.0/16 is a public range"), "{reply}");
}

/// NET-18, NET-32, LB-03
#[tokio::test]
async fn a_service_has_an_address_in_its_network_which_then_cannot_be_removed() {
    let daemon = Daemon::manager().await;
    let client = daemon.client();
    let id = create(&client, &json!({"Name": "front", "Driver": "overlay"})).await;
    let service = run_service(&client, "web", "front", &json!({})).await;
    let shown = client.get("/services/web").await.json();
    assert_eq!(shown["Spec"]["TaskTemplate"]["Networks"], json!([{"Target": id}]));
    let vip = &shown["Endpoint"]["VirtualIPs"][0];
    assert_eq!(vip["NetworkID"], id);
    let addr = vip["Addr"].as_str().unwrap();
    assert!(addr.starts_with("10.") && addr.ends_with("/24"), "{addr}");

    let tasks = client.get("/tasks").await.json();
    let attachment = &tasks[0]["NetworksAttachments"][0];
    assert_eq!(
        (&attachment["Network"]["ID"], &attachment["Network"]["Spec"]["Name"]),
        (&json!(id), &json!("front"))
    );
    assert_eq!(attachment["Network"]["DriverState"]["Name"], "overlay");
    assert!(attachment["Addresses"][0].as_str().unwrap().ends_with("/24"));
    assert_eq!(tasks[0]["Spec"]["Networks"], json!([{"Target": id}]));

    let refusal = client.delete("/networks/front").await;
    assert_eq!(refusal.status, StatusCode::BAD_REQUEST);
    let expected =
        format!("rpc error: code = FailedPrecondition desc = network {id} is in use by service {service}");
    assert_eq!(refusal.message(), expected);
    assert_eq!(names(&client, r#"{"dangling":["true"]}"#).await, Vec::<String>::new());
    create(&client, &json!({"Name": "idle", "Driver": "overlay"})).await;
    assert_eq!(client.delete("/networks/idle").await.status, StatusCode::NO_CONTENT);
}

/// NET-32, STK-12: `docker stack rm` removes networks right after their services, whose tasks take their time.
#[tokio::test]
async fn a_network_is_removed_once_the_tasks_that_are_leaving_it_have_ended() {
    let daemon = Daemon::manager().await;
    let client = daemon.client();
    create(&client, &json!({"Name": "front", "Driver": "overlay"})).await;
    run_service(&client, "web", "front", &json!({})).await;
    run_service(&client, "other", "front", &json!({})).await;
    client.delete("/services/web").await;
    let refusal = client.delete("/networks/front").await;
    assert!(
        refusal.message().contains("is in use by service"),
        "nobody waits for a service: {}",
        refusal.message()
    );
    client.delete("/services/other").await;

    let mut removal = std::pin::pin!(client.delete("/networks/front"));
    assert!(timeout(Duration::from_millis(50), &mut removal).await.is_err(), "the tasks have not ended");
    daemon.control.end_orphans();
    assert_eq!(removal.await.status, StatusCode::NO_CONTENT);
    assert_eq!(client.get("/networks/front").await.status, StatusCode::NOT_FOUND);
}

/// NET-18, NET-20, NET-21
#[tokio::test]
async fn a_running_overlay_shows_its_containers_peers_and_services() {
    let daemon = Daemon::manager().await;
    let client = daemon.client();
    let id = create(&client, &json!({"Name": "front", "Driver": "overlay"})).await;
    run_service(&client, "web", "front", &json!({})).await;
    let network: covey_state::Id = id.parse().unwrap();
    let endpoint = |network, name: &str, net: &str| Endpoint {
        network,
        name: name.into(),
        addresses: vec![net.parse().unwrap()],
        chosen: Vec::new(),
        gateways: Vec::new(),
        mac: "02:fc:0a:00:00:03".into(),
        aliases: Vec::new(),
    };
    let mut task = Container { id: "7".repeat(64), name: "web.1.x".into(), ..Container::default() };
    task.spec.labels.insert("com.docker.swarm.task.id".into(), "x".into());
    task.endpoints = vec![
        endpoint(NetworkRef::Cluster(network), "front", "10.0.0.3/24"),
        endpoint(NetworkRef::Bridge, "bridge", "100.64.1.2/32"),
    ];
    daemon.engine.run_task(task);

    let shown = client.get("/networks/front").await.json();
    let member = &shown["Containers"]["7".repeat(64)];
    assert_eq!((&member["Name"], &member["IPv4Address"]), (&json!("web.1.x"), &json!("10.0.0.3/24")));
    assert_eq!((&member["MacAddress"], &member["IPv6Address"]), (&json!("02:fc:0a:00:00:03"), &json!("")));
    assert_eq!(shown["Peers"].as_array().unwrap().len(), 2);
    assert!(shown.get("Services").is_none());
    // Its way out is the bridge that networks have, not the one of plain containers.
    assert_eq!(client.get("/networks/bridge").await.json()["Containers"], json!({}));
    let gateway = client.get("/networks/docker_gwbridge").await.json();
    assert_eq!(gateway["Containers"]["7".repeat(64)]["IPv4Address"], "100.64.1.2/32");
    let settings = client.get("/containers/web.1.x/json").await.json()["NetworkSettings"].clone();
    assert_eq!(settings["Networks"].as_object().unwrap().keys().collect::<Vec<_>>(), ["front"]);

    let verbose = client.get("/networks/front?verbose=true").await.json();
    let web = &verbose["Services"]["web"];
    assert!(web["VIP"].as_str().unwrap().parse::<IpAddr>().is_ok());
    assert_eq!((web["Tasks"].as_array().unwrap().len(), &web["LocalLBIndex"]), (2, &json!(0)));
    let task = &web["Tasks"][0];
    assert!(task["Name"].as_str().unwrap().starts_with("web.1."));
    assert_eq!(task["Info"], json!({"Host IP": "10.0.0.1"}));
    assert!(task["EndpointIP"].as_str().unwrap().parse::<IpAddr>().is_ok());
}

/// NET-17
#[tokio::test]
async fn a_worker_knows_the_overlays_that_it_carries_and_no_others() {
    let daemon = Daemon::manager().await;
    let client = daemon.client();
    create(&client, &json!({"Name": "front", "Driver": "overlay", "Attachable": true})).await;
    create(&client, &json!({"Name": "back", "Driver": "overlay"})).await;
    daemon.control.become_worker();
    assert_eq!(names(&client, "{}").await, DEFAULTS);
    let daemon = Daemon::manager().await;
    let client = daemon.client();
    let id = create(&client, &json!({"Name": "front", "Driver": "overlay"})).await;
    run_service(&client, "web", "front", &json!({})).await;
    daemon.control.become_worker();
    let shown = client.get("/networks/front").await.json();
    assert_eq!(
        (&shown["Id"], &shown["Scope"], &shown["Driver"]),
        (&json!(id), &json!("swarm"), &json!("overlay"))
    );
    assert_eq!(shown["Options"], json!({"com.docker.network.driver.overlay.vxlanid_list": "4097"}));
    assert_eq!((&shown["Containers"], shown["Peers"].as_array().unwrap().len()), (&json!({}), 2));
    let refusal = client.delete("/networks/front").await;
    assert_eq!(refusal.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(daemon.control.store().node(WORKER).unwrap().id, WORKER);
}

/// NET-17, NET-18: what a manager would have said is missing without one, and nothing else.
#[tokio::test]
async fn a_worker_shows_a_network_by_what_gossip_tells_it() {
    let daemon = Daemon::manager().await;
    let client = daemon.client();
    let body = json!({"Name": "front", "Driver": "overlay", "Attachable": true, "Labels": {"tier": "x"}});
    create(&client, &body).await;
    let ports = json!({"EndpointSpec": {"Ports": [{"TargetPort": 80, "PublishedPort": 8080}]}});
    run_service(&client, "web", "front", &ports).await;
    let ingress = client.get("/networks/ingress?verbose=true").await.json();
    assert_eq!(ingress["Services"]["web"]["Tasks"][0]["EndpointIP"], "100.64.1.9");
    daemon.control.become_worker();
    let task = json!({
        "Name": "web.1.x", "EndpointIP": "10.0.0.3", "Info": {"Host IP": "10.0.0.1"},
    });
    for answered in [true, false] {
        let tiered: &[&str] = if answered { &["front"] } else { &[] };
        assert_eq!(names(&client, r#"{"label":["tier=x"]}"#).await, tiered);
        let shown = client.get("/networks/front?verbose=true").await.json();
        assert_eq!(shown["Attachable"], answered);
        assert_eq!(shown["Labels"], if answered { json!({"tier": "x"}) } else { json!({}) });
        let web = &shown["Services"]["web"];
        assert_eq!((&web["VIP"], &web["Ports"]), (&json!("10.0.0.2"), &json!([])));
        for field in ["Name", "EndpointIP", "Info"] {
            assert_eq!(web["Tasks"][0][field], task[field]);
        }
        daemon.control.silence();
    }
    let ingress = client.get("/networks/ingress?verbose=true").await.json();
    assert_eq!(ingress["Services"]["web"]["Ports"], json!(["Target: 80, Publish: 8080"]));
}

/// NET-18, NET-22
#[tokio::test]
async fn services_are_attached_to_networks_of_the_cluster_only() {
    let daemon = Daemon::manager().await;
    let client = daemon.client();
    let id = create(&client, &json!({"Name": "front", "Driver": "overlay"})).await;
    create(&client, &json!({"Name": "here"})).await;
    let spec = |target: &str| {
        json!({
            "Name": "web",
            "TaskTemplate": {"ContainerSpec": {"Image": "nginx"}, "Networks": [{"Target": target, "Aliases": ["w"]}]},
        })
    };
    for (target, status, begins) in [
        ("back", 404, "network back not found"),
        (
            "ingress",
            400,
            "rpc error: code = InvalidArgument desc = Service cannot be explicitly attached to the ingress",
        ),
        (
            "here",
            400,
            "The network here cannot be used with services. Only networks scoped to the swarm can be used,",
        ),
        ("docker_gwbridge", 400, "The network docker_gwbridge cannot be used with services."),
        ("none", 400, "The network none cannot be used with services."),
        ("bridge", 501, "not yet: --network bridge of a service"),
        ("host", 400, "network-scoped alias is supported only for containers in user defined networks"),
    ] {
        let reply = client.post("/services/create", &spec(target).to_string()).await;
        assert_eq!(reply.status.as_u16(), status, "{target}");
        assert!(reply.message().starts_with(begins), "{target}: {}", reply.message());
    }
    assert_eq!(
        client.post("/services/create", &spec(&id[..10]).to_string()).await.status,
        StatusCode::CREATED
    );
    let mut shown = client.get("/services/web").await.json();
    assert_eq!(shown["Spec"]["TaskTemplate"]["Networks"], json!([{"Target": id, "Aliases": ["w"]}]));
    // What is read can be written back, and what is left out is left.
    let version = shown["Version"]["Index"].clone();
    shown["Spec"]["TaskTemplate"]["Networks"] = json!([]);
    let update =
        client.post(&format!("/services/web/update?version={version}"), &shown["Spec"].to_string()).await;
    assert_eq!(update.status, StatusCode::OK, "{:?}", update.body);
    let shown = client.get("/services/web").await.json();
    assert!(
        shown["Spec"]["TaskTemplate"].get("Networks").is_none()
            && shown["Endpoint"].get("VirtualIPs").is_none()
    );
    assert_eq!(shown["PreviousSpec"]["TaskTemplate"]["Networks"][0]["Target"], id);
}

/// Old clients write the networks beside the task. NET-18
#[tokio::test]
async fn old_clients_name_networks_in_another_place() {
    let daemon = Daemon::manager().await;
    let client = daemon.client();
    let id = create(&client, &json!({"Name": "front", "Driver": "overlay"})).await;
    let spec = json!({
        "Name": "old", "TaskTemplate": {"ContainerSpec": {"Image": "nginx"}}, "Networks": [{"Target": "front"}],
    });
    assert_eq!(client.post("/v1.24/services/create", &spec.to_string()).await.status, StatusCode::CREATED);
    let shown = client.get("/services/old").await.json();
    assert_eq!(shown["Spec"]["TaskTemplate"]["Networks"], json!([{"Target": id}]));
}

/// NET-32
#[tokio::test]
async fn what_nobody_uses_is_pruned() {
    let daemon = Daemon::manager().await;
    let client = daemon.client();
    for (name, driver) in [("front", "overlay"), ("back", "overlay"), ("here", "bridge"), ("there", "bridge")]
    {
        create(&client, &json!({"Name": name, "Driver": driver, "Labels": {"name": name}})).await;
    }
    run_service(&client, "web", "front", &json!({})).await;
    run(&client, "box", &json!({"NetworkMode": "here"}), &json!({})).await.unwrap();
    let old = client.post("/networks/prune?filters=%7B%22until%22%3A%5B%221h%22%5D%7D", "").await.json();
    // The clock of the fake cluster stands still, in the past.
    assert_eq!(old, json!({"NetworksDeleted": ["back"]}));
    let labelled =
        client.post("/networks/prune?filters=%7B%22label!%22%3A%5B%22name%3Dthere%22%5D%7D", "").await;
    assert_eq!(labelled.json(), json!({"NetworksDeleted": []}));
    assert_eq!(client.post("/networks/prune", "").await.json(), json!({"NetworksDeleted": ["there"]}));
    let wrong = client.post("/networks/prune?filters=%7B%22until%22%3A%5B%22soon%22%5D%7D", "").await;
    assert_eq!(wrong.status, StatusCode::BAD_REQUEST);
}

/// API-05
#[tokio::test]
async fn networks_come_and_go_in_events() {
    let daemon = Daemon::manager().await;
    let client = daemon.client();
    let path = "/events?filters=%7B%22type%22%3A%5B%22network%22%5D%7D";
    let mut live = client.open(Method::GET, path, &[], "").await;
    for (name, driver) in [("front", "overlay"), ("here", "bridge")] {
        create(&client, &json!({"Name": name, "Driver": driver})).await;
        client.delete(&format!("/networks/{name}")).await;
    }
    let mut seen = Vec::new();
    while seen.len() < 4 {
        let frame = timeout(PATIENCE, live.body_mut().frame()).await.unwrap().unwrap().unwrap();
        let event: Value = serde_json::from_slice(frame.data_ref().unwrap()).unwrap();
        // The first form of an event is for containers and images only.
        assert!(event.get("status").is_none() && event["Type"] == "network");
        let attributes = &event["Actor"]["Attributes"];
        let words = [&event["scope"], &event["Action"], &attributes["name"], &attributes["type"]];
        seen.push(words.map(|word| word.as_str().unwrap()).join(" "));
    }
    seen.sort_unstable();
    let expected = [
        "local create here bridge",
        "local destroy here bridge",
        "swarm create front overlay",
        "swarm remove front overlay",
    ];
    assert_eq!(seen, expected);
}

/// The extension for Covey's own client.
#[tokio::test]
async fn networks_are_examined_and_ways_are_followed() {
    let daemon = Daemon::manager().await;
    let client = daemon.client();
    let found = client.get("/covey/net/doctor").await.json();
    let finding = json!({
        "Host": "m1", "Network": "front", "Object": "mtu", "Severity": "repaired", "Text": "was 1500, is 1450",
    });
    assert_eq!(found, json!([finding]));
    let hops = client.get("/covey/net/path?from=box&to=web%3A53%2Fudp").await.json();
    assert_eq!(
        hops,
        json!([
            {"Step": "dns", "Decision": "10.0.1.2"},
            {"Step": "vip", "Decision": "10.0.1.2", "CounterBefore": 7, "CounterAfter": 8},
        ])
    );
    let asked = daemon.control.path_asked().unwrap();
    assert_eq!((asked.from.as_str(), asked.to.as_str(), asked.port), ("box", "web", 53));
    for wrong in ["?from=box", "?from=box&to=web", "?to=web:80", "?from=box&to=web:0"] {
        let reply = client.get(&format!("/covey/net/path{wrong}")).await;
        assert_eq!(reply.status, StatusCode::BAD_REQUEST, "{wrong}");
    }
    assert_eq!(daemon.control.store().node(MANAGER).unwrap().id, MANAGER);
}
