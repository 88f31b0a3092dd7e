//! Images: shown, named and removed.

use std::collections::BTreeMap;

use covey_api::{
    Failure,
    engine::{EventKind, Image, ImageRemoved},
};
use covey_runtime::{
    Container, ContainerState,
    image::{Digest, ImageDefaults, ImageDetails, ImageUse, Reference, Removal},
};
use covey_state::{service::Platform, time::Stamp};
use serde::Deserialize as _;
use serde_json::Value;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use super::{LocalEngine, failure};

impl LocalEngine {
    pub(super) async fn list_images(&self) -> Result<Vec<Image>, Failure> {
        let mut images = Vec::new();
        for summary in self.images.list().await {
            // One that is removed meanwhile is not there.
            if let Ok(details) = self.images.inspect(&summary.id.to_string()).await {
                images.push(to_api(details));
            }
        }
        Ok(images)
    }

    pub(super) async fn tag_image(&self, image: String, name: String) -> Result<(), Failure> {
        let name = name.parse::<Reference>().map_err(failure::reference)?;
        let details = self.images.inspect(&image).await.map_err(failure::image_lookup)?;
        let id = details.summary.id.to_string();
        // By id, so that it is the image that was looked at.
        self.images.tag(&id, &name).await.map_err(failure::tag)?;
        self.events.tell(EventKind::Image, "tag", id, name.to_string(), details.summary.labels);
        Ok(())
    }

    pub(super) async fn remove_image(
        &self,
        reference: String,
        force: bool,
    ) -> Result<Vec<ImageRemoved>, Failure> {
        let details = self.images.inspect(&reference).await.map_err(failure::image_lookup)?;
        let (id, labels) = (details.summary.id, details.summary.labels);
        // Listed before: the store is locked while it asks.
        let users = users(&self.runtime.list());
        let in_use = move |image: Digest| users.get(&image.to_string()).cloned();
        let removals = self.images.remove(&reference, force, in_use).await.map_err(failure::image_remove)?;
        let tell = |action| {
            self.events.tell(EventKind::Image, action, id.to_string(), id.to_string(), labels.clone())
        };
        let removed = removals.into_iter().map(|removal| match removal {
            Removal::Untagged(name) => {
                tell("untag");
                ImageRemoved::Untagged(name)
            }
            Removal::Deleted(digest) => {
                // The others are its layers.
                if digest == id {
                    tell("delete");
                }
                ImageRemoved::Deleted(digest.to_string())
            }
        });
        Ok(removed.collect())
    }

    /// Tells of the image `id`, with its labels; `shown` is what the event is about.
    pub(super) async fn tell_image(&self, action: &str, id: &str, shown: String, name: String) {
        let labels = self.images.inspect(id).await.map(|details| details.summary.labels).unwrap_or_default();
        self.events.tell(EventKind::Image, action, shown, name, labels);
    }
}

/// For each image in use one of the containers that stand on it, a running one where there is one.
fn users(containers: &[Container]) -> BTreeMap<String, ImageUse> {
    let mut users: BTreeMap<String, ImageUse> = BTreeMap::new();
    for container in containers {
        let running = container.state == ContainerState::Running;
        if running || !users.contains_key(&container.image.id) {
            let user = ImageUse { container: container.id.short().to_owned(), running };
            users.insert(container.image.id.clone(), user);
        }
    }
    users
}

/// An image as the API shows it.
pub(super) fn to_api(details: ImageDetails) -> Image {
    let config = details.config.get("config").and_then(|config| ImageDefaults::deserialize(config).ok());
    let config = config.unwrap_or_default();
    Image {
        id: details.summary.id.to_string(),
        tags: details.summary.tags,
        digests: details.summary.digests,
        created_at: stamp(&details.summary.created),
        size: details.summary.size,
        platform: Platform { os: details.os, architecture: details.architecture },
        author: details.config.get("author").and_then(Value::as_str).unwrap_or_default().to_owned(),
        labels: details.summary.labels,
        env: config.env,
        entrypoint: config.entrypoint,
        cmd: config.cmd,
        workdir: config.workdir,
        user: config.user,
        stop_signal: config.stop_signal,
        health_check: config.health_check,
        exposed_ports: config.exposed_ports,
        volumes: config.volumes,
        layers: details.diff_ids.iter().map(ToString::to_string).collect(),
    }
}

/// RFC 3339 as images write it. Those that say nothing, or the year 1, count as made in 1970.
fn stamp(text: &str) -> Stamp {
    let moment = OffsetDateTime::parse(text, &Rfc3339).ok();
    Stamp(moment.and_then(|moment| i64::try_from(moment.unix_timestamp_nanos()).ok()).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use covey_runtime::image::ImageSummary;
    use serde_json::json;

    use super::*;

    #[test]
    fn times_of_images_are_read_to_the_nanosecond() {
        for (text, nanos) in [
            ("1970-01-01T00:00:01Z", 1_000_000_000),
            ("2024-02-29T12:00:00.123456789Z", 1_709_208_000_123_456_789),
            ("1970-01-01T02:00:00+02:00", 0),
            ("0001-01-01T00:00:00Z", 0),
            ("", 0),
            ("yesterday", 0),
        ] {
            assert_eq!(stamp(text), Stamp(nanos), "{text}");
        }
    }

    /// CTR-06
    #[test]
    fn an_image_is_shown_with_what_its_configuration_says() {
        let id = Digest::of(b"image");
        let details = |config| ImageDetails {
            summary: ImageSummary {
                id,
                tags: vec!["x:latest".into()],
                digests: vec![],
                size: 7,
                created: "1970-01-01T00:00:00.000000005Z".into(),
                labels: BTreeMap::new(),
            },
            architecture: "amd64".into(),
            os: "linux".into(),
            diff_ids: vec![id],
            config,
        };
        let image = to_api(details(json!({
            "author": "me",
            "config": {"Cmd": ["sh"], "Env": null, "ExposedPorts": {"80/tcp": {}}, "WorkingDir": "/w"},
        })));
        assert_eq!((image.id, image.layers), (id.to_string(), vec![id.to_string()]));
        assert_eq!((image.author.as_str(), image.workdir.as_str(), image.created_at), ("me", "/w", Stamp(5)));
        assert_eq!((image.cmd, image.exposed_ports), (vec!["sh".to_owned()], vec!["80/tcp".to_owned()]));
        assert_eq!(to_api(details(json!({"config": null}))).cmd, Vec::<String>::new());
    }
}
