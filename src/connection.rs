//! Opens connections to one server, through TLS and proxies where they are asked for, and keeps those
//! that can be used again.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use anyhow::{Context as _, bail};
use hyper_util::client::proxy::matcher::Matcher;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use url::Url;

use crate::clock::Moment;
use crate::dialer::Dialer;
use crate::http1::ResponseReader;
use crate::lock::lock;
use crate::loopback::is_loopback;
use crate::record::Failure;
use crate::socket::Socket;
use crate::tls::{self, TlsOptions};

/// How long a connection may have been idle to be used again. Many servers close theirs after 5 s, and a
/// request that meets its connection's end would be a failure of nobody's.
const IDLE: Duration = Duration::from_secs(4);
/// How often those of the reserve are replaced that will soon have been idle for too long.
const REFRESH: Duration = Duration::from_secs(1);
/// A connection that the server has closed so soon after an answer was closed because of it.
const SOON: Duration = Duration::from_secs(1);
/// Connections are used again while fewer than one in so many uses fails.
const FAILS_AT_MOST: usize = 50;
/// How many connections are opened at once: less than the backlog of any server.
const OPENED_AT_ONCE: usize = 32;

/// Where to connect to, and how.
#[derive(Clone)]
pub struct Target {
    host: String,
    port: u16,
    tls: Option<(TlsConnector, ServerName<'static>)>,
    proxy: Option<Proxy>,
    timeout: Duration,
}

/// The version of HTTP that a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HttpVersion {
    /// HTTP/1.1.
    One,
    /// HTTP/2; without TLS by prior knowledge.
    Two,
}

#[derive(Clone)]
struct Proxy {
    host: String,
    port: u16,
    /// The value of `proxy-authorization`.
    authorization: Option<String>,
}

impl Target {
    /// The server of `url`, by way of the proxy that the environment names for it; never by one for the
    /// loopback.
    pub fn new(
        url: &Url,
        version: HttpVersion,
        tls_options: &TlsOptions,
        timeout: Duration,
    ) -> anyhow::Result<Self> {
        let host = url.host_str().context("the base URL has no host")?;
        // An IPv6 address stands in brackets in a URL only.
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let port = url.port_or_known_default().context("the base URL has no port")?;
        let tls = match url.scheme() {
            "https" => Some(tls(&host, version, tls_options)?),
            _ => None,
        };
        let proxy = if is_loopback(url) { None } else { proxy(url)? };
        Ok(Self { host, port, tls, proxy, timeout })
    }

    /// Whether requests go to a proxy that wants whole URLs, and what it is to be told about who asks.
    pub fn forward_proxy(&self) -> Option<Option<&str>> {
        match (&self.proxy, &self.tls) {
            (Some(proxy), None) => Some(proxy.authorization.as_deref()),
            _ => None,
        }
    }
}

fn tls(
    host: &str,
    version: HttpVersion,
    options: &TlsOptions,
) -> anyhow::Result<(TlsConnector, ServerName<'static>)> {
    let mut config = options.client_config()?;
    let protocol: &[u8] = match version {
        HttpVersion::One => b"http/1.1",
        HttpVersion::Two => b"h2",
    };
    config.alpn_protocols = vec![protocol.to_vec()];
    let name = ServerName::try_from(host.to_owned())
        .with_context(|| format!("`{host}` is no name that TLS can check"))?;
    Ok((TlsConnector::from(Arc::new(config)), name))
}

/// Whether the environment names a proxy for the server of `url`: what a connection says is then about that.
pub fn is_proxied(url: &Url) -> anyhow::Result<bool> {
    Ok(!is_loopback(url) && proxy(url)?.is_some())
}

fn proxy(url: &Url) -> anyhow::Result<Option<Proxy>> {
    let mut origin = url.clone();
    origin.set_path("/");
    origin.set_query(None);
    let _ = origin.set_username("");
    let _ = origin.set_password(None);
    let origin: http::Uri = origin.as_str().parse().context("the base URL is no URI")?;
    let Some(found) = Matcher::from_system().intercept(&origin) else { return Ok(None) };
    let uri = found.uri();
    if uri.scheme_str() != Some("http") {
        bail!(
            "the environment names a proxy of the kind `{}` for this server; only http:// proxies are \
             known: set NO_PROXY to the server's host, or name another",
            uri.scheme_str().unwrap_or_default()
        );
    }
    let host = uri.host().context("the proxy has no host")?.to_owned();
    let authorization = found.basic_auth().and_then(|value| Some(value.to_str().ok()?.to_owned()));
    Ok(Some(Proxy { host, port: uri.port_u16().unwrap_or(80), authorization }))
}

