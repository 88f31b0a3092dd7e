//! Names of images, normalised as Docker does: `alpine` is `docker.io/library/alpine:latest`.

use std::{collections::BTreeSet, fmt, net::IpAddr, str::FromStr};

use ipnet::IpNet;

use super::Digest;

/// Where a name without a registry lives.
const DEFAULT_REGISTRY: &str = "docker.io";
/// An older name of the same registry.
const LEGACY_REGISTRY: &str = "index.docker.io";
/// Where the default registry keeps a name without a slash.
const OFFICIAL: &str = "library/";
/// The tag of a name that says neither tag nor digest.
const DEFAULT_TAG: &str = "latest";
/// Characters of a repository's name.
const NAME_MAX: usize = 255;
/// Characters of a tag.
const TAG_MAX: usize = 128;

/// A name of an image: registry, repository, and a tag, a digest or both. [`fmt::Display`] is the familiar form that people type.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Reference {
    registry: String,
    repository: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

/// Why a text names no image, in Docker's words.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReferenceError {
    /// It does not follow the grammar.
    #[error("invalid reference format")]
    Format,
    /// A repository is written in lower case.
    #[error("invalid reference format: repository name ({0}) must be lowercase")]
    Uppercase(String),
    /// The repository's name has more than 255 characters.
    #[error("repository name must not be more than {NAME_MAX} characters")]
    NameTooLong,
    /// It looks like an image id.
    #[error("invalid repository name ({0}), cannot specify 64-byte hexadecimal strings")]
    Id(String),
}

impl Reference {
    /// `docker.io`, `localhost:5000`.
    pub fn registry(&self) -> &str {
        &self.registry
    }

    /// `library/alpine`.
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// The tag, where the name says one.
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The digest of a manifest or index, where the name is pinned.
    pub fn digest(&self) -> Option<Digest> {
        self.digest
    }

    /// Registry and repository: `docker.io/library/alpine`.
    pub fn name(&self) -> String {
        format!("{}/{}", self.registry, self.repository)
    }

    /// Registry and repository as people write them: `alpine`.
    pub fn familiar_name(&self) -> String {
        if self.registry != DEFAULT_REGISTRY {
            return self.name();
        }
        match self.repository.strip_prefix(OFFICIAL) {
            Some(rest) if !rest.contains('/') => rest.to_owned(),
            _ => self.repository.clone(),
        }
    }

    /// The whole name with nothing left out: `docker.io/library/alpine:latest`.
    pub fn canonical(&self) -> String {
        self.name() + &self.suffix()
    }

    /// The same name and tag, pinned to `digest`: what a service remembers (SVC-06).
    pub fn pinned(&self, digest: Digest) -> Self {
        Self { digest: Some(digest), ..self.clone() }
    }

    /// The same name with its tag only, where there is one: what tables show.
    pub fn without_digest(&self) -> Self {
        match self.tag {
            Some(_) => Self { digest: None, ..self.clone() },
            None => self.clone(),
        }
    }

    /// The same repository by digest only.
    pub(super) fn at(&self, digest: Digest) -> Self {
        Self { tag: None, digest: Some(digest), ..self.clone() }
    }

    /// The registry is this machine: spoken to in plain HTTP, as nobody is in between.
    pub(super) fn is_loopback(&self) -> bool {
        let host = self.host();
        host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
    }

    /// The registry is one of `named`: each `HOST:PORT`, `HOST` for all of its ports, or an address block.
    pub(super) fn is_within(&self, named: &BTreeSet<String>) -> bool {
        let address = self.host().parse::<IpAddr>().ok();
        named.contains(&self.registry)
            || named.contains(self.host())
            || address.is_some_and(|address| {
                named
                    .iter()
                    .filter_map(|name| name.parse::<IpNet>().ok())
                    .any(|block| block.contains(&address))
            })
    }

    fn host(&self) -> &str {
        match self.registry.strip_prefix('[') {
            Some(rest) => rest.split(']').next().unwrap_or_default(),
            None => self.registry.split(':').next().unwrap_or_default(),
        }
    }

