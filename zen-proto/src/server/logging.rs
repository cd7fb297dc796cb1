//! A log that never blocks the server. A separate thread writes the lines; lines that cannot be written are lost, and
//! counted.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{LazyLock, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result};
use env_logger::fmt::Formatter;
use env_logger::{Builder, Target};
use log::{Level, LevelFilter, Record};
use signal_hook::consts::{SIGHUP, SIGXFSZ};

use super::inherited_fds;
use super::log_output::{self, Output};
use super::log_rate_limit::RateLimit;

/// The channel to the log thread, once it runs.
static LOG: OnceLock<SyncSender<Entry>> = OnceLock::new();

/// Whether the log goes to a file.
static HAS_FILE: AtomicBool = AtomicBool::new(false);

/// Whether the log goes to systemd's journal.
static HAS_JOURNAL: AtomicBool = AtomicBool::new(false);

/// The rate limit of the log.
static RATE_LIMIT: LazyLock<Mutex<RateLimit>> = LazyLock::new(Mutex::default);

/// The number of lines for which the channel had no room, since the last line that was sent.
static LOST: AtomicU64 = AtomicU64::new(0);

/// Whether the log file must be reopened, after SIGHUP.
static REOPEN: AtomicBool = AtomicBool::new(false);

enum Entry {
    /// A line, and the number of lines lost before it.
    Line(u64, Vec<u8>),
    Flush(SyncSender<()>),
    /// Wakes the log thread, so that it sees the flag [`REOPEN`], which the signal handler has set.
    Reopen,
}

/// The log's settings from the command line.
pub(super) struct Config {
    /// The log file; `None`: stderr.
    pub(super) file: Option<PathBuf>,
    /// The level of this library and of `program`.
    pub(super) level: LevelFilter,
    /// The name of the server's crate.
    pub(super) program: &'static str,
    /// Whether another process of this server started this one: as a worker of --processes, or for a single client.
    pub(super) is_worker: bool,
}

/// Turns a write beyond RLIMIT_FSIZE into an ordinary error. Without a handler SIGXFSZ would end the process.
pub(super) fn outlive_file_size_limit() {
    static IS_REACHED: AtomicBool = AtomicBool::new(false); // never read: the write returns EFBIG
    let _ = signal_hook::flag::register(SIGXFSZ, &IS_REACHED);
}

/// Starts the log: to a file, to stderr, or to /dev/null if stderr is the client's connection.
pub(super) fn start(config: Config) -> Result<()> {
    let mut refused = None;
    let output = match &config.file {
        Some(path) => match log_output::open(path) {
            Ok(file) => Output::new(file),
            // The parent opened the file at its start. If its workers ended here, it would stop replacing them.
            Err(error) if config.is_worker => {
                refused = Some(error);
                Output::new(io::stderr())
            }
            Err(error) => return Err(error),
        },
        None if inherited_fds::stderr_is_client() => {
            Output::new(File::options().write(true).open("/dev/null").context("/dev/null")?)
        }
        None => Output::new(io::stderr()),
    };
    let has_file = config.file.is_some();
    if has_file {
        signal_hook::flag::register(SIGHUP, &REOPEN)?;
    }
    let (sender, entries) = sync_channel(LINES_WAITING);
    thread::Builder::new()
        .name("log".into())
        .spawn(move || write(&entries, output, config.file))
        .context("cannot start a thread: raise the limit of threads")?;
    let _ = LOG.set(sender.clone());
    HAS_FILE.store(has_file, Ordering::Relaxed);
    HAS_JOURNAL.store(!has_file && stderr_is_journal(), Ordering::Relaxed);

    let mut builder = Builder::new();
    let filters = std::env::var("RUST_LOG").ok();
    // env_logger would print errors to stderr, which may be the client's connection, or blocked.
    let is_understood = |filters: &&String| env_filter::Builder::new().try_parse(filters).is_ok();
    match filters.as_ref().filter(is_understood) {
        Some(filters) => _ = builder.parse_filters(filters),
        None => {
            builder.filter_level(config.level.min(LevelFilter::Warn));
            [LIBRARY, config.program].iter().for_each(|module| _ = builder.filter_module(module, config.level));
        }
    }
    builder.format(format);
    builder.target(Target::Pipe(Box::new(Lines(sender)))).init();
    if filters.as_ref().is_some_and(|filters| !is_understood(&filters)) {
        log::warn!("RUST_LOG is invalid and is ignored: set it to a level, or to MODULE=LEVEL");
    }
    if let Some(error) = refused {
        log::warn!("this worker logs to stderr until SIGHUP: {error:#}");
    }
    Ok(())
}

/// Returns whether the log goes to a file, which SIGHUP reopens.
pub(super) fn has_file() -> bool {
    HAS_FILE.load(Ordering::Relaxed)
}

/// Makes the log thread reopen its file after SIGHUP. If the channel is full, it does so at the next line.
pub(super) fn reopen() {
    let _ = LOG.get().map(|log| log.try_send(Entry::Reopen));
}

/// Waits until all lines so far are written, for a limited time.
pub(super) fn flush() {
    let Some(log) = LOG.get() else { return };
    let end = Instant::now() + FLUSH_TIMEOUT;
    let (done, written) = sync_channel(1);
    while log.try_send(Entry::Flush(done.clone())).is_err() {
        if Instant::now() >= end {
            return;
        }
        thread::sleep(Duration::from_millis(5)); // the channel is full
    }
    let _ = written.recv_timeout(end.saturating_duration_since(Instant::now()));
}

