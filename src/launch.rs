//! Starts a server for the cases of a backend, waits until it is ready, and always stops it.

use std::fs::{File, OpenOptions};
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::net::{TcpStream, ToSocketAddrs as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Mutex;
use std::time::Duration;

use anyhow::{Context as _, bail};
use jiff::ZonedDateTime;
use url::Url;

use crate::clock::Clock;
use crate::file_name::file_name;
use crate::lock::lock;
use crate::plan::{Backend, Launch, Server, StopSignal};
use crate::probe::Probe;
use crate::reaper::Reaper;
use crate::secret::{Secret, redact_all};
use crate::stop::Stop;

/// How often a server that starts is asked whether it is ready.
const ASK_EVERY: Duration = Duration::from_millis(200);
/// How long one such question may take.
const ASK_PATIENCE: Duration = Duration::from_secs(2);
/// How long what holds a server's address may take to go: what one before it left behind does.
const CLEARING: Duration = Duration::from_secs(3);
/// How long a server may take to end before it is killed.
const GRACE: Duration = Duration::from_secs(20);
/// How much of the end of its log an error shows.
const TAIL_LINES: usize = 20;
const TAIL_BYTES: u64 = 16 * 1024;

/// The servers that run, for those who leave without a drop.
static RUNNING: Mutex<Vec<u32>> = Mutex::new(Vec::new());

/// Kills every server that runs: for the end of the process, where nothing is dropped any more.
pub fn kill_all() {
    for id in lock(&RUNNING).drain(..) {
        signal(id, StopSignal::Kill);
    }
}

/// A server that was started here. Dropping it stops it, and all the processes that it started.
#[derive(Debug)]
pub struct Launched {
    child: Child,
    stop_signal: StopSignal,
    log: PathBuf,
    /// Where its part of the log begins.
    log_start: u64,
    /// Ends it where this process is killed; `None` where the system has no means for that.
    reaper: Option<Reaper>,
    /// What it was told in confidence, which may be among its last words.
    secrets: Vec<Secret>,
}

/// Starts the server of `backend`, if the plan says how, and returns when it is ready. Its output goes
/// to a file in `logs`.
pub fn launch(backend: &Backend, logs: &Path, stop: &Stop) -> anyhow::Result<Option<Launched>> {
    let Some(launch) = &backend.launch else { return Ok(None) };
    let Server::Remote(address) = &backend.server else { return Ok(None) };
    let ready = if launch.ready_url.starts_with('/') {
        address.below(&launch.ready_url)
    } else {
        launch.ready_url.parse().context("`ready_url` is no URL")?
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let probe = Probe::new(backend, &ready)?;
    let name = &backend.name;
    let clearing = Clock::start();
    while is_taken(&address.endpoint_url())
        || runtime.block_on(probe.is_ok(ready.clone(), ASK_PATIENCE))
    {
        if stop.is_requested() || CLEARING < clearing.now() {
            bail!(
                "something answers at {} already, so that the server of `{name}` could not be told from \
                 it: stop what runs there, give the backend another port, or leave `launch` out",
                address.shown()
            );
        }
        std::thread::sleep(ASK_EVERY);
    }
    let log = logs.join(format!("{}.log", file_name(&backend.name)));
    let secrets = launch.env.values().cloned().chain(backend.secrets()).collect();
    let mut launched = Launched::start(launch, log, secrets)?;
    let clock = Clock::start();
    let mut is_ready = false;
    loop {
        if stop.is_requested() {
            bail!("interrupted while the server of `{name}` was starting");
        }
        if let Some(status) = launched.ended() {
            let words = launched.last_words();
            bail!("the server of `{name}` ended before it was ready ({status}); {words}");
        }
        if is_ready {
            return Ok(Some(launched));
        }
        // Whether it still runs is asked once more before the answer is believed.
        is_ready = runtime.block_on(probe.is_ok(ready.clone(), ASK_PATIENCE));
        if is_ready {
            continue;
        }
        if launch.ready_timeout < clock.now() {
            bail!(
                "the server of `{name}` was not ready ({}) within {:?}; {}",
                launch.ready_url,
                launch.ready_timeout,
                launched.last_words()
            );
        }
        std::thread::sleep(ASK_EVERY);
    }
}

impl Launched {
    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The end of its log, without what it was told in confidence.
    pub fn last_words(&self) -> String {
        let Self { log, log_start, secrets, .. } = self;
        let words = redact_all(secrets, tail(log, *log_start));
        format!("the end of {}:\n{words}", log.display())
    }

    fn start(launch: &Launch, log: PathBuf, secrets: Vec<Secret>) -> anyhow::Result<Self> {
        let Launch { command, env, stop_signal, .. } = launch;
        let (program, arguments) = command.split_first().context("the command is empty")?;
        if let Some(folder) = log.parent() {
            std::fs::create_dir_all(folder)
                .with_context(|| format!("create the folder {}", folder.display()))?;
        }
        let (output, log_start) =
            begin(&log).with_context(|| format!("write the log {}", log.display()))?;
        let mut starting = Command::new(program);
        starting
            .args(arguments)
            .envs(env.iter().map(|(name, value)| (name, value.reveal())))
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output);
        // A group of its own: Ctrl-C is for us, who then end the whole group.
        #[cfg(unix)]
        std::os::unix::process::CommandExt::process_group(&mut starting, 0);
        let child = starting.spawn().with_context(|| format!("start `{program}`"))?;
        lock(&RUNNING).push(child.id());
        let reaper = Reaper::watch(child.id()).ok();
        Ok(Self { child, stop_signal: *stop_signal, log, log_start, reaper, secrets })
    }

    /// How the server has ended; `None` while it runs.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    fn end(&mut self) {
        signal(self.child.id(), self.stop_signal);
        let clock = Clock::start();
        while clock.now() < GRACE {
            if self.ended().is_some() {
                // What it started and left behind.
                kill(&mut self.child);
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        kill(&mut self.child);
        let _ = self.child.wait();
    }
}

impl Drop for Launched {
    fn drop(&mut self) {
        self.end();
        // Before another group may have its number.
        self.reaper = None;
        let id = self.child.id();
        lock(&RUNNING).retain(|running| *running != id);
    }
}

/// Whether something accepts connections where `url` is.
fn is_taken(url: &Url) -> bool {
    let Some((host, port)) = url.host_str().zip(url.port_or_known_default()) else { return false };
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let addresses = (host, port).to_socket_addrs();
    addresses.is_ok_and(|mut addresses| {
        addresses.any(|address| TcpStream::connect_timeout(&address, ASK_PATIENCE).is_ok())
    })
}

/// Sends a signal to the process `id` and all that it has started.
#[cfg(unix)]
fn signal(id: u32, signal: StopSignal) {
    use nix::sys::signal::{Signal, killpg};
    let signal = match signal {
        StopSignal::Term => Signal::SIGTERM,
        StopSignal::Int => Signal::SIGINT,
        StopSignal::Kill => Signal::SIGKILL,
    };
    if let Ok(group) = i32::try_from(id) {
        // It may have ended.
        let _ = killpg(nix::unistd::Pid::from_raw(group), signal);
    }
}

#[cfg(not(unix))]
fn signal(_: u32, _: StopSignal) {}

fn kill(child: &mut Child) {
    signal(child.id(), StopSignal::Kill);
    // Where there are no groups; it may have ended.
    let _ = child.kill();
}

/// Opens a log behind what servers before have left in it. Returns where the next part begins.
fn begin(log: &Path) -> std::io::Result<(File, u64)> {
    let mut file = OpenOptions::new().create(true).append(true).open(log)?;
    let now = ZonedDateTime::now();
    writeln!(file, "--- servebench starts it at {}", now.strftime("%Y-%m-%d %H:%M:%S"))?;
    let start = file.metadata()?.len();
    Ok((file, start))
}

/// The last lines of a log's part from `start` on.
fn tail(log: &Path, start: u64) -> String {
    let read = || -> std::io::Result<String> {
        let mut file = File::open(log)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(TAIL_BYTES).max(start)))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    let text = read().unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n")
}

/// Where the logs of servers go.
pub fn logs(results: &Path) -> PathBuf {
    results.join("logs")
}
