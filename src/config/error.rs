//! An error in a plan file: file, line, column, the line itself, what is wrong. Pure.

use std::fmt;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

use crate::nearest::did_you_mean;

/// Why a plan file cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct ConfigError {
    path: PathBuf,
    place: Option<Place>,
    message: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Place {
    line: usize,
    column: usize,
    text: String,
}

impl ConfigError {
    /// An error of the file as a whole.
    pub(crate) fn whole(path: &Path, message: impl Into<String>) -> Self {
        Self { path: path.to_owned(), place: None, message: message.into() }
    }

    pub(super) fn unreadable(path: &Path, error: &io::Error) -> Self {
        Self { path: path.to_owned(), place: None, message: format!("cannot be read: {error}") }
    }

    pub(super) fn syntax(path: &Path, text: &str, error: &toml::de::Error) -> Self {
        let message = format!("{}{}", error.message(), meant(error.message()));
        match error.span() {
            Some(span) => Self::at(path, text, span, message),
            None => {
                Self { path: path.to_owned(), place: None, message: error.message().to_owned() }
            }
        }
    }

    pub(super) fn at(
        path: &Path,
        text: &str,
        span: Range<usize>,
        message: impl Into<String>,
    ) -> Self {
        let before = text.get(..span.start).unwrap_or(text);
        let line = line_of(text, span.start);
        let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
        let text = text.lines().nth(line - 1).unwrap_or_default().to_owned();
        let place = Some(Place { line, column, text });
        Self { path: path.to_owned(), place, message: message.into() }
    }
}

/// The nearest of the names that the parser expects to the one that it does not know.
fn meant(message: &str) -> String {
    let Some((unknown, expected)) = message.split_once(", expected ") else { return String::new() };
    fn names(text: &str) -> impl Iterator<Item = &str> {
        text.split('`').skip(1).step_by(2)
    }
    match names(unknown).next() {
        Some(name) => did_you_mean(name, names(expected)),
        None => String::new(),
    }
}

/// The line, counted from 1, that holds the byte at `offset`.
pub(super) fn line_of(text: &str, offset: usize) -> usize {
    text.get(..offset).unwrap_or(text).matches('\n').count() + 1
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.path.display())?;
        let Some(Place { line, column, text }) = &self.place else {
            return write!(f, ": {}", self.message);
        };
        let number = line.to_string();
        let margin = " ".repeat(number.len());
        write!(f, ":{line}:{column}: {}", self.message)?;
        write!(f, "\n{margin} |\n{number} | {text}")?;
        write!(f, "\n{margin} | {}^", " ".repeat(column - 1))
    }
}
