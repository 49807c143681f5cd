//! Asks the kernel to run a thread as soon as it is woken.

/// Lets this thread be run when its time comes, and not when whoever has the processor has had enough of
/// it: as a rule one waits for that up to some milliseconds where all processors are at work. For a thread
/// that mostly sleeps. Where the system knows no such thing, nothing changes.
#[cfg(target_os = "linux")]
pub fn be_punctual() {
    // What fails leaves things as they are, and lateness says what that costs.
    let _ = nix::sys::prctl::set_timerslack(1);
    let _ = linux::ask_for_slice(linux::SLICE);
}

/// Lets this thread be run when its time comes. This system knows no such thing.
#[cfg(not(target_os = "linux"))]
pub fn be_punctual() {}

#[cfg(target_os = "linux")]
mod linux {
    use std::mem;
    use std::time::Duration;

    use nix::errno::Errno;
    use nix::libc;

    /// How long the thread wants a processor for at a time. One that asks for less than the one that runs is
    /// let in at once (since Linux 6.12); what others have is 0.7 ms or more. It is enough for the writes of a
    /// burst: with much less the thread would be put aside among them.
    pub const SLICE: Duration = Duration::from_micros(500);
    const NO_FLAGS: libc::c_uint = 0;

    /// Asks for so long a slice for this thread, and changes nothing else: sched_setattr(2). No privilege is
    /// needed.
    pub fn ask_for_slice(slice: Duration) -> nix::Result<()> {
        let mut attributes = attributes()?;
        if !matches!(attributes.sched_policy as i32, libc::SCHED_OTHER | libc::SCHED_BATCH) {
            return Ok(());
        }
        attributes.sched_runtime = slice.as_nanos() as u64;
        #[expect(unsafe_code, reason = "no crate has a call for it")]
        // SAFETY: `attributes` is a whole `sched_attr` that lives longer than the call, and says how long it
        // is; the kernel only reads it.
        let result =
            unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attributes, NO_FLAGS) };
        Errno::result(result).map(drop)
    }

    /// How this thread is scheduled: sched_getattr(2).
    pub fn attributes() -> nix::Result<libc::sched_attr> {
        let size = mem::size_of::<libc::sched_attr>() as u32;
        let mut attributes = libc::sched_attr {
            size,
            sched_policy: 0,
            sched_flags: 0,
            sched_nice: 0,
            sched_priority: 0,
            sched_runtime: 0,
            sched_deadline: 0,
            sched_period: 0,
        };
        #[expect(unsafe_code, reason = "no crate has a call for it")]
        // SAFETY: the kernel writes no more than `size` bytes, which is how long `attributes` is.
        let result = unsafe {
            libc::syscall(libc::SYS_sched_getattr, 0, &raw mut attributes, size, NO_FLAGS)
        };
        Errno::result(result).map(|_| attributes)
    }
}

#[cfg(test)]
mod tests {
    #[cfg(target_os = "linux")]
    #[test]
    fn a_punctual_thread_asks_for_a_short_slice_and_keeps_its_priority() {
        use super::*;

        let seen = std::thread::spawn(|| {
            let before = linux::attributes().unwrap();
            be_punctual();
            let after = linux::attributes().unwrap();
            assert_eq!(after.sched_policy, before.sched_policy);
            assert_eq!(after.sched_nice, before.sched_nice);
            assert_eq!(nix::sys::prctl::get_timerslack(), Ok(1));
            (before.sched_runtime, after.sched_runtime)
        });
        // Kernels before 6.12 say nothing of slices.
        let (before, after) = seen.join().unwrap();
        let asked = linux::SLICE.as_nanos() as u64;
        assert!(after == before || after == asked, "{before} ns, then {after} ns");
        assert!(before == 0 || after == asked, "the kernel knows slices, and gave {after} ns");
    }
}
