//! Health checks, as raw clients ask for them and see what they say.

use std::time::Duration;

use covey_state::{
    container::{Checked, Health, HealthCheck, HealthStatus},
    time::Stamp,
};
use http_body_util::BodyExt;
use hyper::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::{
    Daemon,
    client::{Client, Reply},
};

const PATIENCE: Duration = Duration::from_secs(10);

async fn create(client: &Client, name: &str, check: Value) -> Reply {
    let body = json!({"Image": "busybox", "Cmd": ["sleep"], "Healthcheck": check});
    client.post(&format!("/containers/create?name={name}"), &body.to_string()).await
}

fn service(name: &str, check: &Value) -> String {
    json!({"Name": name, "TaskTemplate": {"ContainerSpec": {"Image": "nginx", "Healthcheck": check}}})
        .to_string()
}

fn found(status: HealthStatus) -> Health {
    let checked =
        Checked { start: Stamp(0), end: Stamp(1_500_000_000), exit_code: 1, output: "oh no\n".into() };
    Health { status, failing_streak: 3, log: vec![checked] }
}

/// Names of the containers that the filter lets pass; or why none.
async fn listed(client: &Client, health: &str) -> Result<Vec<String>, String> {
    let filters = format!("%7B%22health%22%3A%5B%22{health}%22%5D%7D");
    let reply = client.get(&format!("/containers/json?filters={filters}")).await;
    if reply.status != StatusCode::OK {
        return Err(reply.message());
    }
    let list = reply.json();
    Ok(list.as_array().unwrap().iter().map(|one| one["Names"][0].as_str().unwrap().to_owned()).collect())
}

/// TSK-14
#[tokio::test]
async fn the_health_check_of_a_service_is_kept_as_it_was_asked_for() {
    let daemon = Daemon::manager().await;
    let client = daemon.client();
    let asked = json!({"Test": ["CMD-SHELL", "true"], "Interval": 2_000_000_000_i64, "Retries": 2});
    for (name, check) in [("web", &asked), ("off", &json!({"Test": ["NONE"]})), ("plain", &Value::Null)] {
        assert_eq!(client.post("/services/create", &service(name, check)).await.status, StatusCode::CREATED);
        let shown = client.get(&format!("/services/{name}")).await.json();
        assert_eq!(shown["Spec"]["TaskTemplate"]["ContainerSpec"]["Healthcheck"], *check, "{name}");
    }
    let wanted = HealthCheck {
        test: vec!["CMD-SHELL".into(), "true".into()],
        interval: Duration::from_secs(2),
        retries: 2,
        ..HealthCheck::default()
    };
    let store = daemon.control.store();
    let web = store.services().find(|service| service.spec.name == "web").unwrap();
    assert_eq!(web.spec.task.container.health.as_ref(), Some(&wanted));
}

/// TSK-14
#[tokio::test]
async fn a_health_check_that_cannot_be_is_refused() {
    let daemon = Daemon::manager().await;
    let client = daemon.client();
    for (check, message) in [
        (json!({"Test": ["RUN", "x"]}), "Unknown type 'RUN' in healthcheck (want NONE, CMD or CMD-SHELL)"),
        (json!({"Interval": -1}), "Interval in Healthcheck cannot be less than one millisecond"),
        (json!({"Retries": -1}), "invalid Retries in Healthcheck: it is negative"),
    ] {
        let of_service = client.post("/services/create", &service("web", &check)).await;
        let of_container = create(&client, "box", check).await;
        for reply in [of_service, of_container] {
            assert_eq!((reply.status, reply.message().as_str()), (StatusCode::BAD_REQUEST, message));
        }
    }
    assert!(daemon.engine.names().is_empty() && daemon.control.store().services().next().is_none());
}

