//! A text in a style of its own, in a column of a table for a terminal.

use std::fmt::Write as _;

use anstyle::Style;

/// What stands between two columns.
pub const GAP: &str = "  ";

/// What stands in a place of the table.
#[derive(Clone, Debug)]
pub struct Styled {
    /// Without escapes.
    pub text: String,
    /// Its colour and weight.
    pub style: Style,
}

/// Where in its column a text stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flush {
    /// At its beginning, as words do.
    Left,
    /// At its end, as numbers do.
    Right,
}

impl Styled {
    /// A text as any other.
    pub fn plain(text: impl Into<String>) -> Self {
        Self { text: text.into(), style: Style::new() }
    }

    /// A head.
    pub fn bold(text: &str) -> Self {
        Self { text: text.to_owned(), style: Style::new().bold() }
    }

    /// Columns of a terminal that it takes.
    pub fn width(&self) -> usize {
        self.text.chars().count()
    }

    /// Adds it to a line, in a column of this width, and what comes before the next column.
    pub fn write(&self, line: &mut String, width: usize, flush: Flush) {
        let Self { text, style } = self;
        let padding = " ".repeat(width.saturating_sub(self.width()));
        // A string takes all that is written to it.
        let _ = match flush {
            Flush::Left => write!(line, "{style}{text}{style:#}{padding}{GAP}"),
            Flush::Right => write!(line, "{padding}{style}{text}{style:#}{GAP}"),
        };
    }
}
