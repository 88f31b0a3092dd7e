//! The image of a service, pinned to what its name means at the registry now (SVC-06, SVC-07, SVC-08).

use anyhow::Result;
use covey_runtime::image::Reference;
use serde_json::{Value, json};

use super::edit::at;
use crate::{
    client::{Client, ClientError, Target, model::Distribution},
    command::{image::with_tag, terminal},
};

/// Writes `name` into the spec, with its digest and its platforms where the registry can be asked.
///
/// # Errors
/// The daemon cannot be reached.
pub async fn set(spec: &mut Value, name: &str, resolve: bool, client: &Client) -> Result<()> {
    let name = with_tag(name);
    let mut pinned = None;
    if resolve {
        match client.get::<Distribution>(Target::new(&["distribution", &name, "json"])).await {
            Ok(found) => pinned = pin(&name, &found),
            Err(ClientError::Refused { .. }) => {}
            Err(error) => return Err(error.into()),
        }
        if pinned.is_none() {
            terminal::complain(&warning(&name));
        }
    }
    let (image, platforms) = pinned.unwrap_or((name, Vec::new()));
    *at(spec, "TaskTemplate/ContainerSpec/Image") = json!(image);
    // Those of the image before do not hold for this one.
    if !platforms.is_empty() || spec.pointer("/TaskTemplate/Placement/Platforms").is_some() {
        *at(spec, "TaskTemplate/Placement/Platforms") = json!(platforms);
    }
    Ok(())
}

/// The name with its digest, and the platforms in the words of a spec.
fn pin(name: &str, found: &Distribution) -> Option<(String, Vec<Value>)> {
    let reference: Reference = name.parse().ok()?;
    let digest = found.descriptor.digest.parse().ok()?;
    let pinned = if reference.digest().is_some() { reference } else { reference.pinned(digest) };
    let platform = |of: &Value| json!({"Architecture": of["architecture"], "OS": of["os"]});
    Some((pinned.to_string(), found.platforms.iter().map(platform).collect()))
}

fn warning(image: &str) -> String {
    format!(
        "image {image} could not be accessed on a registry to record\n\
         its digest. Each node will access {image} independently,\n\
         possibly leading to different nodes running different\n\
         versions of the image.\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::fake::{Daemon, Reply};

    /// SVC-06, SVC-08
    #[tokio::test]
    async fn a_tag_is_pinned_to_its_digest() {
        let digest = format!("sha256:{}", "a1".repeat(32));
        let found = json!({"Descriptor": {"digest": digest}, "Platforms": [{"architecture": "amd64", "os": "linux"}]});
        let daemon = Daemon::start([("GET /distribution/mysql:latest/json", Reply::Json(found))]);
        let mut spec = json!({"TaskTemplate": {"ContainerSpec": {"Image": "old", "Env": ["A=1"]}}});
        set(&mut spec, "mysql", true, &daemon.client()).await.unwrap();
        assert_eq!(
            spec,
            json!({"TaskTemplate": {
                "ContainerSpec": {"Image": format!("mysql:latest@{digest}"), "Env": ["A=1"]},
                "Placement": {"Platforms": [{"Architecture": "amd64", "OS": "linux"}]},
            }})
        );
    }

    /// SVC-07
    #[tokio::test]
    async fn a_registry_that_cannot_be_asked_is_no_obstacle() {
        let daemon =
            Daemon::start([("GET /distribution/mysql:5.9/json", Reply::Refuse(500, "no route to host"))]);
        let mut spec = json!({"TaskTemplate": {"Placement": {"Platforms": [{"OS": "linux"}]}}});
        set(&mut spec, "mysql:5.9", true, &daemon.client()).await.unwrap();
        assert_eq!(spec["TaskTemplate"]["ContainerSpec"]["Image"], "mysql:5.9");
        assert_eq!(spec["TaskTemplate"]["Placement"]["Platforms"], json!([]));
        assert!(
            warning("mysql:5.9")
                .starts_with("image mysql:5.9 could not be accessed on a registry to record\nits digest.")
        );
    }
}
