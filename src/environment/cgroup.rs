//! What Linux's cgroups leave to this process, of version 1 and of version 2.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::strain::Throttled;

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

/// Where the groups are.
const ROOT: &str = "/sys/fs/cgroup";

/// Those of this process.
pub fn limits() -> Limits {
    limits_in(Path::new(ROOT), &membership())
}

/// How often and for how long this process has been throttled by now: what its own group and all that it is in
/// have counted. `None` where none of them counts.
pub fn throttled() -> Option<Throttled> {
    throttled_in(Path::new(ROOT), &membership())
}

fn membership() -> String {
    fs::read_to_string("/proc/self/cgroup").unwrap_or_default()
}

/// A group's folder of a controller.
enum Folder {
    /// Version 2: that of all controllers.
    Unified(PathBuf),
    /// Version 1: that of a controller of its own.
    Of(String, PathBuf),
}

/// The folders, below `root`, of the groups of a process that is where `membership` says, and of all that they
/// are in. A container may not see the groups it is in, but its own as the root.
fn folders(root: &Path, membership: &str) -> Vec<Folder> {
    let mut folders = Vec::new();
    for line in membership.lines() {
        let mut parts = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (parts.next(), parts.next()) else { continue };
        for group in Path::new(path.trim_start_matches('/')).ancestors() {
            if controllers.is_empty() {
                folders.push(Folder::Unified(root.join(group)));
            }
            for controller in controllers.split(',') {
                let folder = root.join(controller).join(group);
                folders.push(Folder::Of(controller.to_owned(), folder));
            }
        }
    }
    folders
}

/// The tightest of a group and all that it is in holds.
fn limits_in(root: &Path, membership: &str) -> Limits {
    let mut limits = Limits::default();
    for folder in folders(root, membership) {
        match folder {
            Folder::Unified(folder) => limits.tighten(cpu_v2(&folder), memory_v2(&folder)),
            Folder::Of(controller, folder) => match controller.as_str() {
                "cpu" => limits.tighten(cpu_v1(&folder), None),
                "memory" => limits.tighten(None, memory_v1(&folder)),
                _ => {}
            },
        }
    }
    limits
}

fn throttled_in(root: &Path, membership: &str) -> Option<Throttled> {
    let counts = folders(root, membership).into_iter().filter_map(|folder| match folder {
        Folder::Unified(folder) => throttled_of(&folder, "throttled_usec", Duration::from_micros),
        Folder::Of(controller, folder) if controller == "cpu" => {
            throttled_of(&folder, "throttled_time", Duration::from_nanos)
        }
        Folder::Of(..) => None,
    });
    counts.reduce(|sum, more| Throttled {
        periods: sum.periods + more.periods,
        time: sum.time + more.time,
    })
}

/// What a group's `cpu.stat` counts; the time is named and measured as its version has it.
fn throttled_of(folder: &Path, time: &str, unit: fn(u64) -> Duration) -> Option<Throttled> {
    let text = fs::read_to_string(folder.join("cpu.stat")).ok()?;
    let count = |name: &str| {
        let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))?;
        value.trim().parse::<u64>().ok()
    };
    Some(Throttled { periods: count("nr_throttled")?, time: unit(count(time)?) })
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
    fn what_a_group_and_those_it_is_in_were_throttled_is_added_up() {
        let v2 = groups(&[
            ("cpu.stat", "usage_usec 9\nuser_usec 9\n"),
            ("a/cpu.stat", "usage_usec 9\nnr_periods 50\nnr_throttled 3\nthrottled_usec 60000\n"),
            ("a/b/cpu.stat", "usage_usec 9\nnr_periods 50\nnr_throttled 4\nthrottled_usec 1500\n"),
        ]);
        let expected = Throttled { periods: 7, time: Duration::from_micros(61_500) };
        assert_eq!(throttled_in(v2.path(), "0::/a/b\n"), Some(expected));
        let v1 = groups(&[
            (
                "cpu/x/cpu.stat",
                "nr_periods 9\nnr_throttled 2\nthrottled_time 80000000\nnr_bursts 0\n",
            ),
            ("cpuacct/x/cpu.stat", "nr_throttled 2\nthrottled_time 80000000\n"),
        ]);
        let expected = Throttled { periods: 2, time: Duration::from_millis(80) };
        assert_eq!(throttled_in(v1.path(), "3:cpuacct,cpu:/x\n0::/\n"), Some(expected));
        assert_eq!(throttled_in(v1.path(), "3:cpu:/elsewhere\n"), None);
        let before = Throttled { periods: 1, time: Duration::from_millis(50) };
        let since = Throttled { periods: 1, time: Duration::from_millis(30) };
        assert_eq!(expected.since(before), since);
    }

    #[test]
    fn no_limit_is_none() {
        let root = groups(&[("cpu/cpu.cfs_quota_us", "-1"), ("cpu/cpu.cfs_period_us", "100000")]);
        assert_eq!(limits_in(root.path(), "1:cpu:/\n0::/\nodd\n"), Limits::default());
        assert_eq!(limits_in(root.path(), ""), Limits::default());
    }
}
