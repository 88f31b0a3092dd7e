//! `--mount type=bind,source=/data,target=/srv,readonly`, as the API has it.

use anyhow::{Result, anyhow, bail};
use serde_json::{Map, Value, json};

use super::quantity::Bytes;

/// The mount that `text` describes.
///
/// # Errors
/// An unknown key, a missing target, or a kind of mount that is not there yet.
pub fn parse(text: &str) -> Result<Value> {
    let mut mount = Map::new();
    let mut tmpfs = Map::new();
    for field in text.split(',') {
        let (key, value) = field.split_once('=').map_or((field, None), |(key, value)| (key, Some(value)));
        let needed = || {
            value.filter(|v| !v.is_empty()).ok_or_else(|| anyhow!("--mount {text}: '{key}' needs a value"))
        };
        match key {
            "type" => insert(&mut mount, "Type", json!(needed()?)),
            "source" | "src" => insert(&mut mount, "Source", json!(needed()?)),
            "target" | "dst" | "destination" => insert(&mut mount, "Target", json!(needed()?)),
            "readonly" | "ro" => insert(&mut mount, "ReadOnly", json!(switch(text, key, value)?)),
            "tmpfs-size" => insert(&mut tmpfs, "SizeBytes", json!(needed()?.parse::<Bytes>()?.0)),
            "tmpfs-mode" => insert(&mut tmpfs, "Mode", json!(mode(text, needed()?)?)),
            _ => bail!(
                "--mount {text}: unknown key '{key}'; known are type, source, target, readonly, tmpfs-size and tmpfs-mode"
            ),
        }
    }
    check(text, &mount, tmpfs.is_empty())?;
    if !tmpfs.is_empty() {
        insert(&mut mount, "TmpfsOptions", Value::Object(tmpfs));
    }
    Ok(Value::Object(mount))
}

fn check(text: &str, mount: &Map<String, Value>, plain: bool) -> Result<()> {
    let kind = mount.get("Type").and_then(Value::as_str).unwrap_or("volume");
    match (kind, mount.contains_key("Source")) {
        ("bind", false) => bail!("--mount {text}: a bind mount needs a source, a path of the host"),
        ("tmpfs", true) => bail!("--mount {text}: a tmpfs mount has no source"),
        ("bind" | "tmpfs", _) => {}
        ("volume", _) => bail!("not yet: volumes; use --mount type=bind or type=tmpfs"),
        _ => bail!("--mount {text}: the type is bind or tmpfs"),
    }
    if !mount.contains_key("Target") {
        bail!("--mount {text}: the target is missing, a path in the container");
    }
    if kind != "tmpfs" && !plain {
        bail!("--mount {text}: tmpfs-size and tmpfs-mode belong to type=tmpfs");
    }
    Ok(())
}

fn insert(map: &mut Map<String, Value>, key: &str, value: Value) {
    map.insert(key.to_owned(), value);
}

fn switch(text: &str, key: &str, value: Option<&str>) -> Result<bool> {
    match value {
        None | Some("true" | "1") => Ok(true),
        Some("false" | "0") => Ok(false),
        Some(other) => bail!("--mount {text}: '{key}' is true or false, not {other}"),
    }
}

fn mode(text: &str, value: &str) -> Result<u32> {
    u32::from_str_radix(value, 8).map_err(|_| anyhow!("--mount {text}: 'tmpfs-mode' is octal, such as 1777"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_are_read() {
        assert_eq!(
            parse("type=bind,src=/data,dst=/srv,readonly").unwrap(),
            json!({"Type": "bind", "Source": "/data", "Target": "/srv", "ReadOnly": true})
        );
        assert_eq!(
            parse("type=tmpfs,target=/tmp,tmpfs-size=64m,tmpfs-mode=1777").unwrap(),
            json!({"Type": "tmpfs", "Target": "/tmp", "TmpfsOptions": {"SizeBytes": 67_108_864, "Mode": 0o1777}})
        );
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (text, word) in [
            ("type=bind,target=/srv", "source"),
            ("type=bind,source=/data", "target"),
            ("type=tmpfs,source=/x,target=/tmp", "no source"),
            ("type=volume,source=v,target=/srv", "not yet"),
            ("source=v,target=/srv", "not yet"),
            ("type=bind,source=,target=/srv", "needs a value"),
            ("type=bind,source=/a,target=/b,colour=red", "colour"),
            ("type=bind,source=/a,target=/b,tmpfs-size=1m", "belong to"),
            ("type=tmpfs,target=/b,tmpfs-mode=9", "octal"),
        ] {
            let error = parse(text).unwrap_err().to_string();
            assert!(error.contains(word), "{text}: {error}");
        }
    }
}
