//! What Linux's cgroups leave to this process, of version 1 and of version 2.

use std::fs;
use std::path::Path;

/// The limits that hold; `None` where there is none.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Limits {
    /// Processors' worth of time.
    pub cpus: Option<f64>,
    /// Memory, MiB.
    pub memory_mib: Option<u64>,
}

/// Version 1 writes "no limit" as the largest number of pages' bytes.
const NO_LIMIT_V1: u64 = 1 << 60;

/// Those of this process.
pub fn limits() -> Limits {
    let membership = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    limits_in(Path::new("/sys/fs/cgroup"), &membership)
}

/// Those of a process that is where `membership` says, below `root`. The tightest of a group and all that
/// it is in holds. A container may not see the groups it is in, but its own as the root.
fn limits_in(root: &Path, membership: &str) -> Limits {
    let mut limits = Limits::default();
    for line in membership.lines() {
        let mut parts = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (parts.next(), parts.next()) else { continue };
        for group in Path::new(path.trim_start_matches('/')).ancestors() {
            if controllers.is_empty() {
                let folder = root.join(group);
                limits.tighten(cpu_v2(&folder), memory_v2(&folder));
            }
            for controller in controllers.split(',') {
                let folder = root.join(controller).join(group);
                match controller {
                    "cpu" => limits.tighten(cpu_v1(&folder), None),
                    "memory" => limits.tighten(None, memory_v1(&folder)),
                    _ => {}
                }
            }
        }
    }
    limits
}

impl Limits {
    fn tighten(&mut self, cpus: Option<f64>, memory_bytes: Option<u64>) {
        let memory_mib = memory_bytes.map(|bytes| bytes / (1024 * 1024));
        self.cpus = [self.cpus, cpus].into_iter().flatten().reduce(f64::min);
        self.memory_mib = [self.memory_mib, memory_mib].into_iter().flatten().min();
    }
}

/// `QUOTA PERIOD`, or `max PERIOD`.
fn cpu_v2(folder: &Path) -> Option<f64> {
    let text = fs::read_to_string(folder.join("cpu.max")).ok()?;
    let (quota, period) = text.trim().split_once(' ')?;
    Some(quota.parse::<f64>().ok()? / period.parse::<f64>().ok()?)
}

/// Bytes, or `max`.
fn memory_v2(folder: &Path) -> Option<u64> {
    number(&folder.join("memory.max"))
}

/// A quota of -1 is none.
fn cpu_v1(folder: &Path) -> Option<f64> {
    let quota = number(&folder.join("cpu.cfs_quota_us"))?;
    let period = number(&folder.join("cpu.cfs_period_us"))?;
    Some(quota as f64 / period as f64)
}

fn memory_v1(folder: &Path) -> Option<u64> {
    number(&folder.join("memory.limit_in_bytes")).filter(|bytes| *bytes < NO_LIMIT_V1)
}

fn number(path: &Path) -> Option<u64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn groups(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        root
    }

    #[test]
    fn the_tightest_limit_of_version_2_holds() {
        let root = groups(&[
            ("a/cpu.max", "150000 100000\n"),
            ("a/memory.max", "max\n"),
            ("a/b/cpu.max", "max 100000\n"),
            ("a/b/memory.max", "2147483648\n"),
        ]);
        let limits = limits_in(root.path(), "0::/a/b\n");
        assert_eq!(limits, Limits { cpus: Some(1.5), memory_mib: Some(2048) });
    }

    #[test]
    fn version_1_has_a_folder_for_each_controller() {
        let root = groups(&[
            ("cpu/x/cpu.cfs_quota_us", "200000\n"),
            ("cpu/x/cpu.cfs_period_us", "100000\n"),
            ("memory/x/memory.limit_in_bytes", "9223372036854771712\n"),
            ("memory/memory.limit_in_bytes", "1073741824\n"),
        ]);
        let membership = "4:memory:/x\n3:cpuacct,cpu:/x\n1:name=systemd:/\n0::/\n";
        let limits = limits_in(root.path(), membership);
        assert_eq!(limits, Limits { cpus: Some(2.0), memory_mib: Some(1024) });
    }

    #[test]
    fn a_container_sees_its_own_group_as_the_root() {
        let root = groups(&[("cpu.max", "50000 100000"), ("memory.max", "1048576")]);
        let limits = limits_in(root.path(), "0::/docker/0123/not/here\n");
        assert_eq!(limits, Limits { cpus: Some(0.5), memory_mib: Some(1) });
    }

    #[test]
    fn no_limit_is_none() {
        let root = groups(&[("cpu/cpu.cfs_quota_us", "-1"), ("cpu/cpu.cfs_period_us", "100000")]);
        assert_eq!(limits_in(root.path(), "1:cpu:/\n0::/\nodd\n"), Limits::default());
        assert_eq!(limits_in(root.path(), ""), Limits::default());
    }
}
