//! HTTP/1.1 as far as one streamed request needs it: a request's head out, a response's bytes in and its
//! body out, however they were cut. Pure: knows no socket and no time. Follows RFC 9112.

use std::fmt::Write as _;

use http::{HeaderName, HeaderValue};

/// How long the head of a response may be, bytes, and how many fields it may have.
const HEAD_BYTES: usize = 64 * 1024;
const HEAD_FIELDS: usize = 96;
/// How many interim responses (1xx) may come before the response.
const INTERIM: u32 = 32;

/// The head of a request up to the length of its body, which [`RequestHead::with`] adds.
#[derive(Clone)]
pub struct RequestHead(String);

impl RequestHead {
    /// A `POST` to `target`, as the request line has it, at `host`.
    pub fn post(target: &str, host: &str, headers: &[(HeaderName, HeaderValue)]) -> Self {
        let mut head = format!("POST {target} HTTP/1.1\r\n");
        let own_host = headers.iter().any(|(name, _)| *name == http::header::HOST);
        if !own_host {
            // Writing to a string cannot fail.
            let _ = write!(head, "host: {host}\r\n");
        }
        for (name, value) in headers {
            // Values were checked to be text when they were made.
            let value = value.to_str().unwrap_or_default();
            let _ = write!(head, "{name}: {value}\r\n");
        }
        Self(head)
    }

    /// The whole request, ready to be written.
    pub fn with(&self, body: &[u8]) -> Vec<u8> {
        let Self(head) = self;
        let mut request = Vec::with_capacity(head.len() + body.len() + 32);
        request.extend_from_slice(head.as_bytes());
        request.extend_from_slice(format!("content-length: {}\r\n\r\n", body.len()).as_bytes());
        request.extend_from_slice(body);
        request
    }
}

/// Reads one response.
#[derive(Debug)]
pub struct ResponseReader {
    state: State,
    /// The part of the head that has come.
    head: Vec<u8>,
    status: Option<u16>,
    /// Where a redirect leads to.
    location: Option<String>,
    keeps_open: bool,
    /// Interim responses so far.
    interim: u32,
    /// Something came, if only a part of the head.
    begun: bool,
    /// The body is encoded, and is not handed on.
    unreadable: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Head,
    /// So many bytes of the body are to come.
    Length(u64),
    /// All that comes until the connection ends is the body.
    UntilClose,
    Chunked(Chunked),
    Done,
}

/// Where in a chunked body the next byte is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Chunked {
    /// In the size of a chunk; `None` before its first digit.
    Size(Option<u64>),
    /// Behind the size, before the end of its line.
    SizeEnd(u64),
    /// In the data of a chunk.
    Data(u64),
    /// Before the line end that follows the data.
    DataEnd,
    /// In a line of the trailer; whether it has a byte yet.
    Trailer { empty: bool },
}

/// Why a response is no HTTP.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HttpError {
    /// Its head cannot be read.
    #[error("the head of the response cannot be read: {0}")]
    Head(String),
    /// Its head is longer than anyone's.
    #[error("the head of the response is longer than {HEAD_BYTES} bytes")]
    HeadBytes,
    /// Its body is not chunked as it says.
    #[error("the chunks of the response cannot be read")]
    Chunks,
    /// It says twice how long it is, and differently.
    #[error("the response has two different content-lengths")]
    Lengths,
    /// Its head has more fields than are read.
    #[error("the head of the response has more than {HEAD_FIELDS} fields")]
    Fields,
    /// Interim responses do not end.
    #[error("more than {INTERIM} interim responses (1xx) came, and no response")]
    Interim,
    /// Another response followed at once.
    #[error("an unsolicited extra response came after the answer")]
    Extra,
    /// The body is compressed, which was not asked for.
    #[error(
        "the response is encoded as `{0}`, though only `identity` was accepted: let the server or its gateway send event streams as they are"
    )]
    Encoded(String),
}

