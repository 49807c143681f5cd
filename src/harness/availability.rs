//! Whether the server of each case is there: it is, its cases are ignored, or they fail.
//!
//! Only a server that is nowhere may be ignored: its variable is not set, or it refuses connections and the
//! plan does not require it. One that is there and wrong is a failure.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::time::Duration;

use anyhow::bail;

use super::terminal::say;
use crate::cli::{Cli, Mode};
use crate::clock::Clock;
use crate::connection::is_proxied;
use crate::plan::{Address, AddressSource, Backend, Case, Server};
use crate::probe::{Probe, Reach};
use crate::stop::Stop;

/// How often a server that loads is asked whether it is ready.
const ASK_EVERY: Duration = Duration::from_millis(500);
/// How often the user is told that it is waited for.
const NEWS_EVERY: Duration = Duration::from_secs(10);

/// Whether a server can be measured.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Availability {
    /// It can, or the first request will say why not.
    Ready,
    /// It is nowhere, which the plan allows; why.
    Ignored(String),
    /// It should be there; what is wrong.
    Broken(String),
}

/// The cases that cannot be measured, with the reason.
#[derive(Debug, Default)]
pub(super) struct Unavailable {
    /// Those that are left out.
    pub(super) ignored: BTreeMap<String, String>,
    /// Those that fail.
    pub(super) broken: BTreeMap<String, String>,
}

impl Unavailable {
    /// Looks for the servers that may be left out. An error where a case that would
    /// be sent has no key.
    pub(super) fn of(cli: &Cli, selected: &[&Case]) -> anyhow::Result<Self> {
        let mut found = Self::default();
        let mut asked: BTreeMap<&str, Availability> = BTreeMap::new();
        let needed =
            selected.iter().flat_map(|case| case.backends().map(move |backend| (case, backend)));
        for (case, backend) in needed {
            let available = match asked.entry(&backend.name) {
                Entry::Occupied(entry) => entry.get().clone(),
                Entry::Vacant(entry) => entry.insert(availability(cli, backend)?).clone(),
            };
            let name = case.name.clone();
            match available {
                Availability::Ready => {}
                Availability::Ignored(why) => drop(found.ignored.entry(name).or_insert(why)),
                Availability::Broken(why) => drop(found.broken.entry(name).or_insert(why)),
            }
        }
        // Of two servers, the one that is wrong counts.
        let Self { ignored, broken } = &mut found;
        ignored.retain(|case, _| !broken.contains_key(case));
        Ok(found)
    }
}

fn availability(cli: &Cli, backend: &Backend) -> anyhow::Result<Availability> {
    let mode = cli.mode();
    match &backend.server {
        Server::Sim(_) => Ok(Availability::Ready),
        Server::Unset { variable } => {
            let why = format!("the environment variable {variable} is not set");
            Ok(match mode {
                Mode::Bench if backend.require_server => Availability::Broken(why),
                Mode::Bench => Availability::Ignored(why),
                // A miniature needs no server. Only who runs what was listed as ignored means these cases.
                Mode::Test if !cli.ignored => Availability::Ready,
                Mode::List | Mode::Test => Availability::Ignored(why),
            })
        }
        Server::Remote(_) if mode != Mode::Bench => Ok(Availability::Ready),
        Server::Remote(address) => {
            if let Some(error) = &backend.missing_key {
                return Err(error.clone().into());
            }
            // Where it may not be left out, it is looked for when its case runs.
            if !may_be_absent(backend) {
                return Ok(Availability::Ready);
            }
            let tried = !cli.flags.skip_test_prompt;
            Ok(judge(find(backend, address, &Stop::new())?, backend, address, tried))
        }
    }
}

