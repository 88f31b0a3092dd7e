//! The node's own identity, made into what the two sides of a handshake need.

use std::{
    fmt,
    sync::Arc,
    time::{Duration, SystemTime},
};

use covey_crypto::{
    certificate::{CaCertificate, CertificateError},
    identity::{NodeKey, ParseKeyError, PeerIdentity, Role},
};
use covey_wire::Id;
use quinn::crypto::rustls::{NoInitialCipherSuite, QuicClientConfig, QuicServerConfig};
use rustls::{
    client::Resumption, crypto::CryptoProvider, server::ServerSessionMemoryCache,
    time_provider::TimeProvider, version::TLS13,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, UnixTime};

use crate::{
    endpoint::Clock,
    transport,
    verifier::{OurCluster, PinnedCa},
};

/// Both certificates are of our CA and valid.
pub(crate) const MEMBER: &[u8] = b"covey-member/1";
/// The client has no certificate and knows the digest of the CA.
pub(crate) const JOIN: &[u8] = b"covey-join/1";
/// Both certificates are of our CA; they may have expired.
pub(crate) const RENEW: &[u8] = b"covey-renew/1";

/// Incoming connections that the socket holds before the endpoint looks at them, and bytes that each and all
/// may bring.
const INCOMING_MAX: usize = 256;
const INCOMING_BYTES_MAX: u64 = 16 << 10;
const INCOMING_BYTES_TOTAL_MAX: u64 = 1 << 20;
/// Peers whose sessions are remembered, so that a connection to them opens again with less work. A leader comes
/// round to all of its nodes again and again.
const SESSIONS_MAX: usize = 1024;
/// The TLS library keeps up to so many for each peer, and counts them.
const SESSIONS_PER_PEER: usize = 8;

/// Who this node is in its cluster.
#[derive(Clone, Debug)]
pub struct Identity {
    /// Its key.
    pub key: NodeKey,
    /// Its certificate; one that has expired only serves to renew.
    pub certificate: CertificateDer<'static>,
    /// The CA that issued it.
    pub ca: CaCertificate,
}

/// An identity is not usable. The one before it stays.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The certificate is not of that CA.
    #[error("this node's certificate is not of its cluster's CA")]
    Certificate(#[from] CertificateError),
    /// The certificate is for another key.
    #[error("this node's key and certificate do not belong together")]
    Mismatch,
    /// The key cannot be handed to TLS.
    #[error("this node's key is unusable")]
    Key(#[from] ParseKeyError),
    /// TLS does not take the identity.
    #[error("TLS refused this node's identity")]
    Tls(#[from] rustls::Error),
    /// The TLS library lacks what QUIC begins with.
    #[error("TLS lacks the cipher that QUIC begins with")]
    Cipher(#[from] NoInitialCipherSuite),
}

/// The identity as TLS uses it. Sessions that were opened with it are not resumed with another.
pub(crate) struct Credentials {
    pub(crate) ca: CaCertificate,
    pub(crate) id: Id,
    pub(crate) role: Role,
    pub(crate) server: quinn::ServerConfig,
    pub(crate) member: quinn::ClientConfig,
    pub(crate) renew: quinn::ClientConfig,
}

impl Credentials {
    pub(crate) fn new(identity: &Identity, clock: &Clock) -> Result<Self, IdentityError> {
        let me: PeerIdentity = identity.ca.verify(&identity.certificate)?;
        if me.public_key != identity.key.public() {
            return Err(IdentityError::Mismatch);
        }
        Ok(Self {
            ca: identity.ca.clone(),
            id: me.id,
            role: me.role,
            server: server(identity, clock)?,
            member: client(
                identity,
                clock,
                MEMBER,
                Resumption::in_memory_sessions(SESSIONS_MAX * SESSIONS_PER_PEER),
            )?,
            renew: client(identity, clock, RENEW, Resumption::disabled())?,
        })
    }
}

/// A client without a certificate, which trusts one CA by its digest.
pub(crate) fn joining(
    digest: [u8; 32],
    clock: &Clock,
) -> Result<(quinn::ClientConfig, Arc<PinnedCa>), IdentityError> {
    let verifier = PinnedCa::new(digest, provider());
    let mut tls = rustls::ClientConfig::builder_with_details(provider(), TlsClock::new(clock))
        .with_protocol_versions(&[&TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(verifier.clone())
        .with_no_client_auth();
    tls.alpn_protocols = vec![JOIN.to_vec()];
    tls.resumption = Resumption::disabled();
    Ok((quic_client(tls)?, verifier))
}

fn client(
    identity: &Identity,
    clock: &Clock,
    protocol: &[u8],
    resumption: Resumption,
) -> Result<quinn::ClientConfig, IdentityError> {
    let mut tls = rustls::ClientConfig::builder_with_details(provider(), TlsClock::new(clock))
        .with_protocol_versions(&[&TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(OurCluster::new(identity.ca.clone(), provider()))
        .with_client_auth_cert(vec![identity.certificate.clone()], private_key(identity)?)?;
    tls.alpn_protocols = vec![protocol.to_vec()];
    tls.resumption = resumption;
    quic_client(tls)
}

fn quic_client(tls: rustls::ClientConfig) -> Result<quinn::ClientConfig, IdentityError> {
    let mut config = quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls)?));
    config.transport_config(transport::config());
    Ok(config)
}

fn server(identity: &Identity, clock: &Clock) -> Result<quinn::ServerConfig, IdentityError> {
    // Who joins does not have the CA's certificate yet, so the chain brings it.
    let chain = vec![identity.certificate.clone(), identity.ca.der().clone()];
    let mut tls = rustls::ServerConfig::builder_with_details(provider(), TlsClock::new(clock))
        .with_protocol_versions(&[&TLS13])?
        .with_client_cert_verifier(OurCluster::new(identity.ca.clone(), provider()))
        .with_single_cert(chain, private_key(identity)?)?;
    tls.alpn_protocols = vec![MEMBER.to_vec(), JOIN.to_vec(), RENEW.to_vec()];
    tls.session_storage = ServerSessionMemoryCache::new(SESSIONS_MAX);
    // Whoever comes back with one gets the next.
    tls.send_tls13_tickets = 1;
    let mut config = quinn::ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(tls)?));
    config
        .transport_config(transport::config())
        .max_incoming(INCOMING_MAX)
        .incoming_buffer_size(INCOMING_BYTES_MAX)
        .incoming_buffer_size_total(INCOMING_BYTES_TOTAL_MAX);
    Ok(config)
}

fn private_key(identity: &Identity) -> Result<PrivateKeyDer<'static>, IdentityError> {
    Ok(PrivatePkcs8KeyDer::from(identity.key.to_der()?.to_vec()).into())
}

/// The provider is always named: a binary with two of them has no default.
fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

/// The endpoint's clock, as TLS asks for the time.
struct TlsClock(Clock);

impl TlsClock {
    fn new(clock: &Clock) -> Arc<Self> {
        Arc::new(Self(clock.clone()))
    }
}

impl TimeProvider for TlsClock {
    fn current_time(&self) -> Option<UnixTime> {
        let since: Duration = (self.0)().duration_since(SystemTime::UNIX_EPOCH).ok()?;
        Some(UnixTime::since_unix_epoch(since))
    }
}

impl fmt::Debug for TlsClock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TlsClock")
    }
}
