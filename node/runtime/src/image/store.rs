//! The store of images: the door that everything outside this module uses.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    sync::{Arc, Weak},
};

use tokio::sync::{Mutex, OwnedMutexGuard};

use super::{
    Digest, History, ImageDefaults, ImageDetails, ImageSummary, LookupError, Reference, StoreError,
    catalog::Catalog,
    config::chain_ids,
    layers::{Draft, EMPTY, Layers},
    record::Image,
    unpack::Unpacked,
};

/// Images and layers of one node. Cheap to clone; all clones are the same store.
#[derive(Clone, Debug)]
pub struct ImageStore {
    pub(super) layers: Arc<Layers>,
    pub(super) insecure: Arc<BTreeSet<String>>,
    catalog: Arc<Mutex<Catalog>>,
    arriving: Arc<Mutex<BTreeMap<Digest, Weak<Mutex<()>>>>>,
}

/// What a container stands on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rootfs {
    /// The image's id.
    pub image: Digest,
    /// What the names in `lower` are relative to: change into it before mounting.
    pub layers_dir: PathBuf,
    /// Directories of the layers, topmost first, at least one: joined by `:` they are overlayfs' `lowerdir`.
    pub lower: Vec<String>,
    /// What the image says about its containers.
    pub defaults: ImageDefaults,
}

impl ImageStore {
    /// Opens the store below `root`, makes it where there is none, and removes what an interrupted run left behind.
    /// `insecure` are registries that are spoken to in plain HTTP, as loopback ones always are: each `host:port`,
    /// `host` or an address block.
    ///
    /// Blocks. The process must have installed a rustls provider before the first [`ImageStore::pull`].
    pub fn open(root: &Path, insecure: BTreeSet<String>) -> Result<Self, StoreError> {
        let (layers, known) = Layers::open(root)?;
        let catalog = Catalog::open(root, known)?;
        Ok(Self {
            layers: Arc::new(layers),
            insecure: Arc::new(insecure),
            catalog: Arc::new(Mutex::new(catalog)),
            arriving: Arc::default(),
        })
    }

    /// All images of the user, newest first.
    pub async fn list(&self) -> Vec<ImageSummary> {
        let catalog = self.catalog.lock().await;
        let mut images: Vec<_> = catalog.visible().map(|image| catalog.summary(image)).collect();
        images.sort_by(|a, b| b.created.cmp(&a.created).then(a.id.cmp(&b.id)));
        images
    }

    /// One image by name, id or the beginning of an id.
    pub async fn inspect(&self, name: &str) -> Result<ImageDetails, LookupError> {
        let catalog = self.catalog.lock().await;
        catalog.find(name).map(|image| catalog.details(image))
    }

    /// How an image was made, newest step first.
    pub async fn history(&self, name: &str) -> Result<Vec<History>, LookupError> {
        let catalog = self.catalog.lock().await;
        catalog.find(name).map(|image| catalog.history(image))
    }

    /// What a container of this image stands on. [`ImageStore::hold`] it first, so that it stays.
    pub async fn rootfs(&self, name: &str) -> Result<Rootfs, LookupError> {
        let catalog = self.catalog.lock().await;
        let image = catalog.find(name)?;
        let link = |chain: &Digest| catalog.layer(*chain).and_then(|_| self.layers.link(*chain));
        let chain = chain_ids(&image.config.rootfs.diff_ids);
        let mut lower = chain.iter().rev().map(link).collect::<Option<Vec<_>>>();
        if let Some(lower) = lower.as_mut().filter(|lower| lower.is_empty()) {
            lower.push(EMPTY.to_owned());
        }
        Ok(Rootfs {
            image: image.id,
            layers_dir: self.layers.dir().to_owned(),
            lower: lower.ok_or(LookupError::Incomplete(image.id))?,
            defaults: image.config.config.clone(),
        })
    }

    /// Keeps an image's layers for `holder` (a container's id) until [`ImageStore::release`]. Returns the image's id.
    /// Holds live in memory: after a start, whoever adopts a container holds again, then calls [`ImageStore::sweep`].
    pub async fn hold(&self, name: &str, holder: &str) -> Result<Digest, LookupError> {
        let mut catalog = self.catalog.lock().await;
        let id = catalog.find(name)?.id;
        catalog.hold(holder.to_owned(), id);
        Ok(id)
    }

