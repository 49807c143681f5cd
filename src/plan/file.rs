//! A plan file in, cases out: backends × models × workloads × loads, group by group.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::num::NonZeroU32;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;

use toml::Spanned;

use super::backend::{Resolved, backends};
use super::telemetry;
use super::{
    Asked, Case, DEFAULT_TIMEOUT, Model, NO_WARM_UP, NamedDataset, Outputs, Plan, PlanError,
    SearchOptions, TokenizerChoice, arrivals_of, course_of, gate, load_of, missing, name,
    on_goodput, pairs, quick, selects, size, slo_fault, with_no_errors, workload,
};
use crate::config::{self, ConfigError, ConfigFile, Settings};
use crate::duration::HumanDuration;
use crate::flags::Flags;
use crate::load::{Load, LoadError, Stage, Stages};
use crate::nearest::did_you_mean;
use crate::slo::Goodput;

/// The cases of `file`, with `flags` in the place of its values.
pub(super) fn plan(file: &ConfigFile, flags: &Flags) -> Result<Plan, PlanError> {
    let config = &file.config;
    let backends = backends(file, flags)?;
    let workloads = workloads(file, flags)?;
    let staged = staged(file)?;
    gate::check(file)?;
    let mut cases = Vec::new();
    let mut notes = Vec::new();
    let mut without_warm_up = false;
    let mut lines = BTreeMap::new();
    for bench in &config.bench {
        let group = Group {
            file,
            flags,
            bench,
            backends: &backends,
            workloads: &workloads,
            staged: &staged,
        };
        for case in group.cases()? {
            let warm_up = flags.warm_up.or(group.settings(&case.name).warm_up);
            without_warm_up |=
                case.load == Load::Infinite && warm_up.is_some_and(|warm_up| !warm_up.is_none());
            let group = bench.loads.span();
            match lines.entry(case.name.clone()) {
                Entry::Vacant(entry) => drop(entry.insert(group)),
                Entry::Occupied(entry) => {
                    let first = file.line_of(entry.get().start);
                    // Groups that differ in their loads alone meet when a flag gives them all one.
                    if load_of(flags).is_some() {
                        notes.push(format!(
                            "the load of the flags makes `{}` twice; it runs once, as the group at \
                             line {first} says",
                            case.name
                        ));
                        continue;
                    }
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
    if without_warm_up {
        notes.push(NO_WARM_UP.to_owned());
    }
    selects::check(file, flags, &cases)?;
    let mut cases = pairs::pair(file, flags, cases)?;
    if flags.quick {
        cases.iter_mut().for_each(quick);
    }
    let results = flags.result_dir.clone().or_else(|| config.results.clone());
    let results = results.unwrap_or_else(|| PathBuf::from("results"));
    let outputs = Outputs::new(flags, &config.report, &results);
    Ok(Plan { cases, results, outputs, notes })
}

/// A backend, a model of it, and the tokenizer that the plan names for that model.
type Target<'a> = (&'a Resolved, &'a Model, &'a Option<Spanned<PathBuf>>);

/// One `[[bench]]` table and what it selects from.
struct Group<'a> {
    file: &'a ConfigFile,
    flags: &'a Flags,
    bench: &'a config::Bench,
    backends: &'a [Resolved],
    workloads: &'a [NamedDataset],
    staged: &'a [Arc<Stages>],
}

impl Group<'_> {
    fn cases(&self) -> Result<Vec<Case>, ConfigError> {
        let (file, bench) = (self.file, self.bench);
        let backend_names = self.backends.iter().map(|resolved| resolved.backend.name.as_str());
        let backends = selection(file, "backend", bench.backends.as_ref(), backend_names)?;
        let workload_names = self.workloads.iter().map(|workload| workload.name.as_str());
        let workloads = selection(file, "workload", bench.workloads.as_ref(), workload_names)?;
        // A model may be selected by either of its names; one that no backend has is a mistake.
        // `--model` takes the place of the list.
        let model_names = self.backends.iter().flat_map(|resolved| {
            resolved.models.iter().flat_map(|(model, _)| [model.alias.as_str(), model.id.as_str()])
        });
        let listed_models = bench.models.as_ref().filter(|_| !self.flags.name_a_model());
        let models = selection(file, "model", listed_models, model_names)?;
        let loads = match load_of(self.flags) {
            Some(load) => vec![load],
            None => {
                let loads = bench.loads.get_ref().iter();
                loads.map(|text| self.load(text)).collect::<Result<Vec<_>, _>>()?
            }
        };
        if loads.is_empty() {
            let message = "`loads` must hold at least one load, for example \"4qps\"";
            return Err(file.error(bench.loads.span(), message));
        }
        let targets = self.targets(&backends, &models);
        if let Some(fault) = self.fault(&targets) {
            let place = bench.models.as_ref().map_or(bench.loads.span(), Spanned::span);
            return Err(file.error(place, format!("this group makes no case: {fault}")));
        }

        let mut cases = Vec::new();
        for (resolved, model, tokenizer) in targets {
            // With `--backend NAME`, the other backends are not part of the plan.
            if self.flags.backend.as_ref().is_some_and(|name| *name != resolved.backend.name) {
                continue;
            }
            for workload in self.workloads {
                if !workloads.contains(&workload.name) {
                    continue;
                }
                for load in &loads {
                    cases.push(self.case(resolved, model, tokenizer, workload, load)?);
                }
            }
        }
        Ok(cases)
    }

    /// The models of these names, each with a backend of these names and its tokenizer.
    fn targets(&self, backends: &[String], models: &[String]) -> Vec<Target<'_>> {
        let by_flag = self.flags.name_a_model();
        let is_named = |model: &Model| models.contains(&model.alias) || models.contains(&model.id);
        let resolved = self.backends.iter();
        resolved
            .filter(|resolved| backends.contains(&resolved.backend.name))
            .flat_map(|resolved| {
                let models = resolved.models.iter();
                models.map(move |(model, tokenizer)| (resolved, model, tokenizer))
            })
            .filter(|(_, model, _)| by_flag || is_named(model))
            .collect()
    }

    /// Why the group makes no case, whatever the flags leave of it; `None` where it makes one.
    fn fault(&self, targets: &[Target<'_>]) -> Option<&'static str> {
        if self.backends.is_empty() {
            Some("the plan has no [[backend]]")
        } else if self.workloads.is_empty() {
            Some("the plan has no [[workload]]")
        } else if targets.is_empty() {
            Some("none of its backends has a model that it lists")
        } else {
            None
        }
    }

    /// The load that a text of `loads` is.
    fn load(&self, text: &Spanned<String>) -> Result<Load, ConfigError> {
        let name = text.get_ref();
        if let Some(stages) = self.staged.iter().find(|stages| stages.name == *name) {
            return Ok(Load::Staged(Arc::clone(stages)));
        }
        name.parse().map_err(|error: LoadError| {
            let names: Vec<&str> = self.staged.iter().map(|stages| stages.name.as_str()).collect();
            let known = match names.join(", ") {
                known if known.is_empty() => "; the plan has no [[load]] of that name".to_owned(),
                known => format!("; the [[load]] tables are {known}"),
            };
            let nearest = did_you_mean(name, names);
            self.file.error(text.span(), format!("{error}{known}{nearest}"))
        })
    }

    fn case(
        &self,
        resolved: &Resolved,
        model: &Model,
        tokenizer: &Option<Spanned<PathBuf>>,
        workload: &NamedDataset,
        load: &Load,
    ) -> Result<Case, ConfigError> {
        let (file, flags) = (self.file, self.flags);
        let name = format!("{}/{}/{}@{load}", resolved.backend.name, model.alias, workload.name);
        let settings = self.settings(&name);
        let gate = gate::gate(file, flags, &settings)?;
        let tokenizer = tokenizer.as_ref().or(settings.tokenizer.as_ref());
        let missing_tokenizer = match (&flags.tokenizer, tokenizer) {
            (Some(_), _) => super::flags::missing_tokenizer(flags),
            (None, Some(written)) => TokenizerChoice::of(Some(written.get_ref().clone()))
                .missing()
                .map(|fault| file.error(written.span(), format!("`tokenizer`: {fault}")).into()),
            (None, None) => None,
        };
        let tokenizer = flags.tokenizer.as_ref().or(tokenizer.map(Spanned::get_ref));
        let tokenizer = TokenizerChoice::of(tokenizer.cloned());
        if let Some(fault) = workload.fault(resolved.backend.protocol, load) {
            let message = format!("the case `{name}`: {fault}");
            return Err(file.error(self.bench.loads.span(), message));
        }
        let goodput = settings.goodput.as_ref().map(|goodput| goodput_of(file, goodput));
        let (slos, slos_span) = match settings.slo {
            Some(slos) if flags.slo.is_empty() => (slos.get_ref().clone(), slos.span()),
            _ => (flags.slo.clone(), self.bench.loads.span()),
        };
        if let (None, Some(slo)) = (&goodput, on_goodput(&slos)) {
            let flag = if flags.slo.is_empty() { "" } else { "--slo " };
            let message = format!(
                "the objective {flag}`{slo}` of the case `{name}` needs objectives for each \
                 request: set for example goodput = {{ ttft = \"500ms\" }} in [defaults], in this \
                 group or in an override"
            );
            return Err(file.error(slos_span, message));
        }
        if let Some(fault) = slo_fault(load, &slos) {
            return Err(file.error(slos_span, format!("the case `{name}`: {fault}")));
        }
        let burstiness = settings.burstiness.as_ref();
        let arrivals = arrivals_of(
            flags.arrivals.or(settings.arrivals).unwrap_or_default(),
            flags.burstiness.or(burstiness.map(|burstiness| *burstiness.get_ref())),
        )
        .map_err(|error| {
            let place = burstiness.map_or(self.bench.loads.span(), Spanned::span);
            file.error(place, format!("the case `{name}`: {error}"))
        })?;
        if let Some(duration) = &settings.duration
            && duration.get_ref().0.is_zero()
        {
            return Err(file.error(duration.span(), "`duration` must be above zero"));
        }
        let human = |duration: Option<HumanDuration>| duration.map(|duration| duration.0);
        let course = course_of(
            load,
            flags,
            Asked {
                requests: settings.requests,
                duration: human(settings.duration.map(Spanned::into_inner)),
                ramp_up: human(settings.ramp_up),
                ramp_shape: settings.ramp_shape,
                warm_up: settings.warm_up,
                drain: human(settings.drain),
            },
        );
        let trials = flags.trials.or(settings.trials).map_or(1, NonZeroUsize::get);
        let search = SearchOptions::of(
            load,
            flags.search_steps.or(settings.search_steps),
            flags.search_precision.or(settings.search_precision),
        );
        if let Some(fault) = size::fault(load, &course, trials, search.steps) {
            let message = format!("the case `{name}` is too large: {fault}");
            return Err(file.error(self.bench.loads.span(), message));
        }
        Ok(Case {
            name,
            backend: Arc::clone(&resolved.backend),
            model: model.clone(),
            workload: workload.clone(),
            load: load.clone(),
            arrivals,
            course,
            trials: match flags.quick {
                true => 1,
                false => flags.trials.or(settings.trials).map_or(1, NonZeroUsize::get),
            },
            until_decided: flags
                .until_decided
                .or(settings.until_decided.map(|budget| budget.0))
                .filter(|_| !flags.quick),
            strict: flags.strict || settings.strict.unwrap_or(false),
            against: None,
            gate,
            search,
            seed: flags.seed.or(file.config.seed).unwrap_or(0),
            slos: with_no_errors(slos),
            goodput: goodput.transpose()?,
            timeout: flags
                .timeout
                .or(settings.timeout.map(|timeout| timeout.0))
                .unwrap_or(DEFAULT_TIMEOUT),
            stall_timeout: flags.stall_timeout.or(settings.stall_timeout.map(|timeout| timeout.0)),
            tokenizer,
            missing_tokenizer,
            details: !flags.no_details && settings.details.unwrap_or(true),
            gpu: telemetry::gpu(file, flags, settings.gpu)?,
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

/// The loads that change, whose names are no other load's.
fn staged(file: &ConfigFile) -> Result<Vec<Arc<Stages>>, ConfigError> {
    let mut all: Vec<Arc<Stages>> = Vec::new();
    for load in &file.config.load {
        let (name, span) = (load.name.get_ref(), load.name.span());
        if let Some(fault) = name::fault(name) {
            return Err(file.error(span, fault));
        }
        if name.parse::<Load>().is_ok() {
            let message = format!("`{name}` is a load by itself: give these stages another name");
            return Err(file.error(span, message));
        }
        if all.iter().any(|other| other.name == *name) {
            return Err(file.error(span, format!("there are two loads of the name `{name}`")));
        }
        let mut per_s = 0.0;
        let mut stages = Vec::new();
        for written in load.stages.get_ref() {
            let error = |message: &str| file.error(written.span(), message);
            let config::Stage { rate, to, r#for: HumanDuration(length) } = *written.get_ref();
            let (from_per_s, to_per_s) = match (rate, to) {
                (Some(rate), None) => (rate, rate),
                (None, Some(to)) => (per_s, to),
                _ => return Err(error("a stage has either `rate` or `to`, requests per second")),
            };
            if !(0.0..=size::HIGHEST_RATE).contains(&to_per_s) || length.is_zero() {
                return Err(error(
                    "a stage's rate must be from 0 to 1000000 requests/s, and `for` above 0s",
                ));
            }
            per_s = to_per_s;
            stages.push(Stage { from_per_s, to_per_s, length });
        }
        if stages.iter().all(|stage| stage.from_per_s + stage.to_per_s == 0.0) {
            return Err(file.error(load.stages.span(), "these stages send nothing"));
        }
        all.push(Arc::new(Stages { name: name.clone(), stages }));
    }
    Ok(all)
}

/// The names that a group selects: those it lists, each of which must exist, or all of them. A list that is
/// empty selects nothing, and is a mistake.
fn selection<'a>(
    file: &ConfigFile,
    what: &str,
    listed: Option<&Spanned<Vec<Spanned<String>>>>,
    known: impl Iterator<Item = &'a str>,
) -> Result<Vec<String>, ConfigError> {
    let known: Vec<String> = known.map(str::to_owned).collect();
    let Some(listed) = listed else { return Ok(known) };
    if listed.get_ref().is_empty() {
        let message = format!(
            "`{what}s` is empty, so that this group makes no case: name a {what}, or leave `{what}s` out to \
             take all"
        );
        return Err(file.error(listed.span(), message));
    }
    for name in listed.get_ref() {
        if !known.contains(name.get_ref()) {
            let message = format!(
                "unknown {what} `{}`: this file has {}{}",
                name.get_ref(),
                if known.is_empty() { "none".to_owned() } else { known.join(", ") },
                did_you_mean(name.get_ref(), known.iter().map(String::as_str))
            );
            return Err(file.error(name.span(), message));
        }
    }
    Ok(listed.get_ref().iter().map(|name| name.get_ref().clone()).collect())
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
        let name = name::checked(file, &workload.name)?;
        if workloads.iter().any(|other| other.name == name) {
            return Err(file.error(workload.name.span(), format!("a second workload `{name}`")));
        }
        let kind = workload::kind(flags, workload.dataset);
        let asked = asked(workload).or_flags(kind, flags);
        let dataset = asked.dataset(kind).map_err(|fault| {
            let message = format!("`{}` of the workload `{name}`: {}", fault.key, fault.message);
            file.error(workload.place_of(fault.key), message)
        })?;
        let salt = flags.salt.clone().or_else(|| workload.salt.clone()).unwrap_or_default();
        let system = workload.system.clone();
        let missing_file = missing_file(file, workload, flags);
        workloads.push(NamedDataset { name, dataset, missing_file, system, salt });
    }
    Ok(workloads)
}

/// What to say where the file of a workload is not there.
fn missing_file(
    file: &ConfigFile,
    workload: &config::Workload,
    flags: &Flags,
) -> Option<PlanError> {
    if flags.dataset_path.is_some() {
        return super::flags::missing_dataset(flags);
    }
    let path = workload.path.as_ref()?;
    let fault = missing::dataset(path.get_ref())?;
    let message = format!("`path` of the workload `{}`: {fault}", workload.name.get_ref());
    Some(file.error(path.span(), message).into())
}

/// What a workload's table asks of its dataset.
fn asked(workload: &config::Workload) -> workload::Asked {
    workload::Asked {
        path: value(&workload.path),
        output: value(&workload.output_tokens),
        input: value(&workload.input_tokens),
        range_ratio: value(&workload.range_ratio),
        prefix_tokens: value(&workload.prefix_tokens),
        suffix_tokens: value(&workload.suffix_tokens),
        prefixes: value(&workload.prefixes),
        form: value(&workload.send),
        columns: value(&workload.columns),
        speed: value(&workload.speed),
        from: value(&workload.from).map(|from| from.0),
        to: value(&workload.to).map(|to| to.0),
        max_input_tokens: value(&workload.max_input_tokens),
        max_output_tokens: value(&workload.max_output_tokens),
        reading: crate::workload::Reading {
            unit: value(&workload.time_unit),
            block_tokens: workload.block_tokens,
        },
        turns: value(&workload.turns),
        max_turns: workload.max_turns.map(NonZeroU32::get),
        follow_up: value(&workload.follow_up_tokens),
        think: value(&workload.think_time),
    }
}

fn value<T: Clone>(written: &Option<Spanned<T>>) -> Option<T> {
    written.as_ref().map(|written| written.get_ref().clone())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::tests::{assert_error, plan};
    use super::*;
    use crate::course::{Course, RampShape, RampUp, WarmUp};
    use crate::plan::{DEFAULT_REQUESTS, Server};
    use crate::wire::ProtocolKind;
    use crate::workload::{Conversations, Dataset, Length, Source, ThinkTime};

    /// Two backends, of two models and one, and two workloads; the groups follow at line 21.
    const AXES: &str = r#"[defaults]
tokenizer = "tokenizer.json"
requests = 10
[[backend]]
name = "a"
kind = "vllm"
base_url = "http://a:1"
models = ["org/m", { id = "org/long-name", alias = "n", tokenizer = "n.json" }]
[[backend]]
name = "b"
kind = "modular-chat"
base_url = "http://b:2"
models = ["org/m"]
[[workload]]
name = "w"
path = "w.json"
[[workload]]
name = "x"
path = "x.json"

"#;

    fn with_axes(groups: &str) -> String {
        format!("{AXES}{groups}")
    }

    fn cases(groups: &str, line: &str) -> Vec<Case> {
        plan(&with_axes(groups), line).unwrap().cases
    }

    fn names(groups: &str, line: &str) -> Vec<String> {
        cases(groups, line).into_iter().map(|case| case.name).collect()
    }

    fn shown_slos(case: &Case) -> Vec<String> {
        case.slos.iter().map(ToString::to_string).collect()
    }

    fn url(case: &Case) -> String {
        match &case.backend.server {
            Server::Remote(address) => address.endpoint_url().to_string(),
            server => panic!("{server:?} is not remote"),
        }
    }

    #[test]
    fn backends_models_workloads_and_loads_multiply_in_the_order_of_the_file() {
        assert_eq!(
            names("[[bench]]\nloads = [\"inf\", \"4qps\"]", ""),
            [
                "a/m/w@inf",
                "a/m/w@4qps",
                "a/m/x@inf",
                "a/m/x@4qps",
                "a/n/w@inf",
                "a/n/w@4qps",
                "a/n/x@inf",
                "a/n/x@4qps",
                "b/m/w@inf",
                "b/m/w@4qps",
                "b/m/x@inf",
                "b/m/x@4qps",
            ]
        );
    }

    #[test]
    fn a_group_selects_and_groups_add_up() {
        let groups = r#"
[[bench]]
backends = ["b"]
workloads = ["x", "w"]
loads = ["32conc"]
[[bench]]
models = ["org/long-name"]
workloads = ["w"]
loads = ["inf"]
[[bench]]
backends = ["a"]
models = ["n"]
workloads = ["x"]
loads = ["inf"]"#;
        assert_eq!(
            names(groups, ""),
            ["b/m/w@32conc", "b/m/x@32conc", "a/n/w@inf", "a/n/x@inf"],
            "lists select; the order is that of the tables"
        );
    }

    #[test]
    fn a_name_made_twice_names_both_lines() {
        let groups = r#"[[bench]]
backends = ["a"]
loads = ["inf"]
[[bench]]
models = ["n"]
loads = ["4qps", "inf"]"#;
        let parts = ["plan.toml:26:9", "`a/n/w@inf` is made twice", "the group at line 23"];
        assert_error(&with_axes(groups), "", &parts);
    }

    #[test]
    fn groups_that_differ_in_their_loads_alone_meet_under_a_load_of_the_flags() {
        let groups = r#"[[bench]]
backends = ["b"]
workloads = ["w"]
loads = ["inf"]
requests = 1
[[bench]]
backends = ["b"]
workloads = ["w"]
loads = ["4qps"]
requests = 2"#;
        let plan = plan(&with_axes(groups), "--request-rate 8").unwrap();
        assert_eq!(plan.cases.len(), 1);
        assert_eq!(
            (plan.cases[0].name.as_str(), plan.cases[0].course.requests),
            ("b/m/w@8qps", Some(1))
        );
        assert!(plan.notes[0].contains("the group at line 24"), "{:?}", plan.notes);
    }

    #[test]
    fn an_unknown_name_in_a_group_has_a_place_and_the_known_names() {
        for (axis, parts) in [
            ("backends = [\"a\", \"c\"]", ["plan.toml:22:18", "unknown backend `c`", "has a, b"]),
            ("workloads = [\"y\"]", ["plan.toml:22:14", "unknown workload `y`", "has w, x"]),
            (
                "models = [\"o\"]",
                ["plan.toml:22:11", "unknown model `o`", "has m, org/m, n, org/l"],
            ),
            (
                "models = [\"org/long-nam\"]",
                [
                    "plan.toml:22:11",
                    "unknown model `org/long-nam`",
                    "did you mean `org/long-name`?",
                ],
            ),
        ] {
            assert_error(&with_axes(&format!("[[bench]]\n{axis}\nloads = [\"inf\"]")), "", &parts);
        }
    }

    #[test]
    fn a_group_that_makes_no_case_is_an_error_at_its_line_where_others_make_some() {
        let good = "[[bench]]\nbackends = [\"b\"]\nworkloads = [\"w\"]\nloads = [\"1qps\"]\n";
        for (group, parts) in [
            (
                "backends = []\nloads = [\"inf\"]",
                ["plan.toml:26:12", "`backends` is empty", "leave"],
            ),
            ("models = []\nloads = [\"inf\"]", ["plan.toml:26:10", "`models` is empty", "leave"]),
            (
                "workloads = []\nloads = [\"inf\"]",
                ["plan.toml:26:13", "`workloads` is empty", "leave `workloads` out"],
            ),
            ("loads = []", ["plan.toml:26:9", "`loads`", "at least one load"]),
            (
                "backends = [\"b\"]\nmodels = [\"n\"]\nloads = [\"inf\"]",
                ["plan.toml:27:10", "this group makes no case", "none of its backends has a model"],
            ),
        ] {
            assert_error(&with_axes(&format!("{good}[[bench]]\n{group}")), "", &parts);
        }
        let text = AXES.split("[[workload]]").next().unwrap();
        let parts = ["plan.toml:15:9", "this group makes no case", "no [[workload]]"];
        assert_error(&format!("{text}[[bench]]\nloads = [\"inf\"]"), "", &parts);
        let of_a = "[[bench]]\nbackends = [\"a\"]\nworkloads = [\"x\"]\nloads = [\"1qps\"]\n";
        assert_eq!(names(&format!("{good}{of_a}"), "--backend b"), ["b/m/w@1qps"]);
        assert_error(&with_axes(of_a), "--backend b", &["plan.toml:", "backend `b`", "--backend"]);
    }

    #[test]
    fn a_case_whose_address_is_in_an_unset_variable_stays_in_the_plan() {
        let unset = AXES.replace("http://b:2", "http://${SERVEBENCH_TEST_UNSET}");
        let plan = plan(&format!("{unset}[[bench]]\nloads = [\"inf\"]"), "").unwrap();
        let case = plan.cases.iter().find(|case| case.name == "b/m/w@inf").unwrap();
        match &case.backend.server {
            Server::Unset { variable } => assert_eq!(variable, "SERVEBENCH_TEST_UNSET"),
            server => panic!("{server:?}"),
        }
        assert_eq!(url(&plan.cases[0]), "http://a:1/v1/completions");
    }

    #[test]
    fn an_unset_variable_in_a_header_is_one_in_the_address() {
        let unset = AXES.replace(
            "base_url = \"http://b:2\"",
            "base_url = \"http://b:2\"\nheaders = { x-key = \"${SERVEBENCH_TEST_UNSET}\" }",
        );
        let plan = plan(&format!("{unset}[[bench]]\nloads = [\"inf\"]"), "--backend b").unwrap();
        assert!(matches!(plan.cases[0].backend.server, Server::Unset { .. }));
    }

    #[test]
    fn a_group_wins_over_the_defaults_and_a_later_override_over_an_earlier_one() {
        let groups = r#"[[bench]]
workloads = ["w"]
loads = ["inf"]
requests = 20
slo = ["ttft.p99 < 1s"]
[[bench]]
workloads = ["x"]
loads = ["inf"]
[[override]]
cases = ["a/*@inf"]
requests = 30
timeout = "1s"
[[override]]
cases = ["nothing", "*/n/*"]
requests = 40
slo = ["ttft.p99 < 2s", "error_ratio < 1%"]"#;
        let cases = cases(groups, "");
        let case = |name: &str| cases.iter().find(|case| case.name == name).unwrap();
        let requests = |name| case(name).course.requests.unwrap();
        assert_eq!(requests("b/m/x@inf"), 10, "the defaults");
        assert_eq!(requests("b/m/w@inf"), 20, "the group");
        assert_eq!(requests("a/m/w@inf"), 30, "an override");
        assert_eq!(requests("a/n/w@inf"), 40, "the last override");
        assert_eq!(case("a/n/w@inf").timeout.as_secs(), 1, "what it does not set stays");
        assert_eq!(shown_slos(case("a/m/w@inf")), ["ttft.p99 < 1000ms", "error_ratio == 0"]);
        assert_eq!(shown_slos(case("a/n/x@inf")), ["ttft.p99 < 2000ms", "error_ratio < 0.01"]);
        assert_eq!(shown_slos(case("b/m/x@inf")), ["error_ratio == 0"]);
    }

    #[test]
    fn a_tokenizer_of_the_model_wins_over_that_of_the_defaults() {
        let cases = cases("[[bench]]\nbackends = [\"a\"]\nloads = [\"inf\"]", "");
        assert_eq!(cases[0].tokenizer_id().unwrap(), "tokenizer.json");
        assert_eq!(cases[2].tokenizer_id().unwrap(), "n.json");
    }

    /// A plan of one case, `b/m/w@inf`, whose group says `more`.
    fn one_case(more: &str) -> String {
        let group = format!(
            "[[bench]]\nbackends = [\"b\"]\nworkloads = [\"w\"]\nloads = [\"inf\"]\n{more}\n"
        );
        with_axes(&group)
    }

    #[test]
    fn a_case_goes_the_course_that_file_and_flags_ask_for() {
        let text =
            one_case("duration = \"60s\"\nwarm_up = \"5s\"\nramp_up = \"10s\"\ndrain = \"30s\"");
        let course = |line: &str| plan(&text, line).unwrap().cases[0].course;
        let s = Duration::from_secs;
        let expected = Course {
            requests: None,
            duration: Some(s(60)),
            ramp_up: Some(RampUp { over: s(10), shape: RampShape::Linear }),
            warm_up: WarmUp::Time(s(5)),
            drain: Some(s(30)),
        };
        assert_eq!(course("--request-rate 2"), expected);
        let by_number = Course { requests: Some(7), duration: None, ..expected };
        assert_eq!(course("--request-rate 2 --num-prompts 7"), by_number);
        let line =
            "--request-rate 2 --num-prompts 7 --duration 9s --warm-up 0s --ramp-up 0s --drain 1s";
        let expected = Course {
            requests: Some(7),
            duration: Some(s(9)),
            ramp_up: None,
            warm_up: WarmUp::Time(s(0)),
            drain: Some(s(1)),
        };
        assert_eq!(course(line), expected);
        let at_once =
            Course { requests: Some(DEFAULT_REQUESTS), drain: Some(s(30)), ..Course::default() };
        assert_eq!(course("--request-rate inf"), at_once, "what comes at once has no course");
    }

    #[test]
    fn a_warm_up_is_a_time_or_a_number_of_requests() {
        let warm_up = |more: &str, line: &str| {
            let text = one_case(more).replace("[\"inf\"]", "[\"2conc\"]");
            plan(&text, line).unwrap().cases[0].course.warm_up
        };
        let time = WarmUp::Time(Duration::from_secs(10));
        assert_eq!(warm_up("", ""), WarmUp::default());
        assert_eq!(warm_up("warm_up = \"10s\"", ""), time);
        assert_eq!(warm_up("warm_up = 32", ""), WarmUp::Requests(32));
        assert_eq!(warm_up("warm_up = 32", "--warm-up 10s"), time);
        assert_eq!(warm_up("warm_up = \"10s\"", "--num-warmups 7"), WarmUp::Requests(7));
        let parts =
            ["plan.toml:", "warm_up = -1", "a time such as \"10s\", or a number of requests"];
        assert_error(&one_case("warm_up = -1"), "", &parts);
        assert_error(&one_case("warm_up = \"ten\""), "", &["`ten` is no duration"]);
        assert_error(&one_case("warm_up = 1.5"), "", &["a number of requests"]);
    }

    #[test]
    fn it_is_said_that_everything_at_once_has_no_warm_up() {
        let notes = |more: &str| plan(&one_case(more), "").unwrap().notes;
        assert_eq!(notes("warm_up = 32"), [super::super::NO_WARM_UP]);
        assert_eq!(notes("warm_up = 0"), [""; 0]);
    }

    #[test]
    fn number_and_duration_take_the_place_of_each_other() {
        let text = format!(
            "{}[[override]]\ncases = [\"*@2qps\"]\nduration = \"3s\"\n",
            one_case("requests = 5").replace("[\"inf\"]", "[\"1qps\", \"2qps\"]")
        );
        let cases = plan(&text, "").unwrap().cases;
        let lengths = cases.iter().map(|case| (case.course.requests, case.course.duration));
        let expected = [(Some(5), None), (None, Some(Duration::from_secs(3)))];
        assert!(lengths.eq(expected), "{cases:?}");
    }

    const HILL: &str = r#"
[[load]]
name = "hill"
stages = [{ rate = 2, for = "10s" }, { to = 20, for = "5s" }, { to = 0, for = "5s" }]
"#;

    #[test]
    fn a_load_may_change_by_stages() {
        let text = format!("{}{HILL}", one_case("").replace("[\"inf\"]", "[\"hill\", \"4qps\"]"));
        let cases = plan(&text, "").unwrap().cases;
        assert_eq!(cases[0].name, "b/m/w@hill");
        let Load::Staged(stages) = &cases[0].load else { panic!("{:?}", cases[0].load) };
        let rates = stages.stages.iter().map(|stage| (stage.from_per_s, stage.to_per_s));
        assert!(rates.eq([(2.0, 2.0), (2.0, 20.0), (20.0, 0.0)]));
        assert_eq!((cases[0].course.requests, cases[1].course.requests), (None, Some(10)));
    }

    #[test]
    fn a_wrong_load_is_named_with_its_line() {
        let with =
            |loads: &str, more: &str| format!("{}{more}", one_case("").replace("[\"inf\"]", loads));
        for (text, parts) in [
            (with("[\"4rps\"]", ""), &["plan.toml:", "`4rps` is no load", "no [[load]]"][..]),
            (with("[\"4rps\"]", HILL), &["`4rps` is no load", "the [[load]] tables are hill"]),
            (with("[\"hil\"]", HILL), &["`hil` is no load", "did you mean `hill`?"]),
            (with("[\"hill\"]", &HILL.replace("hill", "4qps")), &["`4qps` is a load by itself"]),
            (with("[\"hill\"]", &format!("{HILL}{HILL}")), &["two loads of the name `hill`"]),
            (
                with("[\"hill\"]", &HILL.replace("rate = 2,", "rate = 2, to = 3,")),
                &["either `rate` or `to`"],
            ),
            (with("[\"hill\"]", &HILL.replace("rate = 2,", "rate = -2,")), &["from 0 to 1000000"]),
            (with("[\"hill\"]", &HILL.replace("\"10s\"", "\"0s\"")), &["`for` above 0s"]),
            (
                with("[\"hill\"]", &HILL.replace("rate = 2,", "rate = 0,").replace("20", "0")),
                &["send nothing"],
            ),
            (one_case("duration = \"0s\""), &["`duration` must be above zero"]),
        ] {
            assert_error(&text, "", parts);
        }
    }

    #[test]
    fn a_file_that_is_not_there_is_known_with_its_place_and_is_no_error_of_the_plan() {
        let good = "[[bench]]\nbackends = [\"b\"]\nworkloads = [\"w\"]\nloads = [\"inf\"]\n";
        let text = with_axes(good)
            .replace("\"w.json\"", "\"fixtures/sharegt.json\"")
            .replace("\"tokenizer.json\"", "\"fixtures/tokenizer.json\"");
        let missing = |text: &str, line: &str| {
            let case = plan(text, line).unwrap().cases.remove(0);
            case.missing_file().map(ToString::to_string)
        };
        let said = |text: &str, line: &str, parts: &[&str]| {
            let error = missing(text, line).unwrap();
            for part in parts {
                assert!(error.contains(part), "{text}\n{line}\nmisses {part}:\n{error}");
            }
        };
        let here = std::env::current_dir().unwrap().join("fixtures/sharegt.json");
        let here = format!("no dataset `{}`", here.display());
        let parts =
            ["plan.toml:16:8", "`path` of the workload `w`", &here, "mean `sharegpt.json`?"];
        said(&text, "", &parts);
        said(&text, "--dataset-path fixtures/sonet.txt", &["--dataset-path", "mean `sonnet.txt`?"]);
        assert_eq!(missing(&text, "--dataset-path fixtures/sonnet.txt"), None);

        let text = text.replace("sharegt", "sharegpt");
        assert_eq!(missing(&text, ""), None);
        said(
            &text,
            "--tokenizer fixtures/tokenize.json",
            &["--tokenizer", "mean `tokenizer.json`?"],
        );
        for tokenizer in ["none", "org/model", "hf://org/model/tokenizer.json"] {
            assert_eq!(missing(&text.replace("fixtures/tokenizer.json", tokenizer), ""), None);
        }
        let typo = text.replace("fixtures/tokenizer.json", "fixtures/tokenizr.json");
        said(&typo, "", &["plan.toml:2:13", "`tokenizer`", "mean `tokenizer.json`?"]);
        let of_model = text.replace("backends = [\"b\"]", "models = [\"n\"]");
        said(&of_model, "", &["plan.toml:8:69", "`tokenizer`", "n.json`"]);
    }

    #[test]
    fn burstiness_makes_gamma_arrivals_and_equal_gaps_have_none() {
        let group = |more: &str| with_axes(&format!("[[bench]]\nloads = [\"4qps\"]\n{more}"));
        let arrivals =
            |more: &str, line: &str| plan(&group(more), line).map(|plan| plan.cases[0].arrivals);
        let gamma = arrivals("burstiness = 0.5", "").unwrap();
        assert_eq!((gamma.name(), gamma.burstiness()), ("gamma", Some(0.5)));
        assert_eq!(arrivals("burstiness = 0.5", "--burstiness 1").unwrap().name(), "poisson");
        let error = arrivals("arrivals = \"constant\"\nburstiness = 2.0", "").unwrap_err();
        assert!(error.to_string().contains("constant arrivals have no burstiness"), "{error}");
        let error = arrivals("burstiness = 0.0", "").unwrap_err().to_string();
        assert!(error.contains("must be from 0.001 to 1000000, not 0"), "{error}");
    }

    #[test]
    fn flags_win_over_the_file() {
        let groups = r#"[[bench]]
workloads = ["w"]
loads = ["inf", "4qps"]
requests = 20
timeout = "1s"
slo = ["ttft.p99 < 1s"]
[[override]]
cases = ["*"]
requests = 30"#;
        let line = "--num-prompts 5 --request-rate 2 --timeout 3s --slo ttft.p50~<~9s --seed 7 \
                    --tokenizer t.json --dataset-path d.json --sharegpt-output-len 6 \
                    --result-dir out --arrivals constant --no-details --require-server";
        let plan = plan(&with_axes(groups), line).unwrap();
        let names: Vec<&str> = plan.cases.iter().map(|case| case.name.as_str()).collect();
        assert_eq!(names, ["a/m/w@2qps", "a/n/w@2qps", "b/m/w@2qps"]);
        assert_eq!(plan.results, PathBuf::from("out"));
        for case in &plan.cases {
            assert_eq!((case.course.requests, case.seed, case.timeout.as_secs()), (Some(5), 7, 3));
            assert_eq!(case.arrivals, crate::load::ArrivalProcess::Constant);
            assert_eq!(shown_slos(case), ["ttft.p50 < 9000ms", "error_ratio == 0"]);
            assert_eq!(case.tokenizer_id().unwrap(), "t.json");
            let (source, output) = (Source::new("d.json"), Some(Length::Fixed(6)));
            assert_eq!(case.workload.dataset, Dataset::ShareGpt { source, output });
            assert!(!case.details && case.backend.require_server);
        }
    }

    #[test]
    fn flags_replace_the_address_and_the_model_of_a_backend_of_the_file() {
        let group = "[[bench]]\nmodels = [\"n\", \"m\"]\nworkloads = [\"w\"]\nloads = [\"inf\"]";
        let cases = cases(group, "--backend b --base-url http://c:3");
        assert_eq!(cases.len(), 1, "the other backend is not in the plan");
        assert_eq!(cases[0].name, "b/m/w@inf");
        assert_eq!(url(&cases[0]), "http://c:3/v1/chat/completions");

        let line = "--backend b --host h --port 4 --endpoint /x --model org/other";
        let cases = self::cases(group, line);
        assert_eq!(cases.len(), 1);
        assert_eq!(cases[0].name, "b/other/w@inf");
        assert_eq!(url(&cases[0]), "http://h:4/x");
    }

    #[test]
    fn an_objective_on_goodput_needs_objectives_for_each_request() {
        let remedy = "goodput = { ttft = \"500ms\" }";
        let group = "[[bench]]\nloads = [\"inf\"]\nslo = [\"goodput_ratio > 95%\"]\n";
        let parts = ["plan.toml:23:7", "`a/m/w@inf`", "`goodput_ratio > 0.95`", remedy];
        assert_error(&with_axes(group), "", &parts);

        let over = "[[bench]]\nloads = [\"inf\"]\n[[override]]\ncases = [\"b/*/x@*\"]\n\
                    slo = [\"goodput > 2\"]\n";
        let parts = ["plan.toml:25:7", "`b/m/x@inf`", "`goodput > 2`", remedy];
        assert_error(&with_axes(over), "", &parts);

        let bare = "[[bench]]\nloads = [\"inf\"]\n";
        let parts = ["plan.toml:22:9", "`a/m/w@inf`", "--slo `goodput > 2`", remedy];
        assert_error(&with_axes(bare), "--slo goodput~>~2", &parts);

        let met = cases(&format!("{group}{remedy}"), "");
        assert_eq!(met[0].goodput.unwrap().ttft.unwrap().as_millis(), 500);
        assert!(!cases(&format!("{bare}{remedy}"), "--slo goodput~>~2").is_empty());
    }

    #[test]
    fn a_mistake_has_a_place_the_key_and_what_is_allowed() {
        for (groups, parts) in [
            ("[[bench]]\nload = [\"inf\"]", &["plan.toml:22:1", "`load`", "`loads`"][..]),
            ("[[bench]]", &["plan.toml:21:1", "missing field `loads`"]),
            ("[[bench]]\nloads = \"inf\"", &["plan.toml:22:9", "loads = \"inf\"", "a sequence"]),
            ("[[bench]]\nloads = []", &["plan.toml:22:9", "`loads`", "at least one", "4qps"]),
            ("[[bench]]\nloads = [\"0qps\"]", &["plan.toml:22:", "`0qps` is no load", "4qps"]),
            (
                "[[bench]]\nloads = [\"inf\"]\nrequests = 0",
                &["plan.toml:23:12", "requests = 0", "a whole number above 0"],
            ),
            (
                "[[bench]]\nloads = [\"inf\"]\ntimeout = \"-5s\"",
                &["plan.toml:23:11", "`-5s` is no duration", "500ms, 1.5s"],
            ),
            (
                "[[bench]]\nloads = [\"inf\"]\ngoodput = {}",
                &["plan.toml:23:11", "goodput needs at least one of ttft, tpot and e2e"],
            ),
            (
                "[[backend]]\nname = \"s\"\nkind = \"sim\"\n[backend.engine]\njitter = 2.0",
                &["plan.toml:25:10", "`jitter`", "at least 0 and below 1, not 2"],
            ),
            (
                "[[backend]]\nname = \"s\"\nkind = \"sim\"\nengine = { decode_base_ms = -1.0 }",
                &["plan.toml:24:29", "`decode_base_ms` must be from 0 to 3600000, not -1"],
            ),
            (
                "[[backend]]\nname = \"s\"\nkind = \"sim\"\nengine = { decode_base_ms = 1e300 }",
                &["plan.toml:24:29", "from 0 to 3600000, not 1e300"],
            ),
            (
                "[[backend]]\nname = \"s\"\nkind = \"sim\"\nengine = { decode_per_sequence_ms = nan }",
                &["plan.toml:24:37", "`decode_per_sequence_ms`", "not NaN"],
            ),
            (
                "[[backend]]\nname = \"s\"\nkind = \"sim\"\nengine = { prefill_tokens_per_s = inf }",
                &["plan.toml:24:35", "`prefill_tokens_per_s` must be from 0.001 to 1000000000000"],
            ),
            (
                "[[backend]]\nname = \"s\"\nkind = \"sim\"\nengine = { kv_cache_tokens = 0 }",
                &["plan.toml:24:30", "a whole number above 0"],
            ),
            (
                "[[workload]]\nname = \"y\"\ndataset = \"trace\"\npath = \"p\"\nspeed = inf",
                &[
                    "plan.toml:25:9",
                    "`speed` of the workload `y`",
                    "from 0.000001 to 1000000, not inf",
                ],
            ),
            (
                "[[workload]]\nname = \"y\"\ndataset = \"trace\"\npath = \"p\"\nspeed = 0",
                &["plan.toml:25:9", "`speed` of the workload `y`", "to 1000000, not 0"],
            ),
            (
                "[[workload]]\nname = \"y\"\ndataset = \"trace\"\npath = \"p\"\nmax_input_tokens = 0",
                &["plan.toml:25:20", "`max_input_tokens`", "above 0 and at most 10000000"],
            ),
            (
                "[[workload]]\nname = \"y\"\ndataset = \"trace\"\npath = \"p\"\nblock_tokens = 10000001",
                &["plan.toml:22:8", "`block_tokens`", "10000001 tokens are more"],
            ),
            (
                "[[workload]]\nname = \"y\"\ndataset = \"random\"\nprefix_tokens = 4000000000",
                &["plan.toml:24:17", "`prefix_tokens`", "(10000000)"],
            ),
            (
                "[[workload]]\nname = \"y\"\ndataset = \"prefix_repetition\"\nprefixes = 4000000000",
                &["plan.toml:24:12", "`prefixes`", "from 1 to 100000"],
            ),
            (
                "[[backend]]\nname = \"s\"\nkind = \"sim\"\nbase_url = \"http://h\"",
                &["plan.toml:24:12", "`base_url`", "started by the harness"],
            ),
            (
                "[[backend]]\nname = \"s\"\nkind = \"vllm\"\nmodels = [\"m\"]",
                &["plan.toml:22:8", "`s` needs a `base_url`"],
            ),
            (
                "[[backend]]\nname = \"s\"\nkind = \"vllm\"\nbase_url = \"http://h\"",
                &["plan.toml:22:8", "`s` needs `models`"],
            ),
            (
                "[[backend]]\nname = \"s\"\nkind = \"vllm\"\nbase_url = \"h\"",
                &["plan.toml:24:12", "base_url = \"h\"", "http://host:port"],
            ),
            (
                "[[backend]]\nname = \"s\"\nkind = \"vllm\"\nbase_url = \"http://h\"\n\
                 models = [\"@\"]",
                &["plan.toml:25:11", "empty", "id = \"@\"", "alias"],
            ),
            (
                "[[backend]]\nname = \"a\"\nkind = \"sim\"",
                &["plan.toml:22:8", "second backend `a`"],
            ),
            ("[[workload]]\nname = \"w\"", &["plan.toml:22:8", "second workload `w`"]),
            (
                "[[workload]]\nname = \"y\"\ndataset = \"custom\"",
                &["plan.toml:22:8", "`path` of the workload `y`", "name it"],
            ),
            (
                "[[workload]]\nname = \"y\"\ndataset = \"random\"\nspeed = 2.0",
                &["plan.toml:24:9", "`speed`", "means nothing to the dataset random", "trace"],
            ),
            (
                "[[workload]]\nname = \"y\"\ndataset = \"random\"\noutput_tokens = \"ten\"",
                &["plan.toml:24:17", "a number of tokens", "distribution"],
            ),
            (
                "[[workload]]\nname = \"y\"\ndataset = \"random\"\n\
                 output_tokens = { distribution = \"normal\", mean = 5, sd = 1 }",
                &["plan.toml:24:17", "`sd`", "`std_dev`"],
            ),
            (
                "[[bench]]\nloads = [\"max-goodput\"]",
                &["`a/m/w@max-goodput`", "there is none", "slo = ["],
            ),
            (
                "[[bench]]\nloads = [\"4qps\"]\nslo = [\"max_goodput > 1\"]",
                &["plan.toml:23:7", "`max_goodput > 1`", "`sweep`"],
            ),
            (
                "[[workload]]\nname = \"y\"\ndataset = \"multi_turn\"\nthink_time = 2",
                &["plan.toml:24:14", "a time such as \"2s\"", "distribution"],
            ),
            (
                "[[workload]]\nname = \"y\"\ndataset = \"multi_turn\"\n\
                 think_time = { distribution = \"exponential\", mean = \"0s\" }",
                &["plan.toml:24:14", "`think_time` of the workload `y`", "above 0s"],
            ),
            (
                "[[workload]]\nname = \"y\"\ndataset = \"multi_turn\"\nmax_turns = 0",
                &["plan.toml:24:13", "max_turns = 0", "a whole number above 0"],
            ),
            (
                "[[workload]]\nname = \"y\"\ndataset = \"multi_turn\"\npath = \"p\"\nturns = 3",
                &["plan.toml:25:9", "`turns` of the workload `y`", "of a file (`path`)"],
            ),
            (
                "[[workload]]\nname = \"y\"\ndataset = \"random\"\nthink_time = \"2s\"",
                &["plan.toml:24:14", "`think_time`", "nothing to the dataset random", "multi_turn"],
            ),
            ("[[bench]]\nloads = [\"trace\"]", &["`a/m/w@trace`", "dataset trace"]),
            ("[[workload]]\nname = \"y z\"", &["plan.toml:22:8", "`y z` holds ' '", "letters"]),
        ] {
            assert_error(&with_axes(groups), "", parts);
        }
    }

    #[test]
    fn conversations_are_those_of_a_file_or_made_up() {
        let dataset = |more: &str| {
            let workload = format!(
                "[[workload]]\nname = \"y\"\ndataset = \"multi_turn\"\n{more}\n\
                 [[bench]]\nworkloads = [\"y\"]\nloads = [\"inf\"]"
            );
            cases(&workload, "").remove(0).workload.dataset
        };
        let fixed = Length::Fixed;
        let made_up = |turns, input, follow_up, prefix_tokens| Conversations::MadeUp {
            turns,
            input,
            follow_up,
            prefix_tokens,
        };
        assert_eq!(
            dataset(""),
            Dataset::MultiTurn {
                conversations: made_up(fixed(4), fixed(512), fixed(128), 0),
                output: Some(fixed(128)),
                think: ThinkTime::default(),
                max_turns: None,
            }
        );
        let more = "turns = { distribution = \"uniform\", min = 2, max = 6 }\ninput_tokens = 9\n\
                    follow_up_tokens = 5\noutput_tokens = 7\nprefix_tokens = 3\n\
                    think_time = \"2s\"\nmax_turns = 4";
        assert_eq!(
            dataset(more),
            Dataset::MultiTurn {
                conversations: made_up(Length::Uniform { min: 2, max: 6 }, fixed(9), fixed(5), 3),
                output: Some(fixed(7)),
                think: ThinkTime::Fixed(Duration::from_secs(2)),
                max_turns: Some(4),
            }
        );
        assert_eq!(
            dataset("path = \"talks.jsonl\""),
            Dataset::MultiTurn {
                conversations: Conversations::Recorded(Source::new("talks.jsonl")),
                output: None,
                think: ThinkTime::default(),
                max_turns: None,
            }
        );
    }

    #[test]
    fn a_case_without_a_tokenizer_takes_that_of_its_model_or_none_where_it_says_so() {
        let text = AXES.replace("tokenizer = \"tokenizer.json\"", "");
        let text = format!("{text}[[bench]]\nloads = [\"inf\"]");
        let cases = plan(&text, "").unwrap().cases;
        assert_eq!(cases[0].tokenizer, TokenizerChoice::OfModel);
        let none = AXES.replace("\"tokenizer.json\"", "\"none\"");
        let none = format!("{none}[[bench]]\nloads = [\"inf\"]");
        assert_eq!(plan(&none, "").unwrap().cases[0].tokenizer, TokenizerChoice::None);
        assert_eq!(
            plan(&none, "--tokenizer t.json").unwrap().cases[0].tokenizer_id().unwrap(),
            "t.json"
        );
    }

    #[test]
    fn an_embedded_engine_takes_its_figures_from_the_preset_and_the_file() {
        let groups = r#"[[backend]]
name = "s"
kind = "sim"
protocol = "chat"
engine = { max_batch = 3, jitter = 0.5, decode_base_ms = 2 }
[[bench]]
backends = ["s"]
loads = ["inf"]"#;
        let case = cases(groups, "").remove(0);
        assert_eq!(case.name, "s/sim/w@inf");
        assert_eq!(case.backend.protocol, ProtocolKind::Chat);
        let Server::Sim(sim) = &case.backend.server else { panic!("{case:?}") };
        assert_eq!((sim.max_batch, sim.jitter), (3, 0.5));
        assert_eq!(sim.decode_base.as_millis(), 2);
    }
}
