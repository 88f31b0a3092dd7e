//! `import`: a root file system becomes an image of one layer.

use std::io;

use serde_json::{Map, Value, json};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use tokio::io::AsyncRead;

use super::{
    ChangeError, Digest, ImageError, ImageStore, LayerError, Reference, StoreError,
    changes::apply_change,
    config::host_architecture,
    decode::{Expected, unpack_verified},
    load::with_bytes,
    record::Image,
};

/// Why a root file system did not become an image.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// A `--change` is wrong.
    #[error(transparent)]
    Change(#[from] ChangeError),
    /// It could not be received.
    #[error("cannot read the archive")]
    Read(#[source] io::Error),
    /// It is damaged or hostile.
    #[error("failed to register layer")]
    Layer(#[source] LayerError),
    /// What was made of it cannot be used.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// Our own files.
    #[error("cannot store the image")]
    Store(#[from] StoreError),
}

impl ImageStore {
    /// Makes an image of a tar (compressed or not). `changes` are instructions such as `CMD ["sh"]` or `ENV A=1`.
    pub async fn import(
        &self,
        archive: impl AsyncRead + Unpin + Send,
        reference: Option<&Reference>,
        changes: &[String],
        comment: &str,
    ) -> Result<Digest, ImportError> {
        let mut config = Map::new();
        for change in changes {
            apply_change(&mut config, change)?;
        }
        let draft = self.layers.draft();
        let unpacking = with_bytes(archive, move |bytes| {
            std::fs::create_dir(&draft.0).map_err(LayerError::Read)?;
            unpack_verified(bytes, Expected::default(), &draft.0).map(|unpacked| (draft, unpacked))
        });
        let unpacked = unpacking.await.map_err(ImportError::Read)?;
        let (draft, (diff_id, unpacked)) = unpacked.map_err(ImportError::Layer)?;
        let claim = self.change(move |catalog| catalog.claim(vec![diff_id])).await;
        let gate = self.arriving(diff_id).await;
        if !self.has_layer(diff_id).await {
            self.settle(&claim, 0, diff_id, draft, unpacked).await?;
        }
        drop(gate);
        let image = Image::usable(configuration(config, diff_id, comment), 1)?;
        let id = image.id;
        self.add(image, reference.cloned().into_iter().collect()).await?;
        Ok(id)
    }
}

fn configuration(config: Map<String, Value>, diff_id: Digest, comment: &str) -> String {
    let created = OffsetDateTime::now_utc().format(&Rfc3339).unwrap_or_default();
    json!({
        "architecture": host_architecture(),
        "os": "linux",
        "created": created,
        "config": config,
        "rootfs": { "type": "layers", "diff_ids": [diff_id] },
        "history": [{ "created": created, "comment": comment }],
    })
    .to_string()
}
