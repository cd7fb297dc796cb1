//! Resource usage of processes, read from /proc, under the names that Prometheus client libraries use.

use std::fs;
use std::sync::LazyLock;
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::param::{clock_ticks_per_second, page_size};
use rustix::process::{Resource, getrlimit};
use rustix::time::{ClockId, clock_gettime};

/// The total resource usage of some processes. Processes that have just ended are left out. A value is `None` if it
/// could be read for none of them, for example without /proc.
#[derive(Default)]
pub(super) struct ProcStats {
    seconds: Option<f64>,
    bytes: Option<f64>,
    descriptors: Option<f64>,
    most_descriptors: Option<f64>,
    /// The start time of the oldest process, in seconds since 1970.
    began: Option<f64>,
}

impl ProcStats {
    pub(super) fn of(processes: &[u32]) -> Self {
        let mut usage = Self::default();
        let limit = getrlimit(Resource::Nofile).current;
        for process in processes {
            let Some(stat) = Stat::of(*process) else { continue };
            let ticks = clock_ticks_per_second() as f64;
            add(&mut usage.seconds, stat.ticks as f64 / ticks);
            add(&mut usage.bytes, stat.pages as f64 * page_size() as f64);
            let began = *BOOTED + stat.began as f64 / ticks;
            usage.began = Some(usage.began.map_or(began, |first| first.min(began)));
            if let Ok(all) = fs::read_dir(format!("/proc/{process}/fd")) {
                add(&mut usage.descriptors, all.count() as f64);
            }
            limit.iter().for_each(|limit| add(&mut usage.most_descriptors, *limit as f64));
        }
        usage
    }

    /// Returns each time series that could be read: its name, whether it is a gauge, its help text, and its value.
    pub(super) fn series(&self) -> impl Iterator<Item = (&'static str, bool, &'static str, f64)> {
        let all = [
            ("process_cpu_seconds_total", false, "Processor time, of user and system.", self.seconds),
            ("process_resident_memory_bytes", true, "Memory that is in use.", self.bytes),
            ("process_open_fds", true, "Descriptors that are open.", self.descriptors),
            ("process_max_fds", true, "Descriptors that may be open.", self.most_descriptors),
            ("process_start_time_seconds", true, "When it began, in seconds since 1970.", self.began),
        ];
        all.into_iter().filter_map(|(name, is_gauge, help, value)| Some((name, is_gauge, help, value?)))
    }
}

fn add(sum: &mut Option<f64>, value: f64) {
    *sum = Some(sum.unwrap_or(0.0) + value);
}

/// The time when the machine was started, in seconds since 1970. /proc/stat has it too, but is hidden from a
/// service with ProcSubset=pid. It is computed once: a change of the clock must not look like a restart.
static BOOTED: LazyLock<f64> = LazyLock::new(|| {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let up = clock_gettime(ClockId::Boottime);
    now.as_secs_f64() - up.tv_sec as f64 - up.tv_nsec as f64 / 1e9
});

/// The fields of /proc/PID/stat that are used here.
struct Stat {
    ticks: u64,
    began: u64,
    pages: u64,
}

impl Stat {
    fn of(process: u32) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
        // The name, in parentheses, may contain any byte. The third field follows it.
        let fields: Vec<&str> = stat.rsplit_once(") ")?.1.split(' ').collect();
        let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
        // Includes children that have ended: otherwise the processor time of a dead worker would be lost.
        Some(Self { ticks: (14..=17).map(field).sum::<Option<u64>>()?, began: field(22)?, pages: field(24)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_uses_something() {
        let usage = ProcStats::of(&[std::process::id()]);
        assert!(usage.bytes > Some(100_000.0) && usage.descriptors >= Some(3.0) && usage.began > Some(1e9));
        // A hundred, because other tests open and close descriptors of this process at the same time.
        let sum = ProcStats::of(&[[std::process::id(); 100].as_slice(), &[u32::MAX]].concat());
        assert!(sum.descriptors >= Some(300.0) && sum.bytes > usage.bytes.map(|bytes| 50.0 * bytes));
        assert_eq!(usage.series().count(), 5);
    }

    #[test]
    fn what_cannot_be_read_is_left_out() {
        assert_eq!(ProcStats::of(&[u32::MAX]).series().count(), 0);
    }
}
