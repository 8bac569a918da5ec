//! The allocator of every program that links this crate.

use std::fs::read_to_string;
use std::path::Path;
use std::sync::OnceLock;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Freed memory is kept while the process holds at most this part of what it may have.
const PART_KEPT: u64 = 16;

/// Gives what was freed back to the operating system at once, where the allocator would keep it for a second, if the process
/// holds much of the memory that it may have.
///
/// For the end of work whose memory nothing will ask for soon, as a segment's columns once it is written: it walks the
/// allocator's arenas, and what is allocated next faults its pages in again, which is a fifth of a load's time.
pub(crate) fn give_back() {
    let most = memory();
    let resident = kib_of("/proc/self/status".as_ref(), "VmRSS:");
    if let (Some(most), Some(resident)) = (most, resident)
        && resident <= most / PART_KEPT
    {
        return;
    }
    #[expect(
        unsafe_code,
        reason = "a C function that takes no pointer, and may be called from any thread at any time"
    )]
    unsafe {
        libmimalloc_sys::mi_collect(true);
    }
}

/// Whether the process's memory may be of huge pages from now on, where the system gives such at all.
///
/// The allocator asks for them. Without, what is touched for the first time is there sooner (much so in a virtual machine
/// that hands free memory back to its host), and less lies idle beside what is used; with them, tables of hashes beyond the
/// processor's caches are read and written faster. A system that knows no such switch leaves things as they are.
pub(crate) fn allow_huge_pages(allow: bool) {
    #[cfg(target_os = "linux")]
    if let Err(error) = rustix::thread::disable_transparent_huge_pages(!allow) {
        tracing::debug!(%error, allow, "huge pages stay as they are");
    }
    #[cfg(not(target_os = "linux"))]
    let _ = allow;
}

/// Bytes of memory that this process may have, as far as it can be told.
pub(crate) fn memory() -> Option<u64> {
    static MOST: OnceLock<Option<u64>> = OnceLock::new();
    *MOST.get_or_init(|| memory_max(Path::new("/proc"), Path::new("/sys/fs/cgroup")))
}

/// Bytes of memory that the process may have: the machine's, or what its control groups (of either version) allow.
fn memory_max(proc: &Path, groups: &Path) -> Option<u64> {
    let machine = kib_of(&proc.join("meminfo"), "MemTotal:");
    let own = read_to_string(proc.join("self/cgroup")).unwrap_or_default();
    let limits = own.lines().flat_map(|line| {
        let mut fields = line.splitn(3, ':').skip(1);
        let (controllers, group) = (fields.next(), fields.next().unwrap_or("/"));
        let (folder, file) = match controllers {
            Some("") => (groups.to_owned(), "memory.max"),
            _ => (groups.join("memory"), "memory.limit_in_bytes"),
        };
        let concerns =
            controllers.is_some_and(|c| c.is_empty() || c.split(',').any(|c| c == "memory"));
        let groups = Path::new(group.trim_start_matches('/')).ancestors();
        let limits: Vec<u64> = groups
            .filter(|_| concerns)
            .filter_map(|group| {
                read_to_string(folder.join(group).join(file))
                    .ok()?
                    .trim()
                    .parse()
                    .ok()
            })
            .collect();
        limits
    });
    limits.chain(machine).min()
}

/// A field of kibibytes in a file of `/proc`, in bytes.
fn kib_of(file: &Path, field: &str) -> Option<u64> {
    let text = read_to_string(file).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(field))?;
    let kib: u64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{create_dir_all, write};

    #[cfg(target_os = "linux")]
    #[test]
    fn huge_pages_are_switched_off_and_on() {
        let disabled = || rustix::thread::transparent_huge_pages_are_disabled();
        let Ok(before) = disabled() else { return };
        allow_huge_pages(false);
        assert_eq!(disabled(), Ok(true));
        allow_huge_pages(true);
        assert_eq!(disabled(), Ok(false));
        allow_huge_pages(!before);
    }

    #[test]
    fn the_tightest_limit_counts() {
        let root = tempfile::tempdir().unwrap();
        let (proc, groups) = (root.path().join("proc"), root.path().join("groups"));
        create_dir_all(proc.join("self")).unwrap();
        create_dir_all(groups.join("memory/a/b")).unwrap();
        create_dir_all(groups.join("c/d")).unwrap();
        assert_eq!(memory_max(&proc, &groups), None);
        write(proc.join("meminfo"), "MemFree: 1 kB\nMemTotal:   8000 kB\n").unwrap();
        assert_eq!(memory_max(&proc, &groups), Some(8000 << 10));
        write(proc.join("self/cgroup"), "5:cpu:/a\n4:cpuset,memory:/a/b\n").unwrap();
        write(groups.join("memory/a/memory.limit_in_bytes"), "4096000\n").unwrap();
        write(
            groups.join("memory/a/b/memory.limit_in_bytes"),
            "9223372036854771712\n",
        )
        .unwrap();
        assert_eq!(memory_max(&proc, &groups), Some(4_096_000));
        write(proc.join("self/cgroup"), "0::/c/d\n").unwrap();
        write(groups.join("c/d/memory.max"), "max\n").unwrap();
        assert_eq!(memory_max(&proc, &groups), Some(8000 << 10));
        write(groups.join("c/memory.max"), "1000\n").unwrap();
        assert_eq!(memory_max(&proc, &groups), Some(1000));
    }
}
