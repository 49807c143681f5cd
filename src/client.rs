//! Performs one request: sends it, stamps each read, classifies the ending. Knows nothing of pacing
//! or counting.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Poll, ready};
use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use http::header::{CONTENT_ENCODING, LOCATION, PROXY_AUTHORIZATION};
use http::{HeaderName, HeaderValue, StatusCode, Uri};
use serde_json::{Map, Value};
use tokio::io::ReadBuf;
use url::{Position, Url};

use crate::clock::{Clock, Moment};
use crate::connection::{Connection, HttpVersion, Pool, Target};
use crate::headers;
use crate::http1::{self, HttpError, RequestHead, ResponseReader};
use crate::http2::{self, Http2, Http2Request, Unanswered, Way};
use crate::nap;
use crate::plan::{Address, Backend};
use crate::reader::StreamReader;
use crate::record::{Failure, Outcome, Stream};
use crate::secret::{Secret, redact_all};
use crate::stop::Stop;
use crate::watchdog::{self, Limits, Stamp, watch};
use crate::wire::{self, ProtocolKind};

/// How much of an error's body is read, bytes; and shown, characters.
const ERROR_BODY_BYTES: usize = 64 * 1024;
const ERROR_MESSAGE_CHARS: usize = 300;
/// An answer of more events than so many times the tokens that were asked for, and than so many, is cut.
const TOO_LONG: usize = 16;
const MANY_EVENTS: usize = 4_096;
/// The most text of an event on average, bytes.
const EVENT_BYTES: usize = 256;
/// The loop turns to other requests each time it has read so many bytes of one response.
const YIELD_BYTES: usize = READ_BYTES;
/// How often a request is sent that servers close connections under by HTTP/2, without having looked at it.
const TRIES: u32 = 8;
/// How long the rest of a response is waited for after its end mark, so that the connection can be
/// used again.
const TAIL: Duration = Duration::from_millis(250);
/// How long the rest of a response is waited for after its finish reason: the server may still count its tokens and
/// send its end mark.
const GRACE: Duration = Duration::from_secs(1);
/// How much one read takes at most, bytes.
const READ_BYTES: usize = 64 * 1024;

thread_local! {
    /// Where reads go. What was read is taken out before the next read, so one serves all connections.
    static BUFFER: RefCell<Box<[u8]>> = RefCell::new(vec![0; READ_BYTES].into());
}

/// Speaks to one backend. Copies share its connections.
#[derive(Clone)]
pub struct Client {
    pool: Pool,
    speech: Speech,
    protocol: ProtocolKind,
    /// How many choices each answer has.
    choices: u32,
    secrets: Vec<Secret>,
}

/// How requests are put.
#[derive(Clone)]
enum Speech {
    /// By HTTP/1.1, on a connection each.
    One(RequestHead),
    /// By HTTP/2, on shared ones.
    Two { connections: Http2, uri: Uri, headers: Arc<[(HeaderName, HeaderValue)]> },
}

/// What became of one request; all offsets count from the zero of the given clock.
#[derive(Clone, Debug)]
pub struct Exchange {
    /// When the request started to leave.
    pub sent: Duration,
    /// How long its connection took to open; `None` where an open one was used.
    pub connect: Option<Duration>,
    /// When the response ended, or when it was given up.
    pub ended: Duration,
    /// Whether it was sent once more.
    pub resent: bool,
    /// What arrived.
    pub stream: Stream,
    /// How it ended.
    pub outcome: Outcome,
    /// What the server said where it answered with another status than 2xx.
    pub refusal: Option<Refusal>,
}

/// What a server said that would not answer. It may hold secrets.
#[derive(Clone, Debug, Default)]
pub struct Refusal {
    /// Where a redirect leads to.
    pub location: Option<String>,
    /// The body.
    pub body: Vec<u8>,
}

/// A request that is ready to be written.
#[derive(Clone)]
pub struct ReadyRequest {
    ready: Ready,
    /// An answer with more events is cut.
    most_events: usize,
}

#[derive(Clone)]
enum Ready {
    One(Vec<u8>),
    Two(Http2Request),
}

/// A request that has begun to leave, or that needs a connection first.
pub struct Started {
    at: Duration,
    departure: Option<Departure>,
}

