//! The only control-plane UDP socket: one QUIC endpoint with mutual TLS.
