//! A plan file in, cases out: backends × models × workloads × loads, group by group.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::path::PathBuf;
use std::sync::Arc;

use toml::Spanned;

use super::environment::{Expanded, expand, variable};
use super::{
    Address, Backend, Case, DEFAULT_API_KEY_ENV, DEFAULT_CONNECT_TIMEOUT, DEFAULT_REQUESTS,
    DEFAULT_TIMEOUT, Model, NamedDataset, Plan, PlanError, Server, load_of, name, with_no_errors,
};
use crate::config::{self, ConfigError, ConfigFile, Settings};
use crate::flags::Flags;
use crate::load::Load;
use crate::secret::Secret;
use crate::sim::{Preset, SimConfig};
use crate::slo::Goodput;
use crate::wire::{BackendKind, ProtocolKind};
use crate::workload::{Dataset, DatasetKind};

/// The cases of `file`, with `flags` in the place of its values.
pub(super) fn plan(file: &ConfigFile, flags: &Flags) -> Result<Plan, PlanError> {
    let config = &file.config;
    let backends = backends(file, flags)?;
    let workloads = workloads(file, flags)?;
    let mut cases = Vec::new();
    let mut lines = BTreeMap::new();
    for bench in &config.bench {
        let group = Group { file, flags, bench, backends: &backends, workloads: &workloads };
        for case in group.cases()? {
            let group = bench.loads.span();
            match lines.entry(case.name.clone()) {
                Entry::Vacant(entry) => drop(entry.insert(group)),
                Entry::Occupied(entry) => {
                    let first = file.line_of(entry.get().start);
                    let message = format!(
                        "the case `{}` is made twice: here and by the group at line {first}; cases \
                         of one name cannot be told apart in filters and baselines",
                        case.name
                    );
                    return Err(file.error(group, message).into());
                }
            }
            cases.push(case);
        }
    }
    let results = flags.result_dir.clone().or_else(|| config.results.clone());
    Ok(Plan {
        cases,
        results: results.unwrap_or_else(|| PathBuf::from("results")),
        notes: Vec::new(),
    })
}

/// A backend with its models.
struct Resolved {
    backend: Arc<Backend>,
    models: Vec<(Model, Option<PathBuf>)>,
}

/// One `[[bench]]` table and what it selects from.
struct Group<'a> {
    file: &'a ConfigFile,
    flags: &'a Flags,
    bench: &'a config::Bench,
    backends: &'a [Resolved],
    workloads: &'a [NamedDataset],
}

