//! The rtnetlink socket: observe, apply, network namespaces.