/// How a request leaves.
enum Departure {
    /// By a connection of its own; how many of its bytes have left.
    One(Connection, io::Result<usize>),
    /// By a shared one.
    Two(Way),
}

/// When what happened to one request: the watchdog reads what the reader sets.
#[derive(Debug)]
struct Times {
    sent: Stamp,
    connect: OnceLock<Duration>,
    resent: OnceLock<()>,
    last_byte: Stamp,
    refusal: OnceLock<Refusal>,
}

impl Client {
    /// A client that sends to `url` as `backend` says.
    pub fn new(backend: &Backend, url: &Url) -> anyhow::Result<Self> {
        let version = if backend.http2 { HttpVersion::Two } else { HttpVersion::One };
        let target = Target::new(url, version, &backend.tls, backend.connect_timeout)?;
        let mut headers = headers::of(backend, url)?;
        let place = match target.forward_proxy() {
            None => &url[Position::BeforePath..Position::AfterQuery],
            Some(authorization) => {
                if let Some(value) = authorization {
                    headers.push((PROXY_AUTHORIZATION, HeaderValue::try_from(value)?));
                }
                &place_of(url)
            }
        };
        let host = &url[Position::BeforeHost..Position::AfterPort];
        let speech = if backend.http2 {
            let uri = place_of(url).parse().context("the URL cannot be asked for by HTTP/2")?;
            Speech::Two { connections: Http2::default(), uri, headers: headers.into() }
        } else {
            Speech::One(RequestHead::post(place, host, &headers))
        };
        Ok(Self {
            speech,
            pool: Pool::new(target),
            protocol: backend.protocol,
            choices: choices(&backend.extra_body),
            secrets: backend.secrets(),
        })
    }

    /// The request that sends `body`, which asks for so many tokens.
    pub fn prepare(&self, body: &[u8], output_tokens: u32) -> ReadyRequest {
        let ready = match &self.speech {
            Speech::One(head) => Ready::One(head.with(body)),
            Speech::Two { uri, headers, .. } => {
                let body = Bytes::copy_from_slice(body);
                Ready::Two(Http2Request::post(uri.clone(), Arc::clone(headers), body))
            }
        };
        let most_events = (output_tokens as usize).saturating_mul(TOO_LONG).max(MANY_EVENTS);
        ReadyRequest { ready, most_events }
    }

    /// What to say of a server with several addresses.
    pub fn note_of_addresses(&self) -> Option<String> {
        self.pool.note_of_addresses()
    }

    /// Opens up to `connections` before they are needed. Those that cannot be opened are left to the
    /// requests that will need them, and to their records.
    pub async fn open(&self, connections: usize, stop: &Stop) {
        if let Speech::Two { connections, .. } = &self.speech {
            // One to begin with for each address; more are opened where they are full.
            let _ = connections.open_each(&self.pool).await;
            return;
        }
        tokio::select! {
            () = self.pool.add(connections) => {}
            () = stop.requested() => {}
        }
    }

    /// Opens connections while requests are sent, so that `reserve` wait for those to come. Does not end.
    pub async fn keep_reserve(&self, reserve: usize) {
        match &self.speech {
            Speech::One(_) => self.pool.keep_reserve(reserve).await,
            Speech::Two { .. } => std::future::pending().await,
        }
    }

    /// Lets a request leave, if a connection is open. Does not wait, and may be called by any thread.
    pub fn start(&self, clock: Clock, request: &ReadyRequest) -> Started {
        match (&self.speech, &request.ready) {
            (Speech::One(_), Ready::One(bytes)) => {
                let Some(mut connection) = self.pool.take() else {
                    return Started { at: clock.now(), departure: None };
                };
                let at = clock.now();
                let written = connection.try_write(bytes);
                Started { at, departure: Some(Departure::One(connection, written)) }
            }
            (Speech::Two { connections, .. }, _) => {
                let departure = connections.take(&self.pool).map(Departure::Two);
                Started { at: clock.now(), departure }
            }
            (Speech::One(_), Ready::Two(_)) => Started { at: clock.now(), departure: None },
        }
    }

