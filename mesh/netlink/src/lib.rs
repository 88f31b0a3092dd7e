//! The nf_tables socket: observe and apply in atomic batches.
