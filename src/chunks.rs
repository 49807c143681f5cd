//! When the events of a response came, in a few bytes each: a run may hold millions of them. Pure.

use std::fmt;
use std::time::Duration;

/// One event with generated output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chunk {
    /// The read that completed the event.
    pub at: Duration,
    /// How many tokens it holds, where the server says so.
    pub tokens: Option<u32>,
}

/// Events with generated output, in the order in which they came.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Chunks {
    /// When the first came, in nanoseconds.
    first_at: u64,
    last_at: u64,
    len: u32,
    /// Of each event how much later than the one before it came, and its tokens where they are known; numbers are
    /// written as seven bits a byte, the lowest first.
    bytes: Vec<u8>,
}

impl Chunks {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.len as usize
    }

    /// Whether there is no event.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The first.
    pub fn first(&self) -> Option<Chunk> {
        self.iter().next()
    }

    /// When the last came.
    pub fn last_at(&self) -> Option<Duration> {
        (!self.is_empty()).then(|| Duration::from_nanos(self.last_at))
    }

    /// One after the other.
    pub fn iter(&self) -> Iter<'_> {
        Iter { bytes: &self.bytes, at: self.first_at, left: self.len }
    }

    /// From each but the last to the next.
    pub fn gaps(&self) -> impl Iterator<Item = Duration> {
        self.iter().zip(self.iter().skip(1)).map(|(one, next)| next.at.saturating_sub(one.at))
    }

    /// Adds one that came after the others.
    pub fn push(&mut self, chunk: Chunk) {
        let at = chunk.at.as_nanos() as u64;
        if self.is_empty() {
            (self.first_at, self.last_at) = (at, at);
        }
        let later = at.wrapping_sub(self.last_at) as i64;
        let zigzag = ((later << 1) ^ (later >> 63)) as u64;
        write(zigzag << 1 | u64::from(chunk.tokens.is_some()), &mut self.bytes);
        if let Some(tokens) = chunk.tokens {
            write(tokens.into(), &mut self.bytes);
        }
        self.last_at = at;
        self.len += 1;
    }

    /// Takes the last away.
    pub fn pop(&mut self) {
        *self = self.iter().take(self.len().saturating_sub(1)).collect();
    }

    /// All of them come so much later.
    pub fn delay(&mut self, by: Duration) {
        let by = by.as_nanos() as u64;
        self.first_at += by;
        self.last_at += by;
    }

    /// No more are added: gives back the memory that was meant for them.
    pub fn shrink(&mut self) {
        self.bytes.shrink_to_fit();
    }

    /// Changes each, which has a number.
    #[cfg(test)]
    pub(crate) fn edit(&mut self, mut change: impl FnMut(usize, &mut Chunk)) {
        let edited = self.iter().enumerate().map(|(number, mut chunk)| {
            change(number, &mut chunk);
            chunk
        });
        *self = edited.collect();
    }
}

impl fmt::Debug for Chunks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

impl FromIterator<Chunk> for Chunks {
    fn from_iter<T: IntoIterator<Item = Chunk>>(chunks: T) -> Self {
        let mut all = Self::default();
        chunks.into_iter().for_each(|chunk| all.push(chunk));
        all
    }
}

impl<'a> IntoIterator for &'a Chunks {
    type Item = Chunk;
    type IntoIter = Iter<'a>;

    fn into_iter(self) -> Iter<'a> {
        self.iter()
    }
}

/// Chunks, one after the other.
#[derive(Clone, Debug)]
pub struct Iter<'a> {
    bytes: &'a [u8],
    at: u64,
    left: u32,
}

impl Iterator for Iter<'_> {
    type Item = Chunk;

    fn next(&mut self) -> Option<Chunk> {
        self.left = self.left.checked_sub(1)?;
        let number = read(&mut self.bytes);
        let (zigzag, is_counted) = (number >> 1, number & 1 == 1);
        let later = (zigzag >> 1) as i64 ^ -((zigzag & 1) as i64);
        self.at = self.at.wrapping_add_signed(later);
        let tokens = is_counted.then(|| read(&mut self.bytes) as u32);
        Some(Chunk { at: Duration::from_nanos(self.at), tokens })
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left as usize, Some(self.left as usize))
    }
}

impl ExactSizeIterator for Iter<'_> {}

fn write(mut number: u64, bytes: &mut Vec<u8>) {
    while 0x80 <= number {
        bytes.push(number as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
}

fn read(bytes: &mut &[u8]) -> u64 {
    let (mut number, mut shift) = (0, 0);
    while let Some((&byte, rest)) = bytes.split_first() {
        *bytes = rest;
        number |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            break;
        }
        shift += 7;
    }
    number
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_token_of_ten_milliseconds_takes_four_bytes() {
        let at = |n: u64| Duration::from_nanos(3_000_000_000 + n * 10_000_123);
        let chunks: Chunks = (0..100).map(|n| Chunk { at: at(n), tokens: None }).collect();
        assert!(chunks.bytes.len() <= 400, "{}", chunks.bytes.len());
    }

    proptest! {
        #[test]
        fn they_are_read_as_they_were_written(
            chunks in prop::collection::vec((0..1_u64 << 60, any::<Option<u32>>()), 0..40),
            by in 0..1_u64 << 60,
        ) {
            let chunk = |&(at, tokens): &(u64, Option<u32>)| Chunk { at: Duration::from_nanos(at), tokens };
            let expected: Vec<Chunk> = chunks.iter().map(chunk).collect();
            let mut chunks: Chunks = expected.iter().copied().collect();
            prop_assert_eq!(chunks.len(), expected.len());
            prop_assert_eq!(chunks.first(), expected.first().copied());
            prop_assert_eq!(chunks.last_at(), expected.last().map(|chunk| chunk.at));
            prop_assert_eq!(chunks.iter().collect::<Vec<_>>(), expected.clone());
            let by = Duration::from_nanos(by);
            chunks.delay(by);
            let later: Vec<Duration> = chunks.iter().map(|chunk| chunk.at).collect();
            prop_assert_eq!(later, expected.iter().map(|chunk| chunk.at + by).collect::<Vec<_>>());
        }
    }
}
