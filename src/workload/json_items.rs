//! The items of a JSON file of any size, one after the other: the elements of its array, its lines, or, where
//! each line is an array of messages, those arrays. Holds one item at a time; which of them are wanted is
//! read again by their place.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read as _, Seek as _, SeekFrom};
use std::path::Path;

use anyhow::Context as _;
use memchr::memchr2;
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::Span;
use crate::plain::quoted;
use crate::surrogates;

/// How much is read at once, bytes.
const READ_BYTES: usize = 1 << 18;
/// An item that is larger than this, bytes, is no prompt.
const MOST_ITEM_BYTES: usize = 256 << 20;

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

/// The items of a file that can be read, and those that cannot.
#[derive(Debug)]
pub(super) struct Usable {
    pub(super) places: Vec<Place>,
    /// How many items there are in all.
    pub(super) read: usize,
    pub(super) malformed: Malformed,
    /// Whether the file is arrays of messages, one after the other.
    pub(super) are_arrays: bool,
}

/// Items that are JSON, but not what is expected.
#[derive(Debug, Default)]
pub(super) struct Malformed {
    count: usize,
    /// What is wrong with the first, and where it is.
    first: Option<String>,
}

impl Malformed {
    /// What a reader of the numbers should know.
    pub(super) fn note(&self, name: &str, read: usize) -> Option<String> {
        let (count, first) = (self.count, self.first.as_ref()?);
        Some(format!(
            "{count} of the {read} conversations of `{name}` are malformed and left out, the first at \
             {first}"
        ))
    }

    /// What is wrong with the first, as the end of an error.
    pub(super) fn hint(&self) -> String {
        match &self.first {
            Some(first) => format!("; {} are malformed, the first at {first}", self.count),
            None => String::new(),
        }
    }
}

impl<'a> JsonItems<'a> {
    pub(super) fn open(path: &Path, name: &'a str, expected: &'static str) -> anyhow::Result<Self> {
        let file = File::open(path).with_context(|| format!("read the dataset `{name}`"))?;
        Ok(Self { file, name, expected })
    }

    /// The places of all items, each of which must be what is expected.
    pub(super) fn places<T: for<'de> Deserialize<'de>>(&mut self) -> anyhow::Result<Vec<Place>> {
        self.scan(|this, item, place, places| {
            let _: T = this.parse(item, place)?;
            places.push(place.clone());
            Ok(())
        })
    }

    /// The places of the items for which `keep` says so, and what is known of those that are malformed.
    pub(super) fn usable<T: for<'de> Deserialize<'de>>(
        &mut self,
        keep: impl Fn(&T) -> bool,
    ) -> anyhow::Result<Usable> {
        let are_arrays = self.begins_with_messages()?;
        let malformed = Malformed::default();
        let none = Usable { places: Vec::new(), read: 0, malformed, are_arrays };
        self.scan_into(none, |this, item, place, usable| {
            usable.read += 1;
            match parsed::<T>(item) {
                Ok(item) if keep(&item) => usable.places.push(place.clone()),
                Ok(_) => {}
                Err(error) if error.is_data() => {
                    usable.malformed.count += 1;
                    let malformed = || this.fault(&error, place);
                    usable.malformed.first.get_or_insert_with(malformed);
                }
                Err(error) => {
                    anyhow::bail!("dataset `{}`, {}", this.name, this.fault(&error, place))
                }
            }
            Ok(())
        })
    }

    fn scan(
        &mut self,
        each: impl Fn(&Self, &[u8], &Place, &mut Vec<Place>) -> anyhow::Result<()>,
    ) -> anyhow::Result<Vec<Place>> {
        self.scan_into(Vec::new(), each)
    }