    /// Ends the hold of `holder`; an image that was deleted meanwhile goes with its last hold.
    pub async fn release(&self, holder: &str) -> Result<(), StoreError> {
        self.catalog.lock().await.release(holder);
        self.sweep().await
    }

    /// Removes what nobody needs any more: deleted images that nobody holds, and layers without an image.
    pub async fn sweep(&self) -> Result<(), StoreError> {
        let layers = self.layers.clone();
        self.change(move |catalog| {
            for id in catalog.abandoned() {
                catalog.forget(id)?;
            }
            collect(catalog, &layers)
        })
        .await
        .map(|freed| drop(tokio::task::spawn_blocking(|| drop(freed))))
    }

    /// Gives an image another name, taking it from the image that had it.
    pub async fn tag(&self, name: &str, reference: &Reference) -> Result<(), TagError> {
        if reference.digest().is_some() {
            return Err(TagError::Digest);
        }
        let (name, reference) = (name.to_owned(), reference.clone());
        self.change(move |catalog| {
            let id = catalog.find(&name)?.id;
            catalog.name(&reference, id)?;
            Ok(())
        })
        .await
    }

    /// Works on the catalog where blocking is allowed.
    pub(super) async fn change<T: Send + 'static>(
        &self,
        change: impl FnOnce(&mut Catalog) -> T + Send + 'static,
    ) -> T {
        let mut catalog = self.catalog.clone().lock_owned().await;
        blocking(move || change(&mut catalog)).await
    }

    /// The one who holds the returned lock fetches the layer; the others wait and find it there.
    pub(super) async fn arriving(&self, chain: Digest) -> OwnedMutexGuard<()> {
        let mut arriving = self.arriving.lock().await;
        arriving.retain(|_, gate| gate.strong_count() > 0);
        let gate = arriving.get(&chain).and_then(Weak::upgrade).unwrap_or_default();
        arriving.insert(chain, Arc::downgrade(&gate));
        drop(arriving);
        gate.lock_owned().await
    }

    /// The layer is unpacked.
    pub(super) async fn has_layer(&self, chain: Digest) -> bool {
        self.catalog.lock().await.layer(chain).is_some()
    }

    /// Gives the unpacked layer `chain[index]` its place on those below it. Whoever calls holds the layer's gate.
    pub(super) async fn settle(
        &self,
        chain: &[Digest],
        index: usize,
        diff_id: Digest,
        draft: Draft,
        unpacked: Unpacked,
    ) -> Result<(), StoreError> {
        let own = chain[index];
        let below: Vec<_> = chain[..index].iter().rev().copied().collect();
        let layers = self.layers.clone();
        let layer = blocking(move || layers.commit(draft, own, diff_id, &unpacked, &below)).await?;
        self.catalog.lock().await.add_layer(own, layer);
        Ok(())
    }

    /// Adds an image whose layers are there, with its names. Returns for each name whether it pointed elsewhere.
    pub(super) async fn add(&self, image: Image, names: Vec<Reference>) -> Result<Vec<bool>, StoreError> {
        self.change(move |catalog| {
            let id = image.id;
            catalog.add(image)?;
            names.iter().map(|name| catalog.name(name, id)).collect()
        })
        .await
    }
}

/// Why an image gets no other name.
#[derive(Debug, thiserror::Error)]
pub enum TagError {
    /// There is no such image.
    #[error(transparent)]
    Lookup(#[from] LookupError),
    /// A digest is not a name that one can give.
    #[error("refusing to create a tag with a digest reference")]
    Digest,
    /// It could not be written down.
    #[error("cannot tag the image")]
    Store(#[from] StoreError),
}

/// Removes layers that no image has any more. They are gone at once; dropping the drafts frees the disk.
pub(super) fn collect(catalog: &mut Catalog, layers: &Layers) -> Result<Vec<(Digest, Draft)>, StoreError> {
    let unused = catalog.unused_layers();
    let removed = |chain: Digest| {
        let draft = layers.remove(chain)?;
        catalog.forget_layer(chain);
        Ok((chain, draft))
    };
    unused.into_iter().map(removed).collect()
}

/// Runs blocking work; a panic in it goes on in the caller.
pub(super) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // Only a runtime that is shutting down cancels blocking work, and then nobody polls this again.
            Err(_) => std::future::pending().await,
        },
    }
}
