//! `--compare`: results that were saved, next to each other. Runs nothing.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::BufReader;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use serde::de::IgnoredAny;
use serde_json::error::Category;

use super::{baseline, terminal};
use crate::cli::Cli;
use crate::metric::{Latency, Quantity, Scalar, Statistic};
use crate::plan::Plan;
use crate::render::side_by_side::{Look, Side, render};
use crate::report::Report;
use crate::share::Share;

/// What is compared unless the user says.
const METRICS: [Quantity; 6] = [
    Quantity::Latency(Latency::Ttft, Statistic::Percentile(50.0)),
    Quantity::Latency(Latency::Ttft, Statistic::Percentile(99.0)),
    Quantity::Latency(Latency::Tpot, Statistic::Mean),
    Quantity::Latency(Latency::E2e, Statistic::Percentile(50.0)),
    Quantity::Scalar(Scalar::RequestThroughput),
    Quantity::Scalar(Scalar::OutputThroughput),
];

/// Prints what `--compare` names. The plan is read only where a baseline's name is to be found.
pub(super) fn compare(cli: &Cli, default_config: &Path) -> anyhow::Result<()> {
    let places = cli.flags.compare.iter().map(|place| find(cli, place, default_config));
    let places = places.collect::<anyhow::Result<Vec<PathBuf>>>()?;
    let names = names(&cli.flags.compare);
    let sides = names.into_iter().zip(&places).map(|(name, place)| {
        let reports = read(place)?.into_iter();
        let reports = reports.filter(|report| cli.selects(&report.servebench.case)).collect();
        Ok(Side { name, reports })
    });
    let sides = sides.collect::<anyhow::Result<Vec<Side>>>()?;
    let metrics = match cli.flags.compare_metrics.as_slice() {
        [] => METRICS.to_vec(),
        metrics => metrics.to_vec(),
    };
    let look = Look {
        metrics,
        threshold: cli.flags.compare_threshold.map(Share::ratio),
        width: terminal::width(),
    };
    Ok(terminal::print_styled(&render(&sides, &look), cli.color)?)
}

/// A file or a folder, or else a baseline by its name.
fn find(cli: &Cli, place: &str, default_config: &Path) -> anyhow::Result<PathBuf> {
    let path = PathBuf::from(place);
    if path.exists() {
        return Ok(path);
    }
    let results = match &cli.flags.result_dir {
        Some(results) => results.clone(),
        None => Plan::new(&cli.flags, default_config)?.results,
    };
    let folder = baseline::folder(&results, place);
    if !folder.is_dir() {
        bail!(
            "--compare: `{place}` is no file and no folder, and there is no baseline of that name at \
             `{}`",
            folder.display()
        );
    }
    Ok(folder)
}

/// The results at a place: of a folder the newest of each case, the steps of searches left out.
fn read(place: &Path) -> anyhow::Result<Vec<Report>> {
    if place.is_file() {
        return Ok(vec![Report::read(place)?]);
    }
    let mut newest: BTreeMap<String, Report> = BTreeMap::new();
    let failed = || format!("read the folder `{}`", place.display());
    for entry in fs::read_dir(place).with_context(failed)? {
        let path = entry.with_context(failed)?.path();
        // Other files of a run may lie there too.
        if path.extension().is_none_or(|extension| extension != "json") || !is_result(&path)? {
            continue;
        }
        let report = Report::read(&path)?;
        if report.servebench.step_of.is_some() {
            continue;
        }
        let case = report.servebench.case.clone();
        if newest.get(&case).is_none_or(|before| before.date <= report.date) {
            newest.insert(case, report);
        }
    }
    if newest.is_empty() {
        bail!("there is no result in the folder `{}`", place.display());
    }
    Ok(newest.into_values().collect())
}

/// Whether a file is a document of a case, and not a list for other tools. A damaged one is: it is an error
/// to read it.
fn is_result(path: &Path) -> anyhow::Result<bool> {
    let file = File::open(path).with_context(|| format!("read `{}`", path.display()))?;
    let fields: serde_json::Result<BTreeMap<String, IgnoredAny>> =
        serde_json::from_reader(BufReader::with_capacity(1 << 20, file));
    Ok(match fields {
        Ok(fields) => fields.contains_key("servebench"),
        Err(error) => error.classify() != Category::Data,
    })
}

/// Heads for the columns: the last part of each path where that tells them apart.
fn names(places: &[String]) -> Vec<String> {
    let short = |place: &String| {
        let path = Path::new(place);
        let part = if path.extension().is_some_and(|extension| extension == "json") {
            path.file_stem()
        } else {
            path.file_name()
        };
        part.map_or_else(|| place.clone(), |part| part.to_string_lossy().into_owned())
    };
    let shortened: Vec<String> = places.iter().map(short).collect();
    let repeated = |name: &String| 1 < shortened.iter().filter(|other| *other == name).count();
    if shortened.iter().any(repeated) { places.to_vec() } else { shortened }
}
