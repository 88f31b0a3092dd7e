//! What is asked of a registry: manifests and blobs, each bounded and verified.

use std::{collections::BTreeMap, time::Duration};

use bytes::Bytes;
use futures_util::{StreamExt as _, stream::BoxStream};
use oci_client::{
    Client, Reference as OciReference, RegistryOperation,
    client::BlobResponse,
    client::{ClientConfig, ClientProtocol},
    errors::{OciDistributionError, OciErrorCode},
    secrets::RegistryAuth,
};
use serde::Deserialize;

use super::{
    Digest, ImageStore, Reference,
    config::{ImageConfig, host_architecture},
};

/// Bytes of a manifest or index.
pub(super) const MANIFEST_MAX: usize = 4 << 20;
/// Bytes of a configuration.
pub(super) const CONFIG_MAX: usize = 8 << 20;
/// Manifests in an index.
const PLATFORMS_MAX: usize = 1000;
/// How long a registry may take to accept a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a registry may be silent.
const READ_TIMEOUT: Duration = Duration::from_secs(60);
/// How long `service create` waits for a digest before it goes on without one.
const RESOLVE_TIMEOUT: Duration = Duration::from_secs(5);
/// What this program understands.
const MANIFESTS: &[&str] = &[
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
    "application/vnd.docker.distribution.manifest.v2+json",
];

/// Why a registry gave no answer that is of use.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// It does not know the image.
    #[error("manifest for {0} not found: manifest unknown")]
    NotFound(String),
    /// It wants other credentials, or hides that it does not know the image.
    #[error("pull access denied for {0}: the repository does not exist or requires a login")]
    Unauthorized(String),
    /// It does not answer.
    #[error("registry {registry} cannot be reached")]
    Unreachable {
        /// `host:port`.
        registry: String,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// It answers with an error of its own.
    #[error("registry {registry} refused")]
    Refused {
        /// `host:port`.
        registry: String,
        /// Its words.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Its answer is damaged, too large or of another kind.
    #[error("registry {registry} sent an unusable answer: {reason}")]
    Unusable {
        /// `host:port`.
        registry: String,
        /// What is wrong.
        reason: String,
    },
    /// The image is made for other machines.
    #[error("no matching manifest for linux/{architecture} in the manifest list entries of {0}", architecture = host_architecture())]
    Platform(String),
}

/// A kind of machine.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
pub struct Platform {
    /// `amd64`.
    #[serde(default)]
    pub architecture: String,
    /// `linux`.
    #[serde(default)]
    pub os: String,
    /// `v7`; mostly empty.
    #[serde(default)]
    pub variant: String,
}

/// What a name means at this moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolved {
    /// Of the manifest or index that the name points to: what a service pins.
    pub digest: Digest,
    /// Its type.
    pub media_type: String,
    /// Its bytes.
    pub size: u64,
    /// The machines that can run it.
    pub platforms: Vec<Platform>,
}

/// Names content.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Descriptor {
    pub digest: Digest,
    /// Bytes.
    pub size: u64,
    pub platform: Option<Platform>,
    #[serde(default)]
    pub annotations: Option<BTreeMap<String, String>>,
}

/// A manifest, or an index of manifests.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
pub(super) enum Manifest {
    /// One image.
    Image { config: Descriptor, layers: Vec<Descriptor> },
    /// One image for each of several kinds of machines.
    Index { manifests: Vec<Descriptor> },
}

/// The entry of an index for this machine.
pub(super) fn for_this_machine(manifests: &[Descriptor]) -> Option<&Descriptor> {
    manifests.iter().find(|entry| {
        entry.platform.as_ref().is_some_and(|p| p.os == "linux" && p.architecture == host_architecture())
    })
}

#[derive(Deserialize)]
struct MediaType {
    #[serde(rename = "mediaType", default)]
    media_type: Option<String>,
}

impl ImageStore {
    /// Asks the registry what a name means, within five seconds; nothing is stored.
    pub async fn resolve(
        &self,
        reference: &Reference,
        auth: Option<RegistryAuth>,
    ) -> Result<Resolved, RegistryError> {
        let late = |source: tokio::time::error::Elapsed| RegistryError::Unreachable {
            registry: reference.registry().to_owned(),
            source: source.into(),
        };
        let resolving = async { self.repository(reference, auth)?.resolve().await };
        tokio::time::timeout(RESOLVE_TIMEOUT, resolving).await.map_err(late)?
    }

