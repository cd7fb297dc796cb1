//! The rate limit of the log: at most ten lines per second from one place in the source code. The others are
//! counted. Lines that appear only with -v or -vv have no limit; see `logging::format`.

use std::collections::HashMap;
use std::mem::take;
use std::time::{Duration, Instant};

use log::{Level, Record};

/// The kind of a line: its place in the source code.
type SourceLocation = (Option<&'static str>, Option<u32>);

#[derive(Default)]
pub(super) struct RateLimit {
    kinds: HashMap<SourceLocation, Kind>,
}

struct Kind {
    /// When the current second began.
    second: Instant,
    lines: u32,
    left_out: u64,
    /// The last line that was written in a second, which stands for those that were left out after it.
    latest: (Level, String),
}

impl RateLimit {
    /// Returns `None` if the line must be suppressed, otherwise the number of suppressed lines of its kind before it.
    pub(super) fn admit(&mut self, line: &Record<'_>, now: Instant) -> Option<u64> {
        let fresh = || Kind { second: now, lines: 0, left_out: 0, latest: (line.level(), String::new()) };
        let kind = self.kinds.entry((line.file_static(), line.line())).or_insert_with(fresh);
        if now.duration_since(kind.second) >= Duration::from_secs(1) {
            kind.second = now;
            kind.lines = 0;
        }
        if kind.lines == LINES_A_SECOND {
            kind.left_out += 1;
            return None;
        }
        kind.lines += 1;
        if kind.lines == LINES_A_SECOND {
            kind.latest = (line.level(), line.args().to_string());
        }
        Some(take(&mut kind.left_out))
    }

    /// Returns a line for each kind that has suppressed lines which no line mentions yet, and whose current second
    /// began at least `age` ago.
    pub(super) fn take_suppressed(&mut self, age: Duration) -> impl Iterator<Item = (Level, String)> {
        self.kinds.values_mut().filter(move |kind| kind.left_out > 0 && kind.second.elapsed() >= age).map(|kind| {
            let (level, latest) = &kind.latest;
            (*level, format!("{} more lines were left out that are like: {latest}", take(&mut kind.left_out)))
        })
    }
}

/// The most lines of one kind per second.
const LINES_A_SECOND: u32 = 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn some_lines_of_a_kind_in_a_second_and_the_rest_is_counted() {
        let mut limit = RateLimit::default();
        let begin = Instant::now();
        let mut admit = |line, now| {
            let text = format_args!("the text");
            let record = Record::builder().file_static(Some("a")).line(Some(line)).args(text).build();
            limit.admit(&record, now)
        };
        assert!((0..10).all(|_| admit(1, begin) == Some(0)));
        assert!((0..5).all(|_| admit(1, begin).is_none()));
        assert_eq!(admit(2, begin), Some(0));
        let later = begin + Duration::from_secs(1);
        assert_eq!(admit(1, later), Some(5));
        assert!((0..9).all(|_| admit(1, later) == Some(0)));
        assert!((0..7).all(|_| admit(1, later).is_none()));
        assert_eq!(limit.take_suppressed(Duration::from_secs(60)).count(), 0);
        let suppressed: Vec<_> = limit.take_suppressed(Duration::ZERO).collect();
        assert_eq!(suppressed, [(Level::Info, "7 more lines were left out that are like: the text".to_owned())]);
        assert_eq!(limit.take_suppressed(Duration::ZERO).count(), 0);
    }
}
