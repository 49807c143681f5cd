//! What a run ran on, and what it ran: the machine of the client, the user's repository and the server.

use std::path::Path;
use std::sync::LazyLock;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::plan::{Address, Backend};
use crate::probe::Probe;

mod cgroup;
mod git;
mod machine;

pub use cgroup::throttled;

/// What a run ran on. `null` is what the system does not say, or what does not apply.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Environment {
    /// Operating system.
    pub os: String,
    /// Release of its kernel.
    pub kernel: Option<String>,
    /// Processor architecture.
    pub arch: String,
    /// Processors that this process may use.
    pub cpus: Option<usize>,
    /// What the processor calls itself.
    pub cpu_model: Option<String>,
    /// How the processors' clocks are governed; several, where they are not alike, with `+` between them.
    pub cpu_governor: Option<String>,
    /// The most processors' worth of time that the cgroup gives this process.
    pub cgroup_cpus: Option<f64>,
    /// Memory of the machine, MiB.
    pub memory_total_mib: Option<u64>,
    /// The most memory that the cgroup gives this process, MiB.
    pub cgroup_memory_mib: Option<u64>,
    /// Names of the GPUs that were watched.
    pub gpus: Option<Vec<String>>,
    /// Version of their driver.
    pub gpu_driver: Option<String>,
    /// Version of CUDA that the driver has.
    pub cuda: Option<String>,
    /// The commit of the user's repository.
    pub git_commit: Option<String>,
    /// Whether files of the repository differ from that commit.
    pub git_dirty: Option<bool>,
    /// The version that the server says it is.
    pub server_version: Option<String>,
}

/// The fields in which two results must be alike to be compared. A release of the kernel or a few MiB of
/// memory more are no other machine, and another commit or server is what one compares.
pub const MATCHED: [&str; 10] = [
    "os",
    "arch",
    "cpus",
    "cpu_model",
    "cpu_governor",
    "cgroup_cpus",
    "cgroup_memory_mib",
    "gpus",
    "gpu_driver",
    "cuda",
];

impl Environment {
    /// That of this process and of the repository in whose folder it runs, found out once.
    pub fn here() -> &'static Self {
        static HERE: LazyLock<Environment> = LazyLock::new(|| Environment::detect(Path::new(".")));
        &HERE
    }

    /// That of this process, and of the repository that holds `package`. The GPUs and the server are for
    /// others to add. Runs `git`, which takes some milliseconds.
    pub fn detect(package: &Path) -> Self {
        let revision = git::revision(package);
        let cgroup = cgroup::limits();
        Self {
            os: std::env::consts::OS.to_owned(),
            kernel: machine::kernel(),
            arch: std::env::consts::ARCH.to_owned(),
            cpus: std::thread::available_parallelism().ok().map(usize::from),
            cpu_model: machine::cpu_model(),
            cpu_governor: machine::cpu_governor(),
            cgroup_cpus: cgroup.cpus,
            memory_total_mib: machine::memory_total_mib(),
            cgroup_memory_mib: cgroup.memory_mib,
            git_commit: revision.as_ref().map(|revision| revision.commit.clone()),
            git_dirty: revision.map(|revision| revision.dirty),
            ..Self::default()
        }
    }
}

/// The version that the backend's server says it is; `None` where it does not say, or takes longer than
/// `patience` to answer. Not for while requests are measured.
pub async fn server_version(
    backend: &Backend,
    address: &Address,
    patience: Duration,
) -> Option<String> {
    let probe = Probe::new(backend, &address.beside("/")).ok()?;
    probe.version(backend.kind, address, patience).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_this_machine_says_is_told() {
        let environment = Environment::detect(Path::new(env!("CARGO_MANIFEST_DIR")));
        assert_eq!(environment.os, std::env::consts::OS);
        assert!(environment.cpus.is_some_and(|cpus| 0 < cpus));
        if cfg!(target_os = "linux") {
            let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
            assert_eq!(environment.kernel.as_deref(), Some(kernel.trim()));
            assert!(environment.memory_total_mib.is_some_and(|memory| 64 < memory));
        }
        assert_eq!((environment.gpus, environment.server_version), (None, None));
    }

    #[test]
    fn every_field_that_is_matched_is_one() {
        let json = serde_json::to_value(Environment::default()).unwrap();
        let fields = json.as_object().unwrap();
        assert!(MATCHED.iter().all(|field| fields.contains_key(*field)));
        for other in ["git_commit", "git_dirty", "server_version", "kernel"] {
            assert!(fields.contains_key(other) && !MATCHED.contains(&other));
        }
    }

    #[test]
    fn a_result_of_before_is_read() {
        let before = r#"{"os": "linux", "arch": "x86_64", "cpus": 2, "cpu_model": null}"#;
        let environment: Environment = serde_json::from_str(before).unwrap();
        assert_eq!((environment.cpus, environment.git_commit), (Some(2), None));
    }
}
