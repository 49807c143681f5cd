//! Reports as people and other programs read them. One file a format; each is made from
//! [`Report`](crate::report::Report)s alone and computes nothing.

pub mod bencher;
pub mod csv_table;
pub mod figure;
pub mod github_benchmark;
pub mod html;
pub mod junit;
pub mod markdown;
pub mod overview;
pub mod reasons;
pub mod side_by_side;
pub mod styled;
pub mod table;
pub mod telemetry;
pub mod text;

#[cfg(test)]
pub(crate) mod tests;
