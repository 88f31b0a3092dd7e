//! Certificates: read, verified against the cluster's authority, and judged in time.

use std::{
    fmt,
    time::{Duration, SystemTime},
};

use covey_wire::Id;
use ed25519_dalek::pkcs8::spki::der::pem::{self, LineEnding};
use rustls_pki_types::{CertificateDer, pem::PemObject};
use sha2::{Digest, Sha256};
use x509_parser::{
    certificate::X509Certificate,
    oid_registry::{OID_SIG_ED25519, Oid},
    prelude::FromDer,
    time::ASN1Time,
    x509::{AttributeTypeAndValue, X509Name, X509Version},
};

use crate::identity::{PeerIdentity, Role};

/// Bytes of the largest certificate that is looked at; ours have about 400.
pub const CERTIFICATE_MAX: usize = 4096;
/// What stands between the signed part and the 64 bytes of an ed25519 signature (RFC 8410). Nothing signs
/// these bytes, so only their one spelling is taken.
const SIGNATURE_HEAD: [u8; 10] = [0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x41, 0x00];
const PEM_LABEL: &str = "CERTIFICATE";

/// A certificate is none of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CertificateError {
    /// It is not an X.509 certificate with an ed25519 key and signature.
    #[error("not an ed25519 certificate")]
    Malformed,
    /// The authority at hand did not sign it.
    #[error("the certificate was not issued by this cluster's CA")]
    Stranger,
    /// It names another cluster.
    #[error("the certificate is of cluster {0}, not of this one")]
    Cluster(Id),
    /// It is an authority's certificate where a node's is wanted, or the other way round.
    #[error("the certificate is not of the wanted kind (CA or node)")]
    Kind,
    /// The subject does not say which node of which role this is.
    #[error("the certificate names no node, role and cluster")]
    Subject,
}

/// A certificate that cannot be valid now; says by how much, so that one sees whether the clock or the
/// certificate is off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ValidityError {
    /// It begins later.
    #[error(
        "the certificate of node {id} is not valid for another {}: \
         a clock is off, where it is checked or where it was issued",
        Span(*.early)
    )]
    NotYet {
        /// The node.
        id: Id,
        /// Until it begins.
        early: Duration,
    },
    /// It has ended.
    #[error(
        "the certificate of node {id} expired {} ago: \
         it was not renewed, or the clock is off where it is checked",
        Span(*.late)
    )]
    Expired {
        /// The node.
        id: Id,
        /// Since it ended.
        late: Duration,
    },
}

impl PeerIdentity {
    /// Whether the certificate is valid at `now`.
    ///
    /// # Errors
    /// [`ValidityError`]; a boundary itself is valid.
    pub fn check_time(&self, now: SystemTime) -> Result<(), ValidityError> {
        if let Ok(early) = self.not_before.duration_since(now)
            && !early.is_zero()
        {
            return Err(ValidityError::NotYet { id: self.id, early });
        }
        match now.duration_since(self.not_after) {
            Ok(late) if !late.is_zero() => Err(ValidityError::Expired { id: self.id, late }),
            _ => Ok(()),
        }
    }

    /// When to renew the certificate: at 50 to 80 % of its life, spread by `random` so that nodes that joined
    /// together do not renew together.
    pub fn renew_at(&self, random: u32) -> SystemTime {
        renew_at(self.not_before, self.not_after, random)
    }
}

/// See [`PeerIdentity::renew_at`].
pub fn renew_at(not_before: SystemTime, not_after: SystemTime, random: u32) -> SystemTime {
    let life = not_after.duration_since(not_before).unwrap_or_default();
    not_before + life.mul_f64(0.5 + 0.3 * f64::from(random) / f64::from(u32::MAX))
}

/// The public half of a cluster's authority: what everyone checks certificates against.
#[derive(Clone, PartialEq, Eq)]
pub struct CaCertificate {
    der: CertificateDer<'static>,
    public_key: [u8; 32],
    cluster: Id,
}

impl CaCertificate {
    /// Reads the authority's certificate (DER).
    ///
    /// # Errors
    /// [`CertificateError`]; in particular where it is not self-signed, or is a node's.
    pub fn from_der(der: &[u8]) -> Result<Self, CertificateError> {
        let certificate = parse(der)?;
        if !certificate.is_ca() {
            return Err(CertificateError::Kind);
        }
        if certificate.subject() != certificate.issuer() || certificate.verify_signature(None).is_err() {
            return Err(CertificateError::Stranger);
        }
        let cluster = only(certificate.subject().iter_organization())?
            .parse()
            .map_err(|_| CertificateError::Subject)?;
        Ok(Self { der: CertificateDer::from(der.to_vec()), public_key: public_key(&certificate)?, cluster })
    }

    /// Reads the authority's certificate (PEM).
    ///
    /// # Errors
    /// As [`Self::from_der`].
    pub fn from_pem(text: &str) -> Result<Self, CertificateError> {
        Self::from_der(&from_pem(text)?)
    }

