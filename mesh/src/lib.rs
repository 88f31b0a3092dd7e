//! A name or a published port, from anywhere, reaches a healthy backend; first of all the way out.
