//! Performs one request: sends it, stamps each read, classifies the ending. Knows nothing of pacing
//! or counting. The only user of `reqwest`.

use std::error::Error as _;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use tokio::sync::Semaphore;
use tower_layer::Layer;
use tower_service::Service;
use url::{Host, Url};

use crate::clock::Clock;
use crate::plan::Backend;
use crate::reader::StreamReader;
use crate::record::{Failure, Outcome, Stream};
use crate::secret::Secret;
use crate::stop::Stop;
use crate::wire::{self, ProtocolKind};

/// How much of an error's body is read, bytes; and shown, characters.
const ERROR_BODY_BYTES: usize = 64 * 1024;
const ERROR_MESSAGE_CHARS: usize = 300;
/// How long the rest of a response is waited for after its end mark, so that the connection can be
/// used again.
const TAIL: Duration = Duration::from_millis(250);

/// Speaks to one backend. Copies share its connections.
#[derive(Clone, Debug)]
pub struct Client {
    http: reqwest::Client,
    url: Url,
    protocol: ProtocolKind,
    secrets: Vec<Secret>,
    gate: Gate,
}

/// Lets requests leave one at a time: the next is stamped only when the last one's bytes are on their
/// way. Without it, a hundred that are due at once would all be stamped before the first is written, and
/// the client's own work on the others would look like the server's delay.
#[derive(Clone, Debug)]
struct Gate(Arc<Semaphore>);

impl Gate {
    fn new() -> Self {
        Self(Arc::new(Semaphore::new(1)))
    }

    /// Waits until the requests before are on their way, and for that of this one takes the runtime's
    /// task queue through `turns` turns.
    async fn pass(&self, turns: usize) {
        // Never closed.
        let Ok(permit) = Arc::clone(&self.0).acquire_owned().await else { return };
        tokio::spawn(async move {
            for _ in 0..turns {
                tokio::task::yield_now().await;
            }
            drop(permit);
        });
    }
}

/// Turns until an open connection's task has written a request it was handed, and until that of a new
/// connection has been started and has done so.
const TURNS_WHEN_OPEN: usize = 2;
const TURNS_WHEN_NEW: usize = 4;

/// How long a request may take.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// In all.
    pub timeout: Duration,
    /// Without a byte; `None` where only `timeout` counts.
    pub stall_timeout: Option<Duration>,
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
    /// What arrived.
    pub stream: Stream,
    /// How it ended.
    pub outcome: Outcome,
}

tokio::task_local! {
    /// Where the connector leaves word of the connection that it opened for the current request.
    static CONNECT: Arc<Connect>;
}

/// A stamp that the watchdog reads while the reader sets it.
#[derive(Debug)]
struct Stamp(AtomicU64);

impl Stamp {
    fn new(at: Duration) -> Self {
        let stamp = Self(AtomicU64::new(0));
        stamp.set(at);
        stamp
    }

    fn set(&self, at: Duration) {
        // 584 years fit.
        self.0.store(at.as_nanos() as u64, Ordering::Relaxed);
    }

    fn get(&self) -> Duration {
        Duration::from_nanos(self.0.load(Ordering::Relaxed))
    }
}

struct Connect {
    clock: Clock,
    gate: Gate,
    opened: OnceLock<Opened>,
}

/// How long a connection took to open, and when it could be used.
#[derive(Clone, Copy)]
struct Opened {
    took: Duration,
    at: Duration,
}

impl Client {
    /// A client that sends to `url` as `backend` says.
    pub fn new(backend: &Backend, url: Url) -> anyhow::Result<Self> {
        // Fails only if a provider is installed already, which will do as well.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut builder = reqwest::Client::builder()
            .user_agent(concat!("servebench/", env!("CARGO_PKG_VERSION")))
            .default_headers(headers(backend)?)
            .connect_timeout(backend.connect_timeout)
            .pool_max_idle_per_host(usize::MAX)
            .tcp_nodelay(true)
            .http1_only()
            .redirect(reqwest::redirect::Policy::none())
            // A retry would hide a failure and restart the clock.
            .retry(reqwest::retry::never())
            .connector_layer(TimedConnects);
        if is_loopback(&url) {
            builder = builder.no_proxy();
        }
        let http = builder.build().context("set up the HTTP client")?;
        let secrets = backend.headers.iter().map(|(_, value)| value).chain(&backend.api_key);
        let secrets = secrets.cloned().collect();
        Ok(Self { http, url, protocol: backend.protocol, secrets, gate: Gate::new() })
    }