/// TSK-14
#[tokio::test]
async fn a_container_shows_how_it_is_checked_and_what_was_found() {
    let daemon = Daemon::start().await;
    let client = daemon.client();
    let check = json!({"Test": ["CMD", "true"], "Interval": 1_000_000_000, "StartPeriod": null});
    assert_eq!(create(&client, "web", check).await.status, StatusCode::CREATED);
    let inspect = async || client.get("/containers/web/json").await.json();
    // What was left open is settled.
    let settled = json!({"Test": ["CMD", "true"], "Interval": 1_000_000_000, "Timeout": 30_000_000_000_i64,
        "StartInterval": 5_000_000_000_i64, "Retries": 3});
    let shown = inspect().await;
    assert_eq!((&shown["Config"]["Healthcheck"], shown["State"].get("Health")), (&settled, None));

    client.post("/containers/web/start", "").await;
    daemon.engine.find_health("web", found(HealthStatus::Unhealthy));
    let log = json!([{"Start": "1970-01-01T00:00:00Z", "End": "1970-01-01T00:00:01.5Z", "ExitCode": 1,
        "Output": "oh no\n"}]);
    let expected = json!({"Status": "unhealthy", "FailingStreak": 3, "Log": log});
    assert_eq!(inspect().await["State"]["Health"], expected);
    daemon.engine.find_health("web", Health::default());
    let expected = json!({"Status": "starting", "FailingStreak": 0, "Log": []});
    assert_eq!(inspect().await["State"]["Health"], expected);

    create(&client, "off", json!({"Test": ["NONE"]})).await;
    let shown = client.get("/containers/off/json").await.json();
    assert_eq!(shown["Config"]["Healthcheck"], json!({"Test": ["NONE"]}));
    create(&client, "plain", Value::Null).await;
    assert_eq!(client.get("/containers/plain/json").await.json()["Config"].get("Healthcheck"), None);
}

/// TSK-14, CTR-04
#[tokio::test]
async fn containers_are_listed_with_their_health_and_by_it() {
    let daemon = Daemon::start().await;
    let client = daemon.client();
    for name in ["plain", "fresh", "good", "bad"] {
        create(&client, name, Value::Null).await;
        client.post(&format!("/containers/{name}/start"), "").await;
    }
    daemon.engine.find_health("fresh", found(HealthStatus::Starting));
    daemon.engine.find_health("good", found(HealthStatus::Healthy));
    daemon.engine.find_health("bad", found(HealthStatus::Unhealthy));
    for (health, name) in
        [("none", "plain"), ("starting", "fresh"), ("healthy", "good"), ("unhealthy", "bad")]
    {
        assert_eq!(listed(&client, health).await.unwrap(), [format!("/{name}")]);
    }
    assert_eq!(listed(&client, "ill").await.unwrap_err(), "Unrecognised filter value for health: ill");
    let all = client.get("/containers/json").await.json();
    let status = |name: &str| {
        let is_it = |one: &&Value| one["Names"][0] == format!("/{name}");
        all.as_array().unwrap().iter().find(is_it).unwrap()["Status"].as_str().unwrap().to_owned()
    };
    for (name, end) in [("fresh", " (health: starting)"), ("good", " (healthy)"), ("bad", " (unhealthy)")] {
        assert!(status(name).starts_with("Up ") && status(name).ends_with(end), "{}", status(name));
    }
    assert!(!status("plain").contains('('));
}

/// TSK-14, LOG-06
#[tokio::test]
async fn a_change_of_health_is_an_event_that_can_be_asked_for_with_or_without_what_was_found() {
    let daemon = Daemon::start().await;
    let client = daemon.client();
    create(&client, "web", Value::Null).await;
    let open = async |event: &str| {
        let filters = format!("%7B%22event%22%3A%5B%22{event}%22%5D%7D");
        client.open(Method::GET, &format!("/events?filters={filters}"), &[], "").await
    };
    let (any, bad) = (open("health_status").await, open("health_status%3A%20unhealthy").await);
    for status in [HealthStatus::Healthy, HealthStatus::Unhealthy] {
        daemon.engine.find_health("web", found(status));
    }
    let expected = ["health_status: healthy", "health_status: unhealthy"];
    for (mut stream, actions) in [(any, &expected[..]), (bad, &expected[1..])] {
        for action in actions {
            let frame = timeout(PATIENCE, stream.body_mut().frame()).await.unwrap().unwrap().unwrap();
            let event: Value = serde_json::from_slice(frame.data_ref().unwrap()).unwrap();
            assert_eq!((&event["Type"], &event["Action"]), (&json!("container"), &json!(action)));
            let name = &event["Actor"]["Attributes"]["name"];
            assert_eq!((&event["status"], name), (&json!(action), &json!("web")));
        }
    }
}