    /// The certificate itself.
    pub const fn der(&self) -> &CertificateDer<'static> {
        &self.der
    }

    /// The certificate as text.
    pub fn to_pem(&self) -> String {
        to_pem(&self.der)
    }

    /// The cluster whose authority this is.
    pub const fn cluster(&self) -> Id {
        self.cluster
    }

    /// The authority's ed25519 key.
    pub const fn public_key(&self) -> [u8; 32] {
        self.public_key
    }

    /// SHA-256 of the certificate: what join tokens carry.
    pub fn digest(&self) -> [u8; 32] {
        Sha256::digest(&self.der).into()
    }

    /// Who holds this certificate (DER), if our authority issued it. Says nothing about time: see
    /// [`PeerIdentity::check_time`].
    ///
    /// # Errors
    /// [`CertificateError`].
    pub fn verify(&self, der: &[u8]) -> Result<PeerIdentity, CertificateError> {
        let ca = parse(&self.der)?;
        let certificate = parse(der)?;
        if certificate.is_ca() {
            return Err(CertificateError::Kind);
        }
        if certificate.issuer() != ca.subject()
            || certificate.verify_signature(Some(ca.public_key())).is_err()
        {
            return Err(CertificateError::Stranger);
        }
        let identity = identity(&certificate)?;
        if identity.cluster != self.cluster {
            return Err(CertificateError::Cluster(identity.cluster));
        }
        Ok(identity)
    }
}

impl fmt::Debug for CaCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CaCertificate({})", self.cluster)
    }
}

/// A certificate as text (RFC 7468).
pub fn to_pem(der: &CertificateDer<'_>) -> String {
    // Fails only beyond the largest text that memory can address.
    pem::encode_string(PEM_LABEL, LineEnding::LF, der).unwrap_or_default()
}

/// A certificate out of its text. Nothing is verified.
///
/// # Errors
/// [`CertificateError::Malformed`].
pub fn from_pem(text: &str) -> Result<CertificateDer<'static>, CertificateError> {
    CertificateDer::from_pem_slice(text.as_bytes()).map_err(|_| CertificateError::Malformed)
}

/// Reads a version 3 certificate that has an ed25519 key and an ed25519 signature, and nothing behind it.
fn parse(der: &[u8]) -> Result<X509Certificate<'_>, CertificateError> {
    if der.len() > CERTIFICATE_MAX {
        return Err(CertificateError::Malformed);
    }
    let (rest, certificate) = X509Certificate::from_der(der).map_err(|_| CertificateError::Malformed)?;
    let ed25519 = |oid: &Oid<'_>| *oid == OID_SIG_ED25519;
    let unsigned_part = der.split_last_chunk::<64>().and_then(|(front, _)| front.last_chunk());
    let ours = rest.is_empty()
        && certificate.version() == X509Version::V3
        && ed25519(&certificate.public_key().algorithm.algorithm)
        && ed25519(&certificate.signature.algorithm)
        && unsigned_part == Some(&SIGNATURE_HEAD);
    ours.then_some(certificate).ok_or(CertificateError::Malformed)
}

fn identity(certificate: &X509Certificate<'_>) -> Result<PeerIdentity, CertificateError> {
    let subject: &X509Name<'_> = certificate.subject();
    let wrong = CertificateError::Subject;
    Ok(PeerIdentity {
        id: only(subject.iter_common_name())?.parse().map_err(|_| wrong)?,
        role: Role::of_unit(only(subject.iter_organizational_unit())?).ok_or(wrong)?,
        public_key: public_key(certificate)?,
        cluster: only(subject.iter_organization())?.parse().map_err(|_| wrong)?,
        not_before: moment(certificate.validity().not_before)?,
        not_after: moment(certificate.validity().not_after)?,
    })
}

fn public_key(certificate: &X509Certificate<'_>) -> Result<[u8; 32], CertificateError> {
    let key = certificate.public_key().subject_public_key.data.as_ref();
    key.try_into().map_err(|_| CertificateError::Malformed)
}

/// The text of an attribute that must be there exactly once.
fn only<'a>(
    mut values: impl Iterator<Item = &'a AttributeTypeAndValue<'a>>,
) -> Result<&'a str, CertificateError> {
    match (values.next(), values.next()) {
        (Some(value), None) => value.as_str().map_err(|_| CertificateError::Subject),
        _ => Err(CertificateError::Subject),
    }
}

fn moment(time: ASN1Time) -> Result<SystemTime, CertificateError> {
    let seconds = u64::try_from(time.timestamp()).map_err(|_| CertificateError::Malformed)?;
    Ok(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds))
}

/// A duration as people say it: its two largest units.
struct Span(Duration);

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.as_secs();
        match seconds {
            0..60 => write!(f, "{seconds} s"),
            60..3600 => write!(f, "{} min {} s", seconds / 60, seconds % 60),
            3600..86_400 => write!(f, "{} h {} min", seconds / 3600, seconds / 60 % 60),
            _ => write!(f, "{} d {} h", seconds / 86_400, seconds / 3600 % 24),
        }
    }
}
