//! What processes use, from /proc, under the names that every exporter gives it.

use std::fs;
use std::sync::LazyLock;
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::param::{clock_ticks_per_second, page_size};
use rustix::process::{Resource, getrlimit};
use rustix::time::{ClockId, clock_gettime};

/// The use of some processes together; what cannot be read of one that has just gone counts as nothing.
#[derive(Default)]
pub(super) struct Usage {
    seconds: f64,
    bytes: u64,
    descriptors: u64,
    most_descriptors: u64,
    /// When the first of them began, in seconds since 1970.
    began: f64,
}

impl Usage {
    pub(super) fn of(processes: &[u32]) -> Self {
        let mut usage = Self { began: f64::MAX, ..Self::default() };
        let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
        for process in processes {
            let Some(stat) = Stat::of(*process) else { continue };
            let ticks = clock_ticks_per_second() as f64;
            usage.seconds += stat.ticks as f64 / ticks;
            usage.bytes += stat.pages * page_size() as u64;
            usage.began = usage.began.min(*BOOTED + stat.began as f64 / ticks);
            usage.descriptors += fs::read_dir(format!("/proc/{process}/fd")).map_or(0, |all| all.count() as u64);
            usage.most_descriptors = usage.most_descriptors.saturating_add(limit);
        }
        usage
    }

    /// Name, whether it goes up and down, what it is, and its value.
    pub(super) fn series(&self) -> [(&'static str, bool, &'static str, f64); 5] {
        [
            ("process_cpu_seconds_total", false, "Processor time, of user and system.", self.seconds),
            ("process_resident_memory_bytes", true, "Memory that is in use.", self.bytes as f64),
            ("process_open_fds", true, "Descriptors that are open.", self.descriptors as f64),
            ("process_max_fds", true, "Descriptors that may be open.", self.most_descriptors as f64),
            ("process_start_time_seconds", true, "When it began, in seconds since 1970.", self.began),
        ]
    }
}

/// When the machine was started, in seconds since 1970. /proc/stat says it too, but is kept from a service with ProcSubset=pid.
/// Worked out once: no process begins anew because somebody sets the clock.
static BOOTED: LazyLock<f64> = LazyLock::new(|| {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let up = clock_gettime(ClockId::Boottime);
    now.as_secs_f64() - up.tv_sec as f64 - up.tv_nsec as f64 / 1e9
});

/// The fields of /proc/PID/stat that matter here.
struct Stat {
    ticks: u64,
    began: u64,
    pages: u64,
}

impl Stat {
    fn of(process: u32) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
        // The name, in parentheses, may hold anything; the third field follows it.
        let fields: Vec<&str> = stat.rsplit_once(") ")?.1.split(' ').collect();
        let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
        // Those of its children that have ended, too: or a dead worker's time would be lost.
        Some(Self { ticks: (14..=17).map(field).sum::<Option<u64>>()?, began: field(22)?, pages: field(24)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_uses_something() {
        let usage = Usage::of(&[std::process::id()]);
        assert!(usage.bytes > 100_000 && usage.descriptors >= 3 && usage.began > 1e9);
        let twice = Usage::of(&[std::process::id(), std::process::id(), u32::MAX]);
        assert!(twice.descriptors >= 2 * usage.descriptors && twice.bytes > usage.bytes);
    }
}
