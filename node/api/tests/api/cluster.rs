//! Swarm, nodes, services, tasks, as raw clients see them.

use covey_state::Id;
use hyper::{Method, StatusCode};
use serde_json::{Value, json};

use crate::{
    Daemon,
    client::{Client, unframe},
    control::{MANAGER, WORKER},
    engine::DIGEST,
};

async fn create(client: &Client, spec: &Value) -> String {
    let reply = client.post("/services/create", &spec.to_string()).await;
    assert_eq!(reply.status, StatusCode::CREATED, "{:?}", reply.body);
    reply.json()["ID"].as_str().unwrap().to_owned()
}

fn web(replicas: u64) -> Value {
    json!({
        "Name": "web",
        "TaskTemplate": {"ContainerSpec": {"Image": "nginx", "Args": ["a"]}},
        "Mode": {"Replicated": {"Replicas": replicas}},
    })
}

/// CLU-02, CLU-15
#[tokio::test]
async fn init_answers_with_the_bare_id_and_only_once() {
    let daemon = Daemon::start().await;
    let client = daemon.client();
    let body =
        r#"{"ListenAddr":"0.0.0.0:2377","AdvertiseAddr":"10.0.0.1","Spec":{"Labels":null},"SubnetSize":24}"#;
    let reply = client.post("/swarm/init", body).await;
    assert_eq!(reply.json(), json!(MANAGER.to_string()));
    let again = client.post("/swarm/init", body).await;
    assert_eq!(again.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(
        again.message(),
        "This node is already part of a swarm. Use \"docker swarm leave\" to leave this swarm and join another one."
    );
    let autolock = r#"{"Spec":{"EncryptionConfig":{"AutoLockManagers":true}},"ForceNewCluster":true}"#;
    assert_eq!(client.post("/swarm/init", autolock).await.status, StatusCode::NOT_IMPLEMENTED);
}

/// CLU-06, CLU-10, CLU-12
#[tokio::test]
async fn a_node_joins_and_leaves() {
    let daemon = Daemon::start().await;
    let client = daemon.client();
    let body = r#"{"RemoteAddrs":["10.0.0.1:2377"],"JoinToken":"SWMTKN-1-a-b","Availability":"drain"}"#;
    assert_eq!(client.post("/swarm/join", body).await.status, StatusCode::OK);
    let joined = daemon.control.joined().unwrap();
    assert_eq!((joined.remotes, joined.token.as_str()), (vec!["10.0.0.1:2377".to_owned()], "SWMTKN-1-a-b"));
    assert_eq!(client.post("/swarm/leave", "").await.status, StatusCode::OK);
    assert_eq!(client.post("/swarm/leave?force=1", "").await.message(), "This node is not part of a swarm");
    assert!(client.post("/swarm/join", "{}").await.message().contains("at least 1 address"));
}

/// CLU-09, PKI-04
#[tokio::test]
async fn the_cluster_is_inspected_and_its_tokens_rotate() {
    let daemon = Daemon::manager().await;
    let client = daemon.client();
    let swarm = client.get("/swarm").await.json();
    assert_eq!(swarm["JoinTokens"]["Worker"], "SWMTKN-1-ca-worker0");
    assert_eq!(swarm["Spec"]["Name"], "default");
    assert_eq!(swarm["Spec"]["Dispatcher"]["HeartbeatPeriod"], 1_000_000_000);
    assert_eq!(swarm["TLSInfo"]["TrustRoot"], "PEM");
    let version = &swarm["Version"]["Index"];
    let path = format!("/swarm/update?version={version}&rotateWorkerToken=true");
    assert_eq!(client.post(&path, &swarm["Spec"].to_string()).await.status, StatusCode::OK);
    assert_eq!(client.get("/swarm").await.json()["JoinTokens"]["Worker"], "SWMTKN-1-ca-worker1");
    let stale = client.post("/swarm/update?version=77", &swarm["Spec"].to_string()).await;
    assert!(stale.message().contains("update out of sequence"));
    let wrong = client.post("/swarm/update?version=1&rotateWorkerToken=perhaps", "{}").await;
    assert_eq!(wrong.status, StatusCode::BAD_REQUEST);
}

/// NOD-06, NOD-07, NOD-10, API-08
#[tokio::test]
async fn a_node_is_inspected() {
    let daemon = Daemon::manager().await;
    let client = daemon.client();
    let node = client.get("/nodes/m1").await.json();
    assert_eq!(node["ID"], MANAGER.to_string());
    assert_eq!(node["Spec"], json!({"Role": "manager", "Availability": "active", "Labels": {}}));
    assert_eq!(node["Status"], json!({"State": "ready", "Addr": "10.0.0.1"}));
    let manager = json!({"Leader": true, "Reachability": "reachable", "Addr": "10.0.0.1:2377"});
    assert_eq!(node["ManagerStatus"], manager);
    assert_eq!(
        node["Description"]["Resources"],
        json!({"NanoCPUs": 2_000_000_000_u64, "MemoryBytes": 1 << 30})
    );
    assert!(node["Version"]["Index"].as_u64().is_some_and(|index| index > 0));
    assert!(client.get(&format!("/nodes/{WORKER}")).await.json().get("ManagerStatus").is_none());
    let missing = client.get("/nodes/m9").await;
    assert_eq!((missing.status, missing.message().as_str()), (StatusCode::NOT_FOUND, "node m9 not found"));
    // Every id of the fakes begins so.
    let ambiguous = client.get("/nodes/000").await;
    assert_eq!(ambiguous.status, StatusCode::BAD_REQUEST);
    assert_eq!(ambiguous.message(), "node 000 is ambiguous (2 matches found)");
}

/// NOD-11, NOD-19, NOD-21
#[tokio::test]
async fn a_node_is_changed_and_removed() {
    let daemon = Daemon::manager().await;
    let client = daemon.client();
    let version = client.get("/nodes/w1").await.json()["Version"]["Index"].clone();
    let spec = r#"{"Role":"worker","Availability":"drain","Labels":{"disk":"ssd"}}"#;
    assert_eq!(
        client.post(&format!("/nodes/w1/update?version={version}"), spec).await.status,
        StatusCode::OK
    );
    let labelled = client.get("/nodes?filters=%7B%22node.label%22%3A%5B%22disk%3Dssd%22%5D%7D").await.json();
    assert_eq!(labelled[0]["Spec"]["Availability"], "drain");
    let stale = client.post(&format!("/nodes/w1/update?version={version}"), spec).await;
    assert_eq!(stale.status, StatusCode::INTERNAL_SERVER_ERROR);
    assert!(stale.message().contains("update out of sequence"));
    assert_eq!(client.post("/nodes/w1/update", spec).await.status, StatusCode::BAD_REQUEST);

    assert!(client.delete("/nodes/m1?force=1").await.message().contains("must be demoted"));
    assert!(client.delete("/nodes/w1").await.message().contains("is not down and can't be removed"));
    daemon.control.lose(WORKER);
    assert_eq!(client.get("/nodes/w1").await.json()["Status"]["State"], "down");
    assert_eq!(client.delete("/nodes/w1").await.status, StatusCode::OK);
    assert_eq!(client.get("/nodes").await.json().as_array().unwrap().len(), 1);
}

/// SVC-01, SVC-03, SVC-17, SVC-30, API-08
#[tokio::test]
async fn a_service_is_stored_with_its_defaults() {
    let daemon = Daemon::manager().await;
    let client = daemon.client();
    let plain = json!({"Name": "plain", "TaskTemplate": {"ContainerSpec": {"Image": "nginx"}}});
    let id = create(&client, &plain).await;
    assert_eq!(id.len(), 25);
    let service = client.get("/services/plain?insertDefaults=true").await.json();
    let update = json!({
        "Parallelism": 1, "FailureAction": "pause", "Monitor": 5_000_000_000_u64, "MaxFailureRatio": 0.0,
        "Order": "stop-first",
    });
    assert_eq!(
        service["Spec"],
        json!({
            "Name": "plain",
            "Labels": {},
            "TaskTemplate": {
                "ContainerSpec": {
                    "Image": "nginx:latest", "StopGracePeriod": 10_000_000_000_u64, "DNSConfig": {},
                },
                "Resources": {"Limits": {}, "Reservations": {}},
                "RestartPolicy": {"Condition": "any", "Delay": 5_000_000_000_u64, "MaxAttempts": 0},
                "Placement": {},
                "ForceUpdate": 0,
                "Runtime": "container",
            },
            "Mode": {"Replicated": {"Replicas": 1}},
            "UpdateConfig": update,
            "RollbackConfig": update,
            "EndpointSpec": {"Mode": "vip"},
        })
    );
    assert_eq!(service["Endpoint"], json!({"Spec": {"Mode": "vip"}}));
    assert!(service.get("PreviousSpec").is_none() && service.get("UpdateStatus").is_none());
    assert!(service["CreatedAt"].as_str().is_some_and(|at| at.starts_with("2023-11-14T22:13:20.")));
}

/// SVC-02, SVC-11
#[tokio::test]
async fn a_spec_reads_back_as_it_was_written() {
    let daemon = Daemon::manager().await;
    let client = daemon.client();
    let spec = json!({
        "Name": "full",
        "Labels": {"a": "b"},
        "TaskTemplate": {
            "ContainerSpec": {
                "Image": format!("nginx:1@{DIGEST}"),
                "Labels": {"c": "d"}, "Command": ["x"], "Args": ["y"], "Hostname": "h", "Env": ["A=b", "C"],
                "Dir": "/w", "User": "u:g", "Groups": ["g"], "StopSignal": "SIGINT", "ReadOnly": true,
                "Mounts": [
                    {"Type": "bind", "Source": "/srv", "Target": "/data", "ReadOnly": true},
                    {"Type": "tmpfs", "Target": "/run", "TmpfsOptions": {"SizeBytes": 4096, "Mode": 448}},
                ],
                "StopGracePeriod": 3_000_000_000_u64, "DNSConfig": {},
            },
            "Resources": {
                "Limits": {"NanoCPUs": 500_000_000, "MemoryBytes": 64 << 20, "Pids": 9},
                "Reservations": {"NanoCPUs": 250_000_000, "MemoryBytes": 32 << 20},
            },
            "RestartPolicy": {
                "Condition": "on-failure", "Delay": 1_000_000_000, "MaxAttempts": 3, "Window": 60_000_000_000_u64,
            },
            "Placement": {
                "Constraints": ["node.role==worker", "node.labels.disk!=hdd"],
                "Platforms": [{"Architecture": "amd64", "OS": "linux"}],
            },
            "ForceUpdate": 4,
            "Runtime": "container",
        },
        "Mode": {"Replicated": {"Replicas": 0}},
        "UpdateConfig": {
            "Parallelism": 2, "Delay": 7, "FailureAction": "continue", "Monitor": 8, "MaxFailureRatio": 0.1,
            "Order": "stop-first",
        },
        "RollbackConfig": {
            "Parallelism": 0, "FailureAction": "pause", "Monitor": 5_000_000_000_u64, "MaxFailureRatio": 0.0,
            "Order": "stop-first",
        },
        "EndpointSpec": {"Mode": "vip"},
    });
    create(&client, &spec).await;
    let service = client.get("/services/full").await.json();
    assert_eq!(service["Spec"], spec);
    // Written back, it changes nothing: the tasks stay.
    let version = &service["Version"]["Index"];
    let same =
        client.post(&format!("/services/full/update?version={version}"), &service["Spec"].to_string()).await;
    assert_eq!(same.status, StatusCode::OK, "{:?}", same.body);
    assert_eq!(&client.get("/services/full").await.json()["Spec"], &spec);
}

/// SVC-04, SVC-33, SVC-34, SVC-50
#[tokio::test]
async fn services_are_found_by_name_id_and_prefix_and_removed() {
    let daemon = Daemon::manager().await;
    let client = daemon.client();
    let id = create(&client, &web(1)).await;
    for reference in ["web", &id, &id[..20]] {
        assert_eq!(client.get(&format!("/services/{reference}")).await.json()["ID"], id);
    }
    let twice = client.post("/services/create", &web(1).to_string()).await;
    assert_eq!(twice.status, StatusCode::CONFLICT);
    assert!(twice.message().contains("name conflicts with an existing object"));
    assert_eq!(client.delete("/services/web").await.status, StatusCode::OK);
    let gone = client.get("/services/web").await;
    assert_eq!((gone.status, gone.message().as_str()), (StatusCode::NOT_FOUND, "service web not found"));
    // Tasks of a removed service can still be asked for by its full id.
    let tasks = client.get(&format!("/tasks?filters=%7B%22service%22%3A%5B%22{id}%22%5D%7D")).await;
    assert_eq!(tasks.status, StatusCode::OK);
}

/// SVC-18, SVC-19, SVC-38, API-08
#[tokio::test]
async fn clients_can_follow_a_service_until_it_has_converged() {
    let daemon = Daemon::manager().await;
    let client = daemon.client();
    let id = create(&client, &web(2)).await;
    let list = client.get("/services?status=true").await.json();
    let status = json!({"RunningTasks": 2, "DesiredTasks": 2, "CompletedTasks": 0});
    assert_eq!(list[0]["ServiceStatus"], status);
    assert!(client.get("/services").await.json()[0].get("ServiceStatus").is_none());
    let up_to_date = format!(
        "/tasks?filters=%7B%22service%22%3A%7B%22{id}%22%3Atrue%7D%2C%22_up-to-date%22%3A%7B%22true%22%3Atrue%7D%7D"
    );
    let tasks = client.get(&up_to_date).await.json();
    assert_eq!(tasks.as_array().unwrap().len(), 2);
    let task = &tasks[0];
    assert_eq!(
        (&task["ServiceID"], &task["Slot"], &task["NodeID"]),
        (&json!(id), &json!(1), &json!(MANAGER.to_string()))
    );
    assert_eq!((&task["DesiredState"], &task["Status"]["State"]), (&json!("running"), &json!("running")));
    let container = &task["Status"]["ContainerStatus"];
    assert_eq!((&container["PID"], &container["ExitCode"]), (&json!(4242), &json!(0)));
    assert_eq!(task["NetworksAttachments"], json!([]));
    assert_eq!(task["Spec"]["ContainerSpec"]["Args"], json!(["a"]));

    // A change of the task replaces both; the old ones are out of date.
    let service = client.get("/services/web").await.json();
    let mut spec = service["Spec"].clone();
    spec["TaskTemplate"]["ForceUpdate"] = json!(1);
    let path = format!("/services/{id}/update?version={}", service["Version"]["Index"]);
    assert_eq!(client.post(&path, &spec.to_string()).await.status, StatusCode::OK);
    assert_eq!(client.get(&up_to_date).await.json().as_array().unwrap().len(), 2);
    let all = client.get("/tasks").await.json();
    assert_eq!(all.as_array().unwrap().len(), 4);
    let shut = client.get("/tasks?filters=%7B%22desired-state%22%3A%5B%22shutdown%22%5D%7D").await.json();
    assert_eq!(shut.as_array().unwrap().len(), 2);
    assert_eq!(shut[0]["Status"]["State"], "shutdown");
    assert_eq!(client.post(&path, &spec.to_string()).await.status, StatusCode::INTERNAL_SERVER_ERROR);
    let wrong = client.get("/tasks?filters=%7B%22desired-state%22%3A%5B%22happy%22%5D%7D").await;
    assert_eq!(wrong.message(), "invalid filter 'desired-state=happy'");
    let previous = client.get("/services/web").await.json();
    assert_eq!(previous["PreviousSpec"]["TaskTemplate"]["ForceUpdate"], 0);
}

/// SVC-06, SVC-07, SVC-08
#[tokio::test]
async fn old_clients_have_images_pinned_for_them() {
    let daemon = Daemon::manager().await;
    let client = daemon.client();
    let reply = client.post("/v1.29/services/create", &web(0).to_string()).await.json();
    assert!(reply.get("Warnings").is_none(), "{reply}");
    let spec = client.get("/services/web").await.json()["Spec"]["TaskTemplate"].clone();
    assert_eq!(spec["ContainerSpec"]["Image"], format!("nginx:latest@{DIGEST}"));
    assert_eq!(spec["Placement"]["Platforms"], json!([{"Architecture": "amd64", "OS": "linux"}]));

    let missing = json!({"Name": "b", "TaskTemplate": {"ContainerSpec": {"Image": "missing:5.9"}}});
    let reply = client.post("/v1.29/services/create", &missing.to_string()).await;
    assert_eq!(reply.status, StatusCode::CREATED);
    assert_eq!(
        reply.json()["Warnings"][0],
        "image missing:5.9 could not be accessed on a registry to record\nits digest. Each node will access \
         missing:5.9 independently,\npossibly leading to different nodes running different\nversions of the image.\n"
    );
    let stored = client.get("/services/b").await.json();
    assert_eq!(stored["Spec"]["TaskTemplate"]["ContainerSpec"]["Image"], "missing:5.9");
}

/// SVC-02
#[tokio::test]
async fn what_is_not_built_yet_is_refused_by_name() {
    let daemon = Daemon::manager().await;
    let client = daemon.client();
    for (pointer, value, what) in [
        ("/Mode", json!({"Global": {}}), "--mode global"),
        ("/Mode", json!({"ReplicatedJob": {}}), "a job"),
        ("/TaskTemplate/Networks", json!([{"Target": "bridge"}]), "--network bridge of a service"),
        (
            "/TaskTemplate/LogDriver",
            json!({"Name": "syslog"}),
            "--log-driver (other than json-file without --log-opt)",
        ),
        ("/TaskTemplate/ContainerSpec/Secrets", json!([{"SecretID": "s"}]), "--secret"),
        ("/TaskTemplate/ContainerSpec/Configs", json!([{"ConfigID": "s"}]), "--config"),
        ("/TaskTemplate/ContainerSpec/TTY", json!(true), "--tty"),
        ("/TaskTemplate/ContainerSpec/Isolation", json!("hyperv"), "--isolation"),
        ("/TaskTemplate/Placement", json!({"Preferences": [{}]}), "--placement-pref"),
        ("/UpdateConfig", json!({"Order": "start-first"}), "--update-order start-first"),
        ("/UpdateConfig", json!({"FailureAction": "rollback"}), "--update-failure-action rollback"),
    ] {
        let mut spec = web(1);
        let (parent, field) = pointer.rsplit_once('/').unwrap();
        spec.pointer_mut(parent).unwrap()[field] = value;
        let reply = client.post("/services/create", &spec.to_string()).await;
        assert_eq!(reply.status, StatusCode::NOT_IMPLEMENTED, "{pointer}");
        assert_eq!(reply.message(), format!("not yet: {what} is not available yet"));
    }
    let rollback = client.post("/services/web/update?version=1&rollback=previous", &web(1).to_string()).await;
    assert_eq!(rollback.status, StatusCode::NOT_IMPLEMENTED);
    assert!(daemon.control.store().services().next().is_none());
}

/// SVC-52
#[tokio::test]
async fn service_logs_are_one_line_a_frame_with_their_origin() {
    let daemon = Daemon::manager().await;
    let client = daemon.client();
    let id = create(&client, &web(2)).await;
    let reply = client.get("/services/web/logs?stdout=1&details=1&timestamps=1").await;
    assert_eq!(reply.header("content-type"), "application/vnd.docker.multiplexed-stream");
    let (stdout, stderr) = unframe(&reply.body);
    assert_eq!((stdout.lines().count(), stderr.as_str()), (2, ""));
    let line = stdout.lines().find(|line| line.ends_with("slot 1")).unwrap();
    let [at, origin, text] = line.splitn(3, ' ').collect::<Vec<_>>()[..] else { panic!("{line}") };
    assert_eq!(at, "2023-11-14T22:13:20.000000000Z");
    let task: Id = daemon.control.store().tasks().find(|task| task.slot == 1).unwrap().id;
    assert_eq!(
        origin,
        format!(
            "com.docker.swarm.node.id={MANAGER},com.docker.swarm.service.id={id},com.docker.swarm.task.id={task}"
        )
    );
    assert_eq!(text, "hello from slot 1");
    let reply = client.get(&format!("/v1.41/tasks/{task}/logs?stdout=1")).await;
    assert_eq!(reply.header("content-type"), "application/vnd.docker.raw-stream");
    assert_eq!(unframe(&reply.body).0, "hello from slot 1\n");
    let neither = client.get("/services/web/logs").await;
    assert_eq!(neither.message(), "Bad parameters: you must choose at least one stream");
}

/// CLU-18
#[tokio::test]
async fn info_tells_of_the_node_and_the_cluster() {
    let daemon = Daemon::start().await;
    let client = daemon.client();
    let info = client.get("/info").await.json();
    assert_eq!(
        (&info["Swarm"]["LocalNodeState"], &info["Swarm"]["ControlAvailable"]),
        (&json!("inactive"), &json!(false))
    );
    assert_eq!((&info["Containers"], &info["Images"], &info["Name"]), (&json!(0), &json!(1), &json!("box")));
    daemon.control.form_cluster();
    let swarm = client.get("/info").await.json()["Swarm"].clone();
    assert_eq!(swarm["NodeID"], MANAGER.to_string());
    assert_eq!(
        (&swarm["Nodes"], &swarm["Managers"], &swarm["NodeAddr"]),
        (&json!(2), &json!(1), &json!("10.0.0.1"))
    );
    assert_eq!(swarm["Cluster"]["Spec"]["Orchestration"]["TaskHistoryRetentionLimit"], 5);
    assert_eq!(swarm["RemoteManagers"], json!([{"NodeID": MANAGER.to_string(), "Addr": "10.0.0.1:2377"}]));
}

/// API-05
#[tokio::test]
async fn a_registry_is_asked_through_the_distribution_route() {
    let daemon = Daemon::start().await;
    let client = daemon.client();
    let found = client.get("/distribution/docker.io/library/nginx:1/json").await.json();
    assert_eq!(found["Descriptor"]["digest"], DIGEST);
    assert_eq!(found["Platforms"], json!([{"architecture": "amd64", "os": "linux"}]));
    assert_eq!(client.get("/distribution/missing/json").await.status, StatusCode::NOT_FOUND);
    assert_eq!(client.get("/distribution/UPPER/json").await.status, StatusCode::BAD_REQUEST);
    let auth = [("x-registry-auth", "!")];
    assert_eq!(
        client.send(Method::GET, "/distribution/a/json", &auth, "").await.status,
        StatusCode::BAD_REQUEST
    );
}