    /// Lets a request leave that has not, and reads the answer to its end, its failure, its limits or a
    /// stop.
    pub async fn finish(
        &self,
        clock: Clock,
        request: &ReadyRequest,
        started: Started,
        limits: Limits,
        stop: &Stop,
    ) -> Exchange {
        let Started { at: begun, departure } = started;
        let times = Times {
            sent: Stamp::new(begun),
            connect: OnceLock::new(),
            resent: OnceLock::new(),
            last_byte: Stamp::new(begun),
            refusal: OnceLock::new(),
        };
        let since_yield = AtomicUsize::new(0);
        let mut reader = StreamReader::new(self.protocol).of_choices(self.choices);
        let bounds = Bounds {
            clock,
            deadline: begun + limits.timeout,
            timeout: limits.timeout,
            most_events: request.most_events,
            stop,
            since_yield: &since_yield,
        };
        let exchange = self.exchange(bounds, request, departure, &mut reader, &times);
        let interrupted = tokio::select! {
            biased;
            failure = exchange => failure,
            failure = watch(clock, begun, &times.last_byte, limits) => Some(failure),
            () = stop.requested() => Some(cancelled()),
        };
        let over = reader.is_done() || reader.has_finished();
        let open_end = !reader.is_done() && is_over(&reader, clock.now());
        let ended = if over { times.last_byte.get() } else { clock.now() };
        let (mut stream, outcome) = reader.finish(ended, interrupted);
        stream.open_end = open_end;
        if !self.secrets.is_empty() {
            for text in [&mut stream.text, &mut stream.reasoning] {
                *text = redact_all(&self.secrets, std::mem::take(text));
            }
        }
        let outcome = self.told(outcome);
        let Times { sent, connect, resent, refusal, .. } = times;
        let (connect, refusal) = (connect.into_inner(), refusal.into_inner());
        let resent = resent.get().is_some();
        Exchange { sent: sent.get(), connect, ended, resent, stream, outcome, refusal }
    }

    /// Sends a request and reads the answer.
    pub async fn send(
        &self,
        clock: Clock,
        request: &ReadyRequest,
        limits: Limits,
        stop: &Stop,
    ) -> Exchange {
        self.finish(clock, request, self.start(clock, request), limits, stop).await
    }

    /// Returns why the response was not read to its end; `None` if it was.
    async fn exchange(
        &self,
        bounds: Bounds<'_>,
        request: &ReadyRequest,
        departure: Option<Departure>,
        reader: &mut StreamReader,
        times: &Times,
    ) -> Option<(Failure, String)> {
        match &request.ready {
            Ready::One(bytes) => {
                self.exchange_by_one(bounds, bytes, departure, reader, times).await
            }
            Ready::Two(request) => {
                self.exchange_by_two(bounds, request, departure, reader, times).await
            }
        }
    }

