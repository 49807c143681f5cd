//! Bytes in, the data of each server-sent event out, however the bytes were cut. Follows the WHATWG
//! rules (HTML Living Standard, 9.2.6 "Interpreting an event stream"). Knows no JSON, no time.

/// The longest line and the longest event, bytes: no server's event comes near it, and what never ends must
/// not fill the memory.
const LONGEST: usize = 5 * 1024 * 1024;

/// What the `event` field of an event says, as far as it matters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EventName {
    /// None, or one that its data explains.
    #[default]
    Other,
    /// The data says what went wrong.
    Error,
    /// The event only keeps the connection open.
    KeepAlive,
}

impl EventName {
    fn new(name: &[u8]) -> Self {
        let is = |word: &&[u8]| name.trim_ascii().eq_ignore_ascii_case(word);
        let pings: [&[u8]; 5] = [b"ping", b"heartbeat", b"keepalive", b"keep-alive", b"keep_alive"];
        if is(&b"error".as_slice()) {
            Self::Error
        } else if pings.iter().any(is) {
            Self::KeepAlive
        } else {
            Self::Other
        }
    }
}

/// Splits a stream of bytes into events.
///
/// Lines end in LF, CR or CRLF; a field is `name: value` with one optional space; several `data`
/// lines are joined by LF; a blank line ends the event; comments and other fields are skipped.
#[derive(Clone, Debug)]
pub struct SseParser {
    /// The line that has begun and not ended.
    line: Vec<u8>,
    /// The data of the event that has begun.
    data: Vec<u8>,
    has_data: bool,
    name: EventName,
    /// The last byte was a CR, so an LF that follows belongs to it.
    after_cr: bool,
    /// The byte-order mark may only stand before the first line.
    first_line: bool,
    too_long: bool,
}

impl Default for SseParser {
    fn default() -> Self {
        Self {
            line: Vec::new(),
            data: Vec::new(),
            has_data: false,
            name: EventName::Other,
            after_cr: false,
            first_line: true,
            too_long: false,
        }
    }
}

impl SseParser {
    /// Takes the next bytes and calls `on_event` with the name and the data of each event that they complete.
    pub fn feed(&mut self, mut bytes: &[u8], mut on_event: impl FnMut(EventName, &[u8])) {
        if let Some(first) = bytes.first() {
            // One LF belongs to a CR before it, and no more.
            if std::mem::take(&mut self.after_cr) && *first == b'\n' {
                bytes = &bytes[1..];
            }
        }
        while let Some(end) = memchr::memchr2(b'\n', b'\r', bytes) {
            let (line, rest) = bytes.split_at(end);
            if self.line.is_empty() {
                self.end_line(line, &mut on_event);
            } else {
                let mut whole = std::mem::take(&mut self.line);
                whole.extend_from_slice(line);
                self.end_line(&whole, &mut on_event);
                // Keep the allocation for the next line that is cut.
                whole.clear();
                self.line = whole;
            }
            bytes = match rest {
                [b'\r', b'\n', after @ ..] => after,
                [b'\r'] => {
                    self.after_cr = true;
                    &[]
                }
                [_, after @ ..] => after,
                [] => &[],
            };
        }
        if LONGEST < self.line.len() + self.data.len() + bytes.len() {
            self.too_long = true;
            (self.line, self.data) = (Vec::new(), Vec::new());
            return;
        }
        self.line.extend_from_slice(bytes);
    }

    /// Whether an event was longer than any event is; what came of it is gone.
    pub fn is_too_long(&self) -> bool {
        self.too_long
    }

    /// The stream has ended: hands over an event whose blank line is missing. The standard drops
    /// it; a server that closes right after its last line has still sent it.
    pub fn finish(&mut self, mut on_event: impl FnMut(EventName, &[u8])) {
        let line = std::mem::take(&mut self.line);
        if !line.is_empty() {
            self.end_line(&line, &mut on_event);
        }
        self.end_event(&mut on_event);
    }

    fn end_line(&mut self, line: &[u8], on_event: &mut impl FnMut(EventName, &[u8])) {
        let line = match (self.first_line, line) {
            (true, [0xEF, 0xBB, 0xBF, rest @ ..]) => rest,
            _ => line,
        };
        self.first_line = false;
        if line.is_empty() {
            return self.end_event(on_event);
        }
        let value = match line.strip_prefix(b"data") {
            Some([b':', b' ', value @ ..] | [b':', value @ ..]) => value,
            Some([]) => &[],
            _ => {
                if let Some(name) = line.strip_prefix(b"event:") {
                    self.name = EventName::new(name);
                }
                return;
            }
        };
        if self.has_data {
            self.data.push(b'\n');
        }
        if LONGEST < self.data.len() + value.len() {
            self.too_long = true;
            self.data = Vec::new();
            return;
        }
        self.data.extend_from_slice(value);
        self.has_data = true;
    }

