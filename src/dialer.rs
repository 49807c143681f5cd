//! Connects to a name that may have several addresses: connections are spread over them, and one that does not
//! answer is left out.

use std::io;
use std::net::SocketAddr;
use std::sync::Mutex;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::lock::lock;

/// How long an address is waited for before the next one is tried beside it (RFC 8305, 5).
const HEAD_START: Duration = Duration::from_millis(250);

/// Connects to one name and port.
#[derive(Debug)]
pub struct Dialer {
    host: String,
    port: u16,
    /// `localhost` is one server, whatever its addresses are.
    spreads: bool,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Empty until the name was looked up.
    known: Vec<Known>,
    /// How many connections were asked for.
    asked: usize,
}

#[derive(Debug)]
struct Known {
    address: SocketAddr,
    /// Connections that were opened.
    opened: usize,
    /// Why it is left out, as long as another answers.
    fault: Option<String>,
}

impl Dialer {
    /// A dialer of a host, which is a name or an address. Looks nothing up yet.
    pub fn new(host: &str, port: u16) -> Self {
        let spreads = host != "localhost" && !host.ends_with(".localhost");
        Self { host: host.to_owned(), port, spreads, state: Mutex::default() }
    }

    /// Opens a connection: to the address whose turn it is, or to the next one that answers.
    pub async fn connect(&self) -> io::Result<TcpStream> {
        if lock(&self.state).known.is_empty() {
            let found = tokio::net::lookup_host((self.host.as_str(), self.port)).await?;
            lock(&self.state).learn(found);
        }
        let order = lock(&self.state).order(self.spreads);
        if let [address] = order[..] {
            let stream = TcpStream::connect(address).await?;
            lock(&self.state).opened(address, &[]);
            return Ok(stream);
        }
        self.race(&order).await
    }

    /// Opens a connection to the first of `order` that answers.
    async fn race(&self, order: &[SocketAddr]) -> io::Result<TcpStream> {
        let mut attempts = JoinSet::new();
        let mut faults = Vec::new();
        let mut begun = 0;
        loop {
            if let Some(&address) = order.get(begun) {
                attempts.spawn(async move { (address, TcpStream::connect(address).await) });
                begun += 1;
            }
            let ended = tokio::select! {
                ended = attempts.join_next() => ended,
                () = tokio::time::sleep(HEAD_START), if begun < order.len() => continue,
            };
            match ended {
                Some(Ok((address, Ok(stream)))) => {
                    // Those that had a head start and did not use it.
                    let before = order.iter().take_while(|other| **other != address);
                    let before: Vec<SocketAddr> = before.copied().collect();
                    lock(&self.state).opened(address, &before);
                    return Ok(stream);
                }
                Some(Ok((address, Err(error)))) => {
                    lock(&self.state).failed(address, error.to_string());
                    faults.push((address, error));
                }
                Some(Err(_)) => {}
                None => return Err(of_all(&faults)),
            }
        }
    }

    /// How many addresses connections are spread over: one until the first was opened.
    pub fn width(&self) -> usize {
        if !self.spreads {
            return 1;
        }
        let state = lock(&self.state);
        state.known.iter().filter(|known| known.fault.is_none()).count().max(1)
    }

    /// What to say of a name with several addresses; `None` of one that has one, or is this machine.
    pub fn note(&self) -> Option<String> {
        let state = lock(&self.state);
        if !self.spreads || state.known.len() < 2 {
            return None;
        }
        let spread = state.known.iter().map(|known| match &known.fault {
            None => format!("{} {}", known.address.ip(), known.opened),
            Some(fault) => {
                format!("{} {}, then left out ({fault})", known.address.ip(), known.opened)
            }
        });
        Some(format!(
            "`{}` has {} addresses, over which connections were spread: {}",
            self.host,
            state.known.len(),
            spread.collect::<Vec<_>>().join("; ")
        ))
    }
}

/// What all addresses said that were tried.
fn of_all(faults: &[(SocketAddr, io::Error)]) -> io::Error {
    let kind = faults.last().map_or(io::ErrorKind::AddrNotAvailable, |(_, error)| error.kind());
    let each = faults.iter().map(|(address, error)| format!("{address}: {error}"));
    io::Error::new(kind, each.collect::<Vec<_>>().join("; "))
}

impl State {
    /// Takes the addresses of the name, unless they were found meanwhile.
    fn learn(&mut self, found: impl Iterator<Item = SocketAddr>) {
        if !self.known.is_empty() {
            return;
        }
        for address in found {
            if self.known.iter().all(|known| known.address != address) {
                self.known.push(Known { address, opened: 0, fault: None });
            }
        }
    }

    /// The addresses in the order in which the next connection tries them: those that were no use come last.
    fn order(&mut self, spreads: bool) -> Vec<SocketAddr> {
        let of = |known: &&Known| known.fault.is_none();
        let mut order: Vec<SocketAddr> =
            self.known.iter().filter(of).map(|known| known.address).collect();
        if spreads && !order.is_empty() {
            let turn = self.asked % order.len();
            order.rotate_left(turn);
            self.asked += 1;
        }
        order.extend(self.known.iter().filter(|known| !of(known)).map(|known| known.address));
        order
    }

