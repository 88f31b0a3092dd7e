//! Which images there are and what they are called. Every change is on disk before it is seen.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::{Path, PathBuf},
    sync::{Arc, Weak},
};

use serde::Serialize;

use super::{
    Digest, Reference, StoreError,
    config::chain_ids,
    layers::{Layer, names},
    record::{self, Image, References, Stored, sync_dir},
};

/// The file of all references, beside those of the images.
const REFERENCES: &str = "references.json";

/// No single image is meant.
#[derive(Debug, thiserror::Error)]
pub enum LookupError {
    /// Nothing has this name or id.
    #[error("No such image: {0}")]
    NotFound(String),
    /// The beginning of more than one id.
    #[error("ambiguous image id prefix: {0}")]
    Ambiguous(String),
    /// A layer is gone from the disk.
    #[error("image {0} has lost a layer; pull or load it again")]
    Incomplete(Digest),
}

/// A line of `images`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageSummary {
    /// Digest of the configuration.
    pub id: Digest,
    /// `alpine:latest`, sorted.
    pub tags: Vec<String>,
    /// `alpine@sha256:…`, sorted.
    pub digests: Vec<String>,
    /// Bytes of all files of all layers.
    pub size: u64,
    /// RFC 3339, as the image says; may be empty.
    pub created: String,
    /// Labels.
    pub labels: BTreeMap<String, String>,
}

/// Everything about one image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageDetails {
    /// What `images` shows of it.
    pub summary: ImageSummary,
    /// `amd64`.
    pub architecture: String,
    /// `linux`.
    pub os: String,
    /// Digests of the layers' tars, lowest first.
    pub diff_ids: Vec<Digest>,
    /// The configuration as it came, with all that this program does not know (`Healthcheck`, `OnBuild`, …).
    pub config: serde_json::Value,
}

/// One step of `history`, newest first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct History {
    /// RFC 3339; may be empty.
    pub created: String,
    /// The command.
    pub created_by: String,
    /// What its maker says.
    pub comment: String,
    /// Bytes of the files of the step's layer.
    pub size: u64,
}

/// The images and their names.
#[derive(Debug)]
pub(super) struct Catalog {
    dir: PathBuf,
    images: BTreeMap<Digest, Image>,
    references: References,
    layers: BTreeMap<Digest, Layer>,
    /// Who stands on which image.
    holds: BTreeMap<String, Digest>,
    /// Layers that images on their way in count on.
    claims: Vec<Weak<Vec<Digest>>>,
}

impl Catalog {
    /// Reads what is on disk.
    pub fn open(root: &Path, layers: BTreeMap<Digest, Layer>) -> Result<Self, StoreError> {
        let dir = root.join("images");
        fs::create_dir_all(&dir).map_err(StoreError::io(&dir))?;
        let mut images = BTreeMap::new();
        for name in names(&dir)?.iter().filter(|name| name.ends_with(".json") && *name != REFERENCES) {
            let image = read_image(&dir.join(name))?;
            images.insert(image.id, image);
        }
        let path = dir.join(REFERENCES);
        let mut references: References =
            if path.exists() { record::read(&path)? } else { References::default() };
        references.tags.retain(|_, id| images.contains_key(id));
        references.digests.retain(|_, id| images.contains_key(id));
        references.hidden.retain(|id| images.contains_key(id));
        Ok(Self { dir, images, references, layers, holds: BTreeMap::new(), claims: Vec::new() })
    }