    async fn exchange_by_two(
        &self,
        bounds: Bounds<'_>,
        request: &Http2Request,
        departure: Option<Departure>,
        reader: &mut StreamReader,
        times: &Times,
    ) -> Option<(Failure, String)> {
        let Speech::Two { connections, .. } = &self.speech else { return None };
        let clock = bounds.clock;
        let mut departure = departure;
        let broken = |error: hyper::Error| {
            let source = std::error::Error::source(&error);
            let cause = source.map(|cause| format!(": {cause}")).unwrap_or_default();
            Some((Failure::Truncated, format!("the response broke off: {error}{cause}")))
        };
        let mut sent_before = false;
        let mut tries = 0;
        let response = loop {
            let (mut way, shared) = match departure.take() {
                Some(Departure::Two(way)) => (way, true),
                _ => {
                    let begun = clock.now();
                    let (way, shared) = match connections.open(&self.pool).await {
                        Ok(opened) => opened,
                        Err(failure) => return Some(failure),
                    };
                    if !shared {
                        let _ = times.connect.set(clock.now().saturating_sub(begun));
                    }
                    if !sent_before {
                        times.sent.set(clock.now());
                    }
                    (way, shared)
                }
            };
            let error = match way.send(request).await {
                Ok(response) => break response,
                Err(error) => error,
            };
            tries += 1;
            let unanswered = Unanswered::of(&error);
            if unanswered != Unanswered::Reset {
                way.retire();
            }
            let again = match unanswered {
                Unanswered::Untouched => tries < TRIES,
                Unanswered::Broken => shared && tries == 1,
                Unanswered::Reset => false,
            };
            if !again {
                return broken(error);
            }
            sent_before = true;
            let _ = times.resent.set(());
        };
        times.last_byte.set(clock.now());
        let status = response.status();
        let codings = response.headers().get_all(CONTENT_ENCODING).iter();
        let coding = http1::encoding(codings.filter_map(|value| value.to_str().ok()));
        if let Some(coding) = coding.filter(|_| status.is_success()) {
            return Some((Failure::BadHttp, HttpError::Encoded(coding).to_string()));
        }
        let location = response.headers().get(LOCATION);
        let location = location.map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
        let mut body = response.into_body();
        let mut refusal = Vec::new();
        let mut grace = Grace::default();
        while !reader.is_done() && refusal.len() < ERROR_BODY_BYTES {
            let read = grace.limit(clock, reader.finished_at(), http2::next(&mut body)).await;
            let Some(read) = read else { break };
            let at = clock.now();
            match read {
                Ok(Some(bytes)) => {
                    times.last_byte.set(at);
                    match status.is_success() {
                        true => reader.feed(&bytes, at),
                        false => refusal.extend_from_slice(&bytes),
                    }
                    if let Some(failure) = bounds.exceeded(at, bytes.len(), reader).await {
                        return Some(failure);
                    }
                    if is_over(reader, at) {
                        break;
                    }
                }
                Ok(None) => break,
                Err(error) => return broken(error),
            }
        }
        let refused = |body| times.refused(status.as_u16(), Refusal { location, body });
        (!status.is_success()).then(|| refused(refusal))
    }

    async fn exchange_by_one(
        &self,
        bounds: Bounds<'_>,
        request: &[u8],
        departure: Option<Departure>,
        reader: &mut StreamReader,
        times: &Times,
    ) -> Option<(Failure, String)> {
        let clock = bounds.clock;
        // A connection that has waited may have been closed meanwhile, which is only seen when it is used.
        let (mut connection, mut written, mut waited) = match departure {
            Some(Departure::One(connection, written)) => (connection, written, true),
            _ => {
                let begun = clock.now();
                let mut connection = match self.pool.open().await {
                    Ok(connection) => connection,
                    Err(failure) => return Some(failure),
                };
                let _ = times.connect.set(clock.now().saturating_sub(begun));
                // The request leaves when the connection is open.
                times.sent.set(clock.now());
                let written = connection.try_write(request);
                (connection, written, false)
            }
        };
        let mut response = ResponseReader::new();
        let mut refusal = Vec::new();
        let mut grace = Grace::default();
        loop {
            let sent = match written {
                Ok(written) => connection.write(&request[written..]).await,
                Err(error) => Err(error),
            };
            // Also where it cannot be written: the server may have refused it and closed, and its answer is there.
            let first = self.read_response(
                bounds,
                &mut connection,
                &mut response,
                reader,
                &mut refusal,
                &mut grace,
                times,
            );
            let failure = match (sent, first.await) {
                (_, Ok(())) => break,
                (Ok(()), Err(failure)) => failure,
                (Err(error), Err(_)) => {
                    (Failure::Truncated, format!("the request could not be sent: {error}"))
                }
            };
            if !waited || response.has_begun() || failure.0 != Failure::Truncated {
                return Some(failure);
            }
            // It was never answered: it goes out once more, and its clock runs on.
            self.pool.note_end();
            let begun = clock.now();
            connection = match self.pool.open().await {
                Ok(connection) => connection,
                Err(failure) => return Some(failure),
            };
            let _ = times.connect.set(clock.now().saturating_sub(begun));
            let _ = times.resent.set(());
            written = connection.try_write(request);
            waited = false;
        }
        if let Some(status) = response.status().filter(|status| !(200..300).contains(status)) {
            let location = response.location().map(str::to_owned);
            return Some(times.refused(status, Refusal { location, body: refusal }));
        }
        if grace.over {
            return None;
        }
        // What comes after the end mark is of no interest, but a connection whose response was not
        // read to its end cannot be used again.
        let tail = async {
            while !response.is_done() {
                match read(&mut connection, |bytes, _| response.feed(bytes, |_, _| {})).await {
                    Ok(Some(Ok(()))) => {}
                    Ok(Some(Err(error))) => return Some(error),
                    _ => break,
                }
            }
            None
        };
        if let Ok(Some(error)) = tokio::time::timeout(TAIL, tail).await {
            return Some(broken(&error, reader));
        }
        if response.keeps_open() {
            self.pool.keep(connection);
        }
        None
    }

