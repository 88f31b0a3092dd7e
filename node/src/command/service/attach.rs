//! `--network` of services: which networks, and under which further names (NET-18).

use anyhow::{Result, anyhow, bail};
use serde_json::{Value, json};

use crate::client::{Client, Target, model::Network};

/// A network as the user names it.
#[derive(Debug, PartialEq, Eq)]
struct Wish<'a> {
    network: &'a str,
    aliases: Vec<&'a str>,
}

/// `NAME`, or `name=NAME,alias=…,alias=…`.
fn parse(text: &str) -> Result<Wish<'_>> {
    if !text.contains('=') {
        return Ok(Wish { network: text, aliases: Vec::new() });
    }
    let mut wish = Wish { network: "", aliases: Vec::new() };
    for field in text.split(',') {
        let (key, value) = field
            .split_once('=')
            .filter(|(_, value)| !value.is_empty())
            .ok_or_else(|| anyhow!("--network {text}: '{field}' has to have the form KEY=VALUE"))?;
        match key.trim() {
            "name" => wish.network = value,
            "alias" => wish.aliases.push(value),
            key => bail!("--network {text}: invalid field key: {key}; known are name and alias"),
        }
    }
    if wish.network.is_empty() {
        bail!("--network {text}: missing mandatory field \"name\", the network");
    }
    Ok(wish)
}

/// The networks as the spec of a service has them, by id.
///
/// # Errors
/// One cannot be read, or the cluster has none of this name.
pub async fn resolve(texts: &[String], client: &Client) -> Result<Vec<Value>> {
    let mut attached = Vec::<Value>::new();
    for text in texts {
        let wish = parse(text)?;
        let id = id(wish.network, client).await?;
        if attached.iter().any(|other| other["Target"] == *id) {
            bail!("--network {text}: network {} is named twice; name it once", wish.network);
        }
        let mut entry = json!({"Target": id});
        if !wish.aliases.is_empty() {
            entry["Aliases"] = json!(wish.aliases);
        }
        attached.push(entry);
    }
    Ok(attached)
}

/// Attaches `add` and detaches `remove`, in a spec as the daemon sent it.
///
/// # Errors
/// As `resolve`; the service is on a network of `add` already, or on none of a name of `remove`.
pub async fn change(spec: &mut Value, add: &[String], remove: &[String], client: &Client) -> Result<()> {
    let add_ids = resolve(add, client).await?;
    let mut attached =
        spec.pointer("/TaskTemplate/Networks").and_then(Value::as_array).cloned().unwrap_or_default();
    for name in remove {
        // A network whose name is gone is still known by its id.
        let id = match attached.iter().any(|entry| entry["Target"] == **name) {
            true => name.clone(),
            false => id(name, client).await?,
        };
        let before = attached.len();
        attached.retain(|entry| entry["Target"] != *id);
        if attached.len() == before {
            bail!(
                "service is not attached to network {name}: see its networks with 'covey service inspect --pretty'"
            );
        }
    }
    for (entry, text) in add_ids.into_iter().zip(add) {
        if attached.iter().any(|other| other["Target"] == entry["Target"]) {
            bail!("service is already attached to network {}", parse(text)?.network);
        }
        attached.push(entry);
    }
    if !(add.is_empty() && remove.is_empty()) {
        *super::edit::at(spec, "TaskTemplate/Networks") = Value::Array(attached);
    }
    Ok(())
}

async fn id(name: &str, client: &Client) -> Result<String> {
    let target = Target::new(&["networks", name]).with("scope", "swarm");
    Ok(client.get::<Network>(target).await?.id)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::fake::{Daemon, Reply};

    fn texts(words: &[&str]) -> Vec<String> {
        words.iter().map(|&word| word.to_owned()).collect()
    }

    fn daemon() -> Daemon {
        Daemon::start([
            ("GET /networks/front", Reply::Json(json!({"Id": "n1"}))),
            ("GET /networks/back", Reply::Json(json!({"Id": "n2"}))),
        ])
    }

    /// NET-18
    #[tokio::test]
    async fn networks_are_known_to_the_spec_by_id() {
        let daemon = daemon();
        let attached = resolve(&texts(&["front", "name=back,alias=db,alias=sql"]), &daemon.client()).await;
        let expected = vec![json!({"Target": "n1"}), json!({"Target": "n2", "Aliases": ["db", "sql"]})];
        assert_eq!(attached.unwrap(), expected);
        assert_eq!(daemon.asked()[0].0, "GET /networks/front?scope=swarm");
    }

    #[tokio::test]
    async fn what_cannot_be_attached_has_one_clear_error() {
        let daemon = daemon();
        let client = daemon.client();
        for (words, part) in [
            (&["front", "front"][..], "named twice"),
            (&["name=front,colour=red"], "invalid field key: colour"),
            (&["alias=db"], "missing mandatory field \"name\""),
            (&["name=front,alias"], "'alias' has to have the form KEY=VALUE"),
        ] {
            let error = resolve(&texts(words), &client).await.unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
        }
    }

    #[tokio::test]
    async fn networks_come_and_go() {
        let daemon = daemon();
        let client = daemon.client();
        let mut spec = json!({"TaskTemplate": {"Networks": [{"Target": "n1"}, {"Target": "gone"}]}});
        change(&mut spec, &texts(&["back"]), &texts(&["front", "gone"]), &client).await.unwrap();
        assert_eq!(spec["TaskTemplate"]["Networks"], json!([{"Target": "n2"}]));
        let error = change(&mut spec, &texts(&["back"]), &[], &client).await.unwrap_err();
        assert_eq!(error.to_string(), "service is already attached to network back");
        assert!(change(&mut spec, &[], &texts(&["front"]), &client).await.is_err());
        let mut untouched = json!({});
        change(&mut untouched, &[], &[], &client).await.unwrap();
        assert_eq!(untouched, json!({}));
    }
}
