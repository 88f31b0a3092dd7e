//! `load`: images out of an archive, be it Docker's or an OCI layout.

use std::{fs::File, io, path::Path, sync::Arc};

use serde::{Deserialize, de::DeserializeOwned};
use tokio::io::{AsyncRead, AsyncReadExt as _};

use super::{
    Digest, ImageError, ImageStore, LayerError, Progress, ProgressSink, Reference, StoreError,
    archive::{Archive, Content},
    config::{chain_ids, host_architecture},
    decode::{Expected, decompress, unpack_verified},
    record::Image,
    registry::{CONFIG_MAX, Descriptor, MANIFEST_MAX, Manifest, for_this_machine},
    stage::{Fed, Feed, feed},
    store::blocking,
};

/// Bytes of an archive, decompressed.
const ARCHIVE_MAX: u64 = 64 << 30;
/// Bytes read at once from whoever sends an archive.
const CHUNK: usize = 64 << 10;
/// Docker's table of contents.
const DOCKER: &str = "manifest.json";
/// An OCI layout's.
const OCI: &str = "index.json";
/// How layouts carry an image's whole name.
const NAME: &str = "io.containerd.image.name";
/// How they carry a name or only a tag.
const REF_NAME: &str = "org.opencontainers.image.ref.name";

/// Why an archive gives no images. Those loaded before the error stay.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// It could not be received or is no archive.
    #[error("cannot read the archive")]
    Read(#[source] io::Error),
    /// It has no table of contents.
    #[error("not an image archive: it has neither {DOCKER} nor {OCI}")]
    NoImages,
    /// It has no image for this machine.
    #[error("the archive has no image for linux/{architecture}", architecture = host_architecture())]
    Platform,
    /// A member is missing.
    #[error("the archive lacks {0}")]
    Missing(String),
    /// A member is not what it should be.
    #[error("{member} in the archive is not understood")]
    Member {
        /// Its path.
        member: String,
        /// Why.
        source: io::Error,
    },
    /// An image cannot be used.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// A layer is damaged or hostile.
    #[error("failed to register layer {layer}")]
    Layer {
        /// Its path.
        layer: String,
        /// Why.
        source: LayerError,
    },
    /// Our own files.
    #[error("cannot store the image")]
    Store(#[from] StoreError),
}

/// An image that is there now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loaded {
    /// Its id.
    pub id: Digest,
    /// The names that the archive gives it.
    pub tags: Vec<Reference>,
}

impl ImageStore {
    /// Reads an archive (compressed or not) to its end and adds its images.
    pub async fn load(
        &self,
        archive: impl AsyncRead + Unpin + Send,
        progress: ProgressSink,
    ) -> Result<Vec<Loaded>, LoadError> {
        let draft = self.layers.draft();
        let path = draft.0.clone();
        let spooled = with_bytes(archive, move |bytes| spool(bytes, &path)).await;
        let file = spooled.map_err(LoadError::Read)?.map_err(LoadError::Read)?;
        let (archive, images) = blocking(move || {
            let archive = Archive::open(file).map_err(LoadError::Read)?;
            contents(&archive).map(|images| (Arc::new(archive), images))
        })
        .await?;
        let mut loaded = Vec::new();
        for packed in images {
            loaded.push(self.add_packed(&archive, packed, &progress).await?);
        }
        drop(draft);
        Ok(loaded)
    }

    async fn add_packed(
        &self,
        archive: &Arc<Archive>,
        packed: Packed,
        progress: &ProgressSink,
    ) -> Result<Loaded, LoadError> {
        let image = Image::usable(packed.config, packed.layers.len())?;
        let diff_ids = image.config.rootfs.diff_ids.clone();
        let chain = chain_ids(&diff_ids);
        let chain = self.change(move |catalog| catalog.claim(chain)).await;
        for (index, layer) in packed.layers.into_iter().enumerate() {
            let expected = Expected { diff_id: Some(diff_ids[index]), ..layer.expected };
            let content =
                archive.content(&layer.path).ok_or_else(|| LoadError::Missing(layer.path.clone()))?;
            let short = diff_ids[index].short();
            let size = content.len();
            progress(Progress::bar(&short, "Loading layer", 0, size));
            self.add_layer(content, expected, &chain, index)
                .await?
                .map_err(|source| LoadError::Layer { layer: layer.path, source })?;
            progress(Progress::bar(&short, "Loading layer", size, size));
        }
        let (id, tags) = (image.id, packed.names);
        self.add(image, tags.clone()).await?;
        for tag in &tags {
            progress(Progress::line(format!("Loaded image: {tag}")));
        }
        if tags.is_empty() {
            progress(Progress::line(format!("Loaded image ID: {id}")));
        }
        Ok(Loaded { id, tags })
    }

    async fn add_layer(
        &self,
        content: Content,
        expected: Expected,
        chain: &[Digest],
        index: usize,
    ) -> Result<Result<(), LayerError>, StoreError> {
        let _gate = self.arriving(chain[index]).await;
        if self.has_layer(chain[index]).await {
            return Ok(Ok(()));
        }
        let draft = self.layers.draft();
        let unpacked = blocking(move || {
            std::fs::create_dir(&draft.0).map_err(LayerError::Read)?;
            unpack_verified(content, expected, &draft.0).map(|(diff_id, unpacked)| (draft, diff_id, unpacked))
        });
        match unpacked.await {
            Ok((draft, diff_id, unpacked)) => {
                self.settle(chain, index, diff_id, draft, unpacked).await.map(Ok)
            }
            Err(error) => Ok(Err(error)),
        }
    }
}

