//! Each module uses only those above it in `src/lib.rs`, and each library is known to one module. Test
//! code, which comes last in a file, may use what it likes.

use std::fs;
use std::path::{Path, PathBuf};

/// A word of a library, and who in `src` may say it.
const HOMES: [(&str, &[&str]); 16] = [
    ("reqwest", &["hub", "probe", "scrape"]),
    ("procfs", &["environment", "host"]),
    ("httparse", &["http1"]),
    ("csv", &["render", "workload"]),
    ("quick_junit", &["render"]),
    ("parquet", &["workload"]),
    ("minijinja", &["chat_template", "render"]),
    ("nix", &["harness", "launch", "own_file", "punctual", "socket", "strain"]),
    ("hdrhistogram", &["samples"]),
    ("statrs", &["statistics"]),
    ("strsim", &["nearest", "trial"]),
    ("hyper", &["client", "http2", "sim"]),
    ("h2", &["connection", "http2"]),
    ("Parser", &["cli", "bin"]), // that of clap
    ("libtest_mimic", &["harness"]),
    ("nvml_wrapper", &["gpu"]),
];

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).expect("a folder that can be read");
    let paths = entries.map(|entry| entry.expect("an entry that can be read").path());
    paths.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

/// The module of a file below `src`, as the parts of its path.
fn module(file: &Path) -> Vec<String> {
    let parts = file.with_extension("");
    let parts = parts.iter().map(|part| part.to_string_lossy().into_owned());
    parts.filter(|part| part != "mod").collect()
}

/// Calls `check` with the parts of each module, and each line of its code and where it is.
fn for_each_line(mut check: impl FnMut(&[String], &str, &str)) {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let code = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "rs");
    for path in files(&src).into_iter().filter(code) {
        let file = path.strip_prefix(&src).expect("a file below src");
        let module = module(file);
        if module == ["lib"] || module.ends_with(&["tests".to_owned()]) {
            continue;
        }
        let text = fs::read_to_string(&path).expect("a file that can be read");
        let lines = text.lines().take_while(|line| *line != "#[cfg(test)]");
        for (line, number) in lines.zip(1..) {
            let code = line.split("//").next().unwrap_or_default();
            check(&module, code, &format!("src/{}:{number}", file.display()));
        }
    }
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|character: char| !character.is_alphanumeric() && character != '_')
}

#[test]
fn each_module_uses_only_those_above_it() {
    let lib = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/src/lib.rs")).unwrap();
    let order: Vec<&str> = lib
        .lines()
        .filter_map(|line| line.trim_start_matches("pub ").strip_prefix("mod ")?.strip_suffix(';'))
        .collect();
    let height = |name: &str| order.iter().position(|module| *module == name);
    let mut faults = Vec::new();
    for_each_line(|module, code, place| {
        let name = module[0].as_str();
        let Some(own) = height(name) else {
            // A binary sees the library from outside.
            return assert!(name == "bin", "{place}: `{name}` is not in src/lib.rs");
        };
        for root in ["crate::".to_owned(), "super::".repeat(module.len())] {
            for used in code.split(&root).skip(1).map(|rest| words(rest).next().unwrap()) {
                match height(used) {
                    Some(other) if other <= own => {}
                    Some(_) => faults.push(format!(
                        "{place}: `{name}` uses `{used}`, which comes below it in src/lib.rs"
                    )),
                    None => faults.push(format!(
                        "{place}: `{root}` must be followed by a module of src/lib.rs"
                    )),
                }
            }
        }
    });
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn each_library_is_known_to_one_module() {
    let mut faults = Vec::new();
    for_each_line(|module, code, place| {
        for (library, homes) in HOMES {
            if !homes.contains(&module[0].as_str()) && words(code).any(|word| word == library) {
                faults.push(format!("{place}: `{library}` is for {} only", homes.join(" and ")));
            }
        }
    });
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}
