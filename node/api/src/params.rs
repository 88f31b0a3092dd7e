//! What a request brings: query parameters as Docker's clients write them, and JSON bodies as Go reads them.

use std::time::Duration;

use axum::{
    extract::{FromRef, FromRequest, FromRequestParts, Query, Request},
    http::{HeaderMap, header, request::Parts},
};
use base64::{Engine as _, prelude::BASE64_URL_SAFE};
use covey_state::time::Stamp;
use futures_util::StreamExt;
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::Value;

use crate::{
    app::App,
    engine::RegistryAuth,
    failure::{Failure, FailureKind},
    filters::Filters,
    server::Limits,
    version::{self, ApiVersion},
};

/// Bytes of a refused body that are read and thrown away, so that the client reads the refusal and not a broken pipe.
const DISCARD_BYTES_MAX: usize = 256 << 20;
/// Bytes of an `X-Registry-Auth` header.
const AUTH_BYTES_MAX: usize = 64 << 10;

/// The query of a request.
pub struct Params {
    pairs: Vec<(String, String)>,
    version: ApiVersion,
}

impl Params {
    /// The first value of `key`; empty where there is none.
    pub fn text(&self, key: &str) -> &str {
        self.pairs.iter().find(|(name, _)| name == key).map_or("", |(_, value)| value)
    }

    /// All values of `key`.
    pub fn texts(&self, key: &str) -> Vec<String> {
        self.pairs.iter().filter(|(name, _)| name == key).map(|(_, value)| value.clone()).collect()
    }

    /// A switch, read generously: all but a few words are true.
    pub fn flag(&self, key: &str) -> bool {
        let value = self.text(key).trim().to_ascii_lowercase();
        !matches!(value.as_str(), "" | "0" | "no" | "false" | "none")
    }

    /// As [`Self::flag`], true where the client does not say.
    pub fn flag_unless_off(&self, key: &str) -> bool {
        self.text(key).is_empty() || self.flag(key)
    }

    /// A switch, read as strictly as Go reads one.
    pub fn strict_flag(&self, key: &str) -> Result<bool, Failure> {
        match self.text(key) {
            "1" | "t" | "T" | "TRUE" | "true" | "True" => Ok(true),
            "" | "0" | "f" | "F" | "FALSE" | "false" | "False" => Ok(false),
            other => Err(Failure::invalid(format!(
                "invalid value for {key}: strconv.ParseBool: parsing \"{other}\": invalid syntax"
            ))),
        }
    }

    /// A number; `None` where the client does not say.
    pub fn number<T: std::str::FromStr>(&self, key: &str) -> Result<Option<T>, Failure> {
        match self.text(key) {
            "" => Ok(None),
            text => text
                .parse()
                .map(Some)
                .map_err(|_| Failure::invalid(format!("invalid value for {key}: '{text}' is not a number"))),
        }
    }

    /// The `version` of an update, which every update must name.
    pub fn object_version(&self) -> Result<u64, Failure> {
        self.text("version").parse().map_err(|_| {
            Failure::invalid(format!(
                "invalid version '{}': the version that you read is needed",
                self.text("version")
            ))
        })
    }

    /// A moment: seconds since 1970 with up to nine decimals, or RFC 3339.
    pub fn moment(&self, key: &str) -> Result<Option<Stamp>, Failure> {
        let text = self.text(key);
        if text.is_empty() || text == "0" {
            return Ok(None);
        }
        parse_moment(text)
            .map(Some)
            .ok_or_else(|| Failure::invalid(format!("invalid value for {key}: '{text}' is not a time")))
    }

    /// A time in whole seconds; negative and absent are `None`.
    pub fn seconds(&self, key: &str) -> Result<Option<Duration>, Failure> {
        Ok(self.number::<i64>(key)?.and_then(|s| u64::try_from(s).ok()).map(Duration::from_secs))
    }

    /// The filters, which may use only these keys.
    pub fn filters(&self, known: &[&str]) -> Result<Filters, Failure> {
        Filters::parse(self.text("filters"), known)
    }

    /// The version of the API that the client speaks.
    pub fn api(&self) -> ApiVersion {
        self.version
    }
}

