//! The key of a node, and what its certificate says about it.

use std::{fmt, time::SystemTime};

use covey_wire::Id;
use ed25519_dalek::{
    Signer, SigningKey,
    pkcs8::{DecodePrivateKey, EncodePrivateKey, spki::der::pem::LineEnding},
};
use rcgen::{CertificateParams, DistinguishedName, PKCS_ED25519, PublicKeyData, SignatureAlgorithm};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

/// What a node may do, as its certificate's organisational unit says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Role {
    /// Runs tasks.
    Worker,
    /// Runs tasks and takes part in decisions.
    Manager,
}

impl Role {
    /// The organisational unit, as Docker Swarm writes it.
    pub const fn unit(self) -> &'static str {
        match self {
            Self::Worker => "swarm-worker",
            Self::Manager => "swarm-manager",
        }
    }

    /// The role that an organisational unit stands for.
    pub fn of_unit(unit: &str) -> Option<Self> {
        [Self::Worker, Self::Manager].into_iter().find(|role| role.unit() == unit)
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Worker => "worker",
            Self::Manager => "manager",
        })
    }
}

/// Who a peer is. Only [`CaCertificate::verify`](crate::certificate::CaCertificate::verify) makes one, so the
/// authority of `cluster` vouches for it; whether it is still valid in time is asked separately.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PeerIdentity {
    /// The node, for its whole life in this cluster.
    pub id: Id,
    /// What it may do.
    pub role: Role,
    /// Its ed25519 key.
    pub public_key: [u8; 32],
    /// The cluster it belongs to.
    pub cluster: Id,
    /// The certificate is valid from here …
    pub not_before: SystemTime,
    /// … to here.
    pub not_after: SystemTime,
}

/// The text or bytes are not an ed25519 key in PKCS#8.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not an ed25519 private key in PKCS#8")]
pub struct ParseKeyError;

/// The library that writes certificates refused. Nothing was made.
#[derive(Debug, thiserror::Error)]
#[error("certificate or request cannot be written")]
pub struct WriteError(#[from] rcgen::Error);

/// The ed25519 key of a node: it stays when certificates are renewed. Wiped from memory when dropped.
#[derive(Clone)]
pub struct NodeKey {
    signing: SigningKey,
    public: [u8; 32],
}

impl NodeKey {
    /// The key made of 32 random bytes that the caller brings.
    pub fn from_seed(seed: &[u8; 32]) -> Self {
        Self::from(SigningKey::from_bytes(seed))
    }

    /// Reads a key as [`Self::to_pem`] writes it.
    ///
    /// # Errors
    /// [`ParseKeyError`].
    pub fn from_pem(text: &str) -> Result<Self, ParseKeyError> {
        SigningKey::from_pkcs8_pem(text).map(Self::from).map_err(|_| ParseKeyError)
    }

    /// Reads a key as [`Self::to_der`] writes it.
    ///
    /// # Errors
    /// [`ParseKeyError`].
    pub fn from_der(bytes: &[u8]) -> Result<Self, ParseKeyError> {
        SigningKey::from_pkcs8_der(bytes).map(Self::from).map_err(|_| ParseKeyError)
    }

    /// The key as PKCS#8, PEM (RFC 5958). For the node's own disk only.
    ///
    /// # Errors
    /// [`ParseKeyError`] where the key cannot be written, which no known key does.
    pub fn to_pem(&self) -> Result<Zeroizing<String>, ParseKeyError> {
        self.signing.to_pkcs8_pem(LineEnding::LF).map_err(|_| ParseKeyError)
    }

    /// The key as PKCS#8, DER (RFC 5958).
    ///
    /// # Errors
    /// As [`Self::to_pem`].
    pub fn to_der(&self) -> Result<Zeroizing<Vec<u8>>, ParseKeyError> {
        self.signing.to_pkcs8_der().map(|document| document.to_bytes()).map_err(|_| ParseKeyError)
    }

    /// The public half.
    pub const fn public(&self) -> [u8; 32] {
        self.public
    }

    /// Signs a message.
    pub fn sign(&self, message: &[u8]) -> [u8; 64] {
        self.signing.sign(message).to_bytes()
    }

    /// A certificate signing request (PKCS#10, RFC 2986; DER): proves that its sender holds this key. It says
    /// nothing else, for an authority takes only the key from it.
    ///
    /// # Errors
    /// [`WriteError`].
    pub fn request(&self) -> Result<Vec<u8>, WriteError> {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        Ok(params.serialize_request(self)?.der().to_vec())
    }
}

impl From<SigningKey> for NodeKey {
    fn from(signing: SigningKey) -> Self {
        let public = signing.verifying_key().to_bytes();
        Self { signing, public }
    }
}

impl fmt::Debug for NodeKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NodeKey(…)")
    }
}

impl PublicKeyData for NodeKey {
    fn der_bytes(&self) -> &[u8] {
        &self.public
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        &PKCS_ED25519
    }
}

impl rcgen::SigningKey for NodeKey {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        Ok(Self::sign(self, message).to_vec())
    }
}

#[cfg(test)]
mod tests {
    use ed25519_dalek::{Signature, Verifier, VerifyingKey};

    use super::*;

    #[test]
    fn a_key_survives_its_files() {
        let key = NodeKey::from_seed(&[5; 32]);
        assert_eq!(NodeKey::from_pem(&key.to_pem().unwrap()).unwrap().public(), key.public());
        assert_eq!(NodeKey::from_der(&key.to_der().unwrap()).unwrap().public(), key.public());
        assert_eq!(NodeKey::from_pem("-----BEGIN PRIVATE KEY-----").unwrap_err(), ParseKeyError);
        assert_eq!(NodeKey::from_der(&[0x30; 40]).unwrap_err(), ParseKeyError);
    }

    #[test]
    fn a_signature_is_of_the_public_key_and_the_key_does_not_print() {
        let key = NodeKey::from_seed(&[5; 32]);
        let public = VerifyingKey::from_bytes(&key.public()).unwrap();
        let signature = Signature::from_bytes(&key.sign(b"row"));
        assert!(public.verify(b"row", &signature).is_ok());
        assert!(public.verify(b"other row", &signature).is_err());
        assert_eq!(format!("{key:?}"), "NodeKey(…)");
    }

    /// PKI-06
    #[test]
    fn roles_are_written_as_docker_swarm_writes_them() {
        for role in [Role::Worker, Role::Manager] {
            assert_eq!(Role::of_unit(role.unit()), Some(role));
        }
        assert_eq!(Role::Manager.unit(), "swarm-manager");
        assert_eq!(Role::of_unit("manager"), None);
    }
}
