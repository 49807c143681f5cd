//! Which process listens on a port of this machine.

use procfs::net::{self, TcpNetEntry, TcpState};
use procfs::process::{self, FDTarget, Process};

/// The process that listens on a port; `None` where there is none, or it is another user's.
pub fn listener(port: u16) -> Option<u32> {
    let entries = net::tcp().into_iter().chain(net::tcp6()).flatten();
    let listens =
        |entry: &TcpNetEntry| entry.state == TcpState::Listen && entry.local_address.port() == port;
    let inodes: Vec<u64> = entries.filter(listens).map(|entry| entry.inode).collect();
    let owns = |process: &Process| {
        let descriptors = process.fd().into_iter().flatten().flatten();
        descriptors.into_iter().any(|descriptor| match descriptor.target {
            FDTarget::Socket(inode) => inodes.contains(&inode),
            _ => false,
        })
    };
    let process = process::all_processes().ok()?.flatten().find(owns)?;
    u32::try_from(process.pid()).ok()
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn a_port_is_that_of_the_process_that_listens_on_it() {
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = socket.local_addr().unwrap().port();
        assert_eq!(listener(port), Some(std::process::id()));
        drop(socket);
        assert_eq!(listener(port), None);
    }
}