    /// Sends `body` and reads the answer to its end, its failure, its limits or a stop.
    pub async fn send(&self, clock: Clock, body: Bytes, limits: Limits, stop: &Stop) -> Exchange {
        self.gate.pass(TURNS_WHEN_OPEN).await;
        let begun = clock.now();
        let last_byte = Stamp::new(begun);
        let mut reader = StreamReader::new(self.protocol);
        let connect = Arc::new(Connect { clock, gate: self.gate.clone(), opened: OnceLock::new() });
        let exchange = self.exchange(clock, body, &mut reader, &last_byte, &connect);
        let interrupted = tokio::select! {
            biased;
            failure = exchange => failure,
            failure = watch(clock, begun, &last_byte, limits) => Some(failure),
            () = stop.requested() => {
                Some((Failure::Cancelled, "the run was interrupted".to_owned()))
            }
        };
        let ended = if reader.is_done() { last_byte.get() } else { clock.now() };
        let (stream, outcome) = reader.finish(ended, interrupted);
        // Where a connection had to be opened, the request left when it was open.
        let (connect, sent) = match connect.opened.get() {
            Some(opened) => (Some(opened.took), opened.at),
            None => (None, begun),
        };
        Exchange { sent, connect, ended, stream, outcome: self.redacted(outcome) }
    }

    /// Returns why the response was not read to its end; `None` if it was.
    async fn exchange(
        &self,
        clock: Clock,
        body: Bytes,
        reader: &mut StreamReader,
        last_byte: &Stamp,
        connect: &Arc<Connect>,
    ) -> Option<(Failure, String)> {
        let request = self.http.post(self.url.clone()).body(body).send();
        let mut response = match CONNECT.scope(Arc::clone(connect), request).await {
            Ok(response) => response,
            Err(error) => return Some(classify(error)),
        };
        last_byte.set(clock.now());
        if !response.status().is_success() {
            return Some(refusal(response).await);
        }
        while !reader.is_done() {
            match response.chunk().await {
                Ok(Some(bytes)) => {
                    let at = clock.now();
                    last_byte.set(at);
                    reader.feed(&bytes, at);
                }
                Ok(None) => return None,
                Err(error) => return Some(classify(error)),
            }
        }
        // What comes after the end mark is of no interest, but a connection whose response was not
        // read to its end cannot be used again.
        let tail = async { while let Ok(Some(_)) = response.chunk().await {} };
        let _ = tokio::time::timeout(TAIL, tail).await;
        None
    }

    fn redacted(&self, outcome: Outcome) -> Outcome {
        match outcome {
            Outcome::Completed => Outcome::Completed,
            Outcome::Failed { failure, message } => {
                let message = self.secrets.iter().fold(message, |text, secret| secret.redact(text));
                Outcome::Failed { failure, message }
            }
        }
    }

    /// Whether anything answers at `url`; if not, why.
    pub async fn reach(&self, url: Url, patience: Duration) -> Result<(), String> {
        match self.http.get(url).timeout(patience).send().await {
            Ok(_) => Ok(()),
            Err(error) => {
                let (_, message) = classify(error);
                Err(self.secrets.iter().fold(message, |text, secret| secret.redact(text)))
            }
        }
    }

    /// The models that the server says it serves; `None` where it does not say.
    pub async fn models(&self, url: Url, patience: Duration) -> Option<Vec<String>> {
        #[derive(serde::Deserialize)]
        struct Models {
            data: Vec<Model>,
        }
        #[derive(serde::Deserialize)]
        struct Model {
            id: String,
        }
        let response = self.http.get(url).timeout(patience).send().await.ok()?;
        let models: Models = serde_json::from_slice(&response.bytes().await.ok()?).ok()?;
        Some(models.data.into_iter().map(|model| model.id).collect())
    }
}

