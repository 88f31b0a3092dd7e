//! What the leader decides.
