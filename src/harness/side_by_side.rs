//! `--compare`: results that were saved, next to each other. Runs nothing.

use std::path::{Path, PathBuf};

use anyhow::bail;

use super::{baseline, terminal};
use crate::cli::Cli;
use crate::metric::{Latency, Quantity, Scalar, Statistic};
use crate::plan::Plan;
use crate::render::side_by_side::{Look, Side, render};
use crate::report::folder::{newest_whole, read_all};
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
        let reports = newest_whole(read_all(place)?).into_iter();
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
