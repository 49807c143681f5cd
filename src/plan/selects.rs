//! Whether everything that a plan file says is about some case: what is about none judges nothing, and is most
//! often a typing error.

use std::collections::BTreeMap;

use super::Case;
use crate::config::{ConfigError, ConfigFile};
use crate::flags::Flags;
use crate::metric::Quantity;
use crate::nearest::did_you_mean;

/// An error at the first group, override or `min_effects` key that is about none of `cases`.
pub(super) fn check(file: &ConfigFile, flags: &Flags, cases: &[Case]) -> Result<(), ConfigError> {
    let config = &file.config;
    if cases.is_empty() {
        let message = match &flags.backend {
            Some(name) if !config.bench.is_empty() => {
                format!(
                    "no [[bench]] group has a case of the backend `{name}`, which --backend names"
                )
            }
            _ => "the plan has no cases: write a [[bench]] table with `loads`".to_owned(),
        };
        return Err(ConfigError::whole(&file.path, message));
    }
    // Flags take cases away, and give them other names.
    let is_whole = flags.backend.is_none()
        && flags.model.is_none()
        && flags.request_rate.is_none()
        && flags.max_concurrency.is_none();
    let names = || cases.iter().map(|case| case.name.as_str());
    for over in config.r#override.iter().filter(|_| is_whole) {
        let globs = over.cases.get_ref();
        if !globs.iter().any(|glob| names().any(|name| glob.matches(name))) {
            let nearest = globs.first().map(|glob| did_you_mean(glob.as_str(), names()));
            let message = format!("the override selects no case{}", nearest.unwrap_or_default());
            return Err(file.error(over.cases.span(), message));
        }
    }
    let effects = config.settings().filter_map(|table| table.min_effects);
    let effects = effects.flat_map(BTreeMap::into_keys);
    for name in effects {
        let Ok(quantity) = name.get_ref().parse::<Quantity>() else { continue };
        if !cases.iter().any(|case| case.gate.metrics.contains(&quantity)) {
            let compared = cases.iter().flat_map(|case| &case.gate.metrics);
            let compared: Vec<String> = compared.map(ToString::to_string).collect();
            let nearest = did_you_mean(name.get_ref(), compared.iter().map(String::as_str));
            let message = format!(
                "`min_effects`: `{quantity}` is compared in no case: add it to `compare`{nearest}"
            );
            return Err(file.error(name.span(), message));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::tests::assert_error;

    const PLAN: &str = r#"[[backend]]
name = "sim"
kind = "sim"
[[workload]]
name = "w"
dataset = "random"
"#;

    #[test]
    fn what_is_about_no_case_is_an_error_with_its_line_and_the_nearest_name() {
        let bench = "[[bench]]\nloads = [\"4qps\"]\n";
        for (rest, parts) in [
            ("", &["plan.toml: the plan has no cases"][..]),
            (
                &format!("{bench}[[override]]\ncases = [\"sim/sim/w@5qps\"]\n"),
                &["plan.toml:10", "selects no case", "did you mean `sim/sim/w@4qps`"],
            ),
            (
                &format!("{bench}min_effects = {{ \"ttft.p95\" = \"5%\" }}\n"),
                &["plan.toml:9", "compared in no case", "did you mean `ttft.p9"],
            ),
        ] {
            assert_error(&format!("{PLAN}{rest}"), "", parts);
        }
        let text = PLAN.replace("\"sim\"\n[", "\"sim\"\nmodels = []\n[");
        assert_error(&format!("{text}{bench}"), "", &["plan.toml:2", "`models`", "is empty"]);
    }

    #[test]
    fn what_no_machine_can_send_is_an_error_with_its_line() {
        for (bench, part) in [
            ("loads = [\"1e300qps\"]", "rate"),
            ("loads = [\"1000000000000conc\"]", "1000000000000 users"),
            ("loads = [\"1conc\"]\nrequests = 1000000000000", "1.000e12 requests"),
            ("loads = [\"1conc\"]\nwarm_up = 1000000000000", "requests"),
            ("loads = [\"1000000qps\"]\nduration = \"1000h\"", "requests"),
            ("loads = [\"1qps\"]\nwarm_up = \"8000h\"", "requests"),
            ("loads = [\"1qps\"]\ntrials = 1000000000", "trials"),
            ("loads = [\"0.0000001qps\"]", "a rate of 1e-7 requests/s is below 1e-6"),
            (
                "loads = [\"0.00001qps\"]\nrequests = 1000",
                "1000 requests at 1e-5 requests/s take 1157 days",
            ),
            (
                "loads = [\"sweep\"]\nsearch_steps = 1000000000000",
                "steps of a search are more than 1000",
            ),
            ("loads = [\"1qps\"]\nramp_up = \"1000000000000000000s\"", "longer than a year"),
            (
                "loads = [\"x\"]\n[[load]]\nname = \"x\"\nstages = [{ rate = 1e300, for = \"1h\" }]",
                "rate",
            ),
            (
                "loads = [\"x\"]\n[[load]]\nname = \"x\"\nstages = [{ rate = 1e6, for = \"1h\" }]",
                "requests",
            ),
            (
                "loads = [\"x\"]\n[[load]]\nname = \"x\"\nstages = [{ rate = nan, for = \"1h\" }]",
                "rate",
            ),
        ] {
            assert_error(&format!("{PLAN}[[bench]]\n{bench}\n"), "", &["plan.toml:", part]);
        }
    }
}
