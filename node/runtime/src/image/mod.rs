//! Images: pulled, loaded or imported, verified, unpacked once, and shared by the containers that stand on them.
//!
//! ```text
//! <root>/images/<id>.json          one image: its configuration, byte for byte
//! <root>/images/references.json    which names point to which image
//! <root>/layers/<chain id>         one unpacked layer, ready to be a lowerdir
//! <root>/layers/<chain id>.json    its size; written last, so a layer without it does not exist
//! <root>/layers/l/<short>          a link to it, so that 127 layers fit into mount options
//! <root>/layers/empty              the lowerdir of an image without layers
//! <root>/tmp                       drafts; emptied when the store opens
//! ```

mod archive;
mod catalog;
mod changes;
mod config;
mod decode;
mod digest;
mod import;
mod layers;
mod load;
mod progress;
mod pull;
mod record;
mod reference;
mod registry;
mod remove;
mod rooted;
mod stage;
mod store;
mod unpack;

pub use catalog::{History, ImageDetails, ImageSummary, LookupError};
pub use changes::ChangeError;
pub use config::ImageDefaults;
pub use decode::LayerError;
pub use digest::{Digest, ParseDigestError};
pub use import::ImportError;
pub use load::{LoadError, Loaded};
pub use oci_client::secrets::RegistryAuth;
pub use progress::{Progress, ProgressSink};
pub use pull::{PullError, Pulled};
pub use record::{ImageError, StoreError};
pub use reference::{Reference, ReferenceError};
pub use registry::{Platform, RegistryError, Resolved};
pub use remove::{ImageUse, Removal, RemoveError};
pub use store::{ImageStore, Rootfs, TagError};
pub use unpack::UnpackError;