    /// A connection to the registry of a name. Each operation has its own, so that credentials never outlive it.
    pub(super) fn repository(
        &self,
        reference: &Reference,
        auth: Option<RegistryAuth>,
    ) -> Result<Repository, RegistryError> {
        let plain = reference.is_loopback() || reference.is_within(&self.insecure);
        let client = Client::try_from(ClientConfig {
            protocol: if plain { ClientProtocol::Http } else { ClientProtocol::Https },
            connect_timeout: Some(CONNECT_TIMEOUT),
            read_timeout: Some(READ_TIMEOUT),
            user_agent: concat!("covey/", env!("CARGO_PKG_VERSION")),
            ..ClientConfig::default()
        });
        let reference = reference.clone();
        let auth = auth.unwrap_or(RegistryAuth::Anonymous);
        match client {
            Ok(client) => Ok(Repository { client, reference, auth }),
            Err(error) => Err(classify(&reference, error)),
        }
    }
}

/// One repository of a registry.
pub(super) struct Repository {
    client: Client,
    reference: Reference,
    auth: RegistryAuth,
}

impl Repository {
    /// The manifest or index that the name points to, with its digest.
    pub async fn manifest(&self) -> Result<(Bytes, Digest), RegistryError> {
        self.fetch_manifest(&self.reference).await
    }

    /// The manifest of one image: from an index the one for this machine.
    pub async fn image_manifest(&self, raw: &[u8]) -> Result<(Descriptor, Vec<Descriptor>), RegistryError> {
        let manifests = match self.parse(raw)? {
            Manifest::Image { config, layers } => return Ok((config, layers)),
            Manifest::Index { manifests } => manifests,
        };
        let entry = for_this_machine(&manifests);
        let entry = entry.ok_or_else(|| RegistryError::Platform(self.reference.to_string()))?;
        let (raw, _) = self.fetch_manifest(&self.reference.at(entry.digest)).await?;
        match self.parse(&raw)? {
            Manifest::Image { config, layers } => Ok((config, layers)),
            Manifest::Index { .. } => Err(self.unusable("an index inside an index")),
        }
    }

    /// The configuration of an image, verified.
    pub async fn config(&self, descriptor: &Descriptor) -> Result<String, RegistryError> {
        let size = usize::try_from(descriptor.size).ok().filter(|size| *size <= CONFIG_MAX);
        let size = size.ok_or_else(|| self.unusable("the configuration is too large"))?;
        let mut content = Vec::with_capacity(size);
        let mut blob = self.blob(descriptor.digest, 0).await?;
        while let Some(chunk) = blob.next().await {
            let chunk = chunk.map_err(|error| self.unusable(&error.to_string()))?;
            if content.len() + chunk.len() > size {
                return Err(self.unusable("the configuration is larger than its manifest says"));
            }
            content.extend_from_slice(&chunk);
        }
        if Digest::of(&content) != descriptor.digest {
            return Err(self.unusable("the configuration has the wrong digest"));
        }
        String::from_utf8(content).map_err(|_| self.unusable("the configuration is not text"))
    }