/// Returns when the request has taken too long. Wakes once for each limit that may have passed, not
/// once for each read.
async fn watch(
    clock: Clock,
    begun: Duration,
    last_byte: &Stamp,
    limits: Limits,
) -> (Failure, String) {
    let deadline = begun + limits.timeout;
    loop {
        let stall = limits.stall_timeout.map(|patience| last_byte.get() + patience);
        clock.wait_until(stall.map_or(deadline, |stall| stall.min(deadline))).await;
        let now = clock.now();
        if deadline <= now {
            return (Failure::Timeout, format!("no end after {:?}", limits.timeout));
        }
        if let Some(patience) = limits.stall_timeout
            && last_byte.get() + patience <= now
        {
            return (Failure::Stalled, format!("no byte for {patience:?}"));
        }
    }
}

fn headers(backend: &Backend) -> anyhow::Result<HeaderMap> {
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    let bearer = backend
        .api_key
        .as_ref()
        .map(|key| ("authorization".to_owned(), Secret::new(format!("Bearer {}", key.reveal()))));
    for (name, value) in bearer.iter().chain(&backend.headers) {
        let header = HeaderName::try_from(name.as_str())
            .with_context(|| format!("`{name}` is no name of a header"))?;
        let mut value = HeaderValue::try_from(value.reveal())
            .ok()
            .with_context(|| format!("the value of the header `{name}` cannot be sent"))?;
        value.set_sensitive(true);
        headers.insert(header, value);
    }
    debug_assert!(backend.api_key.is_none() || headers.contains_key(AUTHORIZATION));
    Ok(headers)
}

fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}

/// The failure of a request that got no response, or not all of it.
fn classify(error: reqwest::Error) -> (Failure, String) {
    let error = error.without_url();
    let failure = if error.is_connect() {
        if is_tls(&error) { Failure::Tls } else { Failure::Connect }
    } else if error.is_timeout() {
        Failure::Timeout
    } else {
        // The connection broke before the response, or in the middle of it.
        Failure::Truncated
    };
    let mut message = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        message = format!("{message}: {cause}");
        source = cause.source();
    }
    (failure, message)
}

fn is_tls(error: &reqwest::Error) -> bool {
    let mut source = error.source();
    while let Some(cause) = source {
        let inner = cause.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        if cause.is::<rustls::Error>() || inner.is_some_and(|inner| inner.is::<rustls::Error>()) {
            return true;
        }
        source = cause.source();
    }
    false
}

/// The failure that a status other than 2xx is, with what the server says about it.
async fn refusal(mut response: reqwest::Response) -> (Failure, String) {
    let status = response.status();
    let mut body = Vec::new();
    while let Ok(Some(bytes)) = response.chunk().await {
        body.extend_from_slice(&bytes);
        if ERROR_BODY_BYTES < body.len() {
            break;
        }
    }
    let said = wire::error_message(&body);
    let said = if said.is_empty() { status.to_string() } else { said };
    (Failure::Http(status.as_u16()), said.chars().take(ERROR_MESSAGE_CHARS).collect())
}

/// Times how long each connection takes to open.
#[derive(Clone, Copy, Debug)]
struct TimedConnects;

impl<S> Layer<S> for TimedConnects {
    type Service = TimedConnector<S>;

    fn layer(&self, inner: S) -> Self::Service {
        TimedConnector { inner }
    }
}

#[derive(Clone, Debug)]
struct TimedConnector<S> {
    inner: S,
}

impl<S, R> Service<R> for TimedConnector<S>
where
    S: Service<R>,
    S::Response: Send,
    S::Future: Send + 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<S::Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: R) -> Self::Future {
        // Not within a request when the pool opens a connection that its request no longer needs.
        let word = CONNECT.try_with(|connect| (Arc::clone(connect), connect.clock.now())).ok();
        let connecting = self.inner.call(request);
        Box::pin(async move {
            let connection = connecting.await?;
            if let Some((connect, from)) = word {
                let took = connect.clock.now().saturating_sub(from);
                connect.gate.pass(TURNS_WHEN_NEW).await;
                let _ = connect.opened.set(Opened { took, at: connect.clock.now() });
            }
            Ok(connection)
        })
    }
}
