//! The items of a JSON file of any size, one after the other: the elements of its array, or its lines.
//! Holds one item at a time; which of them are wanted is read again by their place.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read as _, Seek as _, SeekFrom};
use std::path::Path;

use anyhow::Context as _;
use memchr::memchr2;
use serde::Deserialize;

use super::Span;
use crate::surrogates;

/// How much is read at once, bytes.
const READ_BYTES: usize = 1 << 18;

/// Where an item is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) bytes: Span,
    /// Counted from 1.
    pub(super) line: usize,
    /// Of its first byte in that line, counted from 1.
    pub(super) column: usize,
}

/// A file of items.
pub(super) struct JsonItems<'a> {
    file: File,
    /// What the messages call it.
    name: &'a str,
    /// What its items should be, for the messages.
    expected: &'static str,
}

impl<'a> JsonItems<'a> {
    pub(super) fn open(path: &Path, name: &'a str, expected: &'static str) -> anyhow::Result<Self> {
        let file = File::open(path).with_context(|| format!("read the dataset `{name}`"))?;
        Ok(Self { file, name, expected })
    }

    /// The places of the items for which `keep` says so.
    pub(super) fn places<T: for<'de> Deserialize<'de>>(
        &mut self,
        mut keep: impl FnMut(&T) -> bool,
    ) -> anyhow::Result<Vec<Place>> {
        self.file.seek(SeekFrom::Start(0)).with_context(|| self.failed())?;
        let mut places = Vec::new();
        let mut cutter = Cutter::new(BufReader::with_capacity(READ_BYTES, &self.file));
        loop {
            match cutter.next() {
                Ok(Some(place)) => {
                    let item: T = self.parse(&cutter.item, &place)?;
                    if keep(&item) {
                        places.push(place);
                    }
                }
                Ok(None) => return Ok(places),
                Err(Cut::Io(error)) => return Err(error).with_context(|| self.failed()),
                Err(Cut::TooEarly { line, column }) => anyhow::bail!(
                    "dataset `{}`, line {line}, column {column}: the file ends too early: is the \
                     download complete?",
                    self.name
                ),
                Err(Cut::Unexpected { line, column, byte }) => anyhow::bail!(
                    "dataset `{}`, line {line}, column {column}: unexpected `{}`; expected {}",
                    self.name,
                    byte.escape_ascii(),
                    self.expected
                ),
            }
        }
    }

    /// The item at a place.
    pub(super) fn read<T: for<'de> Deserialize<'de>>(
        &mut self,
        place: &Place,
    ) -> anyhow::Result<T> {
        let mut bytes = vec![0; (place.bytes.end - place.bytes.start) as usize];
        self.file
            .seek(SeekFrom::Start(place.bytes.start))
            .and_then(|_| self.file.read_exact(&mut bytes))
            .with_context(|| self.failed())?;
        self.parse(&bytes, place)
    }

    fn failed(&self) -> String {
        format!("read the dataset `{}`", self.name)
    }

    fn parse<T: for<'de> Deserialize<'de>>(&self, item: &[u8], place: &Place) -> anyhow::Result<T> {
        let parsed = serde_json::from_slice(item);
        let repaired = parsed.is_err().then(|| surrogates::replaced(item)).flatten();
        repaired.map_or(parsed, |item| serde_json::from_slice(&item)).map_err(|error| {
            let line = place.line + error.line().saturating_sub(1);
            let first = if error.line() <= 1 { place.column - 1 } else { 0 };
            anyhow::anyhow!(
                "dataset `{}`, line {line}, column {}: {}; expected {}",
                self.name,
                (first + error.column()).max(1),
                without_place(&error),
                self.expected
            )
        })
    }
}

/// What an error says, without the place in the item, which is none in the file.
fn without_place(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let place = format!(" at line {} column {}", error.line(), error.column());
    text.strip_suffix(&place).unwrap_or(&text).to_owned()
}

/// Why no further item can be cut off.
#[derive(Debug)]
enum Cut {
    Io(io::Error),
    TooEarly { line: usize, column: usize },
    Unexpected { line: usize, column: usize, byte: u8 },
}

/// Cuts items off a reader.
struct Cutter<R> {
    reader: R,
    at: u64,
    line: usize,
    /// Where the line begins.
    line_at: u64,
    shape: Option<Shape>,
    item: Vec<u8>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Shape {
    Array,
    Lines,
    /// The array has ended.
    Over,
}

impl<R: BufRead> Cutter<R> {
    fn new(reader: R) -> Self {
        Self { reader, at: 0, line: 1, line_at: 0, shape: None, item: Vec::new() }
    }

    fn column(&self) -> usize {
        (self.at - self.line_at) as usize + 1
    }

    fn peek(&mut self) -> Result<Option<u8>, Cut> {
        Ok(self.reader.fill_buf().map_err(Cut::Io)?.first().copied())
    }

    fn step(&mut self, byte: u8) {
        self.reader.consume(1);
        self.at += 1;
        if byte == b'\n' {
            self.line += 1;
            self.line_at = self.at;
        }
    }

    /// The next byte that is no white space; it is not consumed.
    fn skip_space(&mut self) -> Result<Option<u8>, Cut> {
        loop {
            match self.peek()? {
                // A byte order mark is none of the text.
                Some(byte @ (b' ' | b'\t' | b'\r' | b'\n')) => self.step(byte),
                Some(byte @ (0xef | 0xbb | 0xbf)) if self.at < 3 => self.step(byte),
                other => return Ok(other),
            }
        }
    }

    fn too_early(&self) -> Cut {
        Cut::TooEarly { line: self.line, column: self.column() }
    }