/// Prints the error line of a process that ends: to stderr, unless that is the client's connection, and to the log file
/// if there is one.
pub(super) fn print_error(line: &str) {
    if has_file() {
        log::error!("{line}");
    }
    flush();
    if !inherited_fds::stderr_is_client() {
        // A blocked stderr must not keep the process from ending.
        let line = format!("{}{line}\n", if stderr_is_journal() { "<3>" } else { "" });
        let (done, written) = sync_channel(0);
        let write = {
            let line = line.clone();
            move || {
                Output::new(io::stderr()).put(line.as_bytes(), lost_count_line);
                let _ = done.send(());
            }
        };
        match thread::Builder::new().spawn(write) {
            Ok(_) => _ = written.recv_timeout(FLUSH_TIMEOUT),
            // The error may be that no thread can be started.
            Err(_) => Output::new(io::stderr()).put(line.as_bytes(), lost_count_line),
        }
    }
}

fn format(line: &mut Formatter, record: &Record<'_>) -> io::Result<()> {
    let mut left_out = 0;
    if record.level() <= Level::Info {
        match rate_limit().admit(record, Instant::now()) {
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

/// Returns the beginning of a line: time, level, process and thread.
fn head(level: Level) -> String {
    let thread = thread::current();
    let thread = thread.name().unwrap_or("?");
    if HAS_JOURNAL.load(Ordering::Relaxed) {
        return format!("<{}>[{thread}]", priority(level)); // the journal adds time and process
    }
    let time = humantime::format_rfc3339_millis(SystemTime::now());
    format!("{time} [{level} {}/{thread}]", std::process::id())
}

fn rate_limit() -> MutexGuard<'static, RateLimit> {
    RATE_LIMIT.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Returns the level as a priority of syslog(3).
fn priority(level: Level) -> u8 {
    match level {
        Level::Error => 3,
        Level::Warn => 4,
        Level::Info => 6,
        Level::Debug | Level::Trace => 7,
    }
}

/// Returns whether stderr is systemd's journal, which JOURNAL_STREAM identifies (systemd.exec(5)).
fn stderr_is_journal() -> bool {
    let Ok(journal) = std::env::var("JOURNAL_STREAM") else { return false };
    rustix::fs::fstat(io::stderr()).is_ok_and(|stderr| journal == format!("{}:{}", stderr.st_dev, stderr.st_ino))
}

/// Sends lines to the log thread without blocking.
struct Lines(SyncSender<Entry>);

impl Write for Lines {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let lost = LOST.swap(0, Ordering::Relaxed);
        if self.0.try_send(Entry::Line(lost, line.to_vec())).is_err() {
            LOST.fetch_add(lost + 1, Ordering::Relaxed);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Runs the log thread. Lines that cannot be written are counted, and the count is logged later.
fn write(entries: &Receiver<Entry>, mut output: Output, path: Option<PathBuf>) {
    let mut last_checked = Instant::now();
    loop {
        // One second after the last line the rate limit ends, and the number of suppressed lines is logged.
        let entry = entries.recv_timeout(SECOND).or_else(|error| {
            log_suppressed(&mut output, SECOND);
            log_lost_count(&mut output);
            // While a count is due, it tries each second whether the output works again.
            if output.lost > 0 { Err(error) } else { entries.recv().map_err(RecvTimeoutError::from) }
        });
        if REOPEN.swap(false, Ordering::Relaxed) {
            path.iter().for_each(|path| reopen_file(&mut output, path));
        }
        match entry {
            Ok(Entry::Line(lost, line)) => {
                output.lost += lost;
                output.put(&line, lost_count_line);
            }
            Ok(Entry::Flush(done)) => {
                log_suppressed(&mut output, Duration::ZERO);
                log_lost_count(&mut output);
                let _ = done.try_send(());
            }
            Ok(Entry::Reopen) => log_lost_count(&mut output),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
        if last_checked.elapsed() >= SECOND {
            last_checked = Instant::now();
            log_suppressed(&mut output, SECOND);
        }
    }
}

fn reopen_file(output: &mut Output, path: &Path) {
    match log_output::open(path) {
        Ok(file) => output.replace(file),
        Err(error) => log::error!("the log file is not reopened; fix this and send SIGHUP again: {error:#}"),
    }
}

fn log_suppressed(output: &mut Output, age: Duration) {
    let suppressed: Vec<_> = rate_limit().take_suppressed(age).collect();
    for (level, text) in suppressed {
        output.put(format!("{} {text}\n", head(level)).as_bytes(), lost_count_line);
    }
}

/// Logs the number of lost lines when no further line comes.
fn log_lost_count(output: &mut Output) {
    output.lost += LOST.swap(0, Ordering::Relaxed);
    output.put(b"", lost_count_line);
}

fn lost_count_line(lost: u64) -> String {
    format!("{} {lost} lines of the log were lost before this\n", head(Level::Warn))
}

/// The crate to which -v applies, together with the program's own; other libraries log warnings only.
const LIBRARY: &str = "zen_proto";

/// The period of the rate limit.
const SECOND: Duration = Duration::from_secs(1);

/// The capacity of the channel in lines. If stderr is blocked, they usually take some 100 KiB.
const LINES_WAITING: usize = 1024;

/// The longest time to wait for the log, and then for stderr, before the process ends.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(1);
