//! Versions of the Engine API: which are spoken, and how a request names one.

use std::fmt;

use crate::failure::Failure;

/// `1.<minor>`; every version has this form.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ApiVersion(u32);

/// The version that is spoken where the client names none, and the newest.
pub const MAX: ApiVersion = ApiVersion(51);
/// The oldest that is spoken: some tools never ask and use it.
pub const MIN: ApiVersion = ApiVersion(24);
/// From here on clients look up an image's digest themselves before they create a service.
pub const CLIENT_RESOLVES_IMAGES: ApiVersion = ApiVersion(30);
/// From here on framed and raw streams have content types of their own.
pub const STREAM_TYPES: ApiVersion = ApiVersion(42);

impl fmt::Display for ApiVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "1.{}", self.0)
    }
}

/// Splits `/v1.41/containers/json` into its version and `/containers/json`. A path that names no version is
/// returned whole, with the newest.
///
/// # Errors
/// The version is not spoken here.
pub fn split(path: &str) -> Result<(ApiVersion, &str), Failure> {
    let Some((version, rest)) = versioned(path) else {
        return Ok((MAX, path));
    };
    let mut parts = version.splitn(2, '.').map(|part| part.parse::<u32>().unwrap_or(u32::MAX));
    let (major, minor) = (parts.next().unwrap_or(0), parts.next().unwrap_or(0));
    if (major, minor) > (1, MAX.0) {
        return Err(Failure::invalid(format!(
            "client version {version} is too new. Maximum supported API version is {MAX}"
        )));
    }
    if (major, minor) < (1, MIN.0) {
        return Err(Failure::invalid(format!(
            "client version {version} is too old. Minimum supported API version is {MIN}, please upgrade your \
             client to a newer version"
        )));
    }
    Ok((ApiVersion(minor), rest))
}

/// The digits and dots after `/v`, and what follows.
fn versioned(path: &str) -> Option<(&str, &str)> {
    let rest = path.strip_prefix("/v")?;
    let (version, _) = rest.split_once('/')?;
    let known = version.starts_with(|c: char| c.is_ascii_digit())
        && version.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    known.then(|| (version, &rest[version.len()..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// API-05
    #[test]
    fn a_path_is_split_from_its_version() {
        assert_eq!(split("/v1.41/info"), Ok((ApiVersion(41), "/info")));
        assert_eq!(split("/v1.24/services/a/logs"), Ok((MIN, "/services/a/logs")));
        assert_eq!(split("/info"), Ok((MAX, "/info")));
        assert_eq!(split("/volumes/v1"), Ok((MAX, "/volumes/v1")));
        assert_eq!(split("/version"), Ok((MAX, "/version")));
    }

    /// API-05
    #[test]
    fn versions_that_are_not_spoken_are_refused_with_the_limit() {
        let message = |path| split(path).map_err(|failure| failure.message);
        assert_eq!(
            message("/v1.52/info"),
            Err("client version 1.52 is too new. Maximum supported API version is 1.51".into())
        );
        for path in ["/v1.23/info", "/v0.9/info", "/v1/info"] {
            assert!(
                message(path).is_err_and(|text| text.contains("is too old. Minimum supported")),
                "{path}"
            );
        }
        assert!(split("/v99999999999.1/info").is_err());
    }
}
