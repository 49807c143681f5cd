//! Ends what this process started where this process is killed and can end nothing any more.
//!
//! A shell waits at the end of a pipe whose other end this process holds: it is told to go when all is well, and the
//! pipe breaks when this process dies, however it dies. It is no child of this process and in no group with it.

use std::io;
#[cfg(unix)]
use std::io::Write as _;
#[cfg(unix)]
use std::os::unix::process::CommandExt as _;
use std::process::ChildStdin;
#[cfg(unix)]
use std::process::{Command, Stdio};

/// What the shell does: it ends the group whose number it is given, and what of it is left after a while.
#[cfg(unix)]
const SCRIPT: &str =
    "exec 3<&0; (read word <&3 && exit 0; kill -s TERM -- -$0; sleep 2; kill -s KILL -- -$0) &";

/// Ends a group of processes when this process is gone.
#[derive(Debug)]
pub struct Reaper {
    #[cfg_attr(not(unix), expect(dead_code, reason = "there are no groups"))]
    pipe: ChildStdin,
}

impl Reaper {
    /// Watches over the group of the process `id`, which it leads.
    ///
    /// # Errors
    ///
    /// If there is no shell, or no system with groups of processes.
    #[cfg(unix)]
    pub fn watch(id: u32) -> io::Result<Self> {
        let mut shell = Command::new("/bin/sh")
            .args(["-c", SCRIPT, &id.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()?;
        let pipe = shell.stdin.take().ok_or(io::ErrorKind::BrokenPipe)?;
        // It leaves the one that waits behind.
        shell.wait()?;
        Ok(Self { pipe })
    }

    /// There is none.
    #[cfg(not(unix))]
    pub fn watch(_: u32) -> io::Result<Self> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

#[cfg(unix)]
impl Drop for Reaper {
    fn drop(&mut self) {
        // It may have been killed.
        let _ = self.pipe.write_all(b"go\n");
    }
}
