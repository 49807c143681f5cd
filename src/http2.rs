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

/// What a request that failed before its response began tells of the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unanswered {
    /// It has not looked at the request: it refused the stream, is going away and named an earlier stream as its last (RFC
    /// 9113, 6.8 and 8.7), or the request has not left.
    Untouched,
    /// The connection ended, and nobody knows.
    Broken,
    /// It ended the stream, which is its answer.
    Reset,
}

impl Unanswered {
    /// That of an error.
    pub fn of(error: &hyper::Error) -> Self {
        if error.is_canceled() {
            return Self::Untouched;
        }
        let mut cause = std::error::Error::source(error);
        while let Some(error) = cause {
            if let Some(error) = error.downcast_ref::<h2::Error>() {
                let refused = error.reason() == Some(h2::Reason::REFUSED_STREAM);
                return match error.is_remote() {
                    true if error.is_go_away() || refused => Self::Untouched,
                    true if error.is_reset() => Self::Reset,
                    _ => Self::Broken,
                };
            }
            cause = error.source();
        }
        Self::Broken
    }
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

#[cfg(test)]
mod tests {
    use h2::Reason;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::{TcpListener, TcpStream};

    use super::*;

    #[derive(Clone, Copy, Debug)]
    enum Server {
        Resets(Reason),
        GoesAway,
        Closes,
    }

    async fn serve(listener: TcpListener, server: Server) {
        let (mut stream, _) = listener.accept().await.unwrap();
        if let Server::GoesAway = server {
            return go_away(&mut stream).await;
        }
        let mut connection = h2::server::handshake(stream).await.unwrap();
        match server {
            Server::Resets(reason) => {
                let (_, mut respond) = connection.accept().await.unwrap().unwrap();
                respond.send_reset(reason);
            }
            Server::GoesAway => {}
            Server::Closes => {
                connection.accept().await.unwrap().unwrap();
                return;
            }
        }
        while connection.accept().await.is_some() {}
    }

    /// Names no stream as its last when the request has come, frame by frame (RFC 9113, 4.1 and 6.8).
    async fn go_away(stream: &mut TcpStream) {
        const SETTINGS: [u8; 9] = [0, 0, 0, 4, 0, 0, 0, 0, 0];
        const GOAWAY: [u8; 17] = [0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        const HEADERS: u8 = 1;
        let mut preface = [0; 24];
        stream.read_exact(&mut preface).await.unwrap();
        stream.write_all(&SETTINGS).await.unwrap();
        loop {
            let mut head = [0; 9];
            stream.read_exact(&mut head).await.unwrap();
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
            let mut payload = vec![0; length as usize];
            stream.read_exact(&mut payload).await.unwrap();
            if head[3] == HEADERS {
                break;
            }
        }
        stream.write_all(&GOAWAY).await.unwrap();
        let _ = stream.read_to_end(&mut Vec::new()).await;
    }

    async fn unanswered(server: Server) -> Unanswered {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        tokio::spawn(serve(listener, server));
        let io = TokioIo::new(stream);
        let handshake = hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await;
        let (mut sender, driver) = handshake.unwrap();
        tokio::spawn(driver);
        let uri = "http://localhost/x".parse().unwrap();
        let request = Http2Request::post(uri, Arc::new([]), Bytes::from_static(b"{}"));
        let answer = sender.send_request(request.build()).await;
        Unanswered::of(&answer.expect_err("no response"))
    }

    #[tokio::test]
    async fn only_a_request_that_the_server_has_not_looked_at_is_untouched() {
        for (server, expected) in [
            (Server::Resets(Reason::REFUSED_STREAM), Unanswered::Untouched),
            (Server::Resets(Reason::INTERNAL_ERROR), Unanswered::Reset),
            (Server::Resets(Reason::CANCEL), Unanswered::Reset),
            (Server::GoesAway, Unanswered::Untouched),
            (Server::Closes, Unanswered::Broken),
        ] {
            assert_eq!(unanswered(server).await, expected, "{server:?}");
        }
    }
}
