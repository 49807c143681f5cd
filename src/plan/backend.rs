//! The `[[backend]]` tables of a plan file in, servers and how they are spoken to out.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use toml::Spanned;

use super::environment::{Expanded, expand, variable};
use super::telemetry;
use super::{
    Address, AddressSource, Backend, DEFAULT_API_KEY_ENV, DEFAULT_CONNECT_TIMEOUT,
    DEFAULT_READY_TIMEOUT, Launch, Model, Server, name,
};
use crate::config::{self, ConfigError, ConfigFile};
use crate::flags::Flags;
use crate::nearest::did_you_mean;
use crate::secret::Secret;
use crate::sim::{Figure, Preset, SimConfig};
use crate::wire::{BackendKind, ProtocolKind};

/// A model, and the tokenizer that the plan names for it.
type NamedModel = (Model, Option<Spanned<PathBuf>>);

/// A backend with its models.
pub(super) struct Resolved {
    pub(super) backend: Arc<Backend>,
    pub(super) models: Vec<NamedModel>,
}

pub(super) fn backends(file: &ConfigFile, flags: &Flags) -> Result<Vec<Resolved>, ConfigError> {
    let mut backends: Vec<Resolved> = Vec::new();
    for written in &file.config.backend {
        let name = name::checked(file, &written.name)?;
        if backends.iter().any(|other| other.backend.name == name) {
            return Err(file.error(written.name.span(), format!("a second backend `{name}`")));
        }
        let by_flag = flags.backend.as_ref() == Some(&name);
        backends.push(backend(file, written, name, by_flag.then_some(flags), flags)?);
    }
    Ok(backends)
}

/// `target` holds the flags if they speak of this very backend.
fn backend(
    file: &ConfigFile,
    written: &config::Backend,
    name: String,
    target: Option<&Flags>,
    flags: &Flags,
) -> Result<Resolved, ConfigError> {
    let kind = *written.kind.get_ref();
    let protocol = protocol_of(file, written)?;
    let mut server = server_of(file, written, protocol, target)?;
    let mut headers = Vec::new();
    for (header, value) in &written.headers {
        let text = expand(value.get_ref(), variable);
        match text.map_err(|error| file.error(value.span(), error))? {
            Expanded::Text(text) => headers.push((header.clone(), Secret::new(text))),
            Expanded::Unset(variable) => server = Server::Unset { variable },
        }
    }
    let mut extra_body = serde_json::Map::new();
    for (key, value) in &written.extra_body {
        let value = serde_json::to_value(value)
            .map_err(|error| file.error(written.name.span(), format!("`extra_body`: {error}")))?;
        extra_body.insert(key.clone(), value);
    }
    if let Some(tls) = &written.tls
        && let Err(error) = tls.get_ref().client_config()
    {
        return Err(file.error(tls.span(), format!("{error:#}")));
    }
    let mut launch = None;
    if let Some(written) = &written.launch {
        // A server that the flags name is there, or nobody knows how to start it.
        let elsewhere = target.and_then(super::flags::base_url).is_some();
        match launch_of(file, written, flags)? {
            _ if elsewhere => {}
            Expanded::Text(how) => launch = Some(how),
            Expanded::Unset(variable) => server = Server::Unset { variable },
        }
        if kind == BackendKind::Sim {
            let message = "kind = \"sim\" is started by the harness and has no `launch`";
            return Err(file.error(written.span(), message));
        }
    }
    let models = models_of(file, written, kind, target)?;
    let tls = written.tls.clone().map(Spanned::into_inner).unwrap_or_default();
    let key_variable = written.api_key_env.as_ref().map(|name| name.get_ref().as_str());
    let key_variable = key_variable.unwrap_or(DEFAULT_API_KEY_ENV);
    let backend = Backend {
        name,
        kind,
        protocol,
        server,
        headers,
        api_key: api_key(kind, key_variable),
        extra_body,
        stream_options: written.stream_options.unwrap_or_default(),
        ignore_eos: written.ignore_eos.unwrap_or(kind.knows_ignore_eos()),
        length_field: written.length_field.unwrap_or_default(),
        min_tokens: written.min_tokens.unwrap_or(kind.knows_min_tokens()),
        http2: written.http2.unwrap_or(false),
        tls: super::flags::tls(flags, tls)
            .map_err(|error| file.error(written.name.span(), error))?,
        launch,
        probe: written.probe.unwrap_or(true),
        connect_timeout: written
            .connect_timeout
            .map_or(DEFAULT_CONNECT_TIMEOUT, |timeout| timeout.0),
        address_source: match target.and_then(super::flags::base_url) {
            Some(_) => AddressSource::CommandLine,
            None => AddressSource::Plan,
        },
        ready_timeout: flags
            .ready_timeout
            .or(written.ready_timeout.map(|timeout| timeout.0))
            .unwrap_or_default(),
        missing_key: missing_key(file, written, kind),
        require_server: flags.require_server || written.require_server.unwrap_or(false),
        metrics: telemetry::metrics(file, kind, written.metrics.as_ref())?,
    };
    Ok(Resolved { backend: Arc::new(backend), models })
}

