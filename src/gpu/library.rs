//! Opens the library of NVIDIA's driver (NVML), of which nothing is needed until then.

use std::ffi::{OsStr, OsString};
use std::path::Path;

use nvml_wrapper::Nvml;
use nvml_wrapper::error::NvmlError;

/// Where the library may be found if the system has none by its own names.
const VARIABLE: &str = "NVML_PATH";

/// What the system calls it. A machine that only runs programs has the first alone.
#[cfg(not(windows))]
const NAMES: &[&str] = &["libnvidia-ml.so.1", "libnvidia-ml.so"];
#[cfg(windows)]
const NAMES: &[&str] = &["nvml.dll", r"C:\Program Files\NVIDIA Corporation\NVSMI\nvml.dll"];

/// The library at `path`; without one the system's, and else that at the path in `NVML_PATH`.
pub fn open(path: Option<&Path>) -> Result<Nvml, String> {
    open_first(&names(path.map(Path::as_os_str), std::env::var_os(VARIABLE)))
}

/// Where to look, in turn. Whoever gives a path means no other.
fn names(path: Option<&OsStr>, variable: Option<OsString>) -> Vec<OsString> {
    match path {
        Some(path) => vec![path.to_owned()],
        None => NAMES.iter().map(OsString::from).chain(variable).collect(),
    }
}

fn open_first(names: &[OsString]) -> Result<Nvml, String> {
    let mut refusals = Vec::new();
    for name in names {
        match Nvml::builder().lib_path(name).init() {
            Ok(nvml) => return Ok(nvml),
            Err(NvmlError::LibloadingError(error)) => refusals.push(refusal(name, &error)),
            Err(error) => return Err(format!("{}: {error}", name.display())),
        }
    }
    Err(format!("no NVIDIA driver was found ({})", refusals.join("; ")))
}

/// The loader's words mostly begin with the name.
fn refusal(name: &OsStr, error: &dyn std::error::Error) -> String {
    let (name, error) = (name.display().to_string(), error.to_string());
    if error.contains(&name) { error } else { format!("{name}: {error}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_the_only_one_tried_and_that_of_the_environment_comes_last() {
        let (own, variable) = (OsStr::new("own.so"), OsString::from("variable.so"));
        assert_eq!(names(Some(own), Some(variable.clone())), ["own.so"]);
        assert_eq!(names(None, Some(variable)), [NAMES, &["variable.so"]].concat());
        assert_eq!(names(None, None), NAMES);
    }

    #[test]
    fn each_name_that_was_tried_is_told() {
        let names = ["/nowhere/libnvidia-ml.so.1", "/nowhere/libnvidia-ml.so"].map(OsString::from);
        let because = open_first(&names).unwrap_err();
        for name in names {
            assert!(because.contains(&*name.to_string_lossy()), "{because}");
        }
    }
}
