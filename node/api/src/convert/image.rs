//! Images.

use super::health;
use crate::{
    engine::{Image, ImageRemoved, Resolved},
    wire::{Empty, NEVER, Time, image as wire},
};

/// An image in a list; `containers` use it.
pub fn summary(image: &Image, containers: usize) -> wire::Summary {
    wire::Summary {
        id: image.id.clone(),
        parent_id: "",
        repo_tags: image.tags.clone(),
        repo_digests: image.digests.clone(),
        created: image.created_at.0.div_euclid(1_000_000_000),
        size: image.size,
        shared_size: -1,
        virtual_size: image.size,
        labels: image.labels.clone(),
        containers: i64::try_from(containers).unwrap_or(i64::MAX),
    }
}

/// An image by itself.
pub fn inspect(image: &Image) -> wire::Inspect {
    let present = |names: &[String]| names.iter().map(|name| (name.clone(), Empty {})).collect();
    wire::Inspect {
        id: image.id.clone(),
        repo_tags: image.tags.clone(),
        repo_digests: image.digests.clone(),
        parent: "",
        comment: "",
        created: Time(image.created_at),
        docker_version: "",
        author: image.author.clone(),
        config: wire::Config {
            user: image.user.clone(),
            exposed_ports: present(&image.exposed_ports),
            env: image.env.clone(),
            cmd: image.cmd.clone(),
            volumes: present(&image.volumes),
            working_dir: image.workdir.clone(),
            entrypoint: (!image.entrypoint.is_empty()).then(|| image.entrypoint.clone()),
            labels: image.labels.clone(),
            stop_signal: image.stop_signal.clone(),
            healthcheck: health::to_wire(&image.health_check),
        },
        architecture: image.platform.architecture.clone(),
        os: image.platform.os.clone(),
        size: image.size,
        virtual_size: image.size,
        root_fs: wire::RootFs { kind: "layers", layers: image.layers.clone() },
        metadata: wire::Metadata { last_tag_time: NEVER },
    }
}

/// What a removal did.
pub fn removed(step: ImageRemoved) -> wire::Removed {
    match step {
        ImageRemoved::Untagged(name) => wire::Removed { untagged: Some(name), deleted: None },
        ImageRemoved::Deleted(id) => wire::Removed { untagged: None, deleted: Some(id) },
    }
}

/// What a reference means at its registry.
pub fn distribution(resolved: Resolved) -> wire::Distribution {
    let platforms = resolved.platforms.into_iter();
    wire::Distribution {
        descriptor: wire::Descriptor {
            media_type: resolved.media_type,
            digest: resolved.digest,
            size: resolved.size,
        },
        platforms: platforms.map(|p| wire::Platform { architecture: p.architecture, os: p.os }).collect(),
    }
}

#[cfg(test)]
mod tests {
    use covey_state::container::HealthCheck;
    use serde_json::json;

    use super::*;

    /// TSK-14
    #[test]
    fn an_image_shows_the_health_check_that_it_has() {
        let check =
            HealthCheck { test: vec!["CMD".into(), "ok".into()], retries: 5, ..HealthCheck::default() };
        let shown = |image: &Image| json!(inspect(image).config).get("Healthcheck").cloned();
        let image = Image { health_check: check, ..Image::default() };
        assert_eq!(shown(&image), Some(json!({"Test": ["CMD", "ok"], "Retries": 5})));
        assert_eq!(shown(&Image::default()), None);
    }
}
