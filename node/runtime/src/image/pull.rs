//! `pull`: layers stream from the registry straight into their directories, several at a time.

use std::{io, sync::Arc, time::Duration};

use futures_util::{StreamExt as _, stream};
use nix::sys::statvfs::statvfs;
use tokio::sync::OwnedMutexGuard;

use super::{
    Digest, ImageError, ImageStore, LayerError, Progress, ProgressSink, Reference, RegistryAuth,
    RegistryError, StoreError,
    config::chain_ids,
    decode::{Expected, unpack_verified},
    layers::Draft,
    record::Image,
    registry::{Descriptor, Repository},
    stage::{Feed, feed},
    store::blocking,
    unpack::Unpacked,
};

/// Layers that one pull fetches at the same time.
const PARALLEL: usize = 3;
/// Bytes between two steps of a layer's bar.
const BAR_STEP: u64 = 512 << 10;
/// How many milliseconds a broken transfer waits before each of its new tries.
const RESUME_DELAYS: [u64; 4] = [200, 500, 1000, 2000];
/// Bytes that stay free on the disk.
const RESERVE: u64 = 64 << 20;

/// Why an image did not arrive.
#[derive(Debug, thiserror::Error)]
pub enum PullError {
    /// The registry did not give it.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// The image cannot be used.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// The transfer of a layer broke off.
    #[error("transfer of layer {layer} failed")]
    Transfer {
        /// Short digest.
        layer: String,
        /// Why.
        source: io::Error,
    },
    /// A layer is damaged or hostile.
    #[error("failed to register layer {layer}")]
    Layer {
        /// Short digest.
        layer: String,
        /// Why.
        source: LayerError,
    },
    /// The disk has no room for the layers.
    #[error("no space left on device: the layers need {needed} bytes, {free} are free")]
    NoSpace {
        /// Bytes of the compressed layers and a reserve.
        needed: u64,
        /// Bytes.
        free: u64,
    },
    /// Our own files.
    #[error("cannot store the image")]
    Store(#[from] StoreError),
}

/// An image that is there now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pulled {
    /// Digest of the configuration: the image's id.
    pub id: Digest,
    /// Of the manifest or index that the name pointed to.
    pub digest: Digest,
    /// The name meant another image before, or none.
    pub newer: bool,
}

impl ImageStore {
    /// Fetches an image unless all of it is there. Dropping the future stops the transfer and leaves nothing behind
    /// but layers that were complete.
    pub async fn pull(
        &self,
        reference: &Reference,
        auth: Option<RegistryAuth>,
        progress: ProgressSink,
    ) -> Result<Pulled, PullError> {
        let repository = self.repository(reference, auth)?;
        let (raw, digest) = repository.manifest().await?;
        let version = reference.digest().map(|digest| digest.to_string());
        let version = version.as_deref().or(reference.tag()).unwrap_or_default();
        progress(Progress::of(version, &format!("Pulling from {}", reference.repository())));
        let (config, layers) = repository.image_manifest(&raw).await?;
        let image = Image::usable(repository.config(&config).await?, layers.len())?;
        let transfer = Transfer::new(self.clone(), repository, &image, layers, progress.clone()).await?;
        transfer.run().await?;
        let id = image.id;
        let mut names = vec![reference.at(digest)];
        if reference.digest().is_none() {
            names.push(reference.clone());
        }
        let newer = self.add(image, names).await?.last().copied().unwrap_or(true);
        progress(Progress::line(format!("Digest: {digest}")));
        let outcome = if newer { "Downloaded newer image for" } else { "Image is up to date for" };
        progress(Progress::line(format!("Status: {outcome} {reference}")));
        Ok(Pulled { id, digest, newer })
    }
}

/// The layers of one image on their way.
struct Transfer {
    store: ImageStore,
    repository: Repository,
    layers: Vec<Descriptor>,
    diff_ids: Vec<Digest>,
    /// Claimed, so that nobody removes what is there already.
    chain: Arc<Vec<Digest>>,
    progress: ProgressSink,
}

/// A layer that was there, or one that waits for its place.
enum Arrived {
    Present,
    Staged { gate: OwnedMutexGuard<()>, draft: Draft, unpacked: Unpacked },
}

impl Transfer {
    async fn new(
        store: ImageStore,
        repository: Repository,
        image: &Image,
        layers: Vec<Descriptor>,
        progress: ProgressSink,
    ) -> Result<Arc<Self>, PullError> {
        let diff_ids = image.config.rootfs.diff_ids.clone();
        let chain = chain_ids(&diff_ids);
        let (chain, missing) = store
            .change(move |catalog| {
                let missing: Vec<_> = chain.iter().map(|chain| catalog.layer(*chain).is_none()).collect();
                (catalog.claim(chain), missing)
            })
            .await;
        let mut needed = 0_u64;
        for (layer, _) in layers.iter().zip(&missing).filter(|(_, missing)| **missing) {
            progress(Progress::of(&layer.digest.short(), "Pulling fs layer"));
            needed = needed.saturating_add(layer.size);
        }
        if needed > 0 {
            check_space(&store, needed)?;
        }
        Ok(Arc::new(Self { store, repository, layers, diff_ids, chain, progress }))
    }

