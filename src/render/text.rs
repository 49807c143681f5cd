//! Texts of tables. Pure.

pub use crate::plain::{plain, plain_cell, plain_lines};

/// A number as tables show it: two digits behind the point, `n/a` where it is missing.
pub fn number(value: Option<f64>) -> String {
    value.map_or_else(|| "n/a".to_owned(), |value| format!("{value:.2}"))
}
