//! Image references, as people write them: `[host[:port]/]path[:tag][@digest]`.

use std::fmt;

use crate::failure::Failure;

/// Bytes of a reference without its digest.
const NAME_BYTES_MAX: usize = 255;
const TAG_BYTES_MAX: usize = 128;
const DIGEST_HEX: usize = 64;

/// An image reference that can be asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reference {
    /// Familiar form, without tag and digest.
    name: String,
    tag: Option<String>,
    /// `sha256:…`
    digest: Option<String>,
}

impl Reference {
    /// Reads a reference.
    pub fn parse(text: &str) -> Result<Self, Failure> {
        let wrong = || Failure::invalid("invalid reference format");
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) if is_digest(digest) => (rest, Some(digest.to_owned())),
            Some(_) => return Err(wrong()),
            None => (text, None),
        };
        // A colon before the last slash belongs to the port of a host.
        let (name, tag) = match rest.rsplit_once(':') {
            Some((name, tag)) if !tag.contains('/') => (name, Some(tag)),
            _ => (rest, None),
        };
        if name.bytes().any(|byte| byte.is_ascii_uppercase())
            && !is_host(name.split('/').next().unwrap_or(""))
        {
            return Err(Failure::invalid(format!(
                "invalid reference format: repository name ({name}) must be lowercase"
            )));
        }
        if !is_name(name) || !tag.is_none_or(is_tag) {
            return Err(wrong());
        }
        let familiar = name.strip_prefix("docker.io/").unwrap_or(name);
        let familiar = match familiar.strip_prefix("library/") {
            Some(short) if !short.contains('/') => short,
            _ => familiar,
        };
        Ok(Self { name: familiar.to_owned(), tag: tag.map(str::to_owned), digest })
    }

    /// The reference with `latest` where it names neither tag nor digest.
    pub fn tagged(mut self) -> Self {
        if self.tag.is_none() && self.digest.is_none() {
            self.tag = Some("latest".to_owned());
        }
        self
    }

    /// The reference pinned to `digest`.
    pub fn pinned(mut self, digest: &str) -> Self {
        self.digest = Some(digest.to_owned());
        self
    }

    /// True if it names one image for ever.
    pub fn is_pinned(&self) -> bool {
        self.digest.is_some()
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

fn is_digest(text: &str) -> bool {
    text.strip_prefix("sha256:").is_some_and(|hex| {
        hex.len() == DIGEST_HEX && hex.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
    })
}

fn is_tag(text: &str) -> bool {
    let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    (1..=TAG_BYTES_MAX).contains(&text.len())
        && text.bytes().next().is_some_and(word)
        && text.bytes().all(|byte| word(byte) || matches!(byte, b'.' | b'-'))
}

fn is_name(text: &str) -> bool {
    if text.len() > NAME_BYTES_MAX {
        return false;
    }
    let mut parts = text.split('/').peekable();
    let first = parts.peek().copied().unwrap_or("");
    if is_host(first) && text.contains('/') {
        parts.next();
    }
    parts.all(is_component)
}

/// A first component with a dot, a port or an upper-case letter is a host, as is `localhost`.
fn is_host(text: &str) -> bool {
    let (host, port) = text.split_once(':').unwrap_or((text, "0"));
    let looks_like_one =
        text.contains(['.', ':']) || text == "localhost" || text.bytes().any(|b| b.is_ascii_uppercase());
    looks_like_one
        && port.parse::<u16>().is_ok()
        && host.split('.').all(|label| {
            !label.is_empty()
                && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
                && !label.starts_with('-')
                && !label.ends_with('-')
        })
}

/// Lower-case words, joined by `.`, `_`, `__` or dashes.
fn is_component(text: &str) -> bool {
    let word = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let ends_in_words = text.bytes().next().is_some_and(word) && text.bytes().next_back().is_some_and(word);
    let separators = text.split(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit());
    let known = |s: &str| matches!(s, "" | "." | "_" | "__") || s.bytes().all(|byte| byte == b'-');
    ends_in_words && separators.into_iter().all(known)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// SVC-06
    #[test]
    fn references_are_brought_to_their_familiar_form() {
        for (text, familiar) in [
            ("alpine", "alpine:latest"),
            ("docker.io/library/alpine:3.20", "alpine:3.20"),
            ("docker.io/bitnami/redis", "bitnami/redis:latest"),
            ("127.0.0.1:5000/busybox", "127.0.0.1:5000/busybox:latest"),
            ("localhost/a/b_c/d__e/f-g:v1", "localhost/a/b_c/d__e/f-g:v1"),
        ] {
            assert_eq!(Reference::parse(text).unwrap().tagged().to_string(), familiar);
        }
        let digest = format!("sha256:{}", "a".repeat(64));
        let pinned = Reference::parse(&format!("mysql@{digest}")).unwrap().tagged();
        assert!(pinned.is_pinned());
        assert_eq!(pinned.to_string(), format!("mysql@{digest}"));
        let pinned = Reference::parse("mysql").unwrap().tagged().pinned(&digest);
        assert_eq!(pinned.to_string(), format!("mysql:latest@{digest}"));
    }

    #[test]
    fn what_names_no_image_is_refused() {
        for text in [
            "",
            " ",
            "UPPER",
            "a b",
            "a:",
            "a:b:c",
            "a@sha256:12",
            "a//b",
            "-a",
            "a-",
            "a/",
            "/a",
            "a..b",
            "a:é",
        ] {
            assert!(Reference::parse(text).is_err(), "{text:?}");
        }
        assert!(Reference::parse(&"a".repeat(300)).is_err());
    }
}
