//! A TCP connection that knows when what it last read had arrived. On Linux the kernel says so
//! (`SO_TIMESTAMPING`), and a client that is late to read stamps no later; elsewhere it is the moment of
//! the read.

use std::io;
#[cfg(target_os = "linux")]
use std::io::IoSliceMut;
use std::mem::MaybeUninit;
#[cfg(target_os = "linux")]
use std::os::fd::AsRawFd as _;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
#[cfg(target_os = "linux")]
use std::time::Duration;

#[cfg(target_os = "linux")]
use nix::sys::socket::{
    ControlMessageOwned, MsgFlags, TimestampingFlag, recvmsg, setsockopt, sockopt,
};
#[cfg(target_os = "linux")]
use nix::sys::time::TimeSpec;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::TcpStream;

use crate::clock::Moment;

/// An open connection.
#[derive(Debug)]
pub struct Socket {
    stream: TcpStream,
    receiver: Receiver,
    arrived: Moment,
    stamped: bool,
}

impl Socket {
    /// Takes an open connection.
    pub fn new(stream: TcpStream) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        let receiver = Receiver::new(&stream);
        Ok(Self { stream, receiver, arrived: Moment::now(), stamped: false })
    }

    /// When the last byte of the last read had arrived. Never before the read that preceded it.
    pub fn arrived(&self) -> Moment {
        self.arrived
    }

    /// Whether the kernel said when the last read's bytes had arrived.
    pub fn is_stamped(&self) -> bool {
        self.stamped
    }

    /// Whether the peer has neither closed the connection nor sent anything.
    pub fn is_quiet(&self) -> bool {
        // As long as nothing has come there is nothing to take away.
        let read = socket2::SockRef::from(&self.stream).peek(&mut [MaybeUninit::uninit()]);
        read.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let Self { stream, receiver, arrived, stamped } = self.get_mut();
        loop {
            ready!(stream.poll_read_ready(context))?;
            let room = buffer.initialize_unfilled();
            let mut received = None;
            let tried = stream.try_io(Interest::READABLE, || {
                let (length, at) = receiver.receive(stream, room)?;
                received = Some((length, at));
                // Less than there was room for is all there was: without this word the runtime
                // would have to ask again to learn it.
                let emptied = 0 < length && length < room.len();
                if emptied { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(()) }
            });
            match (received, tried) {
                (Some((length, at)), _) => {
                    buffer.advance(length);
                    // A wall clock that was set back between arrival and read must not turn time
                    // around.
                    *stamped = at.is_some();
                    *arrived = at.unwrap_or_else(Moment::now).max(*arrived);
                    return Poll::Ready(Ok(()));
                }
                (None, Err(error)) if error.kind() == io::ErrorKind::WouldBlock => {}
                (None, Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
                (None, tried) => return Poll::Ready(tried),
            }
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(context, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(context)
    }
}

/// Reads with the kernel's stamps.
#[cfg(target_os = "linux")]
#[derive(Debug)]
struct Receiver {
    /// Room for what the kernel says beside the bytes.
    control: Vec<u8>,
}

#[cfg(target_os = "linux")]
impl Receiver {
    fn new(stream: &TcpStream) -> Self {
        let flags = TimestampingFlag::SOF_TIMESTAMPING_RX_SOFTWARE
            | TimestampingFlag::SOF_TIMESTAMPING_SOFTWARE;
        // Where the system refuses, no read comes with a stamp.
        let _ = setsockopt(stream, sockopt::Timestamping, &flags);
        Self { control: nix::cmsg_space!([TimeSpec; 3]) }
    }

    /// Reads once: how many bytes, and when the last of them had arrived, where the kernel says so. It
    /// does not for the first that come after the first socket of the system has asked for it.
    fn receive(
        &mut self,
        stream: &TcpStream,
        room: &mut [u8],
    ) -> io::Result<(usize, Option<Moment>)> {
        let mut rooms = [IoSliceMut::new(room)];
        let control = Some(self.control.as_mut_slice());
        let read = recvmsg::<()>(stream.as_raw_fd(), &mut rooms, control, MsgFlags::empty())?;
        let arrived = read.cmsgs().ok().and_then(|mut messages| {
            messages.find_map(|message| match message {
                ControlMessageOwned::ScmTimestampsns(stamps) => Some(stamps.system),
                _ => None,
            })
        });
        let arrived = arrived.map(Duration::from).filter(|wall| !wall.is_zero());
        Ok((read.bytes, arrived.map(Moment::of_wall)))
    }
}

#[cfg(not(target_os = "linux"))]
#[derive(Debug)]
struct Receiver;

#[cfg(not(target_os = "linux"))]
impl Receiver {
    fn new(_: &TcpStream) -> Self {
        Self
    }

    fn receive(
        &mut self,
        stream: &TcpStream,
        room: &mut [u8],
    ) -> io::Result<(usize, Option<Moment>)> {
        let length = std::io::Read::read(&mut &*socket2::SockRef::from(stream), room)?;
        Ok((length, None))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;

    async fn pair() -> (Socket, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (ours, theirs) = tokio::join!(TcpStream::connect(address), listener.accept());
        (Socket::new(ours.unwrap()).unwrap(), theirs.unwrap().0)
    }

    #[tokio::test]
    async fn what_is_sent_arrives_also_where_it_does_not_fit_at_once() {
        let (mut ours, mut theirs) = pair().await;
        let long: Vec<u8> = (0..4 << 20).map(|n: u32| n as u8).collect();
        let echo = async {
            let (mut reading, mut writing) = theirs.split();
            tokio::io::copy(&mut reading, &mut writing).await.unwrap();
        };
        let send_and_receive = async {
            let (mut reading, mut writing) = tokio::io::split(&mut ours);
            let mut back = vec![0; long.len()];
            let (sent, received) =
                tokio::join!(writing.write_all(&long), reading.read_exact(&mut back));
            sent.unwrap();
            received.unwrap();
            back
        };
        let back = tokio::select! {
            back = send_and_receive => back,
            () = echo => unreachable!("the connection stays open"),
        };
        assert!(back == long);
    }

    #[tokio::test]
    async fn a_connection_is_quiet_until_the_peer_speaks_or_leaves() {
        let (mut ours, mut theirs) = pair().await;
        assert!(ours.is_quiet());
        theirs.write_all(b"hello").await.unwrap();
        tokio::time::sleep(Duration::from_millis(20)).await;
        assert!(!ours.is_quiet());
        let mut buffer = [0; 16];
        assert_eq!(ours.read(&mut buffer).await.unwrap(), 5);
        assert!(ours.is_quiet());
        drop(theirs);
        tokio::time::sleep(Duration::from_millis(20)).await;
        assert!(!ours.is_quiet());
        assert_eq!(ours.read(&mut buffer).await.unwrap(), 0);
    }

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn a_late_reader_still_knows_when_bytes_arrived() {
        let (mut ours, mut theirs) = pair().await;
        let mut buffer = [0; 16];
        // The system may take a while to begin with its stamps.
        let patience = Moment::now();
        while patience.age() < Duration::from_secs(10) {
            theirs.write_all(b"hello").await.unwrap();
            let written = Moment::now();
            std::thread::sleep(Duration::from_millis(5));
            assert_eq!(ours.read(&mut buffer).await.unwrap(), 5);
            if ours.arrived() <= written {
                break;
            }
        }
        let before = Moment::now();
        theirs.write_all(b"hello").await.unwrap();
        let written = Moment::now();
        std::thread::sleep(Duration::from_millis(50));
        assert_eq!(ours.read(&mut buffer).await.unwrap(), 5);
        // The kernel stamps what goes over the loopback while it is written.
        assert!(before <= ours.arrived() && ours.arrived() <= written);
    }
}