    /// Reads a response until the answer or the response ends.
    #[expect(
        clippy::too_many_arguments,
        reason = "the state of one exchange, which two attempts share"
    )]
    async fn read_response(
        &self,
        bounds: Bounds<'_>,
        connection: &mut Connection,
        response: &mut ResponseReader,
        reader: &mut StreamReader,
        refusal: &mut Vec<u8>,
        grace: &mut Grace,
        times: &Times,
    ) -> Result<(), (Failure, String)> {
        let clock = bounds.clock;
        let truncated = |message: String| Err((Failure::Truncated, message));
        while !reader.is_done() && !response.is_done() && refusal.len() < ERROR_BODY_BYTES {
            let finished = reader.finished_at();
            let mut last = (Duration::ZERO, 0);
            let read = read(connection, |bytes, arrived| {
                let at = clock.at(arrived).max(times.sent.get());
                times.last_byte.set(at);
                last = (at, bytes.len());
                response.feed(bytes, |status, data| match status {
                    200..300 => reader.feed(data, at),
                    _ => refusal.extend_from_slice(data),
                })
            });
            let Some(read) = grace.limit(clock, finished, read).await else { return Ok(()) };
            match read {
                Ok(Some(Ok(()))) => {}
                Ok(Some(Err(error))) => return Err(broken(&error, reader)),
                Ok(None) if response.ends_here() => break,
                Ok(None) => return truncated(unfinished(response).to_owned()),
                Err(error) => return truncated(format!("{}: {error}", unfinished(response))),
            }
            let (at, length) = last;
            if let Some(failure) = bounds.exceeded(at, length, reader).await {
                return Err(failure);
            }
            if is_over(reader, at) {
                grace.over = true;
                return Ok(());
            }
        }
        Ok(())
    }

    /// The outcome with a message that holds no secret and is short. It is cut last, so that no part of a secret is left
    /// over.
    fn told(&self, outcome: Outcome) -> Outcome {
        match outcome {
            Outcome::Completed => Outcome::Completed,
            Outcome::Failed { failure, message } => {
                let message = redact_all(&self.secrets, message);
                let message = match message.char_indices().nth(ERROR_MESSAGE_CHARS) {
                    Some((end, _)) => message[..end].to_owned(),
                    None => message,
                };
                Outcome::Failed { failure, message }
            }
        }
    }
}

/// What a request must keep to whatever arrives and however fast: timers do not run while there is always more to
/// read.
#[derive(Clone, Copy)]
struct Bounds<'a> {
    clock: Clock,
    deadline: Duration,
    timeout: Duration,
    most_events: usize,
    stop: &'a Stop,
    /// Bytes that were read since others were let run.
    since_yield: &'a AtomicUsize,
}

impl Bounds<'_> {
    /// Why reading stops after a read of `length` bytes that arrived at `at`; `None` where it goes on. Now and then it
    /// lets other requests run first.
    async fn exceeded(
        &self,
        at: Duration,
        length: usize,
        reader: &StreamReader,
    ) -> Option<(Failure, String)> {
        if reader.is_done() {
            return None;
        }
        if self.deadline <= at {
            return Some(watchdog::timed_out(self.timeout));
        }
        let (events, bytes) = (reader.events(), reader.text_bytes());
        let choices = reader.choices();
        if choices * self.most_events < events || choices * self.most_events * EVENT_BYTES < bytes {
            let message = format!(
                "the answer was cut after {events} events with output and {bytes} bytes of text, many times what was \
                 asked for"
            );
            return Some((Failure::TooLong, message));
        }
        let since_yield = self.since_yield.fetch_add(length, Ordering::Relaxed) + length;
        if YIELD_BYTES <= since_yield {
            self.since_yield.store(0, Ordering::Relaxed);
            tokio::task::yield_now().await;
            if self.deadline <= self.clock.now() {
                return Some(watchdog::timed_out(self.timeout));
            }
            if self.stop.is_requested() {
                return Some(cancelled());
            }
        }
        None
    }
}