    /// The bytes of a blob from `offset` on. Its content is for the reader to verify.
    pub async fn blob(
        &self,
        digest: Digest,
        offset: u64,
    ) -> Result<BoxStream<'static, Result<Bytes, std::io::Error>>, RegistryError> {
        let (oci, digest) = (self.oci(&self.reference), digest.to_string());
        let blob = match offset {
            0 => self.client.pull_blob_stream(&oci, digest.as_str()).await,
            _ => match self.client.pull_blob_stream_partial(&oci, digest.as_str(), offset, None).await {
                Ok(BlobResponse::Partial(blob)) => Ok(blob),
                Ok(BlobResponse::Full(_)) => return Err(self.unusable("it cannot resume a transfer")),
                Err(error) => Err(error),
            },
        };
        blob.map(|blob| blob.stream).map_err(|error| classify(&self.reference, error))
    }

    /// What the name means.
    async fn resolve(&self) -> Result<Resolved, RegistryError> {
        let (raw, digest) = self.manifest().await?;
        let kind: MediaType =
            serde_json::from_slice(&raw).map_err(|error| self.unusable(&error.to_string()))?;
        let (platforms, implied) = match self.parse(&raw)? {
            Manifest::Image { config, .. } => (vec![self.platform(&config).await?], MANIFESTS[1]),
            Manifest::Index { manifests } => {
                let known = manifests.into_iter().filter_map(|entry| entry.platform);
                (known.filter(|platform| platform.os != "unknown").collect(), MANIFESTS[0])
            }
        };
        let media_type = kind.media_type.unwrap_or_else(|| implied.to_owned());
        Ok(Resolved { digest, media_type, size: raw.len() as u64, platforms })
    }

    async fn platform(&self, config: &Descriptor) -> Result<Platform, RegistryError> {
        let raw = self.config(config).await?;
        let config: ImageConfig =
            serde_json::from_str(&raw).map_err(|error| self.unusable(&error.to_string()))?;
        Ok(Platform { architecture: config.architecture, os: config.os, variant: String::new() })
    }

    async fn fetch_manifest(&self, reference: &Reference) -> Result<(Bytes, Digest), RegistryError> {
        // The first request of an operation: it fetches the token, where the registry wants one, for the others.
        let oci = self.oci(reference);
        if !matches!(self.auth, RegistryAuth::Anonymous) {
            let authorised = self.client.auth(&oci, &self.auth, RegistryOperation::Pull).await;
            authorised.map_err(|error| classify(reference, error))?;
        }
        let pulled = self.client.pull_manifest_raw(&oci, &self.auth, MANIFESTS).await;
        let (raw, _) = pulled.map_err(|error| classify(reference, error))?;
        if raw.len() > MANIFEST_MAX {
            return Err(self.unusable("the manifest is too large"));
        }
        let digest = Digest::of(&raw);
        match reference.digest() {
            Some(expected) if expected != digest => Err(self.unusable("the manifest has the wrong digest")),
            _ => Ok((raw, digest)),
        }
    }

    fn parse(&self, raw: &[u8]) -> Result<Manifest, RegistryError> {
        match serde_json::from_slice(raw) {
            Ok(Manifest::Index { manifests }) if manifests.len() > PLATFORMS_MAX => {
                Err(self.unusable("the index is too long"))
            }
            Ok(manifest) => Ok(manifest),
            Err(error) => Err(self.unusable(&format!("not an image manifest: {error}"))),
        }
    }

    fn oci(&self, reference: &Reference) -> OciReference {
        let (registry, repository) = (reference.registry().to_owned(), reference.repository().to_owned());
        match (reference.digest(), reference.tag()) {
            (Some(digest), _) => OciReference::with_digest(registry, repository, digest.to_string()),
            (None, tag) => OciReference::with_tag(registry, repository, tag.unwrap_or("latest").to_owned()),
        }
    }

    fn unusable(&self, reason: &str) -> RegistryError {
        RegistryError::Unusable { registry: self.reference.registry().to_owned(), reason: reason.to_owned() }
    }
}

/// What an error of the protocol means to the user.
fn classify(reference: &Reference, error: OciDistributionError) -> RegistryError {
    use OciDistributionError as E;
    let name = reference.to_string();
    let registry = reference.registry().to_owned();
    match error {
        E::UnauthorizedError { .. }
        | E::AuthenticationFailure(_)
        | E::ServerError { code: 401 | 403, .. } => RegistryError::Unauthorized(name),
        E::ImageManifestNotFoundError(_) | E::ServerError { code: 404, .. } => RegistryError::NotFound(name),
        E::RegistryError { envelope, url } => match envelope.errors.first().map(|error| &error.code) {
            Some(OciErrorCode::Unauthorized | OciErrorCode::Denied) => RegistryError::Unauthorized(name),
            Some(
                OciErrorCode::ManifestUnknown
                | OciErrorCode::ManifestBlobUnknown
                | OciErrorCode::NameUnknown
                | OciErrorCode::NotFound
                | OciErrorCode::BlobUnknown,
            ) => RegistryError::NotFound(name),
            _ => RegistryError::Refused { registry, source: E::RegistryError { envelope, url }.into() },
        },
        E::RequestError(source) if source.is_connect() || source.is_timeout() || source.is_request() => {
            RegistryError::Unreachable { registry, source: source.into() }
        }
        error @ E::ServerError { .. } => RegistryError::Refused { registry, source: error.into() },
        error => RegistryError::Unusable { registry, reason: error.to_string() },
    }
}
