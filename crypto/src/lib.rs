//! Who is who: identity, authority, certificate, token, sealed envelopes.
//!
//! Nothing here touches the outside: random bytes and the time are arguments. Keys and signatures are ed25519
//! (RFC 8032), certificates X.509 (RFC 5280, RFC 8410).

pub mod authority;
pub mod certificate;
pub mod identity;
pub mod sealed;
pub mod token;
