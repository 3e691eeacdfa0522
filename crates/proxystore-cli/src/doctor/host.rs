//! What every endpoint needs of this host.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use proxystore_endpoint::config::size;
use rustix::fs::{Access, access, statvfs};
use rustix::process::{Resource, getrlimit};

use super::Findings;

/// Fewer open files than this are not enough for the clients that may be connected at once.
const FILES: u64 = 4096;
/// Less shared memory than this hands over few large objects.
const SHARED: u64 = 256 << 20;

pub(super) fn look(home: &Path, findings: &mut Findings<'_>) {
    directory(home, findings);
    shared_memory(findings);
    // Daemons raise their limit to what is allowed.
    match getrlimit(Resource::Nofile).maximum {
        Some(files) if files < FILES => findings.warning(
            "open files",
            format!("a process may have {files} open"),
            "raise the limit before a daemon starts: `ulimit -Hn 65536`",
        ),
        files => findings.ok(
            "open files",
            files.map_or("no limit".into(), |files| format!("a process may have {files} open")),
        ),
    }
}

fn directory(home: &Path, findings: &mut Findings<'_>) {
    const WHAT: &str = "home";
    let elsewhere = "set PROXYSTORE_HOME to a directory that is yours alone";
    let there = existing(home);
    if let Err(error) = access(&there, Access::WRITE_OK | Access::EXEC_OK) {
        return findings.problem(WHAT, format!("{}: {error}", there.display()), elsewhere);
    }
    let mode = fs::metadata(home).map_or(0, |meta| meta.permissions().mode());
    if mode & 0o022 != 0 {
        return findings.problem(
            WHAT,
            format!("others may write in {}", home.display()),
            format!("chmod go-w {}", home.display()),
        );
    }
    findings.ok(WHAT, home.display().to_string());
    match free(&there) {
        Some((_, free)) if free < 1 << 30 => findings.warning(
            "disk",
            format!("{} are free at {}", megabytes(free), there.display()),
            "make room, or lower `disk` in section [storage]",
        ),
        Some((_, free)) => findings.ok("disk", format!("{} are free", megabytes(free))),
        None => {}
    }
}

/// The path, or the first above it that exists.
fn existing(path: &Path) -> PathBuf {
    path.ancestors().find(|path| path.exists()).unwrap_or(path).to_owned()
}

fn shared_memory(findings: &mut Findings<'_>) {
    const WHAT: &str = "shared memory";
    let remedy =
        "give it more, in containers by `--shm-size=4g`; until then objects go over sockets";
    match free(Path::new("/dev/shm")) {
        None => findings.warning(WHAT, "there is no /dev/shm", remedy),
        Some((total, free)) => {
            let found = format!("{} of {} are free", megabytes(free), megabytes(total));
            if free < SHARED {
                findings.warning(WHAT, found, remedy);
            } else {
                findings.ok(WHAT, found);
            }
        }
    }
}

/// Bytes that a filesystem has, and that are free in it.
pub(super) fn free(path: &Path) -> Option<(u64, u64)> {
    let stat = statvfs(path).ok()?;
    Some((stat.f_blocks * stat.f_frsize, stat.f_bavail * stat.f_frsize))
}

/// Bytes that the host has for programs.
pub(super) fn available_memory() -> Option<u64> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kilobytes| kilobytes * 1024)
}

/// For people: whole megabytes.
pub(super) fn megabytes(bytes: u64) -> String {
    size::format(bytes / 1_000_000 * 1_000_000)
}
