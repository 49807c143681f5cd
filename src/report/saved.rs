//! Results that were saved, read back: what it takes to compare a case with them.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use serde::Deserialize;
use serde_json::Value;

use super::{Report, SCHEMA_VERSION};
use crate::compare::Trial;
use crate::environment::{Environment, MATCHED};
use crate::plan::Case;
use crate::verdict::Verdict;

/// A result of one case.
#[derive(Clone, Debug)]
pub struct Saved {
    /// Its file.
    pub path: PathBuf,
    /// Local time at its end.
    pub date: String,
    /// The case's name.
    pub case: String,
    /// What makes two results comparable, by field.
    identity: Identity,
    /// Its trials.
    pub trials: Vec<Trial>,
    /// Whether it passed.
    pub passed: bool,
    /// How it ended; `None` where it was interrupted.
    pub verdict: Option<Verdict>,
}

/// What makes two results comparable.
#[derive(Clone, Debug, PartialEq)]
pub struct Identity {
    /// Of the work: never to differ.
    work: BTreeMap<&'static str, String>,
    /// Of what it ran on.
    environment: BTreeMap<String, Value>,
}

#[derive(Deserialize)]
struct Document {
    date: String,
    model_id: String,
    servebench: Inner,
}

#[derive(Deserialize)]
struct Inner {
    schema_version: u32,
    case: String,
    step_of: Option<String>,
    verdict: Option<Verdict>,
    plan: Plan,
    trials: Vec<Trial>,
    environment: BTreeMap<String, Value>,
}

#[derive(Deserialize)]
struct Plan {
    protocol: String,
    load: String,
    workload_hash: String,
}

impl Identity {
    /// That of a result.
    pub fn of(report: &Report) -> Self {
        let plan = &report.servebench.plan;
        let work = work(&report.model_id, &plan.protocol, &plan.load, &plan.workload_hash);
        Self::new(work, &report.servebench.environment)
    }

    /// That of the result which a case will have that sends the workload of this hash from here, as far as
    /// that is known.
    pub fn to_be(case: &Case, workload_hash: &str) -> Self {
        let (protocol, load) = (case.backend.protocol.name(), case.load.to_string());
        Self::new(work(&case.model.id, protocol, &load, workload_hash), Environment::here())
    }

    fn new(work: BTreeMap<&'static str, String>, environment: &Environment) -> Self {
        let environment = serde_json::to_value(environment).unwrap_or_default();
        let environment = environment.as_object().cloned().unwrap_or_default();
        Self { work, environment: environment.into_iter().collect() }
    }

    /// The first field by which the two cannot be compared, with both values; differences of the
    /// environment that are `allowed` are none.
    pub fn difference(&self, other: &Self, allowed: &[String]) -> Option<String> {
        let work = self.work.iter().find(|(field, value)| other.work.get(*field) != Some(value));
        if let Some((field, value)) = work {
            let theirs = other.work.get(field).map_or("none", String::as_str);
            return Some(format!("another {field}: {value}, and {theirs} there"));
        }
        let fields = self.environment.keys().filter(|field| MATCHED.contains(&field.as_str()));
        fields
            .filter(|field| !allowed.contains(field))
            .find(|field| self.differs(other, field))
            .map(|field| {
                let shown = |identity: &Self| {
                    identity.environment.get(field).map_or("none".to_owned(), Value::to_string)
                };
                format!(
                    "another {field}: {}, and {} there; --allow-env-diff {field} compares them all \
                     the same",
                    shown(self),
                    shown(other)
                )
            })
    }
}

impl Identity {
    /// Whether both say something of a field, and not the same.
    fn differs(&self, other: &Self, field: &str) -> bool {
        let known = |of: &Self| of.environment.get(field).filter(|value| !value.is_null()).cloned();
        known(self).zip(known(other)).is_some_and(|(own, their)| own != their)
    }
}

fn work(model: &str, protocol: &str, load: &str, hash: &str) -> BTreeMap<&'static str, String> {
    let fields = [
        ("model", model),
        ("protocol", protocol),
        ("load", load),
        ("workload (by its hash)", hash),
    ];
    fields.map(|(field, value)| (field, value.to_owned())).into()
}