/// Why no connection could be opened.
pub type NotOpened = (Failure, String);

/// An open connection.
#[derive(Debug)]
pub struct Connection {
    stream: Stream,
    /// When it was last of use.
    used: Moment,
    /// Whether it has carried a request.
    carried: bool,
}

#[derive(Debug)]
enum Stream {
    Plain(Socket),
    Tls(Box<TlsStream<Socket>>),
}

impl Connection {
    async fn open(target: &Target, dialer: &Dialer) -> Result<Self, NotOpened> {
        let opening = async {
            let stream = dialer.connect().await.map_err(not_connected)?;
            let mut socket = Socket::new(stream).map_err(not_connected)?;
            let Some((tls, name)) = &target.tls else { return Ok(Stream::Plain(socket)) };
            if let Some(proxy) = &target.proxy {
                tunnel(&mut socket, target, proxy).await?;
            }
            match tls.connect(name.clone(), socket).await {
                Ok(stream) => Ok(Stream::Tls(Box::new(stream))),
                Err(error) => Err((Failure::Tls, format!("{error}{}", tls::hint(&error)))),
            }
        };
        match tokio::time::timeout(target.timeout, opening).await {
            Ok(opened) => opened.map(|stream| Self { stream, used: Moment::now(), carried: false }),
            Err(_) => Err((Failure::Connect, format!("no connection within {:?}", target.timeout))),
        }
    }

    /// Writes as much of `bytes` as there is room for: how many. Does not wait, and may be called by
    /// any thread.
    pub fn try_write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut context = Context::from_waker(Waker::noop());
        let mut written = 0;
        while written < bytes.len() {
            match self.writer().poll_write(&mut context, &bytes[written..]) {
                Poll::Ready(Ok(0)) => return Err(io::ErrorKind::WriteZero.into()),
                Poll::Ready(Ok(more)) => written += more,
                Poll::Ready(Err(error)) => return Err(error),
                Poll::Pending => return Ok(written),
            }
        }
        match self.writer().poll_flush(&mut context) {
            Poll::Ready(Err(error)) => Err(error),
            Poll::Ready(Ok(())) | Poll::Pending => Ok(written),
        }
    }

    /// Writes all of `bytes`, and what [`Connection::try_write`] could only hand to TLS.
    pub async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut writer = self.writer();
        writer.write_all(bytes).await?;
        writer.flush().await
    }

    /// Where to write.
    pub fn writer(&mut self) -> Pin<&mut (dyn AsyncWrite + Send + Unpin)> {
        match &mut self.stream {
            Stream::Plain(socket) => Pin::new(socket),
            Stream::Tls(stream) => Pin::new(stream.as_mut()),
        }
    }

    /// Reads what has come: how many bytes, 0 at the end.
    pub fn poll_read(
        &mut self,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Stream::Plain(socket) => Pin::new(socket).poll_read(context, buffer),
            Stream::Tls(stream) => Pin::new(stream.as_mut()).poll_read(context, buffer),
        }
    }

    /// When what was last read had arrived.
    pub fn arrived(&self) -> Moment {
        self.socket().arrived()
    }

    /// Whether the kernel said so.
    pub fn is_stamped(&self) -> bool {
        self.socket().is_stamped()
    }

    fn socket(&self) -> &Socket {
        match &self.stream {
            Stream::Plain(socket) => socket,
            Stream::Tls(stream) => stream.get_ref().0,
        }
    }

    fn is_usable(&self) -> bool {
        self.used.age() < IDLE && self.socket().is_quiet()
    }
}

fn not_connected(error: io::Error) -> NotOpened {
    (Failure::Connect, error.to_string())
}