    fn opened(&mut self, address: SocketAddr, before: &[SocketAddr]) {
        for known in &mut self.known {
            if known.address == address {
                known.opened += 1;
                known.fault = None;
            } else if before.contains(&known.address) && known.fault.is_none() {
                known.fault = Some(format!("no answer within {HEAD_START:?}"));
            }
        }
    }

    fn failed(&mut self, address: SocketAddr, fault: String) {
        let known = self.known.iter_mut().find(|known| known.address == address);
        known.into_iter().for_each(|known| known.fault = Some(fault.clone()));
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

    use tokio::net::TcpListener;

    use super::*;

    fn with(host: &str, addresses: &[SocketAddr]) -> Dialer {
        let dialer = Dialer::new(host, 1);
        lock(&dialer.state).learn(addresses.iter().copied());
        dialer
    }

    async fn listen() -> (TcpListener, SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        (listener, address)
    }

    async fn connected(dialer: &Dialer, times: usize) -> Vec<SocketAddr> {
        let mut to = Vec::new();
        for _ in 0..times {
            to.push(dialer.connect().await.unwrap().peer_addr().unwrap());
        }
        to
    }

    /// An address at which nobody listens.
    async fn dead() -> SocketAddr {
        listen().await.1
    }

    #[tokio::test]
    async fn connections_go_to_each_address_in_turn() {
        let ((_a, one), (_b, two)) = (listen().await, listen().await);
        let dialer = with("several", &[one, two, one]);
        assert_eq!(connected(&dialer, 4).await, [one, two, one, two]);
        assert_eq!(dialer.width(), 2);
        let note = dialer.note().unwrap();
        assert_eq!(
            note,
            "`several` has 2 addresses, over which connections were spread: 127.0.0.1 2; 127.0.0.1 2"
        );
    }

    #[tokio::test]
    async fn an_address_that_refuses_is_left_out_and_told() {
        let ((_a, one), dead, (_b, two)) = (listen().await, dead().await, listen().await);
        let dialer = with("several", &[one, dead, two]);
        let to = connected(&dialer, 7).await;
        assert!(!to.contains(&dead));
        let to_one = to.iter().filter(|address| **address == one).count();
        assert!((3..=4).contains(&to_one), "{to:?}");
        assert_eq!(dialer.width(), 2);
        let note = dialer.note().unwrap();
        assert!(
            note.contains("3 addresses") && note.contains("left out (Connection ref"),
            "{note}"
        );
    }

    #[tokio::test]
    async fn an_address_that_is_left_out_is_used_again_where_no_other_answers() {
        let ((listener, one), (_b, two)) = (listen().await, listen().await);
        let dialer = with("several", &[one, two]);
        lock(&dialer.state).failed(two, "it was down".to_owned());
        assert_eq!(connected(&dialer, 2).await, [one, one]);
        drop(listener);
        assert_eq!(connected(&dialer, 2).await, [two, two]);
    }

    #[tokio::test]
    async fn where_none_answers_each_says_why() {
        let (one, two) = (dead().await, dead().await);
        let error = with("several", &[one, two]).connect().await.unwrap_err();
        let text = error.to_string();
        assert!(text.contains(&one.to_string()) && text.contains(&two.to_string()), "{text}");
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
        let error = with("one", &[one]).connect().await.unwrap_err();
        assert!(error.to_string().starts_with("Connection refused"), "{error}");
    }

    #[tokio::test]
    async fn this_machine_is_one_server_that_listens_at_one_of_its_addresses_at_least() {
        let (_listener, four) = listen().await;
        let six = SocketAddr::new(IpAddr::V6(Ipv6Addr::LOCALHOST), four.port());
        let dialer = with("localhost", &[six, four]);
        assert_eq!(connected(&dialer, 3).await, [four; 3]);
        assert_eq!((dialer.width(), dialer.note()), (1, None));
        let ((_a, one), (_b, two)) = (listen().await, listen().await);
        assert_eq!(connected(&with("localhost", &[one, two]), 3).await, [one; 3]);
    }

    #[tokio::test]
    async fn an_address_that_stays_silent_costs_no_more_than_its_head_start() {
        // A listener whose queue is full takes no more connections.
        let silent = tokio::net::TcpSocket::new_v4().unwrap();
        silent.bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).unwrap();
        let silent = silent.listen(1).unwrap();
        let address = silent.local_addr().unwrap();
        let mut queued = Vec::new();
        let full = loop {
            let connecting = tokio::time::timeout(HEAD_START, TcpStream::connect(address));
            match connecting.await {
                Ok(stream) => queued.push(stream),
                Err(_) => break true,
            }
            if queued.len() == 64 {
                break false;
            }
        };
        if !full {
            // This system lets queues grow.
            return;
        }
        let (_listener, other) = listen().await;
        let dialer = with("several", &[address, other]);
        assert_eq!(connected(&dialer, 3).await, [other; 3]);
        assert!(dialer.note().unwrap().contains("left out (no answer within 250ms)"));
    }

    #[tokio::test]
    async fn a_name_is_looked_up_when_it_is_first_needed() {
        let (_listener, address) = listen().await;
        let dialer = Dialer::new("127.0.0.1", address.port());
        assert_eq!(connected(&dialer, 1).await, [address]);
        assert_eq!(dialer.note(), None);
        assert!(Dialer::new("nowhere.invalid", 1).connect().await.is_err());
    }
}
