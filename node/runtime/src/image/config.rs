//! The configuration of an image: what the store and the runtime read of it. Everything else stays raw JSON.

use std::{collections::BTreeMap, time::Duration};

use covey_state::container::HealthCheck;
use serde::{Deserialize, Deserializer};

use super::Digest;

/// What a container takes from its image where its own spec says nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ImageDefaults {
    /// `KEY=VALUE`.
    #[serde(deserialize_with = "or_default")]
    pub env: Vec<String>,
    /// The entry point's words.
    #[serde(deserialize_with = "or_default")]
    pub entrypoint: Vec<String>,
    /// Arguments of the entry point, or the command where there is none.
    #[serde(deserialize_with = "or_default")]
    pub cmd: Vec<String>,
    /// `name|uid[:group|gid]`; empty: root.
    #[serde(deserialize_with = "or_default")]
    pub user: String,
    /// Empty: `/`.
    #[serde(rename = "WorkingDir", deserialize_with = "or_default")]
    pub workdir: String,
    /// `SIGTERM`, `15`; empty: `SIGTERM`.
    #[serde(deserialize_with = "or_default")]
    pub stop_signal: String,
    /// Labels.
    #[serde(deserialize_with = "or_default")]
    pub labels: BTreeMap<String, String>,
    /// `80/tcp`.
    #[serde(deserialize_with = "keys")]
    pub exposed_ports: Vec<String>,
    /// How a container of it is checked.
    #[serde(rename = "Healthcheck", deserialize_with = "health_check")]
    pub health_check: HealthCheck,
    /// Absolute paths that want an anonymous volume each.
    #[serde(deserialize_with = "keys")]
    pub volumes: Vec<String>,
}

/// The parts of an image's configuration that the store itself needs.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct ImageConfig {
    /// RFC 3339.
    #[serde(default, deserialize_with = "or_default")]
    pub created: String,
    #[serde(default, deserialize_with = "or_default")]
    pub architecture: String,
    #[serde(default, deserialize_with = "or_default")]
    pub os: String,
    #[serde(default, deserialize_with = "or_default")]
    pub config: ImageDefaults,
    pub rootfs: RootfsDigests,
    #[serde(default, deserialize_with = "or_default")]
    pub history: Vec<Step>,
}

/// The layers, lowest first, each by the digest of its uncompressed tar.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct RootfsDigests {
    #[serde(default, deserialize_with = "or_default")]
    pub diff_ids: Vec<Digest>,
}

/// One step of an image's making.
#[derive(Clone, Debug, Default, Deserialize)]
pub(super) struct Step {
    #[serde(default)]
    pub created: String,
    #[serde(default)]
    pub created_by: String,
    #[serde(default)]
    pub comment: String,
    #[serde(default)]
    pub empty_layer: bool,
}

/// `null` is written by other tools where nothing is meant.
fn or_default<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(from: D) -> Result<T, D::Error> {
    Ok(Option::deserialize(from)?.unwrap_or_default())
}

/// As Docker's builder writes it, times in nanoseconds. One that cannot be is none: an image is used as it came.
fn health_check<'de, D: Deserializer<'de>>(from: D) -> Result<HealthCheck, D::Error> {
    #[derive(Default, Deserialize)]
    #[serde(rename_all = "PascalCase", default)]
    struct Written {
        #[serde(deserialize_with = "or_default")]
        test: Vec<String>,
        interval: u64,
        timeout: u64,
        start_period: u64,
        start_interval: u64,
        retries: u32,
    }
    let written = Written::deserialize(serde_json::Value::deserialize(from)?).unwrap_or_default();
    let check = HealthCheck {
        test: written.test,
        interval: Duration::from_nanos(written.interval),
        timeout: Duration::from_nanos(written.timeout),
        start_period: Duration::from_nanos(written.start_period),
        start_interval: Duration::from_nanos(written.start_interval),
        retries: written.retries,
    };
    Ok(if check.check().is_ok() { check } else { HealthCheck::default() })
}

/// Sets are written as objects whose values are empty.
fn keys<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<String>, D::Error> {
    let set: Option<BTreeMap<String, serde::de::IgnoredAny>> = Option::deserialize(from)?;
    Ok(set.unwrap_or_default().into_keys().collect())
}

/// The name of a stack of layers: each layer's name covers all below it, since an unpacked directory depends on them
/// (it takes the metadata of directories that its tar only implies from below).
pub(super) fn chain_ids(diff_ids: &[Digest]) -> Vec<Digest> {
    let mut chain: Vec<Digest> = Vec::with_capacity(diff_ids.len());
    for diff_id in diff_ids {
        chain.push(match chain.last() {
            Some(below) => Digest::of(format!("{below} {diff_id}").as_bytes()),
            None => *diff_id,
        });
    }
    chain
}

/// This machine's architecture in the image format's words.
pub(super) fn host_architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "x86" => "386",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// CTR-02
    #[test]
    fn a_configuration_is_read_with_its_nulls_and_unknown_fields() {
        let config: ImageConfig = serde_json::from_str(
            r#"{"architecture":"amd64","os":"linux","config":{"Env":["A=1"],"Cmd":["sh"],"Entrypoint":null,
                "ExposedPorts":{"80/tcp":{}},"Volumes":null,"Healthcheck":{"Test":["CMD","x"]},"WorkingDir":"/w"},
                "rootfs":{"type":"layers","diff_ids":null},"history":null}"#,
        )
        .unwrap();
        let expected = ImageDefaults {
            env: vec!["A=1".into()],
            cmd: vec!["sh".into()],
            exposed_ports: vec!["80/tcp".into()],
            workdir: "/w".into(),
            health_check: HealthCheck { test: vec!["CMD".into(), "x".into()], ..HealthCheck::default() },
            ..ImageDefaults::default()
        };
        assert_eq!(config.config, expected);
        assert!(config.rootfs.diff_ids.is_empty());
    }

    /// TSK-14
    #[test]
    fn a_health_check_is_read_with_its_times_and_one_that_cannot_be_is_none() {
        let read = |text: &str| serde_json::from_str::<ImageDefaults>(text).unwrap().health_check;
        let check = read(r#"{"Healthcheck":{"Test":["CMD-SHELL","x"],"Interval":2000000000,"Retries":5}}"#);
        assert_eq!((check.interval, check.retries), (Duration::from_secs(2), 5));
        for none in [
            r#"{"Healthcheck":null}"#,
            r#"{"Healthcheck":{"Test":["RUN"],"Retries":5}}"#,
            r#"{"Healthcheck":{"Interval":-1,"Test":["CMD","x"]}}"#,
        ] {
            assert_eq!(read(none), HealthCheck::default());
        }
    }

    #[test]
    fn a_chain_id_covers_the_layers_below() {
        let [a, b] = [Digest::of(b"a"), Digest::of(b"b")];
        let chain = chain_ids(&[a, b]);
        assert_eq!(chain[0], a);
        assert_eq!(chain[1], Digest::of(format!("{a} {b}").as_bytes()));
        assert_ne!(chain_ids(&[b, a])[1], chain[1]);
    }
}
