//! Containers and images.