/// Asks the proxy for a way through to the server (RFC 9110, 9.3.6).
async fn tunnel(socket: &mut Socket, target: &Target, proxy: &Proxy) -> Result<(), NotOpened> {
    let place = authority(&target.host, target.port);
    let authorization = match &proxy.authorization {
        Some(value) => format!("proxy-authorization: {value}\r\n"),
        None => String::new(),
    };
    let request = format!("CONNECT {place} HTTP/1.1\r\nhost: {place}\r\n{authorization}\r\n");
    socket.write_all(request.as_bytes()).await.map_err(not_connected)?;
    let mut response = ResponseReader::new();
    let mut buffer = [0; 4096];
    loop {
        let length = socket.read(&mut buffer).await.map_err(not_connected)?;
        if length == 0 {
            return Err((Failure::Connect, "the proxy closed the connection".to_owned()));
        }
        let read = response.feed(&buffer[..length], |_, _| {});
        read.map_err(|error| (Failure::Connect, format!("of the proxy: {error}")))?;
        match response.status() {
            Some(200..300) => return Ok(()),
            Some(status) => {
                return Err((Failure::Connect, format!("the proxy answered with status {status}")));
            }
            None => {}
        }
    }
}

/// `host:port` as requests name it.
fn authority(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

/// The connections to one target. Copies share them.
#[derive(Clone)]
pub struct Pool(Arc<Shared>);

struct Shared {
    target: Target,
    /// Of the server, or of its proxy.
    dialer: Dialer,
    idle: Mutex<Vec<Connection>>,
    /// How many connections are to wait, so that a request that comes finds one.
    reserve: AtomicUsize,
    /// Fewer do.
    short: Notify,
    /// Requests that were answered on a connection that had carried one before, and those that met its end.
    reused: AtomicUsize,
    met_end: AtomicUsize,
}

impl Pool {
    /// A pool with nothing in it.
    pub fn new(target: Target) -> Self {
        Self(Arc::new(Shared {
            dialer: match &target.proxy {
                Some(proxy) => Dialer::new(&proxy.host, proxy.port),
                None => Dialer::new(&target.host, target.port),
            },
            target,
            idle: Mutex::default(),
            reserve: AtomicUsize::new(0),
            short: Notify::new(),
            reused: AtomicUsize::new(0),
            met_end: AtomicUsize::new(0),
        }))
    }

    /// An open connection that waits for use; the one that has waited least.
    pub fn take(&self) -> Option<Connection> {
        let taken = loop {
            match self.idle().pop() {
                Some(connection) if connection.is_usable() => break Some(connection),
                Some(connection) => {
                    if connection.carried && connection.used.age() < SOON {
                        self.note_end();
                    }
                }
                None => break None,
            }
        };
        if self.idle().len() < self.0.reserve.load(Ordering::Relaxed) {
            self.0.short.notify_one();
        }
        taken
    }

    /// Opens connections whenever fewer than `reserve` wait, or have waited for too long. Does not end.
    pub async fn keep_reserve(&self, reserve: usize) {
        self.0.reserve.store(reserve, Ordering::Relaxed);
        loop {
            let waiting = {
                let mut idle = self.idle();
                // Those that have waited longest come first.
                let old = idle.partition_point(|waiting| IDLE - REFRESH <= waiting.used.age());
                idle.drain(..old);
                idle.len()
            };
            self.add(reserve.saturating_sub(waiting)).await;
            let _ = tokio::time::timeout(REFRESH, self.0.short.notified()).await;
        }
    }

    /// Opens so many connections, which then wait for use; fewer where one cannot be opened: the request
    /// that needs one will say why there is none.
    pub async fn add(&self, number: usize) {
        let mut opening = JoinSet::new();
        let mut left = number;
        loop {
            while 0 < left && opening.len() < OPENED_AT_ONCE {
                let pool = self.clone();
                opening.spawn(async move { pool.open().await });
                left -= 1;
            }
            match opening.join_next().await {
                Some(Ok(Ok(connection))) => self.idle().push(connection),
                Some(_) => left = 0,
                None => return,
            }
        }
    }

    /// Opens a connection.
    pub async fn open(&self) -> Result<Connection, NotOpened> {
        Connection::open(&self.0.target, &self.0.dialer).await
    }

    /// Over how many addresses of the server connections are spread.
    pub fn width(&self) -> usize {
        self.0.dialer.width()
    }

    /// What to say of a server with several addresses.
    pub fn note_of_addresses(&self) -> Option<String> {
        self.0.dialer.note()
    }

    /// Keeps a connection whose request was answered for its next use, unless this server closes connections after
    /// their answers, whatever it promises.
    pub fn keep(&self, mut connection: Connection) {
        if connection.carried {
            self.0.reused.fetch_add(1, Ordering::Relaxed);
        }
        let failed = self.0.met_end.load(Ordering::Relaxed);
        if failed * FAILS_AT_MOST <= self.0.reused.load(Ordering::Relaxed) {
            connection.used = Moment::now();
            connection.carried = true;
            self.idle().push(connection);
        }
    }

    /// Notes that a connection which was to carry another request had been closed.
    pub fn note_end(&self) {
        self.0.met_end.fetch_add(1, Ordering::Relaxed);
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Connection>> {
        lock(&self.0.idle)
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::net::{TcpListener, TcpStream};
    use tokio_rustls::TlsAcceptor;

    use super::*;

    async fn listen() -> (TcpListener, u16) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        (listener, port)
    }

    async fn echo(stream: impl AsyncRead + AsyncWrite) {
        let (mut reading, mut writing) = tokio::io::split(stream);
        let _ = tokio::io::copy(&mut reading, &mut writing).await;
    }

    /// Echoes what clients of TLS send, and what they need to trust it.
    async fn tls_server() -> (u16, TlsConnector) {
        let certified = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let certificate = certified.cert.der().clone();
        let key = rustls::pki_types::PrivateKeyDer::try_from(certified.signing_key.serialize_der());
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let server = rustls::ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.clone()], key.unwrap())
            .unwrap();
        let (listener, port) = listen().await;
        tokio::spawn(async move {
            let acceptor = TlsAcceptor::from(Arc::new(server));
            while let Ok((stream, _)) = listener.accept().await {
                let acceptor = acceptor.clone();
                tokio::spawn(async move {
                    if let Ok(stream) = acceptor.accept(stream).await {
                        echo(stream).await;
                    }
                });
            }
        });
        let mut roots = rustls::RootCertStore::empty();
        roots.add(certificate).unwrap();
        let client = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        (port, TlsConnector::from(Arc::new(client)))
    }

    fn target(port: u16, tls: Option<TlsConnector>, proxy: Option<Proxy>) -> Target {
        Target {
            host: "localhost".to_owned(),
            port,
            tls: tls.map(|tls| (tls, ServerName::try_from("localhost").unwrap())),
            proxy,
            timeout: Duration::from_secs(10),
        }
    }

    async fn read(connection: &mut Connection, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        let mut buffer = ReadBuf::new(&mut bytes);
        while buffer.remaining() != 0 {
            let before = buffer.filled().len();
            poll_fn(|context| connection.poll_read(context, &mut buffer)).await.unwrap();
            assert!(before < buffer.filled().len(), "the connection has ended");
        }
        bytes
    }

    /// Sends as much as there is room for from another thread, and reads it all back.
    async fn is_echoed(connection: Connection) -> Connection {
        let text: Vec<u8> = (0..3 << 20).map(|n: u32| n as u8).collect();
        let (mut connection, text, written) = std::thread::spawn(move || {
            let mut connection = connection;
            let written = connection.try_write(&text).unwrap();
            (connection, text, written)
        })
        .join()
        .unwrap();
        assert!(0 < written);
        let first = read(&mut connection, 1024).await;
        assert!(first == text[..1024]);
        connection.write(&[]).await.unwrap();
        let rest = read(&mut connection, written - 1024).await;
        assert!(rest == text[1024..written]);
        connection
    }

    #[tokio::test]
    async fn bytes_go_and_come_by_tls_as_they_do_without() {
        let (port, tls) = tls_server().await;
        let pool = Pool::new(target(port, Some(tls), None));
        let connection = is_echoed(pool.open().await.unwrap()).await;
        pool.keep(connection);
        assert!(pool.take().is_some(), "it can be used again");

        let (listener, port) = listen().await;
        tokio::spawn(async move { echo(listener.accept().await.unwrap().0).await });
        is_echoed(Pool::new(target(port, None, None)).open().await.unwrap()).await;
    }

    #[tokio::test]
    async fn a_server_that_nobody_vouches_for_is_refused() {
        let (port, _) = tls_server().await;
        let (tls, _) = tls("localhost", HttpVersion::One, &TlsOptions::default()).unwrap();
        let (failure, message) = Pool::new(target(port, Some(tls), None)).open().await.unwrap_err();
        assert_eq!(failure, Failure::Tls, "{message}");
    }

    #[tokio::test]
    async fn a_proxy_is_asked_for_a_way_to_a_server_with_tls() {
        let (port, tls) = tls_server().await;
        let (listener, proxy_port) = listen().await;
        let asked = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut asked = Vec::new();
            while !asked.ends_with(b"\r\n\r\n") {
                asked.push(stream.read_u8().await.unwrap());
            }
            stream.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").await.unwrap();
            let mut server = TcpStream::connect(("localhost", port)).await.unwrap();
            tokio::spawn(async move {
                let _ = tokio::io::copy_bidirectional(&mut stream, &mut server).await;
            });
            String::from_utf8(asked).unwrap()
        });
        let authorization = Some("Basic bWU6aXQ=".to_owned());
        let proxy = Proxy { host: "localhost".to_owned(), port: proxy_port, authorization };
        is_echoed(Pool::new(target(port, Some(tls), Some(proxy))).open().await.unwrap()).await;
        let expected = format!(
            "CONNECT localhost:{port} HTTP/1.1\r\nhost: localhost:{port}\r\n\
             proxy-authorization: Basic bWU6aXQ=\r\n\r\n"
        );
        assert_eq!(asked.await.unwrap(), expected);
    }

    #[tokio::test]
    async fn a_proxy_that_refuses_is_a_failure_to_connect() {
        let (listener, port) = listen().await;
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let _ = stream.write_all(b"HTTP/1.1 407 No\r\ncontent-length: 0\r\n\r\n").await;
            let _ = stream.read_u8().await;
        });
        let proxy = Proxy { host: "localhost".to_owned(), port, authorization: None };
        let (_, tls) = tls_server().await;
        let refused = Pool::new(target(1, Some(tls), Some(proxy))).open().await.unwrap_err();
        assert_eq!(refused, (Failure::Connect, "the proxy answered with status 407".to_owned()));
    }

    #[tokio::test]
    async fn a_connection_that_the_server_has_closed_is_not_used_again() {
        let (listener, port) = listen().await;
        let pool = Pool::new(target(port, None, None));
        let (opened, accepted) = tokio::join!(pool.open(), listener.accept());
        pool.keep(opened.unwrap());
        drop(accepted.unwrap());
        tokio::time::sleep(Duration::from_millis(20)).await;
        assert!(pool.take().is_none());
    }

    /// A pool of a server that counts its connections, and the count.
    async fn counted() -> (Pool, Arc<AtomicUsize>) {
        let (listener, port) = listen().await;
        let count = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&count);
        tokio::spawn(async move {
            let mut accepted = Vec::new();
            while let Ok(connection) = listener.accept().await {
                accepted.push(connection);
                counter.fetch_add(1, Ordering::Relaxed);
            }
        });
        (Pool::new(target(port, None, None)), count)
    }

    async fn come_true(what: impl Fn() -> bool) {
        let patience = Moment::now();
        while !what() {
            assert!(patience.age() < Duration::from_secs(10));
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn a_reserve_is_filled_again_when_it_is_used() {
        let (pool, _) = counted().await;
        let keeper = pool.clone();
        tokio::spawn(async move { keeper.keep_reserve(3).await });
        for _ in 0..10 {
            come_true(|| pool.idle().len() == 3).await;
            assert!(pool.take().is_some());
        }
    }

    #[tokio::test]
    async fn those_of_a_reserve_that_would_soon_be_too_old_are_replaced() {
        let (pool, opened) = counted().await;
        let keeper = pool.clone();
        tokio::spawn(async move { keeper.keep_reserve(3).await });
        come_true(|| opened.load(Ordering::Relaxed) == 3).await;
        tokio::time::pause();
        tokio::time::advance(IDLE - REFRESH).await;
        tokio::time::resume();
        come_true(|| opened.load(Ordering::Relaxed) == 6).await;
        come_true(|| pool.idle().len() == 3).await;
        assert!(pool.idle().iter().all(|waiting| waiting.used.age() < IDLE - REFRESH));
    }
}