    fn suffix(&self) -> String {
        let tag = self.tag.as_ref().map(|tag| format!(":{tag}")).unwrap_or_default();
        let digest = self.digest.map(|digest| format!("@{digest}")).unwrap_or_default();
        tag + &digest
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.familiar_name(), self.suffix())
    }
}

impl FromStr for Reference {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        if text.len() == 64 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
            return Err(ReferenceError::Id(text.to_owned()));
        }
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => (rest, Some(digest.parse().map_err(|_| ReferenceError::Format)?)),
            None => (text, None),
        };
        let (name, tag) = split_tag(rest)?;
        let (registry, repository) = split_registry(name)?;
        let tag = match (tag, digest) {
            (None, None) => Some(DEFAULT_TAG),
            (tag, _) => tag,
        };
        Ok(Self { registry, repository, tag: tag.map(str::to_owned), digest })
    }
}

/// A colon after the last slash starts the tag; an earlier one a port.
fn split_tag(text: &str) -> Result<(&str, Option<&str>), ReferenceError> {
    let last = text.rfind('/').map_or(0, |slash| slash + 1);
    let Some(colon) = text[last..].find(':') else { return Ok((text, None)) };
    let (name, tag) = (&text[..last + colon], &text[last + colon + 1..]);
    if is_tag(tag) { Ok((name, Some(tag))) } else { Err(ReferenceError::Format) }
}

fn split_registry(name: &str) -> Result<(String, String), ReferenceError> {
    let (registry, repository) = match name.split_once('/') {
        Some((first, rest)) if looks_like_host(first) => (first, rest),
        _ => (DEFAULT_REGISTRY, name),
    };
    if repository.bytes().any(|byte| byte.is_ascii_uppercase()) {
        return Err(ReferenceError::Uppercase(repository.to_owned()));
    }
    if !is_host(registry) || !repository.split('/').all(is_component) {
        return Err(ReferenceError::Format);
    }
    let registry = if registry == LEGACY_REGISTRY { DEFAULT_REGISTRY } else { registry };
    let official = registry == DEFAULT_REGISTRY && !repository.contains('/');
    let repository = if official { format!("{OFFICIAL}{repository}") } else { repository.to_owned() };
    if repository.len() > NAME_MAX {
        return Err(ReferenceError::NameTooLong);
    }
    Ok((registry.to_owned(), repository))
}

fn looks_like_host(first: &str) -> bool {
    first.contains(['.', ':']) || first == "localhost" || first.bytes().any(|b| b.is_ascii_uppercase())
}

fn is_host(text: &str) -> bool {
    let (host, port) = match text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, after)) if address.parse::<std::net::Ipv6Addr>().is_ok() => {
            return after.is_empty() || after.strip_prefix(':').is_some_and(is_port);
        }
        Some(_) => return false,
        None => text.split_once(':').map_or((text, None), |(host, port)| (host, Some(port))),
    };
    let label = |label: &str| {
        label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
            && !label.is_empty()
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    host.split('.').all(label) && port.is_none_or(is_port)
}

fn is_port(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_digit()) && text.parse::<u16>().is_ok()
}

fn is_tag(tag: &str) -> bool {
    (1..=TAG_MAX).contains(&tag.len())
        && !tag.starts_with(['.', '-'])
        && tag.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'))
}

