//! A log that cannot hurt: lines are handed to a thread of its own, and lost rather than waited for.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Write};
use std::panic;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result};
use env_logger::fmt::Formatter;
use env_logger::{Builder, Target};
use log::{Level, LevelFilter, Record};

use super::options::Options;
use super::take_over;

/// The way to the log's thread, once it runs.
static LOG: OnceLock<SyncSender<Entry>> = OnceLock::new();

/// Whether the log goes to a file.
static HAS_FILE: AtomicBool = AtomicBool::new(false);

enum Entry {
    Line(Vec<u8>),
    Flush(SyncSender<()>),
}

/// Starts the log: to a file, to stderr, or to nobody when stderr is the client's.
pub(super) fn start(options: &Options) -> Result<()> {
    let output: Box<dyn Write + Send> =
        match &options.log_file {
            Some(path) => {
                Box::new(File::options().create(true).append(true).open(path).with_context(|| {
                    format!("cannot write the log file {}: choose another --log-file", path.display())
                })?)
            }
            None if take_over::stderr_is_stdin() => Box::new(io::sink()),
            None => Box::new(io::stderr()),
        };
    let (sender, entries) = sync_channel(LINES_WAITING);
    thread::Builder::new()
        .name("log".into())
        .spawn(|| write(entries, output))
        .context("cannot start a thread: raise the limit of them")?;
    let _ = LOG.set(sender.clone());
    HAS_FILE.store(options.log_file.is_some(), Ordering::Relaxed);

    let level = match (options.quiet, options.verbose) {
        (true, _) => LevelFilter::Error,
        (false, 0) => LevelFilter::Info,
        (false, 1) => LevelFilter::Debug,
        (false, _) => LevelFilter::Trace,
    };
    let mut builder = Builder::new();
    let filters = std::env::var("RUST_LOG").ok();
    // env_logger would say on stderr what it does not understand: that may be the client's, or stuck.
    let is_understood = |filters: &&String| env_filter::Builder::new().try_parse(filters).is_ok();
    match filters.as_ref().filter(is_understood) {
        Some(filters) => _ = builder.parse_filters(filters),
        None => {
            builder.filter_level(level.min(LevelFilter::Warn));
            OWN.iter().for_each(|module| _ = builder.filter_module(module, level));
        }
    }
    let valve = Mutex::new(Valve::default());
    builder.format(move |line, record| format(line, record, &valve));
    builder.target(Target::Pipe(Box::new(Lines { sender, lost: 0 }))).init();
    if filters.as_ref().is_some_and(|filters| !is_understood(&filters)) {
        log::warn!("RUST_LOG is not understood, and ignored");
    }
    panic::set_hook(Box::new(|panic| log::error!("{}", panic.to_string().replace('\n', " "))));
    Ok(())
}

/// Waits until the log so far is written, but not for long.
pub(super) fn flush() {
    let (done, written) = sync_channel(0);
    if LOG.get().is_some_and(|log| log.try_send(Entry::Flush(done)).is_ok()) {
        let _ = written.recv_timeout(LAST_WORDS);
    }
}

/// The one line that says why the process ends. It goes to stderr, unless that is the client's, and to the
/// log if that goes elsewhere.
pub(super) fn complain(line: &str) {
    if HAS_FILE.load(Ordering::Relaxed) {
        log::error!("{line}");
    }
    flush();
    if !take_over::stderr_is_stdin() {
        // Should stderr be stuck, it must not keep the process.
        let line = format!("{line}\n");
        let (done, written) = sync_channel(0);
        let write = {
            let line = line.clone();
            move || {
                let _ = io::stderr().write_all(line.as_bytes());
                let _ = done.send(());
            }
        };
        match thread::Builder::new().spawn(write) {
            Ok(_) => _ = written.recv_timeout(LAST_WORDS),
            Err(_) => _ = io::stderr().write_all(line.as_bytes()), // no thread is to be had: that may be what it says
        }
    }
}

fn format(line: &mut Formatter, record: &Record<'_>, valve: &Mutex<Valve>) -> io::Result<()> {
    let kind = (record.file_static(), record.line());
    let mut left_out = 0;
    if record.level() <= Level::Info {
        let mut valve = valve.lock().unwrap_or_else(PoisonError::into_inner);
        match valve.admit(kind, Instant::now()) {
            Some(count) => left_out = count,
            None => return Ok(()),
        }
    }
    let time = humantime::format_rfc3339_millis(SystemTime::now());
    let thread = thread::current();
    let thread = thread.name().unwrap_or("?");
    write!(line, "{time} [{} {}/{thread}] {}", record.level(), std::process::id(), record.args())?;
    if left_out > 0 {
        write!(line, " (and {left_out} more like it)")?;
    }
    writeln!(line)
}

/// Lets some lines of each kind through in a second, and counts the rest. A kind is a place in the source,
/// so there are few.
#[derive(Default)]
struct Valve {
    kinds: HashMap<(Option<&'static str>, Option<u32>), Kind>,
}

struct Kind {
    second: Instant,
    lines: u32,
    left_out: u64,
}

impl Valve {
    /// Whether to write a line of `kind`; if so, how many were left out before it.
    fn admit(&mut self, kind: (Option<&'static str>, Option<u32>), now: Instant) -> Option<u64> {
        let kind = self.kinds.entry(kind).or_insert(Kind { second: now, lines: 0, left_out: 0 });
        if now.duration_since(kind.second) >= Duration::from_secs(1) {
            kind.second = now;
            kind.lines = 0;
        }
        if kind.lines == LINES_A_SECOND {
            kind.left_out += 1;
            return None;
        }
        kind.lines += 1;
        Some(std::mem::take(&mut kind.left_out))
    }
}

/// Hands lines over without waiting.
struct Lines {
    sender: SyncSender<Entry>,
    lost: u64,
}

impl Write for Lines {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if line.is_empty() {
            return Ok(0);
        }
        let mut entry = line.to_vec();
        if self.lost > 0 {
            entry.extend(format!("({} lines of the log were lost before this)\n", self.lost).as_bytes());
        }
        match self.sender.try_send(Entry::Line(entry)) {
            Ok(()) => self.lost = 0,
            Err(_) => self.lost += 1,
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The log's thread. What cannot be written is nobody's business: the clients come first.
fn write(entries: Receiver<Entry>, mut output: Box<dyn Write + Send>) {
    for entry in entries {
        match entry {
            Entry::Line(line) => _ = output.write_all(&line),
            Entry::Flush(done) => _ = done.try_send(()),
        }
    }
}

/// Whose lines -v is about; the libraries only warn.
const OWN: [&str; 2] = ["zen_", "raw"];

/// Lines of one kind that are written in a second: enough to see what is going on.
const LINES_A_SECOND: u32 = 10;

/// Lines on their way to the log's thread, so that a stuck stderr costs at most some 100 KiB.
const LINES_WAITING: usize = 1024;

/// What a process gives its stderr to take the last lines.
const LAST_WORDS: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn some_lines_of_a_kind_in_a_second_and_the_rest_is_counted() {
        let mut valve = Valve::default();
        let begin = Instant::now();
        let (one, other) = ((Some("a"), Some(1)), (Some("a"), Some(2)));
        assert!((0..10).all(|_| valve.admit(one, begin) == Some(0)));
        assert!((0..5).all(|_| valve.admit(one, begin).is_none()));
        assert_eq!(valve.admit(other, begin), Some(0));
        let later = begin + Duration::from_secs(1);
        assert_eq!(valve.admit(one, later), Some(5));
        assert_eq!(valve.admit(one, later), Some(0));
    }
}
