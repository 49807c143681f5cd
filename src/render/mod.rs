//! Reports as people read them. One file a format; each is made from a [`Report`](crate::report::Report)
//! alone and computes nothing.

pub mod overview;
pub mod table;
