//! File descriptors and local ports: every request in flight takes one of each, and running out of them
//! in mid-run would look like the server's fault. Raises the limit, and says before the run what is
//! missing.

use anyhow::{Context as _, bail};

use crate::load::Load;
use crate::plan::{Case, Server};

/// Descriptors for everything but connections: files, the runtime, the terminal.
const OTHERS: u64 = 64;

/// Makes sure that the connections of `case`, which sends `requests`, can all be open at once. An open
/// loop without a cap gets what there is: nobody knows beforehand how many it needs.
pub fn ensure(case: &Case, requests: usize) -> anyhow::Result<()> {
    let have = rlimit::increase_nofile_limit(u64::MAX)
        .context("raise the limit on open files (ulimit -n)")?;
    let Some(connections) = most_in_flight(&case.load, requests) else { return Ok(()) };
    // Of the embedded engine, this process holds the other end too.
    let ends = if matches!(case.backend.server, Server::Sim(_)) { 2 } else { 1 };
    check("open files", connections * ends + OTHERS, have, "ulimit -Hn")?;
    if let Some(ports) = local_ports() {
        check("local ports", connections, ports, "sysctl net.ipv4.ip_local_port_range")?;
    }
    Ok(())
}

fn check(what: &str, need: u64, have: u64, setting: &str) -> anyhow::Result<()> {
    if need <= have {
        return Ok(());
    }
    bail!(
        "the load needs {need} {what} and the system allows {have}: raise `{setting}`, or send less \
         at once"
    )
}

/// The most requests that can be in flight; `None` where only the server's speed bounds them.
fn most_in_flight(load: &Load, requests: usize) -> Option<u64> {
    let most = match load {
        Load::Infinite => requests,
        Load::Open { cap: None, .. }
        | Load::Staged(_)
        | Load::Trace { cap: None }
        | Load::Search(_) => return None,
        Load::Open { cap: Some(most), .. }
        | Load::Trace { cap: Some(most) }
        | Load::Closed(most) => most.get().min(requests),
    };
    Some(most as u64)
}

/// How many connections to one address there can be; `None` where the system does not say.
fn local_ports() -> Option<u64> {
    let range = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").ok()?;
    ports_in(&range)
}

fn ports_in(range: &str) -> Option<u64> {
    let mut bounds = range.split_whitespace().map(str::parse::<u64>);
    let (first, last) = (bounds.next()?.ok()?, bounds.next()?.ok()?);
    (last + 1).checked_sub(first)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_load_says_how_many_connections_there_can_be() {
        for (load, most) in [
            ("inf", Some(500)),
            ("32conc", Some(32)),
            ("1000conc", Some(500)),
            ("4qps-8conc", Some(8)),
            ("4qps", None),
        ] {
            assert_eq!(most_in_flight(&load.parse().unwrap(), 500), most, "{load}");
        }
    }

    #[test]
    fn what_is_missing_is_said_with_need_and_have() {
        assert!(check("open files", 1088, 1088, "ulimit -Hn").is_ok());
        let error = check("open files", 1088, 256, "ulimit -Hn").unwrap_err().to_string();
        assert!(error.contains("needs 1088 open files and the system allows 256"), "{error}");
    }

    #[test]
    fn the_range_of_ports_is_read() {
        assert_eq!(ports_in("32768\t60999\n"), Some(28_232));
        assert_eq!(ports_in("nonsense"), None);
    }
}
