//! Real clusters: daemons as hosts in namespaces (`scripts/lab`), driven by the clients that people use.

mod first_service;
mod loss;
mod members;
