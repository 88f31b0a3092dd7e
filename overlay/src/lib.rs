//! One flat network per tenant over any underlay; first of all the edge that joins all hosts.
