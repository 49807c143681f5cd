//! What is written to stdout and stderr: whole lines, each in one write.

use std::io::{self, Write as _};

use anstream::{AutoStream, ColorChoice};

use crate::cli::Color;
use crate::render::overview;
use crate::render::text::plain_lines;
use crate::report::Report;

/// How wide a line may be where there is no terminal: as in the logs of CI.
const WIDTH_OF_LOGS: usize = 160;

/// Whole lines to stdout. Where its reader has seen enough (`| head`), nothing is written and all goes on.
pub(super) fn print(text: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    let written = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush());
    unless_closed(written)
}

fn unless_closed(written: io::Result<()>) -> io::Result<()> {
    match written {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
            discard_stdout();
            Ok(())
        }
        written => written,
    }
}

/// From when on nobody reads stdout, what is written there is discarded, as libtest's printer ends the program where
/// it cannot write.
#[cfg(unix)]
pub(super) fn outlive_readers() {
    use std::os::fd::AsFd as _;

    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    let wait = || {
        let stdout = io::stdout();
        let mut watched = [PollFd::new(stdout.as_fd(), PollFlags::empty())];
        // No event is asked for: it returns when the other end is closed.
        if poll(&mut watched, PollTimeout::NONE).is_ok() {
            discard_stdout();
        }
    };
    // Without it, all is as it was.
    let _ = std::thread::Builder::new().name("servebench-stdout".to_owned()).spawn(wait);
}

#[cfg(not(unix))]
pub(super) fn outlive_readers() {}

#[cfg(unix)]
fn discard_stdout() {
    if let Ok(nowhere) = std::fs::OpenOptions::new().write(true).open("/dev/null") {
        let _ = nix::unistd::dup2_stdout(nowhere);
    }
}

#[cfg(not(unix))]
fn discard_stdout() {}

/// Whole lines with colours in them to stdout, which has them only where they are wanted.
pub(super) fn print_styled(text: &str, color: Option<Color>) -> io::Result<()> {
    let mut stdout = AutoStream::new(io::stdout().lock(), choice(color));
    unless_closed(stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()))
}

/// The columns of the terminal that stdout is; `None` where it is none.
pub(super) fn width() -> Option<usize> {
    terminal_size::terminal_size_of(io::stdout()).map(|(width, _)| width.0.into())
}

/// A line to stderr, or several. All that goes there goes through here, since most of it holds words of others.
pub(super) fn say(text: &str) {
    // There is nobody to tell that stderr is closed.
    let _ = io::stderr().write_all(format!("{}\n", plain_lines(text)).as_bytes());
}

/// All cases of a run below each other, to stderr. Without a wish, colour is used on a terminal, unless
/// `NO_COLOR` is set, and in CI's logs that show it.
pub(super) fn show(reports: &[&Report], color: Option<Color>) {
    let terminal = terminal_size::terminal_size_of(io::stderr());
    let width = terminal.map_or(WIDTH_OF_LOGS, |(width, _)| usize::from(width.0));
    let text = overview::render(reports, width);
    if !text.is_empty() {
        let _ = AutoStream::new(io::stderr(), choice(color))
            .write_all(format!("\n{text}\n").as_bytes());
    }
}

fn choice(color: Option<Color>) -> ColorChoice {
    match color {
        None | Some(Color::Auto) => ColorChoice::Auto,
        Some(Color::Always) => ColorChoice::Always,
        Some(Color::Never) => ColorChoice::Never,
    }
}
