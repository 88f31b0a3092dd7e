//! What the store remembers on disk: one JSON file an image and one for all references, each replaced as a whole.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::{Digest, config::ImageConfig};

/// The newest format that this program reads and the one it writes.
const FORMAT: u32 = 1;
/// Layers of one image: the names of so many fit into mount options.
const LAYERS_MAX: usize = 127;

/// Something under the store's directory could not be read, written or understood.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The file system refused.
    #[error("{path}", path = .path.display())]
    Io {
        /// What was touched.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file of ours is damaged.
    #[error("{path} is damaged; remove it and pull or load the image again", path = .path.display())]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// A file of ours does not contain what its name says.
    #[error("{path} is damaged: its content is not what its name says; remove it and pull or load the image again", path = .path.display())]
    Mismatch {
        /// The file.
        path: PathBuf,
    },
    /// A newer version of this program wrote it.
    #[error("{path} has format {format}, which is newer than this program's {FORMAT}", path = .path.display())]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its format.
        format: u32,
    },
}

impl StoreError {
    pub(super) fn io(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { path, source }
    }
}

/// One image as it is kept.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Stored {
    /// The configuration, byte for byte: its digest is the image's id.
    pub config: String,
}

/// An image in memory.
#[derive(Clone, Debug)]
pub(super) struct Image {
    pub id: Digest,
    pub raw: String,
    pub config: ImageConfig,
}

/// An image that this program cannot use.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// The configuration is not one of an image.
    #[error("the image's configuration is not understood")]
    Config(#[source] serde_json::Error),
    /// Manifest and configuration speak of different layers, or of too many.
    #[error(
        "the image has {layers} layers and {diff_ids} diff ids; both must be the same and at most {LAYERS_MAX}"
    )]
    Layers {
        /// In the manifest.
        layers: usize,
        /// In the configuration.
        diff_ids: usize,
    },
    /// It is made for another kind of machine.
    #[error("image operating system \"{0}\" cannot be used on this platform: it is linux")]
    OperatingSystem(String),
}

impl Image {
    /// Reads a configuration; its digest is the id.
    pub(super) fn parse(raw: String) -> Result<Self, serde_json::Error> {
        Ok(Self { id: Digest::of(raw.as_bytes()), config: serde_json::from_str(&raw)?, raw })
    }

    /// Reads the configuration of an image that comes with so many layers.
    pub(super) fn usable(raw: String, layers: usize) -> Result<Self, ImageError> {
        let image = Self::parse(raw).map_err(ImageError::Config)?;
        let diff_ids = image.config.rootfs.diff_ids.len();
        if layers != diff_ids || layers > LAYERS_MAX {
            return Err(ImageError::Layers { layers, diff_ids });
        }
        match image.config.os.as_str() {
            "linux" | "" => Ok(image),
            other => Err(ImageError::OperatingSystem(other.to_owned())),
        }
    }
}

/// Which names point to which image. Names are canonical.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct References {
    /// `docker.io/library/alpine:latest`.
    pub tags: BTreeMap<String, Digest>,
    /// `docker.io/library/alpine@sha256:…`, the digest being the manifest's or index's.
    pub digests: BTreeMap<String, Digest>,
    /// Deleted by the user while a container still stands on their layers.
    pub hidden: BTreeSet<Digest>,
}

#[derive(Serialize, Deserialize)]
struct Envelope<T> {
    format: u32,
    #[serde(flatten)]
    content: T,
}

/// Only the format, so that a newer file is told from a damaged one.
#[derive(Deserialize)]
struct Format {
    format: u32,
}

/// Reads one of our files.
pub(super) fn read<T: DeserializeOwned>(path: &Path) -> Result<T, StoreError> {
    let text = fs::read(path).map_err(StoreError::io(path))?;
    let corrupt = |source| StoreError::Corrupt { path: path.to_owned(), source };
    let Format { format } = serde_json::from_slice(&text).map_err(corrupt)?;
    if format > FORMAT {
        return Err(StoreError::Newer { path: path.to_owned(), format });
    }
    let envelope: Envelope<T> = serde_json::from_slice(&text).map_err(corrupt)?;
    Ok(envelope.content)
}

/// Replaces one of our files as a whole: after a crash it is the old one or the new one.
pub(super) fn write<T: Serialize>(path: &Path, content: &T) -> Result<(), StoreError> {
    let error = |source| StoreError::Io { path: path.to_owned(), source };
    let text = serde_json::to_vec(&Envelope { format: FORMAT, content }).map_err(|e| error(e.into()))?;
    let draft = path.with_extension("draft");
    let mut file = File::create(&draft).map_err(error)?;
    file.write_all(&text).and_then(|()| file.sync_all()).map_err(error)?;
    fs::rename(&draft, path).map_err(error)?;
    path.parent().map_or(Ok(()), sync_dir).map_err(error)
}

/// Makes renames and removals in a directory last.
pub(super) fn sync_dir(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}
