//! Opens connections to one server, through TLS and proxies where they are asked for, and keeps those
//! that can be used again.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use anyhow::{Context as _, bail};
use hyper_util::client::proxy::matcher::Matcher;
use rustls::pki_types::ServerName;
use rustls_platform_verifier::BuilderVerifierExt as _;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use url::{Host, Url};

use crate::clock::Moment;
use crate::http1::ResponseReader;
use crate::record::Failure;
use crate::socket::Socket;

/// How long a connection may have been idle to be used again. Many servers close theirs after 5 s, and a
/// request that meets its connection's end would be a failure of nobody's.
const IDLE: Duration = Duration::from_secs(4);

/// Where to connect to, and how.
#[derive(Clone)]
pub struct Target {
    host: String,
    port: u16,
    tls: Option<(TlsConnector, ServerName<'static>)>,
    proxy: Option<Proxy>,
    timeout: Duration,
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
    pub fn new(url: &Url, timeout: Duration) -> anyhow::Result<Self> {
        let host = url.host_str().context("the base URL has no host")?;
        // An IPv6 address stands in brackets in a URL only.
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let port = url.port_or_known_default().context("the base URL has no port")?;
        let tls = match url.scheme() {
            "https" => Some(tls(&host)?),
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

fn tls(host: &str) -> anyhow::Result<(TlsConnector, ServerName<'static>)> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .and_then(|builder| builder.with_platform_verifier())
        .context("set up TLS")?
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    let name = ServerName::try_from(host.to_owned())
        .with_context(|| format!("`{host}` is no name that TLS can check"))?;
    Ok((TlsConnector::from(Arc::new(config)), name))
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

/// Whether the URL is of this very machine.
pub fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}

/// Why no connection could be opened.
pub type NotOpened = (Failure, String);

/// An open connection.
#[derive(Debug)]
pub struct Connection {
    stream: Stream,
    /// When it was last of use.
    used: Moment,
}

#[derive(Debug)]
enum Stream {
    Plain(Socket),
    Tls(Box<TlsStream<Socket>>),
}

impl Connection {
    async fn open(target: &Target, known: &Mutex<Option<SocketAddr>>) -> Result<Self, NotOpened> {
        let opening = async {
            let stream = connect(target, known).await?;
            let mut socket = Socket::new(stream).map_err(not_connected)?;
            let Some((tls, name)) = &target.tls else { return Ok(Stream::Plain(socket)) };
            if let Some(proxy) = &target.proxy {
                tunnel(&mut socket, target, proxy).await?;
            }
            match tls.connect(name.clone(), socket).await {
                Ok(stream) => Ok(Stream::Tls(Box::new(stream))),
                Err(error) => Err((Failure::Tls, error.to_string())),
            }
        };
        match tokio::time::timeout(target.timeout, opening).await {
            Ok(opened) => opened.map(|stream| Self { stream, used: Moment::now() }),
            Err(_) => {
                Err((Failure::Connect, format!("no connection within {:?}", target.timeout)))
            }
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

    fn writer(&mut self) -> Pin<&mut (dyn AsyncWrite + Send + Unpin)> {
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

/// Connects to the server or its proxy: to the address that has worked before, or else to the first
/// that does.
async fn connect(
    target: &Target,
    known: &Mutex<Option<SocketAddr>>,
) -> Result<TcpStream, NotOpened> {
    let before = *known.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(address) = before {
        return TcpStream::connect(address).await.map_err(not_connected);
    }
    let (host, port) = match &target.proxy {
        Some(proxy) => (proxy.host.as_str(), proxy.port),
        None => (target.host.as_str(), target.port),
    };
    let stream = TcpStream::connect((host, port)).await.map_err(not_connected)?;
    *known.lock().unwrap_or_else(PoisonError::into_inner) = stream.peer_addr().ok();
    Ok(stream)
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
    address: Mutex<Option<SocketAddr>>,
    idle: Mutex<Vec<Connection>>,
}

impl Pool {
    /// A pool with nothing in it.
    pub fn new(target: Target) -> Self {
        let (address, idle) = (Mutex::default(), Mutex::default());
        Self(Arc::new(Shared { target, address, idle }))
    }

    /// An open connection that waits for use; the one that has waited least.
    pub fn take(&self) -> Option<Connection> {
        loop {
            let connection = self.idle().pop()?;
            if connection.is_usable() {
                return Some(connection);
            }
        }
    }

    /// Opens a connection.
    pub async fn open(&self) -> Result<Connection, NotOpened> {
        Connection::open(&self.0.target, &self.0.address).await
    }

    /// Keeps a connection for its next use.
    pub fn keep(&self, mut connection: Connection) {
        connection.used = Moment::now();
        self.idle().push(connection);
    }

    fn idle(&self) -> std::sync::MutexGuard<'_, Vec<Connection>> {
        self.0.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