impl Group<'_> {
    fn cases(&self) -> Result<Vec<Case>, ConfigError> {
        let (file, bench) = (self.file, self.bench);
        let backend_names = self.backends.iter().map(|resolved| resolved.backend.name.as_str());
        let backends = selection(file, "backend", bench.backends.as_deref(), backend_names)?;
        let workload_names = self.workloads.iter().map(|workload| workload.name.as_str());
        let workloads = selection(file, "workload", bench.workloads.as_deref(), workload_names)?;
        // A model may be selected by either of its names; one that no backend has is a mistake.
        let model_names = self.backends.iter().flat_map(|resolved| {
            resolved.models.iter().flat_map(|(model, _)| [model.alias.as_str(), model.id.as_str()])
        });
        let models = selection(file, "model", bench.models.as_deref(), model_names)?;
        let loads = match load_of(self.flags) {
            Some(load) => vec![load],
            None => bench.loads.get_ref().clone(),
        };
        if loads.is_empty() {
            return Err(file.error(bench.loads.span(), "a group needs at least one load"));
        }

        let mut cases = Vec::new();
        for resolved in self.backends {
            // With `--backend NAME`, the other backends are not part of the plan.
            let wanted =
                self.flags.backend.as_ref().is_none_or(|name| *name == resolved.backend.name);
            if !wanted || !backends.contains(&resolved.backend.name) {
                continue;
            }
            for (model, tokenizer) in &resolved.models {
                let by_flag = self.flags.model.is_some();
                if !by_flag && !models.contains(&model.alias) && !models.contains(&model.id) {
                    continue;
                }
                for workload in self.workloads {
                    if !workloads.contains(&workload.name) {
                        continue;
                    }
                    for &load in &loads {
                        cases.push(self.case(resolved, model, tokenizer, workload, load)?);
                    }
                }
            }
        }
        Ok(cases)
    }

    fn case(
        &self,
        resolved: &Resolved,
        model: &Model,
        tokenizer: &Option<PathBuf>,
        workload: &NamedDataset,
        load: Load,
    ) -> Result<Case, ConfigError> {
        let (file, flags) = (self.file, self.flags);
        let name = format!("{}/{}/{}@{load}", resolved.backend.name, model.alias, workload.name);
        let settings = self.settings(&name);
        let tokenizer = flags.tokenizer.clone().or_else(|| tokenizer.clone());
        let tokenizer = tokenizer.or(settings.tokenizer).ok_or_else(|| {
            file.error(
                self.bench.loads.span(),
                format!(
                    "the case `{name}` needs a tokenizer for its token counts: set `tokenizer` in \
                     [defaults], in this group or in the model's table, or pass --tokenizer"
                ),
            )
        })?;
        let goodput = settings.goodput.as_ref().map(|goodput| goodput_of(file, goodput));
        let slos =
            if flags.slo.is_empty() { settings.slo.unwrap_or_default() } else { flags.slo.clone() };
        Ok(Case {
            name,
            backend: Arc::clone(&resolved.backend),
            model: model.clone(),
            workload: workload.clone(),
            load,
            arrivals: flags.arrivals.or(settings.arrivals).unwrap_or_default(),
            requests: flags
                .num_prompts
                .or(settings.requests)
                .map_or(DEFAULT_REQUESTS, |requests| requests.get()),
            seed: flags.seed.or(file.config.seed).unwrap_or(0),
            slos: with_no_errors(slos),
            goodput: goodput.transpose()?,
            timeout: flags
                .timeout
                .or(settings.timeout.map(|timeout| timeout.0))
                .unwrap_or(DEFAULT_TIMEOUT),
            stall_timeout: flags.stall_timeout.or(settings.stall_timeout.map(|timeout| timeout.0)),
            tokenizer,
            details: !flags.no_details && settings.details.unwrap_or(true),
        })
    }

    /// Defaults, then the group, then each override whose glob matches.
    fn settings(&self, case: &str) -> Settings {
        let config = &self.file.config;
        let settings = config.defaults.clone().overridden_by(self.bench.settings());
        let overrides = config.r#override.iter();
        overrides
            .filter(|over| over.cases.get_ref().iter().any(|glob| glob.matches(case)))
            .fold(settings, |settings, over| settings.overridden_by(over.settings()))
    }
}

/// The names that a group selects: those it lists, each of which must exist, or all of them.
fn selection<'a>(
    file: &ConfigFile,
    what: &str,
    listed: Option<&[Spanned<String>]>,
    known: impl Iterator<Item = &'a str>,
) -> Result<Vec<String>, ConfigError> {
    let known: Vec<String> = known.map(str::to_owned).collect();
    let Some(listed) = listed else { return Ok(known) };
    for name in listed {
        if !known.contains(name.get_ref()) {
            let message = format!(
                "unknown {what} `{}`: this file has {}",
                name.get_ref(),
                if known.is_empty() { "none".to_owned() } else { known.join(", ") }
            );
            return Err(file.error(name.span(), message));
        }
    }
    Ok(listed.iter().map(|name| name.get_ref().clone()).collect())
}

fn goodput_of(
    file: &ConfigFile,
    goodput: &Spanned<config::Goodput>,
) -> Result<Goodput, ConfigError> {
    let config::Goodput { ttft, tpot, e2e } = *goodput.get_ref();
    if ttft.is_none() && tpot.is_none() && e2e.is_none() {
        let message = "goodput needs at least one of ttft, tpot and e2e";
        return Err(file.error(goodput.span(), message));
    }
    Ok(Goodput {
        ttft: ttft.map(|limit| limit.0),
        tpot: tpot.map(|limit| limit.0),
        e2e: e2e.map(|limit| limit.0),
    })
}

fn workloads(file: &ConfigFile, flags: &Flags) -> Result<Vec<NamedDataset>, ConfigError> {
    let mut workloads: Vec<NamedDataset> = Vec::new();
    for workload in &file.config.workload {
        let name = checked_name(file, &workload.name)?;
        if workloads.iter().any(|other| other.name == name) {
            return Err(file.error(workload.name.span(), format!("a second workload `{name}`")));
        }
        let dataset = match flags.dataset_name.unwrap_or(workload.dataset) {
            DatasetKind::Sharegpt => {
                let path = flags.dataset_path.clone().or_else(|| workload.path.clone());
                let path = path.ok_or_else(|| {
                    let message = format!("the dataset of `{name}` needs a file: set `path`");
                    file.error(workload.name.span(), message)
                })?;
                let output_tokens = flags.sharegpt_output_len.or(workload.output_tokens);
                Dataset::ShareGpt { path, output_tokens: output_tokens.map(|tokens| tokens.get()) }
            }
        };
        workloads.push(NamedDataset { name, dataset });
    }
    Ok(workloads)
}