/// The moment that `text` names: `1700000000.000000001` or RFC 3339.
pub fn parse_moment(text: &str) -> Option<Stamp> {
    if let Ok(time) = time::OffsetDateTime::parse(text, &time::format_description::well_known::Rfc3339) {
        return i64::try_from(time.unix_timestamp_nanos()).ok().map(Stamp);
    }
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
    if fraction.len() > 9 || !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let nanos: i64 = format!("{fraction:0<9}").parse().ok()?;
    seconds.parse::<i64>().ok()?.checked_mul(1_000_000_000)?.checked_add(nanos).map(Stamp)
}

impl<S: Send + Sync> FromRequestParts<S> for Params {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Failure> {
        let Query(pairs) = Query::from_request_parts(parts, state)
            .await
            .map_err(|error| Failure::invalid(format!("invalid query: {error}")))?;
        Ok(Self { pairs, version: parts.extensions.get().copied().unwrap_or(version::MAX) })
    }
}

/// A JSON body. No body at all is the value in which nothing is set, as for Go; so is a field that is `null`.
pub struct Json<T>(pub T);

impl<S, T> FromRequest<S> for Json<T>
where
    S: Send + Sync,
    App: FromRef<S>,
    T: DeserializeOwned,
{
    type Rejection = Failure;

    async fn from_request(request: Request, state: &S) -> Result<Self, Failure> {
        let limits = App::from_ref(state).limits;
        let (parts, body) = request.into_parts();
        let bytes = tokio::time::timeout(limits.body, read(&parts.headers, body, limits))
            .await
            .map_err(|_| Failure::new(FailureKind::Timeout, "the request body did not arrive in time"))??;
        if bytes.is_empty() {
            return parse(b"{}").map(Self);
        }
        check_content_type(&parts.headers)?;
        parse(&bytes).map(Self)
    }
}

async fn read(headers: &HeaderMap, body: axum::body::Body, limits: Limits) -> Result<Vec<u8>, Failure> {
    let announced = headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
    let mut too_large = announced.is_some_and(|length: usize| length > limits.body_bytes);
    let (mut bytes, mut discarded) = (Vec::new(), 0);
    let mut chunks = body.into_data_stream();
    while let Some(chunk) = chunks.next().await {
        let chunk =
            chunk.map_err(|error| Failure::invalid(format!("the request body broke off: {error}")))?;
        too_large |= bytes.len() + chunk.len() > limits.body_bytes;
        if !too_large {
            bytes.extend_from_slice(&chunk);
            continue;
        }
        bytes = Vec::new();
        discarded += chunk.len();
        if discarded > DISCARD_BYTES_MAX {
            break;
        }
    }
    if too_large {
        let limit = limits.body_bytes;
        let message = format!("the request body is larger than {limit} bytes");
        return Err(Failure::new(FailureKind::TooLarge, message));
    }
    Ok(bytes)
}

fn check_content_type(headers: &HeaderMap) -> Result<(), Failure> {
    let text = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or("");
    let kind = text.split(';').next().unwrap_or("").trim();
    if kind.eq_ignore_ascii_case("application/json") {
        return Ok(());
    }
    Err(Failure::invalid(format!("unsupported Content-Type header ({text}): must be 'application/json'")))
}

/// Reads JSON as Go does: `null` leaves a field as it is, unknown fields are ignored.
pub fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Failure> {
    let mut value: Value =
        serde_json::from_slice(bytes).map_err(|error| Failure::invalid(format!("invalid JSON: {error}")))?;
    forget_nulls(&mut value);
    serde_json::from_value(value).map_err(|error| Failure::invalid(format!("invalid JSON: {error}")))
}

/// Depth is bounded by the parser.
fn forget_nulls(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|_, field| !field.is_null());
            fields.values_mut().for_each(forget_nulls);
        }
        Value::Array(items) => items.iter_mut().for_each(forget_nulls),
        _ => {}
    }
}

