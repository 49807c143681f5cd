//! What the system says of the machine. Only Linux says more than nothing.

/// Release of the kernel.
#[cfg(target_os = "linux")]
pub fn kernel() -> Option<String> {
    read("/proc/sys/kernel/osrelease")
}

/// What the processor calls itself.
#[cfg(target_os = "linux")]
pub fn cpu_model() -> Option<String> {
    let text = read("/proc/cpuinfo")?;
    let line = text.lines().find(|line| line.starts_with("model name"))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

/// How the processors' clocks are governed.
#[cfg(target_os = "linux")]
pub fn cpu_governor() -> Option<String> {
    let folders = std::fs::read_dir("/sys/devices/system/cpu/cpufreq").ok()?;
    let of = |folder: std::fs::DirEntry| read(folder.path().join("scaling_governor"));
    let all: std::collections::BTreeSet<String> = folders.flatten().filter_map(of).collect();
    (!all.is_empty()).then(|| Vec::from_iter(all).join("+"))
}

/// Memory of the machine, MiB.
#[cfg(target_os = "linux")]
pub fn memory_total_mib() -> Option<u64> {
    use procfs::Current as _;
    Some(procfs::Meminfo::current().ok()?.mem_total / (1024 * 1024))
}

#[cfg(target_os = "linux")]
fn read(path: impl AsRef<std::path::Path>) -> Option<String> {
    Some(std::fs::read_to_string(path).ok()?.trim().to_owned()).filter(|text| !text.is_empty())
}

/// Release of the kernel.
#[cfg(not(target_os = "linux"))]
pub fn kernel() -> Option<String> {
    None
}

/// What the processor calls itself.
#[cfg(not(target_os = "linux"))]
pub fn cpu_model() -> Option<String> {
    None
}

/// How the processors' clocks are governed.
#[cfg(not(target_os = "linux"))]
pub fn cpu_governor() -> Option<String> {
    None
}

/// Memory of the machine, MiB.
#[cfg(not(target_os = "linux"))]
pub fn memory_total_mib() -> Option<u64> {
    None
}