    /// Finds an image by id, name or the beginning of an id, in this order.
    pub fn find(&self, name: &str) -> Result<&Image, LookupError> {
        let hex = name.strip_prefix("sha256:").unwrap_or(name);
        if let Ok(id) = format!("sha256:{hex}").parse::<Digest>() {
            // Containers know their image by id, even when the user has deleted it.
            return self.images.get(&id).ok_or_else(|| LookupError::NotFound(name.to_owned()));
        }
        let reference = name.parse::<Reference>().ok();
        if let Some(image) = reference.as_ref().and_then(|reference| self.named(reference)) {
            return Ok(image);
        }
        let missing =
            || LookupError::NotFound(reference.map_or_else(|| name.to_owned(), |found| found.to_string()));
        if hex.is_empty() || !hex.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(missing());
        }
        let mut matches = self.visible().filter(|image| image.id.hex().starts_with(hex));
        match (matches.next(), matches.next()) {
            (Some(image), None) => Ok(image),
            (Some(_), Some(_)) => Err(LookupError::Ambiguous(name.to_owned())),
            (None, _) => Err(missing()),
        }
    }

    /// Finds an image by name; the digest decides where the name has one.
    pub fn named(&self, reference: &Reference) -> Option<&Image> {
        let id = match reference.digest() {
            Some(digest) => self.references.digests.get(&reference.at(digest).canonical()),
            None => self.references.tags.get(&reference.canonical()),
        };
        self.images.get(id?)
    }

    /// The images that the user has.
    pub fn visible(&self) -> impl Iterator<Item = &Image> {
        self.images.values().filter(|image| !self.references.hidden.contains(&image.id))
    }

    /// What `images` shows.
    pub fn summary(&self, image: &Image) -> ImageSummary {
        ImageSummary {
            id: image.id,
            tags: familiar(&self.references.tags, image.id),
            digests: familiar(&self.references.digests, image.id),
            size: self.size(image),
            created: image.config.created.clone(),
            labels: image.config.config.labels.clone(),
        }
    }

    /// What `inspect` shows.
    pub fn details(&self, image: &Image) -> ImageDetails {
        ImageDetails {
            summary: self.summary(image),
            architecture: image.config.architecture.clone(),
            os: image.config.os.clone(),
            diff_ids: image.config.rootfs.diff_ids.clone(),
            config: serde_json::from_str(&image.raw).unwrap_or_default(),
        }
    }

    /// What `history` shows.
    pub fn history(&self, image: &Image) -> Vec<History> {
        let mut sizes = chain_ids(&image.config.rootfs.diff_ids)
            .into_iter()
            .map(|chain| self.layers.get(&chain).map_or(0, |layer| layer.size));
        let mut steps: Vec<_> = image
            .config
            .history
            .iter()
            .map(|step| History {
                created: step.created.clone(),
                created_by: step.created_by.clone(),
                comment: step.comment.clone(),
                size: if step.empty_layer { 0 } else { sizes.next().unwrap_or(0) },
            })
            .collect();
        steps.reverse();
        steps
    }

    fn size(&self, image: &Image) -> u64 {
        let chain = chain_ids(&image.config.rootfs.diff_ids);
        chain.iter().filter_map(|chain| self.layers.get(chain)).map(|layer| layer.size).sum()
    }

    /// A layer, where it is unpacked.
    pub fn layer(&self, chain: Digest) -> Option<Layer> {
        self.layers.get(&chain).copied()
    }

    /// A layer has been unpacked.
    pub fn add_layer(&mut self, chain: Digest, layer: Layer) {
        self.layers.insert(chain, layer);
    }

    /// Keeps these layers, there or on their way, for as long as the returned value lives.
    pub fn claim(&mut self, chain: Vec<Digest>) -> Arc<Vec<Digest>> {
        let claim = Arc::new(chain);
        self.claims.retain(|claim| claim.strong_count() > 0);
        self.claims.push(Arc::downgrade(&claim));
        claim
    }

    /// Adds an image whose layers are all there.
    pub fn add(&mut self, image: Image) -> Result<(), StoreError> {
        record::write(&self.path(image.id), &Stored { config: image.raw.clone() })?;
        let id = image.id;
        self.images.insert(id, image);
        if self.references.hidden.contains(&id) {
            self.change(|references| _ = references.hidden.remove(&id))?;
        }
        Ok(())
    }

    /// Gives an image a name; a deleted one is the user's again. Returns whether the name pointed elsewhere before.
    pub fn name(&mut self, reference: &Reference, id: Digest) -> Result<bool, StoreError> {
        let name = reference.canonical();
        let mut before = None;
        self.change(|references| {
            references.hidden.remove(&id);
            before = match reference.digest() {
                Some(_) => references.digests.insert(name, id),
                None => references.tags.insert(name, id),
            };
        })?;
        Ok(before != Some(id))
    }

    /// The canonical names of an image: tags, then digests.
    pub fn names(&self, id: Digest) -> (Vec<String>, Vec<String>) {
        (names_of(&self.references.tags, id), names_of(&self.references.digests, id))
    }

    /// Changes the references on disk, then in memory.
    pub fn change(&mut self, change: impl FnOnce(&mut References)) -> Result<(), StoreError> {
        let mut next = self.references.clone();
        change(&mut next);
        if next != self.references {
            record::write(&self.dir.join(REFERENCES), &next)?;
            self.references = next;
        }
        Ok(())
    }

    /// `holder` stands on an image.
    pub fn hold(&mut self, holder: String, id: Digest) {
        self.holds.insert(holder, id);
    }

    /// `holder` stands on nothing any more.
    pub fn release(&mut self, holder: &str) {
        self.holds.remove(holder);
    }

    /// Somebody stands on the image.
    pub fn is_held(&self, id: Digest) -> bool {
        self.holds.values().any(|held| *held == id)
    }

    /// Images that were deleted while somebody stood on them, and nobody does any more.
    pub fn abandoned(&self) -> Vec<Digest> {
        self.references.hidden.iter().copied().filter(|id| !self.is_held(*id)).collect()
    }

    /// Removes an image that has no names. Its layers stay until [`Catalog::unused_layers`] are removed.
    pub fn forget(&mut self, id: Digest) -> Result<(), StoreError> {
        let path = self.path(id);
        match fs::remove_file(&path).and_then(|()| sync_dir(&self.dir)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(StoreError::io(&path)(error));
            }
            _ => {}
        }
        self.images.remove(&id);
        self.change(|references| _ = references.hidden.remove(&id))
    }

    /// Layers that no image has and none on its way counts on.
    pub fn unused_layers(&self) -> Vec<Digest> {
        let mut used: BTreeSet<Digest> =
            self.images.values().flat_map(|image| chain_ids(&image.config.rootfs.diff_ids)).collect();
        used.extend(self.claims.iter().filter_map(Weak::upgrade).flat_map(|claim| claim.to_vec()));
        self.layers.keys().copied().filter(|chain| !used.contains(chain)).collect()
    }

    /// A layer has been removed.
    pub fn forget_layer(&mut self, chain: Digest) {
        self.layers.remove(&chain);
    }

    fn path(&self, id: Digest) -> PathBuf {
        self.dir.join(id.hex()).with_extension("json")
    }
}

fn read_image(path: &Path) -> Result<Image, StoreError> {
    let stored: Stored = record::read(path)?;
    let image = Image::parse(stored.config)
        .map_err(|source| StoreError::Corrupt { path: path.to_owned(), source })?;
    if path.file_stem().is_some_and(|stem| stem.to_str() == Some(&image.id.hex())) {
        Ok(image)
    } else {
        Err(StoreError::Mismatch { path: path.to_owned() })
    }
}

fn names_of(map: &BTreeMap<String, Digest>, id: Digest) -> Vec<String> {
    map.iter().filter(|(_, found)| **found == id).map(|(name, _)| name.clone()).collect()
}

fn familiar(map: &BTreeMap<String, Digest>, id: Digest) -> Vec<String> {
    let shown = |name: String| name.parse::<Reference>().map_or(name, |reference| reference.to_string());
    names_of(map, id).into_iter().map(shown).collect()
}
