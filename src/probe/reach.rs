//! What a question to a server finds out about whether it is there.

use std::error::Error;
use std::io;
use std::time::Duration;

/// Whether a server is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reach {
    /// It answers, with this HTTP status.
    Answers(u16),
    /// Nothing listens there: the connection is refused.
    Refused(String),
    /// No secure connection can be opened: the certificate is not trusted, or it does not speak TLS.
    Insecure(String),
    /// It accepts the connection and does not answer within this time.
    Silent(Duration),
    /// Anything else: the name does not resolve, the host is not reached, the connection is closed or reset.
    Broken(String),
}

impl Reach {
    /// What a failed question says; `message` is its error with all causes.
    pub(super) fn of(error: &reqwest::Error, patience: Duration, message: String) -> Self {
        if error.is_timeout() && !error.is_connect() {
            return Self::Silent(patience);
        }
        if causes(error).any(|cause| cause.is::<rustls::Error>()) {
            return Self::Insecure(message);
        }
        let refused = |cause: &(dyn Error + 'static)| {
            let cause = cause.downcast_ref::<io::Error>();
            cause.is_some_and(|cause| cause.kind() == io::ErrorKind::ConnectionRefused)
        };
        match error.is_connect() && causes(error).any(refused) {
            true => Self::Refused(message),
            false => Self::Broken(message),
        }
    }

    /// Whether the server may still be starting: that a certificate is wrong does not change by waiting.
    pub fn may_be_loading(&self) -> bool {
        match self {
            Self::Answers(status) => is_loading(*status),
            Self::Refused(_) | Self::Silent(_) | Self::Broken(_) => true,
            Self::Insecure(_) => false,
        }
    }
}

/// Whether a server answers so while it loads. A page that is not there or needs a key says nothing.
fn is_loading(status: u16) -> bool {
    matches!(status, 408 | 425 | 429 | 500..=599) && status != 501
}

impl std::fmt::Display for Reach {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Answers(status) => write!(f, "it answers with HTTP status {status}"),
            Self::Refused(why) | Self::Broken(why) => f.write_str(why),
            Self::Insecure(why) => write!(f, "no secure connection can be opened: {why}"),
            Self::Silent(patience) => {
                write!(f, "it accepts the connection and does not answer within {patience:?}")
            }
        }
    }
}

/// The error and what caused it, also where an [`io::Error`] holds it, which names not what it holds but the
/// cause of that.
fn causes<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    fn next<'a>(cause: &&'a (dyn Error + 'static)) -> Option<&'a (dyn Error + 'static)> {
        let cause: &'a (dyn Error + 'static) = *cause;
        match cause.downcast_ref::<io::Error>() {
            Some(io) => io.get_ref().map(|held| held as &(dyn Error + 'static)),
            None => cause.source(),
        }
    }
    std::iter::successors(Some(error), next)
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::{SocketAddr, TcpListener, TcpStream};
    use std::thread;

    use super::super::Probe;
    use super::*;
    use crate::plan::{Address, Backend, Server};
    use crate::wire::{BackendKind, ProtocolKind};

    fn reach(url: &str, patience: Duration) -> Reach {
        let address = Address::new(url, "/v1/completions").unwrap();
        let server = Server::Remote(address.clone());
        let backend = Backend::plain(BackendKind::OpenAi, ProtocolKind::Completions, server);
        let page = address.below("/v1/models");
        let probe = Probe::new(&backend, &page).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(probe.reach(page, patience))
    }

    /// Where connections are treated so.
    fn listen(treat: fn(TcpStream)) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        thread::spawn(move || {
            for stream in listener.incoming() {
                thread::spawn(move || treat(stream.unwrap()));
            }
        });
        address
    }

    fn read(stream: &mut TcpStream) {
        let _ = stream.read(&mut [0; 4096]).unwrap();
    }

    const LONG: Duration = Duration::from_secs(20);

    #[test]
    fn only_a_refused_connection_says_that_nothing_is_there() {
        let closed = TcpListener::bind("127.0.0.1:0").unwrap();
        let nothing = closed.local_addr().unwrap();
        drop(closed);
        for host in [nothing.to_string(), format!("localhost:{}", nothing.port())] {
            for scheme in ["http", "https"] {
                let reach = reach(&format!("{scheme}://{host}"), LONG);
                assert!(matches!(reach, Reach::Refused(_)), "{scheme}://{host}: {reach:?}");
            }
        }

        let closes = listen(|mut stream| read(&mut stream));
        let resets = listen(|stream| {
            let socket = socket2::SockRef::from(&stream);
            socket.set_linger(Some(Duration::ZERO)).unwrap();
        });
        for address in [closes, resets] {
            let reach = reach(&format!("http://{address}"), LONG);
            assert!(matches!(reach, Reach::Broken(_)), "{reach:?}");
        }
        let reach = reach("http://no-such-host.invalid", LONG);
        assert!(matches!(reach, Reach::Broken(_)), "{reach:?}");
    }

    #[test]
    fn a_server_that_accepts_and_says_nothing_is_silent() {
        let silent = listen(|_stream| thread::sleep(LONG));
        let short = Duration::from_millis(200);
        assert_eq!(reach(&format!("http://{silent}"), short), Reach::Silent(short));
    }

    #[test]
    fn a_server_that_does_not_speak_tls_or_is_not_trusted_is_insecure() {
        let plain = listen(|mut stream| {
            read(&mut stream);
            let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n");
        });
        let reach = reach(&format!("https://{plain}"), LONG);
        assert!(matches!(reach, Reach::Insecure(_)), "{reach:?}");
        assert!(!reach.may_be_loading());
    }

    #[test]
    fn an_answer_of_a_server_that_loads_is_told_from_one_that_says_nothing_about_it() {
        for (status, loading) in
            [(200, false), (401, false), (404, false), (501, false), (429, true), (503, true)]
        {
            assert_eq!(Reach::Answers(status).may_be_loading(), loading, "{status}");
        }
    }
}