/// How the server is started, unless a variable that the plan names is not set.
fn launch_of(
    file: &ConfigFile,
    written: &Spanned<config::Launch>,
    flags: &Flags,
) -> Result<Expanded<Launch>, ConfigError> {
    let config::Launch { command, env, ready_url, ready_timeout, stop_signal } = written.get_ref();
    let error = |message: String| file.error(written.span(), format!("`launch`: {message}"));
    if command.first().is_none_or(String::is_empty) {
        return Err(error("`command` must name a program".to_owned()));
    }
    let ready_url = ready_url.clone().unwrap_or_else(|| "/health".to_owned());
    if !ready_url.starts_with('/') && url::Url::parse(&ready_url).is_err() {
        let message = "`ready_url` must be a URL, or a path below the base URL such as /health";
        return Err(error(message.to_owned()));
    }
    let (mut arguments, mut variables) = (Vec::new(), BTreeMap::new());
    for part in command {
        match expand(part, variable).map_err(error)? {
            Expanded::Text(text) => arguments.push(text),
            Expanded::Unset(variable) => return Ok(Expanded::Unset(variable)),
        }
    }
    for (name, value) in env {
        match expand(value, variable).map_err(error)? {
            Expanded::Text(text) => drop(variables.insert(name.clone(), Secret::new(text))),
            Expanded::Unset(variable) => return Ok(Expanded::Unset(variable)),
        }
    }
    Ok(Expanded::Text(Launch {
        command: arguments,
        env: variables,
        ready_url,
        ready_timeout: flags
            .ready_timeout
            .or(ready_timeout.map(|timeout| timeout.0))
            .unwrap_or(DEFAULT_READY_TIMEOUT),
        stop_signal: stop_signal.unwrap_or_default(),
    }))
}

/// What to say where the plan names a variable for the key that is not set, or is empty.
fn missing_key(
    file: &ConfigFile,
    written: &config::Backend,
    kind: BackendKind,
) -> Option<ConfigError> {
    let name = written.api_key_env.as_ref()?;
    if kind == BackendKind::Sim || api_key(kind, name.get_ref()).is_some() {
        return None;
    }
    let set = std::env::vars_os().filter_map(|(name, _)| name.into_string().ok());
    let set: Vec<String> = set.collect();
    let message = format!(
        "`api_key_env`: the environment variable `{}` is not set{}",
        name.get_ref(),
        did_you_mean(name.get_ref(), set.iter().map(String::as_str))
    );
    Some(file.error(name.span(), message))
}

/// The key in the environment; the embedded engine gets none.
pub(super) fn api_key(kind: BackendKind, key_variable: &str) -> Option<Secret> {
    if kind == BackendKind::Sim {
        return None;
    }
    variable(key_variable).filter(|key| !key.is_empty()).map(Secret::new)
}

fn protocol_of(file: &ConfigFile, written: &config::Backend) -> Result<ProtocolKind, ConfigError> {
    match (written.kind.get_ref().protocol(), &written.protocol) {
        (None, protocol) => {
            Ok(protocol.as_ref().map_or(ProtocolKind::Completions, |protocol| *protocol.get_ref()))
        }
        (Some(protocol), None) => Ok(protocol),
        (Some(_), Some(protocol)) => Err(file.error(
            protocol.span(),
            "`protocol` is for kind = \"sim\"; other kinds speak one protocol each",
        )),
    }
}

