//! The cluster's authority: it issues the certificates that make a machine a node.

use std::{
    fmt,
    time::{Duration, SystemTime},
};

use covey_wire::Id;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyUsagePurpose, PKCS_ED25519, PublicKeyData, SerialNumber,
};
use rustls_pki_types::CertificateDer;
use sha2::{Digest, Sha256};
use time::OffsetDateTime;
use zeroize::Zeroizing;

use crate::{
    certificate::{CaCertificate, CertificateError},
    identity::{NodeKey, ParseKeyError, Role, WriteError},
};

/// How far certificates reach back, so that a node whose clock is a little behind takes them at once.
pub const BACKDATED: Duration = Duration::from_secs(3600);
/// How long an authority lasts: 20 years, as with Docker Swarm. No certificate lasts longer.
const AUTHORITY_LIFETIME: Duration = Duration::from_secs(20 * 365 * 86_400);
/// Bytes of the largest signing request that is looked at; ours have about 200.
pub const REQUEST_MAX: usize = 4096;

/// No certificate was issued.
#[derive(Debug, thiserror::Error)]
pub enum IssueError {
    /// The request is malformed, or its sender does not hold the key in it.
    #[error("the certificate request is not valid")]
    Request,
    /// The request is for another kind of key.
    #[error("the certificate request is not for an ed25519 key")]
    Algorithm,
    /// The certificate could not be written.
    #[error(transparent)]
    Write(#[from] WriteError),
}

/// No authority could be made or read.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// The key is unreadable.
    #[error("the CA's key is unreadable")]
    Key(#[from] ParseKeyError),
    /// The certificate is unreadable or not an authority's.
    #[error("the CA's certificate is unusable")]
    Certificate(#[from] CertificateError),
    /// Key and certificate do not belong together.
    #[error("the CA's key and certificate do not belong together")]
    Mismatch,
    /// The certificate could not be written.
    #[error(transparent)]
    Write(#[from] WriteError),
}

/// An ed25519 CA with its private key; managers hold one.
pub struct Authority {
    key: NodeKey,
    certificate: CaCertificate,
}

impl Authority {
    /// A new authority for `cluster`, its key made of 32 random bytes that the caller brings.
    ///
    /// # Errors
    /// [`AuthorityError::Write`].
    pub fn create(seed: &[u8; 32], cluster: Id, now: SystemTime) -> Result<Self, AuthorityError> {
        let key = NodeKey::from_seed(seed);
        let mut params = params(cluster, now, AUTHORITY_LIFETIME, key.public());
        params.distinguished_name.push(DnType::CommonName, "swarm-ca");
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let certificate = params.self_signed(&key).map_err(WriteError::from)?;
        Ok(Self { certificate: CaCertificate::from_der(certificate.der())?, key })
    }

    /// Reads an authority as [`Self::certificate`] and [`Self::key_pem`] write it.
    ///
    /// # Errors
    /// [`AuthorityError`].
    pub fn from_pem(certificate: &str, key: &str) -> Result<Self, AuthorityError> {
        let key = NodeKey::from_pem(key)?;
        let certificate = CaCertificate::from_pem(certificate)?;
        if certificate.public_key() != key.public() {
            return Err(AuthorityError::Mismatch);
        }
        Ok(Self { key, certificate })
    }

    /// The public half.
    pub const fn certificate(&self) -> &CaCertificate {
        &self.certificate
    }

    /// The private key as PKCS#8, PEM.
    ///
    /// # Errors
    /// As [`NodeKey::to_pem`].
    pub fn key_pem(&self) -> Result<Zeroizing<String>, ParseKeyError> {
        self.key.to_pem()
    }

    /// Issues a node's certificate for the key of a signing request (DER). Whatever else the request asks for
    /// is ignored: `id` and `role` are the authority's decision. It is valid from [`BACKDATED`] before `now`
    /// until `lifetime` (20 years at most) after it.
    ///
    /// # Errors
    /// [`IssueError`].
    pub fn issue(
        &self,
        request: &[u8],
        id: Id,
        role: Role,
        now: SystemTime,
        lifetime: Duration,
    ) -> Result<CertificateDer<'static>, IssueError> {
        if request.len() > REQUEST_MAX {
            return Err(IssueError::Request);
        }
        let key = CertificateSigningRequestParams::from_der(&request.into())
            .map_err(|_| IssueError::Request)?
            .public_key;
        if *key.algorithm() != PKCS_ED25519 {
            return Err(IssueError::Algorithm);
        }
        let public: [u8; 32] = key.der_bytes().try_into().map_err(|_| IssueError::Algorithm)?;
        let mut params = params(self.certificate.cluster(), now, lifetime, public);
        params.distinguished_name.push(DnType::OrganizationalUnitName, role.unit());
        params.distinguished_name.push(DnType::CommonName, id.to_string());
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        let issuer = Issuer::from_ca_cert_der(self.certificate.der(), &self.key).map_err(WriteError::from)?;
        let certificate = params.signed_by(&key, &issuer).map_err(WriteError::from)?;
        Ok(certificate.der().clone())
    }
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Authority({})", self.certificate.cluster())
    }
}

/// What all of a cluster's certificates have in common.
fn params(cluster: Id, now: SystemTime, lifetime: Duration, public_key: [u8; 32]) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, cluster.to_string());
    params.not_before = OffsetDateTime::from(now - BACKDATED);
    params.not_after = OffsetDateTime::from(now + lifetime.min(AUTHORITY_LIFETIME));
    params.serial_number = Some(serial(&public_key, now));
    params
}

