//! The page of a run as a browser shows it: a real headless Chromium opens it from its file.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on is to end")]
#![cfg(unix)]

mod browser;
mod run;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use browser::{Browser, found, url};
use serde_json::{Value, json};
use servebench::render::html;
use servebench::report::Ending;

/// Everything that draws has drawn.
const DRAW_ALL: &str = "dispatchEvent(new Event('beforeprint')); dispatchEvent(new Event('afterprint')); \
                        new Promise((done) => setTimeout(done, 200))";

/// The page in a file that stays, for those who want to look at it too.
fn written(name: &str, cases: &[html::Case<'_>]) -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    std::fs::write(&path, html::page(cases).unwrap()).unwrap();
    path
}

fn documents(endings: &[Ending]) -> BTreeMap<String, Value> {
    let reports = endings.iter().filter_map(Ending::report);
    reports
        .map(|report| (report.servebench.case.clone(), serde_json::to_value(report).unwrap()))
        .collect()
}

/// That the page is what it should be, in every way of looking at it.
fn assert_is_shown(browser: &mut Browser, file: &Path) {
    browser.open(file);
    let own = url(file);
    for media in ["light", "dark"] {
        let features = json!([{ "name": "prefers-color-scheme", "value": media }]);
        browser.call("Emulation.setEmulatedMedia", json!({ "features": features }));
        browser.evaluate(DRAW_ALL);
        let ground = browser.evaluate("getComputedStyle(document.body).backgroundColor");
        let expected = if media == "light" { "rgb(255, 255, 255)" } else { "rgb(14, 18, 23)" };
        assert_eq!(ground, expected, "{media}");
        let undrawn = "[...document.querySelectorAll('.chart:not(.empty)')].filter((chart) => \
                       chart.querySelectorAll('svg path').length < 3).map((chart) => chart.dataset.chart)";
        assert_eq!(browser.evaluate(undrawn), json!([]), "{media}: a chart was not drawn");
    }
    browser.call("Emulation.setEmulatedMedia", json!({ "features": [] }));
    point_at_every_chart(browser);
    let print = browser.call("Page.printToPDF", json!({ "printBackground": true }));
    assert!(10_000 < print["data"].as_str().unwrap().len(), "the print is empty");
    // On a phone nothing but tables is wider than the screen, and those can be moved.
    let phone = json!({ "width": 400, "height": 800, "deviceScaleFactor": 1, "mobile": true });
    browser.call("Emulation.setDeviceMetricsOverride", phone);
    let width = browser.evaluate("document.documentElement.scrollWidth");
    browser.call("Emulation.clearDeviceMetricsOverride", json!({}));
    assert!(width.as_u64().unwrap() <= 400, "{width} px wide");
    assert_eq!(browser.complaints(), [""; 0]);
    assert_eq!(browser.requested(), [own.as_str()], "it asked for more than itself");
}

/// Moves the mouse over each chart, so that it tells what is there.
fn point_at_every_chart(browser: &mut Browser) {
    let charts = browser.evaluate("document.querySelectorAll('.chart:not(.empty)').length");
    for chart in 0..charts.as_u64().unwrap() {
        let middle = browser.evaluate(&format!(
            "(() => {{ const chart = document.querySelectorAll('.chart:not(.empty)')[{chart}]; \
             chart.scrollIntoView({{ behavior: 'instant', block: 'center' }}); \
             const {{ left, top, width, height }} = chart.getBoundingClientRect(); \
             return [left + width / 2, top + height / 2]; }})()"
        ));
        let position = json!({ "type": "mouseMoved", "x": middle[0], "y": middle[1] });
        browser.call("Input.dispatchMouseEvent", position);
    }
    browser.evaluate("new Promise((done) => setTimeout(done, 100))");
}

#[test]
fn the_page_of_a_run_shows_every_case_and_asks_nothing_of_anybody() {
    let Some(path) = found() else { return };
    let run = run::Run::measured();
    let (endings, cases) = (&run.endings, run.cases());
    let file = written("report.html", &cases);
    let size = file.metadata().unwrap().len();
    assert!(size < 2_000_000, "{size} bytes");
    let mut browser = Browser::start(&path);
    assert_is_shown(&mut browser, &file);

    let rows = browser.evaluate(
        "[...document.querySelectorAll('table.summary tbody tr')].map((row) => \
         [row.dataset.case, row.querySelector('.state').innerText, \
         document.querySelector(row.querySelector('a').hash).dataset.case])",
    );
    let expected: Vec<Value> = endings
        .iter()
        .map(|ending| {
            let state = rows
                .as_array()
                .unwrap()
                .iter()
                .find(|row| row[0] == ending.case())
                .and_then(|row| row[1].as_str())
                .unwrap();
            assert!(state.ends_with(ending.name()), "{state}");
            json!([ending.case(), state, ending.case()])
        })
        .collect();
    assert_eq!(rows, json!(expected));
    // Without scripts the tables are there all the same.
    browser.call("Emulation.setScriptExecutionDisabled", json!({ "value": true }));
    browser.open(&file);
    let read = browser.evaluate("[document.querySelectorAll('table.summary tbody tr').length, \
                                 document.querySelector('.noscript').innerText, document.querySelectorAll('svg').length]");
    assert_eq!(read, json!([6, "The charts need JavaScript. All figures are in the tables.", 0]));
    browser.call("Emulation.setScriptExecutionDisabled", json!({ "value": false }));
    browser.open(&file);
    browser.evaluate(DRAW_ALL);
    let charts = browser.evaluate(
        "[...document.querySelectorAll('.chart:not(.empty)')].map((chart) => chart.dataset.chart)",
    );
    for kind in ["knee", "pareto", "distribution", "timeline", "waterfall", "heat", "history"] {
        let count = charts.as_array().unwrap().iter().filter(|chart| *chart == kind).count();
        assert!(0 < count, "no {kind} among {charts}");
    }
    assert_numbers_are_those_of_the_documents(&mut browser, &documents(endings));
}

/// That each number on the page is the one at its place in the document, and is shown as it is.
fn assert_numbers_are_those_of_the_documents(
    browser: &mut Browser,
    documents: &BTreeMap<String, Value>,
) {
    let figures = browser.evaluate(
        "[...document.querySelectorAll('data')].map((it) => [it.closest('[data-case]').dataset.case, \
         it.dataset.json, it.value, it.dataset.scale ?? '1', it.textContent])",
    );
    let figures = figures.as_array().unwrap();
    assert!(1000 < figures.len(), "{} figures", figures.len());
    for figure in figures {
        let text = |at: usize| figure[at].as_str().unwrap();
        let number = |at: usize| text(at).parse::<f64>().unwrap();
        let document = &documents[text(0)];
        assert_eq!(document.pointer(text(1)).and_then(Value::as_f64), Some(number(2)), "{figure}");
        let shown: String =
            text(4).chars().filter(|c| c.is_ascii_digit() || "+-.".contains(*c)).collect();
        let digits = shown.split_once('.').map_or(0, |(_, digits)| digits.len());
        let off = shown.parse::<f64>().unwrap() - number(2) * number(3);
        assert!(off.abs() <= 0.5001 * 0.1_f64.powi(digits as i32), "{figure}: off by {off}");
    }
}

#[test]
fn names_and_errors_are_text_whatever_they_hold() {
    let Some(path) = found() else { return };
    let endings = run::hostile();
    let cases: Vec<html::Case<'_>> = endings.iter().map(html::Case::new).collect();
    let file = written("hostile.html", &cases);
    let mut browser = Browser::start(&path);
    assert_is_shown(&mut browser, &file);
    // Nothing of it became an element, and nothing ran.
    let scripts = browser.evaluate("document.querySelectorAll('script').length");
    assert_eq!(scripts, json!(3 + endings.iter().filter_map(Ending::report).count()));
    assert_eq!(browser.evaluate("document.querySelectorAll('img, iframe, i').length"), 0);
    assert_eq!(browser.evaluate("window.hacked === undefined"), true);
    let names = browser.evaluate(
        "[...document.querySelectorAll('section.case h2 bdi')].map((name) => name.textContent)",
    );
    for name in names.as_array().unwrap() {
        let name = name.as_str().unwrap();
        assert!(name.starts_with("<script>window.hacked=1</script>\"'"), "{name}");
        assert!(name.contains("\\u{1b}[31m") && name.contains("\\u{202e}"), "{name}");
        assert!(name.contains("שלום"), "{name}");
    }
    // Right-to-left text turns nothing around it.
    let turned = browser.evaluate(
        "[...document.querySelectorAll('bdi')].filter((it) => \
         getComputedStyle(it).unicodeBidi !== 'isolate').length",
    );
    assert_eq!(turned, 0);
}