impl Saved {
    /// The identity of the result.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Reads a result, whole or as a line of a history.
    pub(super) fn parse(text: &str, path: &Path) -> anyhow::Result<Option<Self>> {
        let document: Document = serde_json::from_str(text)?;
        let inner = document.servebench;
        if inner.schema_version != SCHEMA_VERSION {
            bail!(
                "it is of version {} of the schema and this is version {SCHEMA_VERSION}: measure \
                 it again",
                inner.schema_version
            );
        }
        if inner.step_of.is_some() {
            return Ok(None);
        }
        let Plan { protocol, load, workload_hash } = inner.plan;
        Ok(Some(Self {
            path: path.to_owned(),
            date: document.date,
            identity: Identity {
                work: work(&document.model_id, &protocol, &load, &workload_hash),
                environment: inner.environment,
            },
            case: inner.case,
            trials: inner.trials,
            passed: inner.verdict == Some(Verdict::Pass),
            verdict: inner.verdict,
        }))
    }
}

/// Results by case, those of a case by date.
pub type ByCase = BTreeMap<String, Vec<Saved>>;

/// Reads the results of a folder. A file that is damaged is an error that names it.
pub fn read_folder(folder: &Path) -> anyhow::Result<ByCase> {
    let entries = fs::read_dir(folder)
        .with_context(|| format!("read the baseline `{}`", folder.display()))?;
    let mut by_case = ByCase::new();
    for entry in entries {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "json") {
            let failed = || format!("read the result `{}`", path.display());
            let text = fs::read_to_string(&path).with_context(failed)?;
            add(&mut by_case, Saved::parse(&text, &path).with_context(failed)?);
        }
    }
    Ok(by_case)
}

/// Adds a result to those of its case.
pub(super) fn add(by_case: &mut ByCase, saved: Option<Saved>) {
    let Some(saved) = saved else { return };
    let of_case = by_case.entry(saved.case.clone()).or_default();
    of_case.push(saved);
    of_case.sort_by(|one, other| one.date.cmp(&other.date));
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in super::super) fn document(case: &str, cpus: u32, hash: &str) -> String {
        format!(
            r#"{{"date": "2026-01-01 00:00:00", "model_id": "m", "servebench": {{
                "schema_version": {SCHEMA_VERSION}, "case": "{case}", "verdict": "pass",
                "plan": {{"protocol": "chat", "load": "4qps", "workload_hash": "{hash}"}},
                "trials": [{{"seed": 0, "requests": 3, "completed": 3, "failed": 0,
                    "duration_s": 1.5, "metrics": {{"ttft.p50": 20.5}}}}],
                "environment": {{"os": "linux", "cpus": {cpus}}}}}}}"#
        )
        .replace('\n', " ")
    }

    fn saved(case: &str, cpus: u32, hash: &str) -> Saved {
        Saved::parse(&document(case, cpus, hash), Path::new("r.json")).unwrap().unwrap()
    }

    #[test]
    fn results_are_found_by_the_case_in_them_whatever_their_files_are_called() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("x.json"), document("a", 2, "h")).unwrap();
        fs::write(folder.path().join("y.json"), document("b", 2, "h")).unwrap();
        fs::write(folder.path().join("notes.txt"), "no result").unwrap();
        let by_case = read_folder(folder.path()).unwrap();
        assert_eq!(by_case.keys().collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!(by_case["a"][0].trials[0].metrics["ttft.p50"], 20.5);
    }

    #[test]
    fn a_damaged_result_is_named() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("x.json"), &document("a", 2, "h")[..90]).unwrap();
        let error = format!("{:#}", read_folder(folder.path()).unwrap_err());
        assert!(error.contains("x.json") && error.contains("line 1"), "{error}");
        let error = format!("{:#}", read_folder(Path::new("no-such")).unwrap_err());
        assert!(error.contains("`no-such`"), "{error}");
    }

    #[test]
    fn what_is_not_alike_is_refused_by_its_field() {
        let difference = |one: &Saved, two: &Saved, allowed: &[&str]| {
            let allowed: Vec<String> = allowed.iter().map(|field| (*field).to_owned()).collect();
            one.identity().difference(two.identity(), &allowed)
        };
        let base = saved("a", 2, "h");
        assert_eq!(difference(&base, &base, &[]), None);
        let other = difference(&base, &saved("a", 4, "h"), &[]).unwrap();
        assert!(other.contains("another cpus: 2, and 4 there; --allow-env-diff cpus"), "{other}");
        assert_eq!(difference(&base, &saved("a", 4, "h"), &["cpus"]), None);
        let other = difference(&base, &saved("a", 2, "g"), &["workload (by its hash)"]).unwrap();
        assert!(other.contains("another workload"), "work is never to differ: {other}");
    }
}