    /// Calls `each` with all items.
    fn scan_into<S>(
        &mut self,
        mut state: S,
        each: impl Fn(&Self, &[u8], &Place, &mut S) -> anyhow::Result<()>,
    ) -> anyhow::Result<S> {
        let shape = self.begins_with_messages()?.then_some(Shape::Arrays);
        self.rewind()?;
        let reader = BufReader::with_capacity(READ_BYTES, &self.file);
        let mut cutter = Cutter { shape, ..Cutter::new(reader) };
        while let Some(place) = cutter.next().map_err(|cut| self.explained(cut))? {
            each(self, &cutter.item, &place, &mut state)?;
        }
        Ok(state)
    }

    /// Whether the file begins with an array of messages: one conversation, and perhaps others after it.
    fn begins_with_messages(&mut self) -> anyhow::Result<bool> {
        self.rewind()?;
        let mut cutter = Cutter::new(BufReader::with_capacity(READ_BYTES, &self.file));
        // What is wrong with the file is told where it is read.
        let Ok(first) = cutter.next() else { return Ok(false) };
        let is_array = matches!(cutter.shape, Some(Shape::Array | Shape::Over));
        match first {
            Some(_) => {
                let is_object = cutter.item.starts_with(b"{");
                let is_message = || serde_json::from_slice::<Message>(&cutter.item).is_ok();
                Ok(is_array && is_object && is_message())
            }
            None => Ok(false),
        }
    }

    fn rewind(&mut self) -> anyhow::Result<()> {
        self.file.seek(SeekFrom::Start(0)).with_context(|| self.failed())?;
        Ok(())
    }

