//! Who is who: identity, authority, certificate, token, sealed envelopes.

pub mod sealed;
