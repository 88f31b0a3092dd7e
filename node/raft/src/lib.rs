//! The replicated, encrypted log on disk.