    /// Fetches several layers at a time and gives each its place when the one below has its own.
    async fn run(self: Arc<Self>) -> Result<(), PullError> {
        let mut arriving =
            stream::iter(0..self.layers.len()).map(|index| self.clone().arrive(index)).buffered(PARALLEL);
        let mut index = 0;
        while let Some(arrived) = arriving.next().await {
            if let Arrived::Staged { gate, draft, unpacked } = arrived? {
                self.store.settle(&self.chain, index, self.diff_ids[index], draft, unpacked).await?;
                drop(gate);
                self.tell(index, "Pull complete");
            }
            index += 1;
        }
        Ok(())
    }

    async fn arrive(self: Arc<Self>, index: usize) -> Result<Arrived, PullError> {
        let chain = self.chain[index];
        // Locks are taken in the order of the chain, and the lowest is given back first: no two pulls wait for each other.
        let gate = self.store.arriving(chain).await;
        if self.store.has_layer(chain).await {
            self.tell(index, "Already exists");
            return Ok(Arrived::Present);
        }
        let layer = &self.layers[index];
        let expected = Expected {
            size: Some(layer.size),
            digest: Some(layer.digest),
            diff_id: Some(self.diff_ids[index]),
        };
        let draft = self.store.layers.draft();
        let (feed, fed) = feed();
        let unpacking = blocking(move || {
            std::fs::create_dir(&draft.0).map_err(LayerError::Read)?;
            unpack_verified(fed, expected, &draft.0).map(|(_, unpacked)| (draft, unpacked))
        });
        let (sent, unpacked) = tokio::join!(self.send(layer, feed), unpacking);
        sent?;
        let (draft, unpacked) =
            unpacked.map_err(|source| PullError::Layer { layer: layer.digest.short(), source })?;
        Ok(Arrived::Staged { gate, draft, unpacked })
    }

    /// Passes a layer's bytes on, and goes on where a connection broke; a reader that gives up has its own error.
    async fn send(&self, layer: &Descriptor, feed: Feed) -> Result<(), PullError> {
        let mut done = 0;
        for delay in RESUME_DELAYS {
            match self.copy(layer, &feed, &mut done).await {
                Err(error) if done < layer.size && is_passing(&error) => {
                    tokio::time::sleep(Duration::from_millis(delay)).await;
                }
                copied => return self.sent(layer, feed, copied?).await,
            }
        }
        let copied = self.copy(layer, &feed, &mut done).await?;
        self.sent(layer, feed, copied).await
    }

    /// Copies from `done` on; `false` where the reader has given up.
    async fn copy(&self, layer: &Descriptor, feed: &Feed, done: &mut u64) -> Result<bool, PullError> {
        let id = layer.digest.short();
        let mut blob = self.repository.blob(layer.digest, *done).await?;
        let mut shown = *done;
        while let Some(chunk) = blob.next().await {
            let chunk = match chunk {
                Ok(chunk) => chunk,
                // All bytes came and are not the right ones: the unpacker says so, and how they differ.
                Err(_) if *done >= layer.size => return Ok(true),
                Err(source) => return Err(PullError::Transfer { layer: id, source }),
            };
            *done += chunk.len() as u64;
            if !feed.send(chunk).await {
                return Ok(false);
            }
            if *done - shown >= BAR_STEP {
                shown = *done;
                (self.progress)(Progress::bar(&id, "Downloading", *done, layer.size));
            }
        }
        Ok(true)
    }

    async fn sent(&self, layer: &Descriptor, feed: Feed, whole: bool) -> Result<(), PullError> {
        if whole {
            let id = layer.digest.short();
            (self.progress)(Progress::bar(&id, "Downloading", layer.size, layer.size));
            feed.end().await;
            (self.progress)(Progress::bar(&id, "Extracting", layer.size, layer.size));
        }
        Ok(())
    }

    fn tell(&self, index: usize, status: &str) {
        (self.progress)(Progress::of(&self.layers[index].digest.short(), status));
    }
}

/// Another try may go better.
fn is_passing(error: &PullError) -> bool {
    matches!(error, PullError::Transfer { .. } | PullError::Registry(RegistryError::Unreachable { .. }))
}

fn check_space(store: &ImageStore, layers: u64) -> Result<(), PullError> {
    let dir = store.layers.dir();
    let stat = statvfs(dir).map_err(|error| StoreError::io(dir)(error.into()))?;
    let free = stat.blocks_available() * stat.fragment_size();
    let needed = layers.saturating_add(RESERVE);
    if free < needed { Err(PullError::NoSpace { needed, free }) } else { Ok(()) }
}