/// Runs blocking work on bytes while they arrive. The outer error is the sender's.
pub(super) async fn with_bytes<T: Send + 'static>(
    mut source: impl AsyncRead + Unpin + Send,
    work: impl FnOnce(Fed) -> T + Send + 'static,
) -> io::Result<T> {
    let (feed, fed) = feed();
    let (sent, done) = tokio::join!(send(&mut source, feed), blocking(move || work(fed)));
    sent.map(|()| done)
}

async fn send(source: &mut (impl AsyncRead + Unpin), feed: Feed) -> io::Result<()> {
    loop {
        let mut chunk = bytes::BytesMut::with_capacity(CHUNK);
        if source.read_buf(&mut chunk).await? == 0 {
            feed.end().await;
            return Ok(());
        }
        if !feed.send(chunk.freeze()).await {
            return Ok(());
        }
    }
}

fn spool(bytes: Fed, path: &Path) -> io::Result<File> {
    let mut file = File::options().read(true).write(true).create_new(true).open(path)?;
    let mut bytes = std::io::Read::take(decompress(bytes)?, ARCHIVE_MAX + 1);
    if io::copy(&mut bytes, &mut file)? > ARCHIVE_MAX {
        return Err(io::Error::other(format!("more than {ARCHIVE_MAX} bytes")));
    }
    Ok(file)
}

/// An image inside an archive.
struct Packed {
    config: String,
    layers: Vec<PackedLayer>,
    names: Vec<Reference>,
}

struct PackedLayer {
    path: String,
    expected: Expected,
}

/// A line of Docker's table of contents.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DockerImage {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

#[derive(Deserialize)]
struct Index {
    manifests: Vec<Descriptor>,
}

/// The images of an archive. Newer archives of Docker have both tables; its own has the full names.
fn contents(archive: &Archive) -> Result<Vec<Packed>, LoadError> {
    if archive.content(DOCKER).is_some() {
        let images: Vec<DockerImage> = json(archive, DOCKER)?;
        return images.into_iter().map(|image| docker_image(archive, image)).collect();
    }
    if archive.content(OCI).is_none() {
        return Err(LoadError::NoImages);
    }
    let Index { manifests } = json(archive, OCI)?;
    let fits = |entry: &&Descriptor| {
        entry.platform.is_none() || for_this_machine(std::slice::from_ref(entry)).is_some()
    };
    let images: Vec<_> = manifests.iter().filter(fits).collect();
    if images.is_empty() {
        return Err(LoadError::Platform);
    }
    images.into_iter().map(|entry| oci_image(archive, entry)).collect()
}

fn docker_image(archive: &Archive, image: DockerImage) -> Result<Packed, LoadError> {
    let bad = |member: &str, error| LoadError::Member { member: member.to_owned(), source: error };
    let names = image.repo_tags.unwrap_or_default().iter().map(|name| name.parse()).collect::<Result<_, _>>();
    let names = names.map_err(|error: super::ReferenceError| bad(DOCKER, io::Error::other(error)))?;
    let layers = image.layers.into_iter().map(|path| PackedLayer { path, expected: Expected::default() });
    Ok(Packed { config: text(archive, &image.config, CONFIG_MAX)?, layers: layers.collect(), names })
}

fn oci_image(archive: &Archive, entry: &Descriptor) -> Result<Packed, LoadError> {
    let (config, layers) = match blob(archive, entry)? {
        Manifest::Image { config, layers } => (config, layers),
        Manifest::Index { manifests } => {
            match blob(archive, for_this_machine(&manifests).ok_or(LoadError::Platform)?)? {
                Manifest::Image { config, layers } => (config, layers),
                Manifest::Index { .. } => return Err(LoadError::Platform),
            }
        }
    };
    let layers = layers.iter().map(|layer| PackedLayer {
        path: blob_path(layer.digest),
        expected: Expected { size: Some(layer.size), digest: Some(layer.digest), diff_id: None },
    });
    Ok(Packed {
        config: verified(archive, config.digest, CONFIG_MAX)?,
        layers: layers.collect(),
        names: oci_name(entry).into_iter().collect(),
    })
}

/// The name of an image in a layout; a lone tag names nothing.
fn oci_name(entry: &Descriptor) -> Option<Reference> {
    let annotations = entry.annotations.as_ref()?;
    let name = annotations
        .get(NAME)
        .or_else(|| annotations.get(REF_NAME).filter(|name| name.contains([':', '/'])))?;
    name.parse().ok()
}

fn blob(archive: &Archive, descriptor: &Descriptor) -> Result<Manifest, LoadError> {
    let raw = verified(archive, descriptor.digest, MANIFEST_MAX)?;
    serde_json::from_str(&raw)
        .map_err(|error| LoadError::Member { member: blob_path(descriptor.digest), source: error.into() })
}

fn verified(archive: &Archive, digest: Digest, max: usize) -> Result<String, LoadError> {
    let member = blob_path(digest);
    let text = text(archive, &member, max)?;
    if Digest::of(text.as_bytes()) != digest {
        return Err(LoadError::Member { member, source: io::Error::other("it has the wrong digest") });
    }
    Ok(text)
}

fn blob_path(digest: Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}

fn json<T: DeserializeOwned>(archive: &Archive, member: &str) -> Result<T, LoadError> {
    serde_json::from_str(&text(archive, member, MANIFEST_MAX)?)
        .map_err(|error| LoadError::Member { member: member.to_owned(), source: error.into() })
}

fn text(archive: &Archive, member: &str, max: usize) -> Result<String, LoadError> {
    let bad = |source| LoadError::Member { member: member.to_owned(), source };
    let mut content = archive.content(member).ok_or_else(|| LoadError::Missing(member.to_owned()))?;
    if content.len() > max as u64 {
        return Err(bad(io::Error::other(format!("more than {max} bytes"))));
    }
    io::read_to_string(&mut content).map_err(bad)
}
