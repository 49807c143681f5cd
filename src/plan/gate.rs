//! What is compared, and what matters: the metrics that the tables of a plan file name.

use toml::Spanned;

use super::Gate;
use crate::config::{ConfigError, ConfigFile, Settings};
use crate::flags::Flags;
use crate::metric::Quantity;

/// The gate of a case with these settings.
pub(super) fn gate(
    file: &ConfigFile,
    flags: &Flags,
    settings: &Settings,
) -> Result<Gate, ConfigError> {
    let min_effect = flags.min_effect.or(settings.min_effect);
    Ok(Gate::of(compared(file, settings)?, min_effect, effects(file, settings)?))
}

/// An error at the first name of any table that is no metric, also where another table wins over it.
pub(super) fn check(file: &ConfigFile) -> Result<(), ConfigError> {
    for settings in file.config.settings() {
        compared(file, &settings)?;
        effects(file, &settings)?;
    }
    Ok(())
}

fn compared(file: &ConfigFile, settings: &Settings) -> Result<Option<Vec<Quantity>>, ConfigError> {
    let Some(names) = &settings.compare else { return Ok(None) };
    if names.get_ref().is_empty() {
        let message = "`compare` is empty, so that nothing would be compared: leave it out for the \
                       usual metrics, or name some, for example compare = [\"ttft.p50\"]";
        return Err(file.error(names.span(), message));
    }
    let kept = |name: &Spanned<String>| {
        let quantity = quantity(file, "compare", name)?;
        if quantity.is_compared() {
            return Ok(quantity);
        }
        let message = format!(
            "`{quantity}` is not kept of each trial and cannot be compared: of a latency take mean, \
             p50, p90, p95 or p99, else a number of the whole case such as output_throughput"
        );
        Err(file.error(name.span(), message))
    };
    names.get_ref().iter().map(kept).collect::<Result<_, _>>().map(Some)
}

fn effects(file: &ConfigFile, settings: &Settings) -> Result<Vec<(Quantity, f64)>, ConfigError> {
    let effects = settings.min_effects.iter().flatten();
    effects.map(|(name, share)| Ok((quantity(file, "min_effects", name)?, share.ratio()))).collect()
}

fn quantity(file: &ConfigFile, key: &str, name: &Spanned<String>) -> Result<Quantity, ConfigError> {
    let quantity = name.get_ref().parse::<Quantity>();
    quantity.map_err(|error| file.error(name.span(), format!("`{key}`: {error}")))
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
[[bench]]
loads = ["4qps"]
"#;

    #[test]
    fn what_is_no_metric_is_an_error_with_its_place_and_the_nearest_one() {
        for (rest, parts) in [
            ("compare = [\"tfft.p50\"]", &["plan.toml:9:12", "`compare`", "mean `ttft.p50`?"][..]),
            ("compare = [\n\"ttft.p50\",\n\"tpot.men\"]", &["plan.toml:11:1", "mean `mean`?"]),
            ("compare = [\"ttft.p75\"]", &["plan.toml:9:12", "`ttft.p75` is not kept", "p90"]),
            ("compare = []", &["plan.toml:9:11", "`compare` is empty", "leave it out", "ttft.p50"]),
            (
                "min_effects = { output_thruput = \"5%\" }",
                &["plan.toml:9:17", "`min_effects`", "mean `output_throughput`?"],
            ),
            (
                "min_effects = { \"tpot.p5O\" = \"5%\" }",
                &["plan.toml:9:17", "unknown statistic `p5O`", "mean `p50`?"],
            ),
        ] {
            assert_error(&format!("{PLAN}{rest}\n"), "", parts);
        }
    }

    #[test]
    fn a_mistake_matters_also_where_another_table_wins_over_it() {
        let text =
            format!("defaults = {{ compare = [\"tfft.p50\"] }}\n{PLAN}compare = [\"e2e.p50\"]\n");
        assert_error(&text, "", &["plan.toml:1:25", "did you mean `ttft.p50`?"]);
    }
}