fn cancelled() -> (Failure, String) {
    let message =
        "the run ended before the answer: it was interrupted, or its time to drain was over";
    (Failure::Cancelled, message.to_owned())
}

/// Limits how long a response is read after its answer has finished.
#[derive(Default)]
struct Grace {
    /// The response was not read to its end.
    over: bool,
}

impl Grace {
    /// What `read` gives; `None` where the answer has `finished` and the time is over.
    async fn limit<T>(
        &mut self,
        clock: Clock,
        finished: Option<Duration>,
        read: impl Future<Output = T>,
    ) -> Option<T> {
        let Some(finished) = finished else { return Some(read.await) };
        let end = finished + GRACE;
        let read = tokio::select! {
            biased;
            // What is there already counts, also where this comes late.
            read = read => Some(read),
            () = clock.wait_until(end) => None,
        };
        self.over |= read.is_none();
        read
    }
}

/// Whether a read at `at` came too long after the answer had finished: an endless rest outruns every timer.
fn is_over(reader: &StreamReader, at: Duration) -> bool {
    reader.finished_at().is_some_and(|finished| finished + GRACE <= at)
}

/// How many choices a body with these fields asks for.
fn choices(extra_body: &Map<String, Value>) -> u32 {
    let asked = extra_body.get("n").and_then(Value::as_u64);
    asked.and_then(|choices| u32::try_from(choices).ok()).unwrap_or(1)
}

/// The URL without what is for nobody's eyes.
fn place_of(url: &Url) -> String {
    format!(
        "{}://{}{}",
        url.scheme(),
        &url[Position::BeforeHost..Position::AfterPort],
        &url[Position::BeforePath..Position::AfterQuery]
    )
}

/// Waits until bytes have come and hands them on, with the moment of their arrival; `None` at the end.
async fn read<T>(
    connection: &mut Connection,
    mut on_bytes: impl FnMut(&[u8], Moment) -> T,
) -> io::Result<Option<T>> {
    poll_fn(|context| {
        BUFFER.with_borrow_mut(|buffer| {
            let mut buffer = ReadBuf::new(buffer);
            ready!(connection.poll_read(context, &mut buffer))?;
            nap::count(connection.is_stamped());
            let bytes = buffer.filled();
            let end = bytes.is_empty();
            Poll::Ready(Ok((!end).then(|| on_bytes(bytes, connection.arrived()))))
        })
    })
    .await
}

/// The failure of a response that breaks the rules. Where an extra response follows an answer, responses cannot be
/// matched with requests, so the answer is not believed either.
fn broken(error: &HttpError, reader: &mut StreamReader) -> (Failure, String) {
    let failure = match error {
        HttpError::Head(_) | HttpError::Chunks => Failure::Truncated,
        HttpError::Extra
        | HttpError::Interim
        | HttpError::Lengths
        | HttpError::Fields
        | HttpError::HeadBytes
        | HttpError::Encoded(_) => Failure::BadHttp,
    };
    if *error == HttpError::Extra {
        reader.fail(failure, error.to_string());
    }
    (failure, error.to_string())
}

fn unfinished(response: &ResponseReader) -> &'static str {
    match response.status() {
        None => "the connection ended before the response began",
        Some(_) => "the connection ended in the middle of the response",
    }
}

impl Times {
    /// Keeps what the server said with a status other than 2xx: the failure that it is.
    fn refused(&self, status: u16, refusal: Refusal) -> (Failure, String) {
        let message = refusal.message(status);
        let _ = self.refusal.set(refusal);
        (Failure::Http(status), message)
    }
}

impl Refusal {
    /// What the server says about it, or where it leads to.
    fn message(&self, status: u16) -> String {
        let status_text = || match StatusCode::from_u16(status) {
            Ok(status) => status.to_string(),
            Err(_) => status.to_string(),
        };
        if let Some(location) = &self.location {
            let place = Address::shown_location(location);
            return format!("{}: it redirects to {place}", status_text());
        }
        let said = wire::error_message(&self.body);
        if said.is_empty() { status_text() } else { said }
    }
}