impl ResponseReader {
    /// A reader of a response that has not begun.
    pub fn new() -> Self {
        Self {
            state: State::Head,
            head: Vec::new(),
            status: None,
            location: None,
            keeps_open: false,
            interim: 0,
            begun: false,
            unreadable: false,
        }
    }

    /// Its status, once the head has come.
    pub fn status(&self) -> Option<u16> {
        self.status
    }

    /// Whether a byte of it has come.
    pub fn has_begun(&self) -> bool {
        self.begun
    }

    /// Where it leads to, if it is a redirect that says so.
    pub fn location(&self) -> Option<&str> {
        self.location.as_deref()
    }

    /// Whether all of it has come.
    pub fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// Whether its connection can carry another request.
    pub fn keeps_open(&self) -> bool {
        self.is_done() && self.keeps_open
    }

    /// The connection has ended: whether the response has too.
    pub fn ends_here(&self) -> bool {
        matches!(self.state, State::Done | State::UntilClose)
    }

    /// Takes the next bytes and calls `on_body` with the status and those of them that are the body's.
    pub fn feed(
        &mut self,
        mut bytes: &[u8],
        mut on_body: impl FnMut(u16, &[u8]),
    ) -> Result<(), HttpError> {
        self.begun |= !bytes.is_empty();
        while !bytes.is_empty() {
            bytes = match self.state {
                State::Head => self.head(bytes)?,
                State::Done => {
                    // Nobody has asked for what comes after the end.
                    self.keeps_open = false;
                    if bytes.starts_with(b"HTTP/") {
                        return Err(HttpError::Extra);
                    }
                    &[]
                }
                State::UntilClose => {
                    self.body(bytes, &mut on_body);
                    &[]
                }
                State::Length(left) => {
                    let (data, rest) = split(bytes, left);
                    self.body(data, &mut on_body);
                    let left = left - data.len() as u64;
                    self.state = if left == 0 { State::Done } else { State::Length(left) };
                    rest
                }
                State::Chunked(Chunked::Data(left)) => {
                    let (data, rest) = split(bytes, left);
                    self.body(data, &mut on_body);
                    let left = left - data.len() as u64;
                    self.state = State::Chunked(match left {
                        0 => Chunked::DataEnd,
                        left => Chunked::Data(left),
                    });
                    rest
                }
                State::Chunked(place) => {
                    self.state = place.step(bytes[0])?;
                    &bytes[1..]
                }
            };
        }
        Ok(())
    }

    fn body(&self, data: &[u8], on_body: &mut impl FnMut(u16, &[u8])) {
        if let Some(status) = self.status.filter(|_| !self.unreadable) {
            on_body(status, data);
        }
    }

    /// Takes bytes of the head and returns those behind it.
    fn head<'a>(&mut self, bytes: &'a [u8]) -> Result<&'a [u8], HttpError> {
        let before = self.head.len();
        self.head.extend_from_slice(bytes);
        let mut fields = [httparse::EMPTY_HEADER; HEAD_FIELDS];
        let mut response = httparse::Response::new(&mut fields);
        let length = match response.parse(&self.head) {
            Ok(httparse::Status::Complete(length)) if length <= HEAD_BYTES => length,
            Ok(httparse::Status::Partial) if self.head.len() < HEAD_BYTES => return Ok(&[]),
            Ok(_) => return Err(HttpError::HeadBytes),
            Err(httparse::Error::TooManyHeaders) => return Err(HttpError::Fields),
            Err(error) => return Err(HttpError::Head(error.to_string())),
        };
        let status = response.code.unwrap_or_default();
        if !(100..200).contains(&status) {
            self.status = Some(status);
            if let Some(coding) = encoding(values(response.headers, "content-encoding")) {
                if (200..300).contains(&status) {
                    return Err(HttpError::Encoded(coding));
                }
                // The status says enough.
                self.unreadable = true;
            }
            if (300..400).contains(&status) {
                let fields = response.headers.iter();
                let location = fields.filter(|field| field.name.eq_ignore_ascii_case("location"));
                let mut values = location.map(|field| String::from_utf8_lossy(field.value));
                self.location = values.next().map(|value| value.trim().to_owned());
            }
            self.keeps_open = response.version == Some(1) && !closes(response.headers);
            self.state = framing(status, response.headers)?;
        } else {
            self.interim += 1;
            if INTERIM < self.interim {
                return Err(HttpError::Interim);
            }
        }
        self.head.clear();
        Ok(&bytes[length - before..])
    }
}

