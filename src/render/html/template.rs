//! The page's template with its scripts and styles: how figures and foreign text become HTML.

use std::fmt::Write as _;

use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Kwargs, Serde, Value, ValueKind};
use minijinja::{
    AutoEscape, Environment, Error, ErrorKind, HtmlEscape, Output, State, UndefinedBehavior,
    context, escape_formatter,
};

use super::policy::content_security_policy;
use super::view::Page;
use crate::metric::Latency;
use crate::render::text::plain;

const STYLE: &str = include_str!("page.css");
/// Apache ECharts, tree-shaken; `echarts/package.json` says how it is made.
const ECHARTS: &str = include_str!("echarts/echarts.min.js");
const SCRIPT: &str = concat!(
    include_str!("scripts/theme.js"),
    include_str!("scripts/case_charts.js"),
    include_str!("scripts/time_charts.js"),
    include_str!("scripts/run_charts.js"),
    include_str!("scripts/main.js"),
);
const TEMPLATES: [(&str, &str); 4] = [
    ("page.html", include_str!("page.html")),
    ("summary.html", include_str!("summary.html")),
    ("case.html", include_str!("case.html")),
    ("tables.html", include_str!("tables.html")),
];

/// The page's HTML.
pub(super) fn render(page: &Page) -> anyhow::Result<String> {
    let mut environment = Environment::new();
    environment.set_syntax(SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build()?);
    environment.set_auto_escape_callback(|_| AutoEscape::Html);
    environment.set_undefined_behavior(UndefinedBehavior::SemiStrict);
    environment.set_formatter(format);
    environment.add_function("figure", figure);
    for (name, source) in TEMPLATES {
        environment.add_template(name, source)?;
    }
    let latency_names = Latency::ALL.map(Latency::name);
    let rendered = environment.get_template("page.html")?.render(context! {
        policy => content_security_policy(&[ECHARTS, SCRIPT], &[STYLE]),
        style => Value::from_safe_string(STYLE.to_owned()),
        echarts => Value::from_safe_string(ECHARTS.to_owned()),
        script => Value::from_safe_string(SCRIPT.to_owned()),
        cases => Value::from(Serde(&page.cases)),
        outcome => Value::from(Serde(&page.outcome)),
        run_data => Value::from_safe_string(page.run_data.clone()),
        has_points => page.has_points,
        dates => page.dates.as_ref(),
        version => page.version,
        latency_names => latency_names,
    })?;
    Ok(rendered)
}

/// Writes text as text: in one line, with nothing in it that a browser obeys.
fn format(out: &mut Output<'_>, state: &mut State<'_, '_>, value: &Value) -> Result<(), Error> {
    match value.as_str() {
        Some(text) if !value.is_safe() => {
            // Browsers have characters of their own that they do not show.
            let text = plain(text).replace('\u{0}', "\u{fffd}");
            escape_formatter(out, state, &Value::from(text))
        }
        _ => escape_formatter(out, state, value),
    }
}

/// A number of a result, with the place in the document where it stands: `scale` times itself, with so many
/// `digits` behind the point, or as `shown`; `n/a` where it is missing.
fn figure(document: &Value, pointer: &str, options: Kwargs) -> Result<Value, Error> {
    let digits = options.get::<Option<usize>>("digits")?.unwrap_or(2);
    let scale = options.get::<Option<f64>>("scale")?.unwrap_or(1.0);
    let signed = options.get::<Option<bool>>("signed")?.unwrap_or(false);
    let unit = options.get::<Option<String>>("unit")?.unwrap_or_default();
    let shown = options.get::<Option<String>>("shown")?;
    options.assert_all_used()?;
    let value = pointed_at(document, pointer)?;
    let mut html = String::new();
    let number = f64::try_from(value.clone()).ok();
    let Some(number) = number else {
        let text = shown.unwrap_or_else(|| value.as_str().unwrap_or("n/a").to_owned());
        let _ = write!(html, "<span class=\"none\">{}</span>", escaped(&text));
        return Ok(Value::from_safe_string(html));
    };
    let text = match shown {
        Some(shown) => escaped(&shown),
        None if value.is_integer() && scale == 1.0 => value.to_string(),
        None => decimal(number * scale, digits, signed),
    };
    let _ = write!(html, "<data data-json=\"{}\" value=\"{value}\"", escaped(pointer));
    if scale != 1.0 {
        let _ = write!(html, " data-scale=\"{scale}\"");
    }
    let _ = write!(html, ">{text}</data>");
    if !unit.is_empty() {
        let _ = write!(html, "\u{a0}<span class=\"unit\">{}</span>", escaped(&unit));
    }
    Ok(Value::from_safe_string(html))
}

/// A number with so many digits behind the point, or with as many more as it takes to be told from 0.
fn decimal(number: f64, digits: usize, signed: bool) -> String {
    let digits = match number.abs().log10() {
        size if number != 0.0 && size < -(digits as f64) => (1.0 - size).ceil() as usize,
        _ => digits,
    };
    if signed { format!("{number:+.digits$}") } else { format!("{number:.digits$}") }
}

fn escaped(text: &str) -> String {
    // A slash ends nothing between quotes, and pointers are full of them.
    HtmlEscape(&plain(text)).to_string().replace("&#x2f;", "/")
}

/// What stands in a document at a JSON pointer.
fn pointed_at(document: &Value, pointer: &str) -> Result<Value, Error> {
    let mut value = document.clone();
    for part in pointer.split('/').skip(1) {
        let key = part.replace("~1", "/").replace("~0", "~");
        value = match key.parse::<usize>() {
            Ok(index) if value.kind() == ValueKind::Seq => value.get_item_by_index(index)?,
            _ => value.get_item(&Value::from(key))?,
        };
    }
    if value.is_undefined() {
        let message = format!("the result has nothing at `{pointer}`");
        return Err(Error::new(ErrorKind::UndefinedError, message));
    }
    Ok(value)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn shown(document: &serde_json::Value, pointer: &str, options: &[(&str, Value)]) -> String {
        let options: Kwargs = options.iter().cloned().collect();
        figure(&Value::from(Serde(document)), pointer, options).unwrap().to_string()
    }

    #[test]
    fn a_figure_says_where_it_stands_and_what_it_is_to_the_last_digit() {
        let document = json!({ "a": [{ "p99.9": 12.345_678_9 }], "count": 7, "ratio": -0.62 });
        assert_eq!(
            shown(&document, "/a/0/p99.9", &[]),
            "<data data-json=\"/a/0/p99.9\" value=\"12.3456789\">12.35</data>"
        );
        assert_eq!(
            shown(&document, "/count", &[]),
            "<data data-json=\"/count\" value=\"7\">7</data>"
        );
        let options = [("scale", Value::from(-100)), ("digits", Value::from(1))];
        assert!(shown(&document, "/ratio", &options).contains("data-scale=\"-100\">62.0</data>"));
    }

    #[test]
    fn what_is_missing_is_not_0_and_what_is_small_is_not_either() {
        let document = json!({ "none": null, "small": 0.001_234, "zero": 0.0 });
        assert_eq!(shown(&document, "/none", &[]), "<span class=\"none\">n/a</span>");
        assert!(shown(&document, "/small", &[]).ends_with(">0.0012</data>"));
        assert!(shown(&document, "/zero", &[]).ends_with(">0.00</data>"));
        let document = Value::from(Serde(&document));
        assert!(pointed_at(&document, "/no/such").is_err());
    }
}