/// Makes sure that the servers of a case that may not be left out are there, and waits for those that load.
/// `test_prompt` says that a request is tried before the clock starts.
pub(super) fn ensure(case: &Case, test_prompt: bool, stop: &Stop) -> anyhow::Result<()> {
    for backend in case.backends() {
        let Server::Remote(address) = &backend.server else { continue };
        let tried = test_prompt && backend.probe;
        let matters = tried || !backend.ready_timeout.is_zero();
        if backend.launch.is_some() || may_be_absent(backend) || !matters {
            continue;
        }
        if let Availability::Broken(why) =
            judge(find(backend, address, stop)?, backend, address, tried)
        {
            bail!("{why}");
        }
    }
    Ok(())
}

/// Whether the cases of a backend are left out where nothing listens at its address.
fn may_be_absent(backend: &Backend) -> bool {
    !backend.require_server
        && backend.address_source == AddressSource::Plan
        && backend.ready_timeout.is_zero()
        // What the harness starts will be there.
        && backend.launch.is_none()
}

/// What a look at the server means. `tried` says that a request is tried before the clock starts; otherwise the
/// requests of the case themselves say what is wrong.
fn judge(reach: Reach, backend: &Backend, address: &Address, tried: bool) -> Availability {
    let waited = backend.ready_timeout;
    let shown = address.shown();
    let late = match waited.is_zero() {
        true => String::new(),
        false => format!(" after {waited:?}"),
    };
    match reach {
        Reach::Refused(why) if may_be_absent(backend) => Availability::Ignored(format!(
            "no server at {shown} ({why}); --require-server makes that a failure"
        )),
        Reach::Answers(_) if !late.is_empty() && reach.may_be_loading() => Availability::Broken(
            format!("the server at {shown} is not ready{late}: {reach}; see --ready-timeout"),
        ),
        Reach::Answers(_) => Availability::Ready,
        _ if !(tried && backend.probe) && waited.is_zero() => Availability::Ready,
        Reach::Refused(_) => Availability::Broken(format!(
            "no server at {shown}{late}: {reach}; start it, or wait for it with --ready-timeout"
        )),
        Reach::Insecure(_) | Reach::Silent(_) | Reach::Broken(_) => {
            Availability::Broken(format!("the server at {shown} cannot be used{late}: {reach}"))
        }
    }
}

/// Looks for the server, again and again while it loads and the plan wants to wait.
fn find(backend: &Backend, address: &Address, stop: &Stop) -> anyhow::Result<Reach> {
    let (models, health) = (address.below("/v1/models"), address.beside("/health"));
    let probe = Probe::new(backend, &models)?;
    let proxied = is_proxied(&models)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let patience = backend.connect_timeout;
    let look = |url: &url::Url, patience: Duration| {
        let reach = async {
            tokio::select! {
                reach = probe.reach(url.clone(), patience) => reach,
                () = stop.requested() => Reach::Broken("interrupted".to_owned()),
            }
        };
        match runtime.block_on(reach) {
            // That is the proxy, which says nothing about the server.
            Reach::Refused(why) if proxied => Reach::Broken(why),
            reach => reach,
        }
    };
    let clock = Clock::start();
    let mut news = Duration::ZERO;
    loop {
        if stop.is_requested() {
            bail!("interrupted while the server of `{}` was waited for", backend.name);
        }
        let left = backend.ready_timeout.saturating_sub(clock.now());
        let mut reach = look(&models, patience);
        let waits = !backend.ready_timeout.is_zero();
        if waits && matches!(reach, Reach::Answers(_)) && !reach.may_be_loading() {
            reach = match look(&health, patience) {
                loading if loading.may_be_loading() => loading,
                // Not every server has that page.
                _ => return Ok(reach),
            };
        }
        if !waits || !reach.may_be_loading() || left.is_zero() {
            return Ok(reach);
        }
        if news <= clock.now() {
            news = clock.now() + NEWS_EVERY;
            say(&format!(
                "waiting for the server of `{}` at {}: {reach}; for {:?} more",
                backend.name,
                address.shown(),
                Duration::from_secs(left.as_secs())
            ));
        }
        std::thread::sleep(ASK_EVERY.min(left));
    }
}
