//! Which process started which.

/// Whether `pid` is `ancestor`, or was started by it or by one that it started. Without Linux's `/proc` only
/// the former is seen.
pub fn descends(pid: u32, ancestor: u32) -> bool {
    std::iter::successors(Some(pid), |pid| parent(*pid)).any(|pid| pid == ancestor)
}

fn parent(pid: u32) -> Option<u32> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name, in brackets, may hold anything; the state and the parent follow it.
    let (_, after_name) = status.rsplit_once(')')?;
    after_name.split_whitespace().nth(1)?.parse().ok()
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn a_child_of_a_child_descends_from_its_ancestor() {
        let script = "sleep 30 & echo $!; wait";
        let mut shell =
            Command::new("sh").args(["-c", script]).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        let mut output = std::io::BufReader::new(shell.stdout.take().unwrap());
        std::io::BufRead::read_line(&mut output, &mut line).unwrap();
        let grandchild = line.trim().parse().unwrap();
        assert!(descends(grandchild, shell.id()));
        assert!(descends(grandchild, std::process::id()));
        assert!(!descends(shell.id(), grandchild));
        Command::new("kill").arg(line.trim()).status().unwrap();
        shell.wait().unwrap();
    }
}