    /// Puts the next item into `self.item`; `None` where there is none.
    fn next(&mut self) -> Result<Option<Place>, Cut> {
        let first = self.skip_space()?;
        let shape = match (self.shape, first) {
            (None, None) => return Err(self.too_early()),
            (None, Some(b'[')) => {
                self.step(b'[');
                self.shape = Some(Shape::Array);
                if self.skip_space()? == Some(b']') {
                    self.step(b']');
                    self.shape = Some(Shape::Over);
                    return self.next();
                }
                Shape::Array
            }
            (None, Some(_)) => Shape::Lines,
            (Some(shape), _) => shape,
        };
        self.shape = Some(shape);
        self.item.clear();
        match (shape, self.skip_space()?) {
            (Shape::Lines | Shape::Over, None) => Ok(None),
            (Shape::Array, None) => Err(self.too_early()),
            (Shape::Over, Some(byte)) => {
                Err(Cut::Unexpected { line: self.line, column: self.column(), byte })
            }
            (Shape::Lines, Some(_)) => self.line_item().map(Some),
            (Shape::Array, Some(_)) => self.element().map(Some),
        }
    }

    fn place(&self) -> Place {
        Place { bytes: self.at..self.at, line: self.line, column: self.column() }
    }

    fn line_item(&mut self) -> Result<Place, Cut> {
        let mut place = self.place();
        let read = self.reader.read_until(b'\n', &mut self.item).map_err(Cut::Io)?;
        self.at += read as u64;
        self.line += 1;
        self.line_at = self.at;
        let text = self.item.trim_ascii_end().len();
        self.item.truncate(text);
        place.bytes.end = place.bytes.start + text as u64;
        Ok(place)
    }

    fn element(&mut self) -> Result<Place, Cut> {
        let mut place = self.place();
        let mut depth = 0_usize;
        loop {
            let Some(byte) = self.peek()? else { return Err(self.too_early()) };
            match byte {
                b',' | b']' if depth == 0 => {
                    place.bytes.end = place.bytes.start + self.item.len() as u64;
                    self.step(byte);
                    if byte == b']' {
                        self.shape = Some(Shape::Over);
                    }
                    return Ok(place);
                }
                b'"' => {
                    self.string()?;
                    continue;
                }
                b'{' | b'[' => depth += 1,
                b'}' | b']' => depth = depth.saturating_sub(1),
                _ => {}
            }
            self.item.push(byte);
            self.step(byte);
        }
    }

    /// Takes a string, its quotes included.
    fn string(&mut self) -> Result<(), Cut> {
        let take = |this: &mut Self, count: usize| -> Result<(), Cut> {
            let bytes = this.reader.fill_buf().map_err(Cut::Io)?;
            this.item.extend_from_slice(&bytes[..count]);
            this.reader.consume(count);
            this.at += count as u64;
            Ok(())
        };
        take(self, 1)?;
        loop {
            let bytes = self.reader.fill_buf().map_err(Cut::Io)?;
            if bytes.is_empty() {
                return Err(self.too_early());
            }
            match memchr2(b'"', b'\\', bytes) {
                None => {
                    let all = bytes.len();
                    take(self, all)?;
                }
                Some(end) if bytes[end] == b'"' => return take(self, end + 1),
                Some(escape) => {
                    take(self, escape + 1)?;
                    // The escaped character, which may be a quote.
                    if self.peek()?.is_none() {
                        return Err(self.too_early());
                    }
                    take(self, 1)?;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The items of a text that arrives `piece` bytes at a time.
    fn cut(text: &str, piece: usize) -> Result<Vec<(String, Place)>, Cut> {
        let reader = BufReader::with_capacity(piece, text.as_bytes());
        let mut cutter = Cutter::new(reader);
        let mut items = Vec::new();
        while let Some(place) = cutter.next()? {
            items.push((String::from_utf8(cutter.item.clone()).unwrap(), place));
        }
        Ok(items)
    }

    #[test]
    fn items_are_cut_alike_however_the_text_arrives() {
        let array = "\u{feff} [ {\"a\": \"x],\\\"{\"}\n ,[1, [2]],\n\n  3 , \"}\\\\\" ] \n";
        let lines = "{\"a\": 1}\r\n\n  {\"b\": [1,2]}\n3\n";
        let expected: [&[&str]; 2] = [
            &["{\"a\": \"x],\\\"{\"}", "[1, [2]]", "3", "\"}\\\\\""],
            &["{\"a\": 1}", "{\"b\": [1,2]}", "3"],
        ];
        for (text, expected) in [array, lines].into_iter().zip(expected) {
            for piece in 1..text.len() {
                let items = cut(text, piece).unwrap();
                let texts: Vec<&str> = items.iter().map(|(item, _)| item.trim_end()).collect();
                assert_eq!(texts, expected, "{piece}");
                for (item, place) in items {
                    let (start, end) = (place.bytes.start as usize, place.bytes.end as usize);
                    assert_eq!(text[start..end], item);
                    assert_eq!(text[..start].matches('\n').count() + 1, place.line);
                }
            }
        }
    }

    #[test]
    fn an_array_without_its_end_is_cut_off() {
        for text in ["", "[", "[{\"a\":1}", "[{\"a\":1},", "[\"a", "[\"a\\"] {
            assert!(matches!(cut(text, 8), Err(Cut::TooEarly { .. })), "{text}");
        }
        assert!(matches!(cut("[1] x", 8), Err(Cut::Unexpected { byte: b'x', .. })));
        assert_eq!(cut("[]", 8).unwrap(), []);
    }
}
