//! `inspect`: whatever bears the name, as JSON.

use anyhow::Result;
use serde_json::value::RawValue;

use super::{Exit, FAILED, json, terminal};
use crate::client::{self, Client, ClientError, Target};

#[derive(clap::Args)]
pub struct Args {
    /// Only this kind: container, image, node, service or task
    #[arg(long = "type", value_name = "KIND", value_parser = KINDS.map(|(kind, _, _)| kind))]
    kind: Option<String>,
    /// Names or ids
    #[arg(required = true, value_name = "NAME")]
    names: Vec<String>,
}

/// Kinds in the order in which they are tried, with the path around the name.
const KINDS: [(&str, &str, Option<&str>); 6] = [
    ("container", "containers", Some("json")),
    ("image", "images", Some("json")),
    ("network", "networks", None),
    ("node", "nodes", None),
    ("service", "services", None),
    ("task", "tasks", None),
];

pub async fn run(args: Args, client: &Client) -> Result<()> {
    print("object", &args.names, async |name| find(args.kind.as_deref(), name, client).await).await
}

async fn find(kind: Option<&str>, name: &str, client: &Client) -> client::Result<Box<RawValue>> {
    let mut missing = None;
    for (_, noun, last) in KINDS.iter().filter(|(known, _, _)| kind.is_none_or(|kind| kind == *known)) {
        let parts: Vec<_> = [noun, name].into_iter().chain(*last).collect();
        match client.get(Target::new(&parts)).await {
            Ok(found) => return Ok(found),
            Err(error) if error.is_not_found() => missing = missing.or(Some(error)),
            // A node that is no manager knows no objects of the cluster: as if there were none.
            Err(ClientError::Refused { status: 503, .. }) if kind.is_none() => {}
            Err(error) => return Err(error),
        }
    }
    Err(missing.unwrap_or(ClientError::Refused { status: 404, message: format!("no such object: {name}") }))
}

/// Says that there is none (SVC-33).
///
/// # Errors
/// Always: it is not there.
pub fn missing(kind: &str, name: &str) -> Result<()> {
    terminal::say(json::list(&[]))?;
    terminal::complain(&format!("Error: no such {kind}: {name}"));
    Err(Exit(FAILED).into())
}

/// Prints what is found of these as one list, then what is not there (SVC-33).
///
/// # Errors
/// One of them is not there, or the daemon refused.
pub async fn print(
    kind: &str,
    names: &[String],
    get: impl AsyncFn(&str) -> client::Result<Box<RawValue>>,
) -> Result<()> {
    let (mut found, mut errors) = (Vec::new(), Vec::new());
    for name in names {
        match get(name).await {
            Ok(value) => found.push(value),
            Err(error) if error.is_not_found() => errors.push(format!("Error: no such {kind}: {name}")),
            Err(error @ ClientError::Refused { .. }) => errors.push(error.to_string()),
            Err(error) => return Err(error.into()),
        }
    }
    terminal::say(json::list(&found))?;
    errors.iter().for_each(|error| terminal::complain(error));
    if errors.is_empty() { Ok(()) } else { Err(Exit(FAILED).into()) }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::command::fake::{Daemon, Reply};

    /// SVC-33
    #[tokio::test]
    async fn what_is_not_there_fails_and_the_rest_is_shown() {
        let daemon = Daemon::start([("GET /services/web", Reply::Json(json!({"ID": "s1"})))]);
        let client = daemon.client();
        let get = async |name: &str| client.get(Target::new(&["services", name])).await;
        let names = ["gone", "web"].map(str::to_owned);
        let error = print("service", &names, get).await.unwrap_err();
        assert_eq!(error.downcast::<Exit>().unwrap().0, FAILED);
        assert_eq!(daemon.asked().len(), 2);
        assert!(print("service", &names[1..], get).await.is_ok());
    }

    /// A worker knows no services: what is asked for may still be a container, or nothing at all.
    #[tokio::test]
    async fn every_kind_is_tried_where_none_is_named() {
        let refused = Reply::Refuse(503, "This node is not a swarm manager.");
        let daemon = Daemon::start([
            ("GET /nodes/x", refused.clone()),
            ("GET /services/x", refused.clone()),
            ("GET /tasks/x", refused),
            ("GET /images/y/json", Reply::Json(json!({"Id": "sha256:1"}))),
        ]);
        assert!(find(None, "x", &daemon.client()).await.unwrap_err().is_not_found());
        assert_eq!(find(None, "y", &daemon.client()).await.unwrap().get(), r#"{"Id":"sha256:1"}"#);
        assert!(!find(Some("service"), "x", &daemon.client()).await.unwrap_err().is_not_found());
    }
}
