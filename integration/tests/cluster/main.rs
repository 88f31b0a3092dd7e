//! Real clusters: daemons as hosts in namespaces (`scripts/lab`), driven by the clients that people use.

mod addresses;
mod bad_input;
mod clock;
mod convergence;
mod first_service;
mod flow_cache;
mod health;
mod held_ports;
mod host_network;
mod ingress;
mod isolation;
mod loss;
mod members;
mod names;
mod names_kept;
mod net_doctor;
mod network_bad_input;
mod networks_plain;
mod overlay;
mod residue;
mod self_repair;
mod switching;
mod timing;
mod wire;
