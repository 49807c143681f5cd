//! Where the package is whose bench this is.

use std::path::{Path, PathBuf};

/// The plan `config`, seen from the package's root: that which Cargo and nextest name when they run the bench, since
/// it may have been built elsewhere (`cargo nextest archive`, another checkout), else that of its compilation.
pub(super) fn plan_of(run_time: Option<PathBuf>, compiled: &Path, config: &str) -> PathBuf {
    let run_time = run_time.filter(|root| !root.as_os_str().is_empty());
    // A program that Cargo runs may run this one: its package is another.
    let root = match run_time {
        Some(root) if root.join(config).is_file() || !compiled.join(config).is_file() => root,
        _ => compiled.to_owned(),
    };
    // Cargo runs a bench in the package's root; there the short path reads better in messages.
    let is_here = std::env::current_dir().is_ok_and(|here| here == root);
    if is_here { PathBuf::from(config) } else { root.join(config) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_plan_is_that_of_the_package_that_runs_and_not_of_the_one_that_was_compiled() {
        let folder = tempfile::tempdir().unwrap();
        let [run, built, other] = ["run", "built", "other"].map(|name| folder.path().join(name));
        for root in [&run, &built] {
            std::fs::create_dir_all(root.join("benches")).unwrap();
            std::fs::write(root.join("benches/b.toml"), "").unwrap();
        }
        let plan =
            |run_time: Option<&PathBuf>| plan_of(run_time.cloned(), &built, "benches/b.toml");
        assert_eq!(plan(Some(&run)), run.join("benches/b.toml"));
        assert_eq!(plan(None), built.join("benches/b.toml"));
        assert_eq!(plan(Some(&PathBuf::new())), built.join("benches/b.toml"));
        assert_eq!(plan(Some(&other)), built.join("benches/b.toml"), "it has no such plan");
        std::fs::remove_dir_all(&built).unwrap();
        assert_eq!(plan(Some(&other)), other.join("benches/b.toml"), "so that it is named");
    }
}
