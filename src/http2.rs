//! HTTP/2 for servers that are asked for it: many requests share a connection. hyper speaks it; stamps are
//! of the moment at which a frame is handed over, since what arrives of one stream is told apart only
//! after it was read.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, Request, Response, Uri, Version};
use http_body_util::Full;
use hyper::body::{Body as _, Incoming};
use hyper::client::conn::http2::SendRequest;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::connection::{Connection, NotOpened, Pool};
use crate::lock::lock;
use crate::nap;
use crate::record::Failure;

/// How many requests share a connection: fewer than any server allows.
const SHARE: usize = 64;

/// A request that is ready to be sent, again and again.
#[derive(Clone)]
pub struct Http2Request {
    uri: Uri,
    headers: Arc<[(HeaderName, HeaderValue)]>,
    body: Bytes,
}

impl Http2Request {
    /// A `POST` of `body`.
    pub fn post(uri: Uri, headers: Arc<[(HeaderName, HeaderValue)]>, body: Bytes) -> Self {
        Self { uri, headers, body }
    }

    fn build(&self) -> Request<Full<Bytes>> {
        let mut request = Request::new(Full::new(self.body.clone()));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.uri.clone();
        *request.version_mut() = Version::HTTP_2;
        // These belong to a connection, of which HTTP/2 knows itself.
        let own = |name: &HeaderName| *name != http::header::HOST;
        let headers = self.headers.iter().filter(|(name, _)| own(name)).cloned();
        request.headers_mut().extend(headers);
        request
    }
}

/// The connections of one client. Copies share them.
#[derive(Clone, Default)]
pub struct Http2 {
    open: Arc<Mutex<Vec<Shared>>>,
    /// Held while one is opened: those who wait for it will find room on it.
    opening: Arc<tokio::sync::Mutex<()>>,
}

struct Shared {
    sender: SendRequest<Full<Bytes>>,
    /// One for each request that it carries.
    carries: Arc<()>,
    /// The server takes no more requests on it.
    retired: Arc<AtomicBool>,
}

/// The way of one request: its connection, as long as it is held.
pub struct Way {
    sender: SendRequest<Full<Bytes>>,
    _carried: Arc<()>,
    retired: Arc<AtomicBool>,
}

impl Http2 {
    /// A way by the open connection that carries least; `None` where all are full, or are fewer than the server has
    /// addresses.
    pub fn take(&self, pool: &Pool) -> Option<Way> {
        let mut connections = lock(&self.open);
        let usable =
            |shared: &Shared| !shared.sender.is_closed() && !shared.retired.load(Ordering::Relaxed);
        connections.retain(usable);
        if connections.len() < pool.width() {
            return None;
        }
        let carried = |shared: &&Shared| Arc::strong_count(&shared.carries);
        let free = connections.iter().min_by_key(carried).filter(|free| carried(free) <= SHARE)?;
        Some(Way {
            sender: free.sender.clone(),
            _carried: Arc::clone(&free.carries),
            retired: Arc::clone(&free.retired),
        })
    }

    /// Opens a connection to each address of the server.
    pub async fn open_each(&self, pool: &Pool) -> Result<(), NotOpened> {
        while self.take(pool).is_none() {
            self.open(pool).await?;
        }
        Ok(())
    }

    /// A way by a new connection, or by one that was opened meanwhile; whether it is the latter.
    pub async fn open(&self, pool: &Pool) -> Result<(Way, bool), NotOpened> {
        let _opening = self.opening.lock().await;
        if let Some(way) = self.take(pool) {
            return Ok((way, true));
        }
        let connection = pool.open().await?;
        let io = TokioIo::new(Io(connection));
        let handshake = hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await;
        let (sender, driver) =
            handshake.map_err(|error| (Failure::Connect, format!("HTTP/2: {error}")))?;
        // How the connection ends, its requests will say.
        tokio::spawn(driver);
        let carries = Arc::new(());
        let retired = Arc::new(AtomicBool::new(false));
        let way = Way {
            sender: sender.clone(),
            _carried: Arc::clone(&carries),
            retired: Arc::clone(&retired),
        };
        let mut connections = lock(&self.open);
        connections.push(Shared { sender, carries, retired });
        Ok((way, false))
    }
}

/// Whether a request failed before the server looked at it: it refused the stream, is going away and named an earlier
/// stream as its last (RFC 9113, 6.8 and 8.7), or the request has not left.
pub fn is_untouched(error: &hyper::Error) -> bool {
    if error.is_canceled() {
        return true;
    }
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref::<h2::Error>() {
            return error.is_go_away() && error.is_remote()
                || error.reason() == Some(h2::Reason::REFUSED_STREAM);
        }
        cause = error.source();
    }
    false
}

impl Way {
    /// Has no further request take it.
    pub fn retire(&self) {
        self.retired.store(true, Ordering::Relaxed);
    }

    /// Sends a request; returns when the head of its response has come.
    pub async fn send(&mut self, request: &Http2Request) -> hyper::Result<Response<Incoming>> {
        self.sender.ready().await?;
        self.sender.send_request(request.build()).await
    }
}

/// The next bytes of a body; `None` at its end.
pub async fn next(body: &mut Incoming) -> hyper::Result<Option<Bytes>> {
    loop {
        let frame = poll_fn(|context| Pin::new(&mut *body).poll_frame(context)).await;
        match frame.transpose()?.map(hyper::body::Frame::into_data) {
            None => return Ok(None),
            Some(Ok(data)) => return Ok(Some(data)),
            // Trailers say nothing of the answer.
            Some(Err(_)) => {}
        }
    }
}

/// A connection as hyper wants it.
struct Io(Connection);

impl AsyncRead for Io {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        ready!(self.get_mut().0.poll_read(context, buffer))?;
        // Its stamp does not reach the stream that it is for.
        nap::count(false);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Io {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        self.get_mut().0.writer().poll_write(context, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        self.get_mut().0.writer().poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        self.get_mut().0.writer().poll_shutdown(context)
    }
}