/// The first `left` bytes, or as many as there are, and the rest.
fn split(bytes: &[u8], left: u64) -> (&[u8], &[u8]) {
    bytes.split_at(usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len()))
}

fn values<'a>(fields: &'a [httparse::Header<'a>], name: &str) -> impl Iterator<Item = &'a str> {
    fields
        .iter()
        .filter(move |field| field.name.eq_ignore_ascii_case(name))
        .filter_map(|field| std::str::from_utf8(field.value).ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
}

/// The coding of a body that is not sent as it is, shortened.
pub fn encoding<'a>(mut codings: impl Iterator<Item = &'a str>) -> Option<String> {
    let coding =
        codings.find(|coding| !coding.is_empty() && !coding.eq_ignore_ascii_case("identity"))?;
    Some(coding.chars().take(20).collect())
}

fn closes(fields: &[httparse::Header]) -> bool {
    values(fields, "connection").any(|option| option.eq_ignore_ascii_case("close"))
}

/// How the body is marked off (RFC 9112, 6.3).
fn framing(status: u16, fields: &[httparse::Header]) -> Result<State, HttpError> {
    if matches!(status, 204 | 304) {
        return Ok(State::Done);
    }
    let mut lengths = values(fields, "content-length");
    let first = lengths.next();
    if lengths.any(|length| Some(length) != first) {
        return Err(HttpError::Lengths);
    }
    if let Some(coding) = values(fields, "transfer-encoding").last() {
        let chunked = coding.eq_ignore_ascii_case("chunked");
        return Ok(if chunked { State::Chunked(Chunked::Size(None)) } else { State::UntilClose });
    }
    match first.map(str::parse) {
        None => Ok(State::UntilClose),
        Some(Ok(0)) => Ok(State::Done),
        Some(Ok(length)) => Ok(State::Length(length)),
        Some(Err(_)) => Err(HttpError::Head("its content-length is no number".to_owned())),
    }
}

impl Chunked {
    /// What `byte`, which is no data, leads to.
    fn step(self, byte: u8) -> Result<State, HttpError> {
        let next = match (self, byte) {
            (Self::Size(Some(size)), b'\n') | (Self::SizeEnd(size), b'\n') => match size {
                0 => Self::Trailer { empty: true },
                size => Self::Data(size),
            },
            // A size may be followed by a CR, blanks or an extension: none of them matters.
            (Self::Size(Some(size)), b'\r' | b';' | b' ' | b'\t') => Self::SizeEnd(size),
            (Self::Size(size), byte) => {
                let digit = char::from(byte).to_digit(16).ok_or(HttpError::Chunks)?;
                let size = size.unwrap_or(0).checked_mul(16).ok_or(HttpError::Chunks)?;
                Self::Size(Some(size + u64::from(digit)))
            }
            (Self::SizeEnd(size), _) => Self::SizeEnd(size),
            (Self::DataEnd, b'\r') => Self::DataEnd,
            (Self::DataEnd, b'\n') => Self::Size(None),
            (Self::DataEnd | Self::Data(_), _) => return Err(HttpError::Chunks),
            (Self::Trailer { empty: true }, b'\n') => return Ok(State::Done),
            (Self::Trailer { .. }, b'\n') => Self::Trailer { empty: true },
            (Self::Trailer { empty }, b'\r') => Self::Trailer { empty },
            (Self::Trailer { .. }, _) => Self::Trailer { empty: false },
        };
        Ok(State::Chunked(next))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The status and the body of a response that comes in `parts`, and its reader.
    fn read(parts: &[&[u8]]) -> (Option<u16>, String, ResponseReader) {
        let mut reader = ResponseReader::new();
        let mut body = Vec::new();
        for part in parts {
            reader.feed(part, |_, data| body.extend_from_slice(data)).unwrap();
        }
        (reader.status(), String::from_utf8(body).unwrap(), reader)
    }

    const CHUNKED: &str = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\
        Transfer-Encoding: gzip, Chunked\r\n\r\n5\r\nhello\r\n1 ;a=\"b\"\r\n,\r\n00b\r\n\r\nto all of\r\n0\r\n\
        trailer: x\r\n\r\n";

    #[test]
    fn a_body_is_read_the_same_wherever_it_is_cut() {
        for (response, expected) in [
            (CHUNKED, "hello,\r\nto all of"),
            (
                "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200\r\nContent-Length: 5\r\n\r\nhello",
                "hello",
            ),
            ("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", ""),
            ("HTTP/1.1 204 No Content\r\n\r\n", ""),
        ] {
            let bytes = response.as_bytes();
            for cut in 0..=bytes.len() {
                let (_, body, reader) = read(&[&bytes[..cut], &bytes[cut..]]);
                assert_eq!(body, expected, "cut at {cut}");
                assert!(reader.keeps_open(), "cut at {cut}");
            }
            let (_, body, reader) = read(&bytes.chunks(1).collect::<Vec<_>>());
            assert_eq!((body.as_str(), reader.keeps_open()), (expected, true));
            for end in 0..bytes.len() {
                let (_, _, reader) = read(&[&bytes[..end]]);
                assert!(!reader.ends_here(), "ended after {end} of {} bytes", bytes.len());
            }
        }
    }

    #[test]
    fn a_body_without_a_length_ends_with_its_connection() {
        let (status, body, reader) = read(&[b"HTTP/1.0 200 OK\r\n\r\nhel", b"lo"]);
        assert_eq!((status, body.as_str()), (Some(200), "hello"));
        assert!(reader.ends_here() && !reader.is_done() && !reader.keeps_open());
    }

    #[test]
    fn a_redirect_says_where_it_leads_to() {
        for (head, location) in [
            ("HTTP/1.1 307 x\r\nLocation:  /v1/x/ \r\ncontent-length: 0\r\n\r\n", Some("/v1/x/")),
            ("HTTP/1.1 308 x\r\nlocation: http://h, i/\r\n\r\n", Some("http://h, i/")),
            ("HTTP/1.1 307 x\r\n\r\n", None),
            ("HTTP/1.1 201 x\r\nlocation: /x\r\n\r\n", None),
        ] {
            assert_eq!(read(&[head.as_bytes()]).2.location(), location, "{head}");
        }
    }

    #[test]
    fn a_connection_is_kept_only_where_the_server_keeps_it() {
        for (head, keeps) in [
            ("HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\nx", true),
            ("HTTP/1.1 200 OK\r\ncontent-length: 1\r\nConnection: Close\r\n\r\nx", false),
            ("HTTP/1.0 200 OK\r\ncontent-length: 1\r\n\r\nx", false),
            ("HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\nxy", false),
        ] {
            assert_eq!(read(&[head.as_bytes()]).2.keeps_open(), keeps, "{head}");
        }
    }

    #[test]
    fn what_breaks_the_rules_has_its_name() {
        let response = |head: &str| format!("HTTP/1.1 200 OK\r\n{head}\r\nx");
        let interim = |count| "HTTP/1.1 102 Processing\r\n\r\n".repeat(count);
        for (response, expected) in [
            (response("content-length: 1\r\ncontent-length: 2\r\n"), Err(HttpError::Lengths)),
            (response("content-length: 1\r\ncontent-length: 1\r\n"), Ok(())),
            (
                response(
                    "content-length: 1\r\ncontent-length: 2\r\ntransfer-encoding: chunked\r\n",
                ),
                Err(HttpError::Lengths),
            ),
            (response("content-length: 1, 1\r\n"), Ok(())),
            (response(&"a: b\r\n".repeat(97)), Err(HttpError::Fields)),
            (response(&format!("a: {}\r\n", "b".repeat(HEAD_BYTES))), Err(HttpError::HeadBytes)),
            (response("content-encoding: br\r\n"), Err(HttpError::Encoded("br".to_owned()))),
            (response("content-encoding: identity\r\n"), Ok(())),
            (response("content-length: 1\r\n") + "HTTP/1.1 200 OK\r\n", Err(HttpError::Extra)),
            (response("content-length: 1\r\n") + "\r\n", Ok(())),
            (interim(32) + &response(""), Ok(())),
            (interim(33), Err(HttpError::Interim)),
        ] {
            let read = ResponseReader::new().feed(response.as_bytes(), |_, _| {});
            assert_eq!(read, expected, "{response}");
        }
    }

    #[test]
    fn what_is_no_http_is_refused() {
        for response in [
            "SSH-2.0-OpenSSH_9.2\r\n",
            "HTTP/1.1 200 OK\r\ncontent-length: many\r\n\r\n",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nhello\r\n",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n\r\n",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\nab\r\n",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n11111111111111111\r\n",
        ] {
            let read = ResponseReader::new().feed(response.as_bytes(), |_, _| {});
            assert!(read.is_err(), "{response}");
        }
        let endless = vec![b'x'; 2 * HEAD_BYTES];
        let mut reader = ResponseReader::new();
        reader.feed(b"HTTP/1.1 200 OK\r\nx: ", |_, _| {}).unwrap();
        assert_eq!(reader.feed(&endless, |_, _| {}), Err(HttpError::HeadBytes));
    }

    proptest! {
        #[test]
        fn no_bytes_make_a_reader_panic_and_no_cut_changes_what_it_reads(
            response in prop_oneof![Just(CHUNKED.to_owned()), "HTTP/1.[01] [1-5][0-9]{2}[ -~]{0,9}\r\n([a-z-]{1,18}: [ -~]{0,9}\r\n){0,3}\r\n[ -~\r\n]{0,30}"],
            flip in (any::<prop::sample::Index>(), any::<u8>()),
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..6),
        ) {
            let mut bytes = response.into_bytes();
            let place = flip.0.index(bytes.len());
            bytes[place] = flip.1;
            let mut cuts: Vec<usize> =
                cuts.into_iter().map(|cut| cut.index(bytes.len() + 1)).collect();
            cuts.extend([0, bytes.len()]);
            cuts.sort_unstable();
            let read = |parts: &[&[u8]]| {
                let mut reader = ResponseReader::new();
                let mut body = Vec::new();
                let faults = parts.iter().any(|part| {
                    reader.feed(part, |_, data| body.extend_from_slice(data)).is_err()
                });
                (faults, reader.status(), reader.is_done(), body)
            };
            let whole = read(&[&bytes]);
            let parts: Vec<&[u8]> = cuts.windows(2).map(|pair| &bytes[pair[0]..pair[1]]).collect();
            let cut = read(&parts);
            prop_assert_eq!(cut, whole);
        }
    }

    #[test]
    fn a_request_is_written_with_its_length_and_may_name_its_own_host() {
        let header = |name: &'static str, value| {
            (HeaderName::from_static(name), HeaderValue::from_static(value))
        };
        let head = RequestHead::post("/v1?x=1", "h:80", &[header("accept", "*/*")]);
        let expected =
            "POST /v1?x=1 HTTP/1.1\r\nhost: h:80\r\naccept: */*\r\ncontent-length: 2\r\n\r\n{}";
        assert_eq!(String::from_utf8(head.with(b"{}")).unwrap(), expected);
        let head = RequestHead::post("/", "h:80", &[header("host", "other")]);
        assert!(head.with(b"").starts_with(b"POST / HTTP/1.1\r\nhost: other\r\n"));
    }
}
