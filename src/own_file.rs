//! Files in the folder for temporary files, which everybody can write to: one that is no plain file, or is another
//! user's, is not believed and not waited for.

use std::fs::{File, OpenOptions};
use std::io;
use std::path::PathBuf;

/// A file of this user's own in the folder for temporary files.
pub fn path(name: &str, extension: &str) -> PathBuf {
    #[cfg(unix)]
    let name = format!("{name}-{}", nix::unistd::geteuid());
    std::env::temp_dir().join(format!("{name}.{extension}"))
}

/// Opens a file to be read and written, and creates it where it is missing.
///
/// # Errors
///
/// If it cannot be opened, is no plain file, or belongs to someone else. Never waits, as opening a FIFO would.
pub fn open(path: &std::path::Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt as _;
        let flags = nix::libc::O_NOFOLLOW | nix::libc::O_NONBLOCK;
        options.custom_flags(flags).mode(0o600);
    }
    let file = options.open(path)?;
    let about = file.metadata()?;
    #[cfg(unix)]
    let own = {
        use std::os::unix::fs::MetadataExt as _;
        about.uid() == nix::unistd::geteuid().as_raw()
    };
    #[cfg(not(unix))]
    let own = true;
    if about.is_file() && own { Ok(file) } else { Err(io::ErrorKind::PermissionDenied.into()) }
}

#[cfg(test)]
mod tests {
    #[cfg(unix)]
    use super::*;

    #[cfg(unix)]
    #[test]
    fn only_a_plain_file_is_opened_and_nothing_is_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let plain = folder.path().join("plain");
        assert!(open(&plain).is_ok(), "it is created");
        let link = folder.path().join("link");
        std::os::unix::fs::symlink(&plain, &link).unwrap();
        assert!(open(&link).is_err());
        let fifo = folder.path().join("fifo");
        let made = std::process::Command::new("mkfifo").arg(&fifo).status().unwrap();
        assert!(made.success());
        assert!(open(&fifo).is_err());
    }
}