fn backends(file: &ConfigFile, flags: &Flags) -> Result<Vec<Resolved>, ConfigError> {
    let mut backends: Vec<Resolved> = Vec::new();
    for written in &file.config.backend {
        let name = checked_name(file, &written.name)?;
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
    let models = models_of(file, written, kind, target)?;
    let key_variable = written.api_key_env.as_deref().unwrap_or(DEFAULT_API_KEY_ENV);
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
        min_tokens: written.min_tokens.unwrap_or(false),
        connect_timeout: written
            .connect_timeout
            .map_or(DEFAULT_CONNECT_TIMEOUT, |timeout| timeout.0),
        require_server: flags.require_server || written.require_server.unwrap_or(false),
    };
    Ok(Resolved { backend: Arc::new(backend), models })
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
    if let Some(span) = alien.or(written.engine.as_ref().map(Spanned::span)) {
        return Err(file.error(span, "`preset` and `engine` are for kind = \"sim\""));
    }
    let endpoint = target.and_then(|flags| flags.endpoint.as_deref());
    let endpoint =
        endpoint.or(written.endpoint.as_ref().map(|endpoint| endpoint.get_ref().as_str()));
    let endpoint = endpoint.unwrap_or(protocol.default_endpoint());
    if let Some(base_url) = target.and_then(super::flags::base_url) {
        let address = Address::new(&base_url, endpoint);
        return address.map(Server::Remote).map_err(|e| file.error(written.name.span(), e));
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
    let Some(engine) = &written.engine else { return Ok(sim) };
    let positive = |value: f64, key: &str| {
        if 0.0 < value && value.is_finite() {
            return Ok(value);
        }
        Err(file.error(engine.span(), format!("`{key}` must be above 0, not {value}")))
    };
    let figures = engine.get_ref();
    if let Some(max_batch) = figures.max_batch {
        sim.max_batch = max_batch.get();
    }
    if let Some(rate) = figures.prefill_tokens_per_s {
        sim.prefill_tokens_per_s = positive(rate, "prefill_tokens_per_s")?;
    }
    if let Some(ms) = figures.decode_base_ms {
        let s = positive(ms, "decode_base_ms")? / 1e3;
        sim.decode_base = std::time::Duration::from_secs_f64(s);
    }
    if let Some(ms) = figures.decode_per_sequence_ms {
        let s = positive(ms, "decode_per_sequence_ms")? / 1e3;
        sim.decode_per_sequence = std::time::Duration::from_secs_f64(s);
    }
    if let Some(tokens) = figures.kv_cache_tokens {
        sim.kv_cache_tokens = tokens;
    }
    if let Some(jitter) = figures.jitter {
        if !(0.0..1.0).contains(&jitter) {
            let message = format!("`jitter` must be at least 0 and below 1, not {jitter}");
            return Err(file.error(engine.span(), message));
        }
        sim.jitter = jitter;
    }
    Ok(sim)
}

fn models_of(
    file: &ConfigFile,
    written: &config::Backend,
    kind: BackendKind,
    target: Option<&Flags>,
) -> Result<Vec<(Model, Option<PathBuf>)>, ConfigError> {
    let span = written.name.span();
    if let Some(id) = target.and_then(|flags| flags.model.as_deref()) {
        let model = super::flags::model(id).map_err(|error| file.error(span, error))?;
        return Ok(vec![(model, None)]);
    }
    let Some(models) = &written.models else {
        if kind == BackendKind::Sim {
            return Ok(vec![(Model { id: "sim".to_owned(), alias: "sim".to_owned() }, None)]);
        }
        let message = format!("the backend `{}` needs `models`", written.name.get_ref());
        return Err(file.error(span, message));
    };
    let mut resolved = Vec::new();
    for model in models {
        let config::Model { id, alias, tokenizer } = model.get_ref();
        let alias = alias.clone().unwrap_or_else(|| name::of_model(id).to_owned());
        if let Some(fault) = name::fault(&alias) {
            let message =
                format!("{fault}; give the model an alias: {{ id = {id:?}, alias = ... }}");
            return Err(file.error(model.span(), message));
        }
        resolved.push((Model { id: id.clone(), alias }, tokenizer.clone()));
    }
    Ok(resolved)
}

fn checked_name(file: &ConfigFile, name: &Spanned<String>) -> Result<String, ConfigError> {
    match name::fault(name.get_ref()) {
        Some(fault) => Err(file.error(name.span(), fault)),
        None => Ok(name.get_ref().clone()),
    }
}