    fn end_event(&mut self, on_event: &mut impl FnMut(EventName, &[u8])) {
        let name = std::mem::take(&mut self.name);
        if self.has_data {
            on_event(name, &self.data);
        }
        self.data.clear();
        self.has_data = false;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn events<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> Vec<String> {
        let mut parser = SseParser::default();
        let mut events = Vec::new();
        let mut keep = |name: EventName, data: &[u8]| {
            let named = if name == EventName::Other { String::new() } else { format!("{name:?} ") };
            events.push(named + std::str::from_utf8(data).unwrap());
        };
        for part in parts {
            parser.feed(part, &mut keep);
        }
        parser.finish(&mut keep);
        events
    }

    #[test]
    fn fields_are_read_as_the_standard_says() {
        for (stream, expected) in [
            ("data: a\n\ndata: b\n\n", &["a", "b"][..]),
            ("data:a\n\n", &["a"]),
            ("data:  a \n\n", &[" a "]),
            ("data: a\ndata: b\n\n", &["a\nb"]),
            ("data\n\n", &[""]),
            ("data:\n\n", &[""]),
            (": ping\n\ndata: a\n\n", &["a"]),
            ("event: x\nid: 7\nretry: 10\ndata: a\n\n", &["a"]),
            ("event: error\ndata: a\n\ndata: b\n\n", &["Error a", "b"]),
            ("event:ping\ndata: {}\n\ndata: b\n\n", &["KeepAlive {}", "b"]),
            ("data: a\nevent: error\n\n", &["Error a"]),
            ("event: error\n\ndata: b\n\n", &["b"]),
            ("event: x\n\n", &[]),
            ("database: a\n\n", &[]),
            ("\n\n\n", &[]),
            ("\u{feff}data: a\n\n", &["a"]),
            ("data: a\n\n\u{feff}data: b\n\n", &["a"]),
            ("data: a\r\n\r\ndata: b\r\n\r\n", &["a", "b"]),
            ("data: a\r\rdata: b\r\r", &["a", "b"]),
            ("data: a\n\r\ndata: b\r\n\n", &["a", "b"]),
            ("data: a", &["a"]),
            ("data: a\n", &["a"]),
            ("", &[]),
        ] {
            assert_eq!(events([stream.as_bytes()]), expected, "{stream:?}");
        }
    }

    #[test]
    fn a_cut_at_any_position_changes_nothing() {
        let lf = "\u{feff}: hi\n\ndata: {\"t\":\"h\u{e9}llo  \u{1f600}\"}\n\nevent: e\ndata:x\ndata: y\n\n";
        for stream in [lf.to_owned(), lf.replace('\n', "\r\n"), lf.replace('\n', "\r")] {
            let stream = stream.as_bytes();
            let whole = events([stream]);
            assert_eq!(whole, ["{\"t\":\"h\u{e9}llo  \u{1f600}\"}", "x\ny"]);
            assert_eq!(events(stream.chunks(1)), whole, "byte by byte");
            for cut in 0..=stream.len() {
                assert_eq!(events([&stream[..cut], &stream[cut..]]), whole, "cut at {cut}");
            }
        }
    }

    #[test]
    fn what_never_ends_does_not_fill_the_memory() {
        let mut parser = SseParser::default();
        let part = vec![b'x'; 1 << 20];
        for _ in 0..64 {
            parser.feed(&part, |_, _| panic!("no event ends"));
            assert!(parser.line.capacity() + parser.data.capacity() <= 4 * LONGEST);
        }
        assert!(parser.is_too_long());

        let mut parser = SseParser::default();
        let line = [b"data: ".as_slice(), &part, b"\n"].concat();
        for _ in 0..64 {
            parser.feed(&line, |_, _| panic!("no event ends"));
            assert!(parser.line.capacity() + parser.data.capacity() <= 4 * LONGEST);
        }
        assert!(parser.is_too_long());
    }

    #[test]
    fn line_ends_of_every_kind_are_read_alike_in_every_cut() {
        let ends = ["\n", "\r", "\r\n"];
        for kinds in (0..81).map(|n| [n % 3, n / 3 % 3, n / 9 % 3, n / 27]) {
            let [a, b, c, d] = kinds.map(|kind| ends[kind]);
            let stream = format!("data: a{a}{b}data: b{c}{d}");
            let whole = events([stream.as_bytes()]);
            let bytes = stream.as_bytes();
            let is_end = |at: usize| matches!(bytes[at], b'\r' | b'\n');
            let places: Vec<usize> =
                (1..bytes.len()).filter(|&at| is_end(at - 1) || is_end(at)).collect();
            // Each bit is a cut at one of the places.
            for cuts in 0..1_u32 << places.len() {
                let mut parts = vec![Vec::new()];
                for (at, byte) in bytes.iter().enumerate() {
                    let place = places.iter().position(|place| *place == at);
                    if place.is_some_and(|place| cuts & (1 << place) != 0) {
                        parts.push(Vec::new());
                    }
                    parts.last_mut().unwrap().push(*byte);
                }
                let cut = events(parts.iter().map(Vec::as_slice));
                assert_eq!(cut, whole, "{stream:?} cut as {parts:?}");
            }
        }
    }

    proptest! {
        #[test]
        fn any_bytes_cut_anywhere_give_the_same_events(
            stream in "(data: ?[a-z]{0,3}|:|event: x|\r\n|\n|\r|[ -~]){0,12}",
            cuts in prop::collection::vec(0usize..64, 0..6),
        ) {
            let bytes = stream.as_bytes();
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(bytes.len())).collect();
            cuts.extend([0, bytes.len()]);
            cuts.sort_unstable();
            let parts = cuts.windows(2).map(|pair| &bytes[pair[0]..pair[1]]);
            prop_assert_eq!(events(parts), events([bytes]));
        }
    }
}
