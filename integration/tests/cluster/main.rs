//! Real clusters: daemons as hosts in namespaces (`scripts/lab`), driven by the clients that people use.

mod bad_input;
mod first_service;
mod loss;
mod members;
mod residue;
