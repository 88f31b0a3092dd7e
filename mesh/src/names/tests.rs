//! Every rule about names, one by one.