/// A serial number that differs between the certificates of one key, too (RFC 5280, 4.1.2.2: at most 20
/// bytes, positive).
fn serial(public_key: &[u8; 32], now: SystemTime) -> SerialNumber {
    let nanoseconds = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_nanos();
    let mut digest = Sha256::new();
    digest.update(public_key);
    digest.update(nanoseconds.to_be_bytes());
    let mut bytes = digest.finalize()[..20].to_vec();
    bytes[0] &= 0x7f;
    SerialNumber::from(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        certificate::{self, ValidityError},
        identity::PeerIdentity,
        token::JoinToken,
    };

    const CLUSTER: Id = Id::new(77);
    const NODE: Id = Id::new(0xfeed);
    const DAY: Duration = Duration::from_secs(86_400);
    const LIFETIME: Duration = Duration::from_secs(90 * 86_400);

    fn now() -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000)
    }

    fn authority(seed: u8) -> Authority {
        Authority::create(&[seed; 32], CLUSTER, now()).unwrap()
    }

    fn node() -> NodeKey {
        NodeKey::from_seed(&[9; 32])
    }

    fn issued(by: &Authority) -> CertificateDer<'static> {
        by.issue(&node().request().unwrap(), NODE, Role::Manager, now(), LIFETIME).unwrap()
    }

    fn identity() -> PeerIdentity {
        let authority = authority(1);
        authority.certificate().verify(&issued(&authority)).unwrap()
    }

    /// PKI-02, PKI-06, PKI-13
    #[test]
    fn a_certificate_says_who_holds_it_in_which_role() {
        let identity = identity();
        assert_eq!((identity.id, identity.role, identity.cluster), (NODE, Role::Manager, CLUSTER));
        assert_eq!(identity.public_key, node().public());
        assert_eq!(identity.not_before, now() - BACKDATED);
        assert_eq!(identity.not_after, now() + LIFETIME);
    }

    /// PKI-01
    #[test]
    fn a_certificate_of_another_authority_is_refused_even_if_it_names_our_cluster() {
        let stranger = issued(&authority(2));
        assert_eq!(authority(1).certificate().verify(&stranger), Err(CertificateError::Stranger));
    }

    /// PKI-01
    #[test]
    fn a_changed_certificate_is_refused() {
        let authority = authority(1);
        let good = issued(&authority);
        for at in 0..good.len() {
            let mut changed = good.to_vec();
            changed[at] ^= 1;
            assert!(authority.certificate().verify(&changed).is_err(), "byte {at} changed");
            assert!(authority.certificate().verify(&good[..at]).is_err(), "cut to {at} bytes");
        }
    }

    /// PKI-13
    #[test]
    fn a_node_is_no_authority_and_an_authority_no_node() {
        let authority = authority(1);
        assert_eq!(CaCertificate::from_der(&issued(&authority)), Err(CertificateError::Kind));
        assert_eq!(
            authority.certificate().verify(authority.certificate().der()),
            Err(CertificateError::Kind)
        );
        let imposter = Authority { key: node(), certificate: authority.certificate().clone() };
        assert_eq!(authority.certificate().verify(&issued(&imposter)), Err(CertificateError::Stranger));
    }

    /// CLU-07
    #[test]
    fn the_authority_decides_id_and_role_not_the_request() {
        let authority = authority(1);
        let request = node().request().unwrap();
        let worker = authority.issue(&request, Id::new(5), Role::Worker, now(), LIFETIME).unwrap();
        let identity = authority.certificate().verify(&worker).unwrap();
        assert_eq!((identity.id, identity.role), (Id::new(5), Role::Worker));
    }

    #[test]
    fn a_changed_request_never_yields_a_certificate_for_another_key() {
        let request = node().request().unwrap();
        for at in 0..request.len() {
            let mut changed = request.clone();
            changed[at] ^= 1;
            let authority = authority(1);
            // A different spelling of the same request may pass; a request for another key never does.
            if let Ok(issued) = authority.issue(&changed, NODE, Role::Worker, now(), LIFETIME) {
                let identity = authority.certificate().verify(&issued).unwrap();
                assert_eq!(identity.public_key, node().public(), "byte {at} changed");
            }
        }
        let long = vec![0; REQUEST_MAX + 1];
        assert!(matches!(
            authority(1).issue(&long, NODE, Role::Worker, now(), LIFETIME),
            Err(IssueError::Request)
        ));
    }

    #[test]
    fn an_endless_lifetime_is_cut() {
        let authority = authority(1);
        let long =
            authority.issue(&node().request().unwrap(), NODE, Role::Worker, now(), Duration::MAX).unwrap();
        assert_eq!(authority.certificate().verify(&long).unwrap().not_after, now() + AUTHORITY_LIFETIME);
    }

    /// PKI-02, PKI-05
    #[test]
    fn an_authority_survives_its_files_and_its_digest_fits_a_token() {
        let made = authority(1);
        let read = Authority::from_pem(&made.certificate().to_pem(), &made.key_pem().unwrap()).unwrap();
        assert_eq!(read.certificate(), made.certificate());
        let token: JoinToken =
            JoinToken::new(made.certificate().digest(), [1; 16]).to_string().parse().unwrap();
        assert_eq!(*token.ca_digest(), read.certificate().digest());
        assert!(read.certificate().verify(&issued(&read)).is_ok());

        let other = authority(2).key_pem().unwrap();
        let mixed = Authority::from_pem(&made.certificate().to_pem(), &other);
        assert!(matches!(mixed, Err(AuthorityError::Mismatch)));
        let text = certificate::to_pem(&issued(&made));
        assert_eq!(certificate::from_pem(&text).unwrap(), issued(&made));
    }

    #[test]
    fn a_clock_that_is_off_is_told_by_how_much() {
        let identity = identity();
        assert_eq!(identity.check_time(identity.not_before), Ok(()));
        assert_eq!(identity.check_time(identity.not_after), Ok(()));
        let early = identity.check_time(identity.not_before - 2 * DAY).unwrap_err();
        assert_eq!(early, ValidityError::NotYet { id: NODE, early: 2 * DAY });
        assert!(early.to_string().contains("not valid for another 2 d 0 h: a clock is off"), "{early}");
        let late = identity.check_time(identity.not_after + Duration::from_secs(3700)).unwrap_err();
        assert!(late.to_string().contains("expired 1 h 1 min ago"), "{late}");
    }

    #[test]
    fn renewal_falls_between_50_and_80_percent_of_life() {
        let identity = identity();
        let life = LIFETIME + BACKDATED;
        let at = |random| identity.renew_at(random).duration_since(identity.not_before).unwrap();
        assert_eq!(at(0), life / 2);
        assert!(at(u32::MAX).abs_diff(life * 4 / 5) < Duration::from_secs(1));
        assert!((life / 2..life * 4 / 5).contains(&at(u32::MAX / 2)));
    }
}
