//! Programs that run on Covey.