fn server_of(
    file: &ConfigFile,
    written: &config::Backend,
    protocol: ProtocolKind,
    target: Option<&Flags>,
) -> Result<Server, ConfigError> {
    if *written.kind.get_ref() == BackendKind::Sim {
        if let Some(base_url) = &written.base_url {
            let message = "kind = \"sim\" is started by the harness and has no `base_url`";
            return Err(file.error(base_url.span(), message));
        }
        return Ok(Server::Sim(sim_config(file, written)?));
    }
    let alien = written.preset.as_ref().map(Spanned::span);
    let alien = alien.or(written.engine.as_ref().map(Spanned::span));
    if let Some(span) = alien.or(written.dialect.as_ref().map(Spanned::span)) {
        let message = "`preset`, `engine` and `dialect` are for kind = \"sim\"";
        return Err(file.error(span, message));
    }
    let endpoint = target.and_then(|flags| flags.endpoint.as_deref());
    let endpoint =
        endpoint.or(written.endpoint.as_ref().map(|endpoint| endpoint.get_ref().as_str()));
    let endpoint = endpoint.unwrap_or(protocol.default_endpoint());
    if let Some(base_url) = target.and_then(super::flags::base_url) {
        let address = Address::new(&base_url, endpoint);
        return address.map(Server::Remote).map_err(|error| {
            let message = format!("--base-url and --endpoint, for this backend: {error}");
            file.error(written.name.span(), message)
        });
    }
    let Some(base_url) = &written.base_url else {
        return Err(file.error(
            written.name.span(),
            format!("the backend `{}` needs a `base_url`", written.name.get_ref()),
        ));
    };
    let error = |message| file.error(base_url.span(), message);
    match expand(base_url.get_ref(), variable).map_err(error)? {
        Expanded::Text(text) => Address::new(&text, endpoint).map(Server::Remote).map_err(error),
        Expanded::Unset(variable) => Ok(Server::Unset { variable }),
    }
}

fn sim_config(file: &ConfigFile, written: &config::Backend) -> Result<SimConfig, ConfigError> {
    let preset = written.preset.as_ref().map_or(Preset::Small, |preset| *preset.get_ref());
    let mut sim = SimConfig::preset(preset);
    // Any model: the plan decides what it is called.
    sim.models = Vec::new();
    sim.seed = file.config.seed.unwrap_or(0);
    sim.dialect = written.dialect.as_ref().map(|dialect| *dialect.get_ref()).unwrap_or_default();
    let Some(engine) = &written.engine else { return Ok(sim) };
    let checked = |figure: Figure, written: &Spanned<f64>| {
        let value = figure.check(*written.get_ref());
        value.map_err(|fault| file.error(written.span(), format!("`{}` {fault}", figure.key())))
    };
    let time = |figure: Figure, ms: &Spanned<f64>| {
        checked(figure, ms).map(|ms| Duration::from_secs_f64(ms / 1e3))
    };
    let figures = engine.get_ref();
    if let Some(max_batch) = figures.max_batch {
        sim.max_batch = max_batch.get();
    }
    if let Some(rate) = &figures.prefill_tokens_per_s {
        sim.prefill_tokens_per_s = checked(Figure::PrefillTokensPerS, rate)?;
    }
    if let Some(ms) = &figures.decode_base_ms {
        sim.decode_base = time(Figure::DecodeBaseMs, ms)?;
    }
    if let Some(ms) = &figures.decode_per_sequence_ms {
        sim.decode_per_sequence = time(Figure::DecodePerSequenceMs, ms)?;
    }
    if let Some(tokens) = figures.kv_cache_tokens {
        sim.kv_cache_tokens = tokens.get();
    }
    if let Some(jitter) = &figures.jitter {
        sim.jitter = checked(Figure::Jitter, jitter)?;
    }
    Ok(sim)
}

fn models_of(
    file: &ConfigFile,
    written: &config::Backend,
    kind: BackendKind,
    target: Option<&Flags>,
) -> Result<Vec<NamedModel>, ConfigError> {
    let span = written.name.span();
    if let Some(flags) = target
        && let Some(model) =
            super::flags::model(flags).map_err(|error| file.error(span.clone(), error))?
    {
        return Ok(vec![(model, None)]);
    }
    let Some(models) = &written.models else {
        if kind == BackendKind::Sim {
            return Ok(vec![(Model::embedded(), None)]);
        }
        let message = format!("the backend `{}` needs `models`", written.name.get_ref());
        return Err(file.error(span, message));
    };
    if models.is_empty() {
        let message = format!("`models` of the backend `{}` is empty", written.name.get_ref());
        return Err(file.error(span, message));
    }
    let mut resolved = Vec::new();
    for model in models {
        let config::Model { id, alias, tokenizer } = model.get_ref();
        let alias = alias.clone().unwrap_or_else(|| name::of_model(id));
        if let Some(fault) = name::fault(&alias) {
            let message =
                format!("{fault}; give the model an alias: {{ id = {id:?}, alias = ... }}");
            return Err(file.error(model.span(), message));
        }
        let model = Model { id: id.clone(), alias, source: id.clone() };
        resolved.push((model, tokenizer.clone()));
    }
    Ok(resolved)
}