/// Lower-case letters and digits, joined by one dot, one or two underscores, or dashes.
fn is_component(text: &str) -> bool {
    let alphanumeric = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    text.starts_with(alphanumeric)
        && text.ends_with(alphanumeric)
        && text
            .split(alphanumeric)
            .all(|joint| matches!(joint, "" | "." | "_" | "__") || joint.bytes().all(|b| b == b'-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    fn parse(text: &str) -> Reference {
        text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    /// SVC-06
    #[test]
    fn names_are_completed_and_shown_as_people_write_them() {
        for (text, canonical, familiar) in [
            ("alpine", "docker.io/library/alpine:latest", "alpine:latest"),
            ("alpine:3.20", "docker.io/library/alpine:3.20", "alpine:3.20"),
            ("docker.io/alpine", "docker.io/library/alpine:latest", "alpine:latest"),
            ("index.docker.io/library/alpine", "docker.io/library/alpine:latest", "alpine:latest"),
            ("tutum/hello-world", "docker.io/tutum/hello-world:latest", "tutum/hello-world:latest"),
            ("localhost/x", "localhost/x:latest", "localhost/x:latest"),
            ("localhost:5000/x:1", "localhost:5000/x:1", "localhost:5000/x:1"),
            ("[::1]:5000/a/b__c", "[::1]:5000/a/b__c:latest", "[::1]:5000/a/b__c:latest"),
            ("quay.io/a/b/c", "quay.io/a/b/c:latest", "quay.io/a/b/c:latest"),
        ] {
            assert_eq!(parse(text).canonical(), canonical);
            assert_eq!(parse(text).to_string(), familiar);
        }
    }

    /// SVC-06
    #[test]
    fn a_pinned_name_keeps_its_tag_and_hides_the_digest() {
        let digest = DIGEST.parse().unwrap();
        let pinned = parse("mysql").pinned(digest);
        assert_eq!(pinned.to_string(), format!("mysql:latest@{DIGEST}"));
        assert_eq!(parse(&pinned.to_string()), pinned);
        assert_eq!(pinned.without_digest().to_string(), "mysql:latest");
        let by_digest = parse(&format!("mysql@{DIGEST}"));
        assert_eq!((by_digest.tag(), by_digest.digest()), (None, Some(digest)));
        assert_eq!(by_digest.without_digest(), by_digest);
    }

    #[test]
    fn bad_names_are_refused_in_dockers_words() {
        let long = "a/".repeat(200) + "a";
        for (text, error) in [
            ("", "invalid reference format"),
            ("a//b", "invalid reference format"),
            ("-a", "invalid reference format"),
            ("a..b", "invalid reference format"),
            ("a___b", "invalid reference format"),
            ("a:", "invalid reference format"),
            ("a:-x", "invalid reference format"),
            ("a:b:c", "invalid reference format"),
            ("a b", "invalid reference format"),
            ("a@sha256:12", "invalid reference format"),
            ("../../etc", "invalid reference format"),
            ("ho_st:80/x", "invalid reference format"),
            ("[::g]:80/x", "invalid reference format"),
            ("host:99999/x", "invalid reference format"),
            ("Alpine", "invalid reference format: repository name (Alpine) must be lowercase"),
            (&long, "repository name must not be more than 255 characters"),
        ] {
            assert_eq!(text.parse::<Reference>().unwrap_err().to_string(), error, "{text}");
        }
        assert!(matches!("a".repeat(64).parse::<Reference>(), Err(ReferenceError::Id(_))));
    }

    #[test]
    fn only_this_machine_is_loopback() {
        for text in ["localhost/x", "localhost:5000/x", "127.0.0.1:5000/x", "127.1.2.3/x", "[::1]:5000/x"] {
            assert!(parse(text).is_loopback(), "{text}");
        }
        for text in ["x", "10.0.0.1:5000/x", "localhost.example.com/x", "[::2]/x"] {
            assert!(!parse(text).is_loopback(), "{text}");
        }
    }

    #[test]
    fn a_registry_is_named_by_host_by_host_and_port_or_by_block() {
        let named = ["hub.lan:5000", "box.lan", "10.77.0.0/24", "fd00::/64"].map(str::to_owned).into();
        for text in ["hub.lan:5000/x", "box.lan/x", "box.lan:81/x", "10.77.0.1:5000/x", "[fd00::7]:5000/x"] {
            assert!(parse(text).is_within(&named), "{text}");
        }
        for text in ["x", "hub.lan/x", "hub.lan:80/x", "10.77.1.1:5000/x", "[fd00:1::7]/x"] {
            assert!(!parse(text).is_within(&named), "{text}");
        }
    }
}