    fn explained(&self, cut: Cut) -> anyhow::Error {
        let name = self.name;
        match cut {
            Cut::Io(error) => anyhow::Error::new(error).context(self.failed()),
            Cut::TooEarly { line, column } => anyhow::anyhow!(
                "dataset `{name}`, line {line}, column {column}: the file ends too early: is the \
                 download complete?"
            ),
            Cut::TooLong { line } => anyhow::anyhow!(
                "dataset `{name}`, line {line}: an item of more than {} MiB; expected {}",
                MOST_ITEM_BYTES >> 20,
                self.expected
            ),
            Cut::Unexpected { line, column, byte } => anyhow::anyhow!(
                "dataset `{name}`, line {line}, column {column}: unexpected `{}`; expected {}",
                byte.escape_ascii(),
                self.expected
            ),
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
        parsed(item).map_err(|error| {
            anyhow::anyhow!("dataset `{}`, {}", self.name, self.fault(&error, place))
        })
    }

    /// What is wrong with an item, and where in the file.
    fn fault(&self, error: &serde_json::Error, place: &Place) -> String {
        let line = place.line + error.line().saturating_sub(1);
        let first = if error.line() <= 1 { place.column - 1 } else { 0 };
        format!(
            "line {line}, column {}: {}; expected {}",
            (first + error.column()).max(1),
            quoted(&without_place(error)),
            self.expected
        )
    }
}

/// An item, with what is half a character put right.
fn parsed<T: for<'de> Deserialize<'de>>(item: &[u8]) -> serde_json::Result<T> {
    let parsed = serde_json::from_slice(item);
    let is_syntax = parsed.as_ref().is_err_and(serde_json::Error::is_syntax);
    let repaired = is_syntax.then(|| surrogates::replaced(item)).flatten();
    repaired.map_or(parsed, |item| serde_json::from_slice(&item))
}

/// A message that is an item by itself.
#[derive(Deserialize)]
struct Message {
    #[serde(rename = "role", alias = "from")]
    _role: IgnoredAny,
    #[serde(rename = "content", alias = "value", alias = "tool_calls")]
    _content: IgnoredAny,
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
    TooLong { line: usize },
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
    /// Arrays, one after the other.
    Arrays,
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
            (Shape::Lines | Shape::Arrays | Shape::Over, None) => Ok(None),
            (Shape::Array, None) => Err(self.too_early()),
            (Shape::Over, Some(byte)) => {
                Err(Cut::Unexpected { line: self.line, column: self.column(), byte })
            }
            (Shape::Lines, Some(_)) => self.line_item().map(Some),
            (Shape::Array, Some(_)) => self.element().map(Some),
            (Shape::Arrays, Some(b'[')) => self.array().map(Some),
            (Shape::Arrays, Some(byte)) => {
                Err(Cut::Unexpected { line: self.line, column: self.column(), byte })
            }
        }
    }

    fn place(&self) -> Place {
        Place { bytes: self.at..self.at, line: self.line, column: self.column() }
    }

    fn line_item(&mut self) -> Result<Place, Cut> {
        let mut place = self.place();
        let most = MOST_ITEM_BYTES as u64 + 1;
        let mut line = (&mut self.reader).take(most);
        let read = line.read_until(b'\n', &mut self.item).map_err(Cut::Io)?;
        if MOST_ITEM_BYTES < read {
            return Err(Cut::TooLong { line: place.line });
        }
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
            self.take_byte(byte, &place)?;
        }
    }

    /// An array and what is in it.
    fn array(&mut self) -> Result<Place, Cut> {
        let mut place = self.place();
        let mut depth = 0_usize;
        loop {
            let Some(byte) = self.peek()? else { return Err(self.too_early()) };
            match byte {
                b'"' => {
                    self.string()?;
                    continue;
                }
                b'{' | b'[' => depth += 1,
                b'}' | b']' => depth = depth.saturating_sub(1),
                _ => {}
            }
            self.take_byte(byte, &place)?;
            if depth == 0 {
                place.bytes.end = place.bytes.start + self.item.len() as u64;
                return Ok(place);
            }
        }
    }

    fn take_byte(&mut self, byte: u8, place: &Place) -> Result<(), Cut> {
        if MOST_ITEM_BYTES < self.item.len() {
            return Err(Cut::TooLong { line: place.line });
        }
        self.item.push(byte);
        self.step(byte);
        Ok(())
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
            if MOST_ITEM_BYTES < self.item.len() {
                return Err(Cut::TooLong { line: self.line });
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
    fn arrays_after_each_other_are_cut_alike_however_the_text_arrives() {
        let text = "[{\"a\": \"]\"}]\r\n[1,\n [2]]\n\n [] [\"\\\"]\"]";
        for piece in 1..text.len() {
            let reader = BufReader::with_capacity(piece, text.as_bytes());
            let mut cutter = Cutter { shape: Some(Shape::Arrays), ..Cutter::new(reader) };
            let mut items = Vec::new();
            while let Some(place) = cutter.next().unwrap() {
                items.push((String::from_utf8(cutter.item.clone()).unwrap(), place.line));
            }
            let item = |text: &str, line| (text.to_owned(), line);
            let expected = [
                item("[{\"a\": \"]\"}]", 1),
                item("[1,\n [2]]", 2),
                item("[]", 5),
                item("[\"\\\"]\"]", 5),
            ];
            assert_eq!(items, expected, "{piece}");
        }
    }

    #[test]
    fn a_file_of_messages_is_told_from_a_file_of_rows() {
        for (text, count) in [
            (
                "[{\"role\": \"user\", \"content\": \"a\"}, {\"role\": \"user\", \"content\": \"b\"}]",
                1,
            ),
            (
                "[{\"from\": \"human\", \"value\": \"a\"}]\n[]\n[{\"from\": \"gpt\", \"value\": \"b\"}]",
                3,
            ),
            (
                "[[{\"role\": \"user\", \"content\": \"a\"}], [{\"role\": \"user\", \"content\": \"b\"}]]",
                2,
            ),
            ("[{\"prompt\": \"a\"}, {\"prompt\": \"b\"}]", 2),
            ("{\"prompt\": \"a\"}\n{\"prompt\": \"b\"}\n", 2),
        ] {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("d.json");
            std::fs::write(&path, text).unwrap();
            let mut items = JsonItems::open(&path, "d", "anything").unwrap();
            assert_eq!(items.places::<IgnoredAny>().unwrap().len(), count, "{text}");
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
