//! Which certificates TLS lets through: those of our CA, or those of the CA that a token names.
//!
//! Whether a member's certificate is valid in time and of the expected node is checked right after the
//! handshake (`admission`), where the peer can be told in words. Nothing is exchanged before that.

use std::{
    sync::{Arc, OnceLock},
    time::SystemTime,
};

use covey_crypto::{
    certificate::{CaCertificate, CertificateError, ValidityError},
    identity::{PeerIdentity, Role},
};
use rustls::{
    CertificateError as TlsCertificateError, DigitallySignedStruct, DistinguishedName, Error,
    PeerIncompatible, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{CryptoProvider, verify_tls13_signature},
    server::danger::{ClientCertVerified, ClientCertVerifier},
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

/// What all of our verifiers do alike: ed25519 and TLS 1.3 only.
macro_rules! signatures {
    () => {
        fn verify_tls12_signature(
            &self,
            _: &[u8],
            _: &CertificateDer<'_>,
            _: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            Err(Error::PeerIncompatible(PeerIncompatible::Tls13RequiredForQuic))
        }

        fn verify_tls13_signature(
            &self,
            message: &[u8],
            certificate: &CertificateDer<'_>,
            signature: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            verify_tls13_signature(
                message,
                certificate,
                signature,
                &self.provider.signature_verification_algorithms,
            )
        }

        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            vec![SignatureScheme::ED25519]
        }
    };
}

/// Lets nodes of our cluster through.
#[derive(Debug)]
pub(crate) struct OurCluster {
    ca: CaCertificate,
    provider: Arc<CryptoProvider>,
}

impl OurCluster {
    pub(crate) fn new(ca: CaCertificate, provider: Arc<CryptoProvider>) -> Arc<Self> {
        Arc::new(Self { ca, provider })
    }

    fn check(&self, certificate: &CertificateDer<'_>) -> Result<(), Error> {
        match self.ca.verify(certificate) {
            Ok(_) => Ok(()),
            Err(CertificateError::Malformed) => Err(TlsCertificateError::BadEncoding.into()),
            // Its alert tells the peer's side that the clusters differ.
            Err(_) => Err(TlsCertificateError::UnknownIssuer.into()),
        }
    }
}

impl ServerCertVerifier for OurCluster {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.check(certificate).map(|()| ServerCertVerified::assertion())
    }

    signatures!();
}

impl ClientCertVerifier for OurCluster {
    fn client_auth_mandatory(&self) -> bool {
        // Who joins has none yet. Members without one are refused after the handshake.
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        certificate: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.check(certificate).map(|()| ClientCertVerified::assertion())
    }

    signatures!();
}

/// Why the node at the other end is not the manager that the token promises.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum NotThatManager {
    /// Its CA has another digest, or it shows none.
    WrongCa,
    /// Its certificate is not of the CA that it shows.
    Certificate(CertificateError),
    /// It is a worker.
    Worker,
    /// Its certificate is not valid now.
    Validity(ValidityError),
}

/// The CA that the token names, and the manager that proved to be of it.
pub(crate) type Found = (CaCertificate, PeerIdentity);

/// Lets a manager of one CA through, known by digest alone, and remembers what it found. For one connection.
#[derive(Debug)]
pub(crate) struct PinnedCa {
    digest: [u8; 32],
    provider: Arc<CryptoProvider>,
    verdict: OnceLock<Result<Found, NotThatManager>>,
}

impl PinnedCa {
    pub(crate) fn new(digest: [u8; 32], provider: Arc<CryptoProvider>) -> Arc<Self> {
        Arc::new(Self { digest, provider, verdict: OnceLock::new() })
    }

    /// What was found, once the peer has shown its certificate.
    pub(crate) fn verdict(&self) -> Option<&Result<Found, NotThatManager>> {
        self.verdict.get()
    }

    fn judge(
        &self,
        certificate: &CertificateDer<'_>,
        chain: &[CertificateDer<'_>],
        now: SystemTime,
    ) -> Result<Found, NotThatManager> {
        let ca = chain
            .iter()
            .filter_map(|der| CaCertificate::from_der(der).ok())
            .find(|ca| ca.digest() == self.digest)
            .ok_or(NotThatManager::WrongCa)?;
        let manager = ca.verify(certificate).map_err(NotThatManager::Certificate)?;
        if manager.role != Role::Manager {
            return Err(NotThatManager::Worker);
        }
        manager.check_time(now).map_err(NotThatManager::Validity)?;
        Ok((ca, manager))
    }
}

impl ServerCertVerifier for PinnedCa {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let now = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(now.as_secs());
        match self.verdict.get_or_init(|| self.judge(certificate, intermediates, now)) {
            Ok(_) => Ok(ServerCertVerified::assertion()),
            Err(_) => Err(TlsCertificateError::ApplicationVerificationFailure.into()),
        }
    }

    signatures!();
}
