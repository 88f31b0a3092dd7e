//! Who is alive, and the rows that each node says about itself.
