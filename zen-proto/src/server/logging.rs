//! A log that cannot hurt: lines are handed to a thread of its own, and lost rather than waited for.

use std::fs::File;
use std::io::{self, Write};
use std::panic;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{LazyLock, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result};
use env_logger::fmt::Formatter;
use env_logger::{Builder, Target};
use log::{Level, LevelFilter, Record};

use super::options::Options;
use super::take_over;
use super::valve::Valve;

/// The way to the log's thread, once it runs.
static LOG: OnceLock<SyncSender<Entry>> = OnceLock::new();

/// Whether the log goes to a file.
static HAS_FILE: AtomicBool = AtomicBool::new(false);

/// Whether it goes to systemd's journal.
static HAS_JOURNAL: AtomicBool = AtomicBool::new(false);

/// What keeps it from being flooded.
static VALVE: LazyLock<Mutex<Valve>> = LazyLock::new(Mutex::default);

enum Entry {
    Line(Vec<u8>),
    Flush(SyncSender<()>),
}

/// Starts the log: to a file, to stderr, or to nobody when stderr is the client's.
pub(super) fn start(options: &Options, program: &str) -> Result<()> {
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
        .spawn(move || write(&entries, output))
        .context("cannot start a thread: raise the limit of them")?;
    let _ = LOG.set(sender.clone());
    HAS_FILE.store(options.log_file.is_some(), Ordering::Relaxed);
    HAS_JOURNAL.store(options.log_file.is_none() && stderr_is_journal(), Ordering::Relaxed);

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
            [CHASSIS, program].iter().for_each(|module| _ = builder.filter_module(module, level));
        }
    }
    builder.format(format);
    builder.target(Target::Pipe(Box::new(Lines { sender, lost: 0 }))).init();
    if filters.as_ref().is_some_and(|filters| !is_understood(&filters)) {
        log::warn!("RUST_LOG is not understood, and ignored");
    }
    panic::set_hook(Box::new(|panic| log::error!("{}", panic.to_string().replace('\n', " "))));
    Ok(())
}

/// Waits until the log so far is written, but not for long.
pub(super) fn flush() {
    let Some(log) = LOG.get() else { return };
    let end = Instant::now() + LAST_WORDS;
    let (done, written) = sync_channel(1);
    while log.try_send(Entry::Flush(done.clone())).is_err() {
        if Instant::now() >= end {
            return;
        }
        thread::sleep(Duration::from_millis(5)); // it is behind
    }
    let _ = written.recv_timeout(end.saturating_duration_since(Instant::now()));
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
        let line = format!("{}{line}\n", if stderr_is_journal() { "<3>" } else { "" });
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

fn format(line: &mut Formatter, record: &Record<'_>) -> io::Result<()> {
    let mut left_out = 0;
    if record.level() <= Level::Info {
        match valve().admit(record, Instant::now()) {
            Some(count) => left_out = count,
            None => return Ok(()),
        }
    }
    write!(line, "{} {}", head(record.level()), record.args())?;
    if left_out > 0 {
        write!(line, " (and {left_out} more like it)")?;
    }
    writeln!(line)
}

/// What a line begins with: when, how bad, and who says it.
fn head(level: Level) -> String {
    let thread = thread::current();
    let thread = thread.name().unwrap_or("?");
    if HAS_JOURNAL.load(Ordering::Relaxed) {
        return format!("<{}>[{thread}]", priority(level)); // the journal knows time and process
    }
    let time = humantime::format_rfc3339_millis(SystemTime::now());
    format!("{time} [{level} {}/{thread}]", std::process::id())
}

fn valve() -> MutexGuard<'static, Valve> {
    VALVE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// As syslog(3) counts them: less is worse.
fn priority(level: Level) -> u8 {
    match level {
        Level::Error => 3,
        Level::Warn => 4,
        Level::Info => 6,
        Level::Debug | Level::Trace => 7,
    }
}

/// systemd says in JOURNAL_STREAM which file is its journal (systemd.exec(5)).
fn stderr_is_journal() -> bool {
    let Ok(journal) = std::env::var("JOURNAL_STREAM") else { return false };
    rustix::fs::fstat(io::stderr()).is_ok_and(|stderr| journal == format!("{}:{}", stderr.st_dev, stderr.st_ino))
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
        let mut entry = Vec::new();
        if self.lost > 0 {
            let text = format!("{} {} lines of the log were lost before this\n", head(Level::Warn), self.lost);
            entry.extend_from_slice(text.as_bytes());
        }
        entry.extend_from_slice(line);
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
fn write(entries: &Receiver<Entry>, mut output: Box<dyn Write + Send>) {
    let mut settled = Instant::now();
    loop {
        // A second after the last line none of its kind is left out any more: time to tell how many were.
        let entry = entries.recv_timeout(SECOND).or_else(|_| {
            settle(&mut output, SECOND);
            entries.recv()
        });
        match entry {
            Ok(Entry::Line(line)) => _ = output.write_all(&line),
            Ok(Entry::Flush(done)) => {
                settle(&mut output, Duration::ZERO);
                let _ = done.try_send(());
            }
            Err(_) => return,
        }
        if settled.elapsed() >= SECOND {
            settled = Instant::now();
            settle(&mut output, SECOND);
        }
    }
}

fn settle(output: &mut impl Write, age: Duration) {
    let owed: Vec<_> = valve().settle(age).collect();
    for (level, text) in owed {
        let _ = output.write_all(format!("{} {text}\n", head(level)).as_bytes());
    }
}

/// The crate whose lines -v is about, with the program's own; other libraries only warn.
const CHASSIS: &str = "zen_proto";

/// As long as the valve counts.
const SECOND: Duration = Duration::from_secs(1);

/// Lines on their way to the log's thread, so that a stuck stderr costs at most some 100 KiB.
const LINES_WAITING: usize = 1024;

/// What a process gives its stderr to take the last lines.
const LAST_WORDS: Duration = Duration::from_secs(1);