/// The credentials of the `X-Registry-Auth` header; `None` where it brings none.
pub fn registry_auth(headers: &HeaderMap) -> Result<Option<RegistryAuth>, Failure> {
    #[derive(Default, Deserialize)]
    #[serde(default, rename_all = "camelCase")]
    struct AuthConfig {
        username: String,
        password: String,
        identitytoken: String,
        serveraddress: String,
    }

    let text = headers.get("X-Registry-Auth").and_then(|value| value.to_str().ok()).unwrap_or("");
    if text.is_empty() || text.len() > AUTH_BYTES_MAX {
        return Ok(None);
    }
    let wrong = || Failure::invalid("invalid X-Registry-Auth header: it must be base64url of a JSON object");
    // Some clients pad, some use the standard alphabet.
    let text = text.trim_end_matches('=').replace('+', "-").replace('/', "_");
    let padded = format!("{text}{}", &"==="[..(4 - text.len() % 4) % 4]);
    let bytes = BASE64_URL_SAFE.decode(padded).map_err(|_| wrong())?;
    let auth: AuthConfig = parse(&bytes).map_err(|_| wrong())?;
    let auth = RegistryAuth {
        username: auth.username,
        password: auth.password,
        identity_token: auth.identitytoken,
        server: auth.serveraddress,
    };
    let empty = auth.username.is_empty() && auth.identity_token.is_empty();
    Ok((!empty).then_some(auth))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn params(pairs: &[(&str, &str)]) -> Params {
        let pairs = pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        Params { pairs, version: version::MAX }
    }

    /// API-05
    #[test]
    fn switches_are_read_as_docker_reads_them() {
        for yes in ["1", "true", "True", "yes", "anything", "  on "] {
            assert!(params(&[("a", yes)]).flag("a"), "{yes}");
        }
        for no in ["", "0", "no", "false", "False", "NONE", " none "] {
            assert!(!params(&[("a", no)]).flag("a"), "{no}");
        }
        assert!(!params(&[]).flag("a"));
        assert!(params(&[]).flag_unless_off("a"));
        assert_eq!(params(&[("a", "True")]).strict_flag("a"), Ok(true));
        assert_eq!(params(&[]).strict_flag("a"), Ok(false));
        assert!(params(&[("a", "yes")]).strict_flag("a").is_err());
    }

    #[test]
    fn moments_are_seconds_with_decimals_or_rfc_3339() {
        assert_eq!(parse_moment("1.5"), Some(Stamp(1_500_000_000)));
        assert_eq!(parse_moment("7"), Some(Stamp(7_000_000_000)));
        assert_eq!(parse_moment("1700000000.000000001"), Some(Stamp(1_700_000_000_000_000_001)));
        assert_eq!(parse_moment("1970-01-01T00:00:01.000000002Z"), Some(Stamp(1_000_000_002)));
        for wrong in ["", "x", "1.x", "1.0000000001", "99999999999999999999"] {
            assert_eq!(parse_moment(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn null_is_an_absent_field() {
        #[derive(Debug, Default, PartialEq, Deserialize)]
        #[serde(default)]
        struct Shape {
            a: Vec<String>,
            b: u64,
        }
        assert_eq!(parse(br#"{"a":null,"b":null,"c":{"d":null}}"#), Ok(Shape::default()));
        assert!(parse::<Shape>(br#"{"a":"text"}"#).is_err_and(|f| f.message.starts_with("invalid JSON: ")));
        assert!(parse::<Shape>(b"{").is_err_and(|f| f.kind == FailureKind::Invalid));
        let deep = "[".repeat(100_000);
        assert!(parse::<Shape>(deep.as_bytes()).is_err());
    }

    #[test]
    fn registry_credentials_are_read_from_either_alphabet() {
        let header = |json: &str| {
            let mut headers = HeaderMap::new();
            let text = BASE64_URL_SAFE.encode(json);
            headers.insert("X-Registry-Auth", text.trim_end_matches('=').parse().unwrap());
            registry_auth(&headers)
        };
        let auth = header(r#"{"username":"u","password":"p"}"#).unwrap().unwrap();
        assert_eq!((auth.username.as_str(), auth.password.as_str()), ("u", "p"));
        assert_eq!(header("{}"), Ok(None));
        assert!(header("nonsense").is_err());
    }
}
