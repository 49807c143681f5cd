//! What never leaves this machine, and so never goes through a proxy.

use url::{Host, Url};

/// Whether the URL is of this very machine.
pub fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
        // The unspecified address is how this machine is called in the command line of its server.
        Some(Host::Ipv4(address)) => address.is_loopback() || address.is_unspecified(),
        Some(Host::Ipv6(address)) => {
            address.to_canonical().is_loopback() || address.is_unspecified()
        }
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_is_known_by_all_its_names() {
        for (url, here) in [
            ("http://localhost:1", true),
            ("http://api.localhost", true),
            ("http://127.0.0.2", true),
            ("http://0.0.0.0:8000", true),
            ("http://[::1]:1", true),
            ("http://[::]:1", true),
            ("http://[::ffff:127.0.0.1]", true),
            ("http://10.0.0.1", false),
            ("http://[fe80::1]", false),
            ("http://localhost.example.com", false),
        ] {
            assert_eq!(is_loopback(&url.parse().unwrap()), here, "{url}");
        }
    }
}
