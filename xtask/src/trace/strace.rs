//! A parser of the output of `strace -f -ttt -T`: a line for a call, or for half of one.

use std::collections::{BTreeMap, BTreeSet};

/// Microseconds: since 1970 in a log, since the first client connected in a picture.
pub(crate) type Micros = i64;

/// The calls and threads of a server.
#[derive(Debug, Default)]
pub(crate) struct Log {
    /// In the order in which they began.
    pub(crate) calls: Vec<Call>,
    pub(crate) threads: BTreeMap<i32, Thread>,
    /// When the calls that have not returned began, by thread, and what strace wrote of them.
    begun: BTreeMap<i32, (Micros, String)>,
    last: Micros,
}

/// One system call of one thread.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Call {
    pub(crate) thread: i32,
    pub(crate) name: String,
    /// The text in the parentheses.
    pub(crate) arguments: String,
    /// `None` if it did not return, because the thread ended.
    pub(crate) result: Option<i64>,
    pub(crate) errno: Option<String>,
    pub(crate) start: Micros,
    /// [`NOT_YET`] while the log grows and it has not returned.
    pub(crate) end: Micros,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Thread {
    /// The name that the thread has set; `None` if it has set none, like the first thread of a process.
    pub(crate) name: Option<String>,
    /// The number of its process, which is that of the process's first thread.
    pub(crate) process: i32,
    pub(crate) born: Micros,
    pub(crate) ended: Option<Micros>,
}

/// The command that writes such lines; the name of a file and the program follow.
pub(crate) const STRACE: [&str; 7] = ["strace", "-f", "-ttt", "-T", "-s", "64", "-o"];

impl Log {
    /// Reads a whole log. Lines about neither a call nor an end, such as signals, are ignored.
    pub(crate) fn parse(text: &str) -> Log {
        let mut log = Log::default();
        text.lines().for_each(|line| log.read(line));
        // A thread that slept when the log ended slept until then.
        let last = log.last;
        log.calls.iter_mut().filter(|call| call.end == NOT_YET).for_each(|call| call.end = last);
        log
    }

    /// Reads the next line.
    pub(crate) fn read(&mut self, line: &str) {
        let Some((thread, time, what)) = self.begin(line) else { return };
        if what.starts_with("+++ ") {
            self.ended(thread, time);
        } else if let Some(what) = what.strip_prefix("<... ") {
            let Some((_, rest)) = what.split_once(" resumed>") else { return };
            if let Some((start, begun)) = self.take_begun(thread) {
                self.add(call(thread, start, time, &(begun + rest)));
            }
        } else if let Some(begun) = what.strip_suffix(" <unfinished ...>") {
            self.add_begun(thread, time, begun);
        } else {
            self.take_begun(thread);
            self.add(call(thread, time, time, what));
        }
    }

    /// Reads the last line of a log that grows: strace writes the end of such a line when the call returns.
    pub(crate) fn read_beginning(&mut self, line: &str) {
        if let Some((thread, time, what)) = self.begin(line)
            && !what.starts_with(['<', '+', '-'])
        {
            self.add_begun(thread, time, what);
        }
    }

    /// Forgets the calls that returned before this time, and the threads that ended before it. To know the client of
    /// each open descriptor, it keeps the last accept() of each, and the newest of the calls in [`CLIENTS_BY`].
    pub(crate) fn forget(&mut self, before: Micros) {
        let mut later = BTreeSet::new();
        let mut kept = 0;
        let mut stays = |call: &Call| {
            let is_accept = call.name.starts_with("accept");
            let descriptor =
                if is_accept { call.brought() } else { call.descriptor().filter(|_| call.name == "close") };
            let is_last = descriptor.is_some_and(|descriptor| later.insert((self.process_of(call.thread), descriptor)));
            let says_client = CLIENTS_BY.contains(&call.name.as_str());
            kept += usize::from(says_client);
            call.end >= before || is_accept && is_last || says_client && kept <= MOST_KEPT
        };
        let mut stay: Vec<bool> = self.calls.iter().rev().map(&mut stays).collect();
        self.calls.retain(|_| stay.pop().unwrap_or_default());
        self.threads.retain(|_, thread| thread.ended.is_none_or(|ended| ended >= before));
    }

    /// Splits a line, and records that its thread exists.
    fn begin<'l>(&mut self, line: &'l str) -> Option<(i32, Micros, &'l str)> {
        let (thread, time, what) = split(line)?;
        self.last = self.last.max(time);
        self.threads.entry(thread).or_insert(Thread { name: None, process: thread, born: time, ended: None });
        Some((thread, time, what))
    }

    fn add_begun(&mut self, thread: i32, start: Micros, begun: &str) {
        self.take_begun(thread);
        if let Some(call) = call(thread, start, NOT_YET, begun) {
            self.begun.insert(thread, (start, begun.to_owned()));
            self.add(Some(call));
        }
    }

    /// Removes the call of a thread that has not returned, so that a more complete one can replace it.
    fn take_begun(&mut self, thread: i32) -> Option<(Micros, String)> {
        let (start, begun) = self.begun.remove(&thread)?;
        let after = self.calls.partition_point(|call| call.start <= start);
        let place = self.calls[..after].iter().rposition(|call| call.thread == thread)?;
        self.calls.remove(place);
        Some((start, begun))
    }

    fn add(&mut self, call: Option<Call>) {
        let Some(call) = call else { return };
        self.name_thread(&call);
        let place = self.calls.partition_point(|other| other.start <= call.start);
        self.calls.insert(place, call);
    }

    /// Returns the calls of one thread.
    pub(crate) fn calls_of(&self, thread: i32) -> impl Iterator<Item = &Call> {
        self.calls.iter().filter(move |call| call.thread == thread)
    }

    /// Returns the processes in the order in which they were born.
    pub(crate) fn processes(&self) -> Vec<i32> {
        let mut first: Vec<_> = self
            .threads
            .iter()
            .filter(|(number, thread)| **number == thread.process)
            .map(|(n, t)| (t.born, *n))
            .collect();
        first.sort_unstable();
        first.into_iter().map(|(_, number)| number).collect()
    }

    /// Returns the process of a thread.
    pub(crate) fn process_of(&self, thread: i32) -> i32 {
        self.threads.get(&thread).map_or(thread, |thread| thread.process)
    }

    fn ended(&mut self, thread: i32, time: Micros) {
        if let Some(thread) = self.threads.get_mut(&thread) {
            thread.ended = Some(time);
        }
    }

    /// Records a name, which prctl() gives, or the process of a new thread, which is that of its creator.
    fn name_thread(&mut self, call: &Call) {
        match (call.name.as_str(), call.brought()) {
            ("clone" | "clone3", Some(born)) if call.arguments.contains("CLONE_THREAD") => {
                let process = self.process_of(call.thread);
                let new = Thread { name: None, process, born: call.end, ended: None };
                self.threads.entry(born).or_insert(new);
                // It may have created threads of its own before its creator's call returned.
                let same = self.threads.values_mut().filter(|thread| thread.process == born);
                same.for_each(|thread| thread.process = process);
            }
            ("prctl", _) => {
                let name = call.arguments.strip_prefix("PR_SET_NAME, \"").and_then(|rest| rest.split('"').next());
                if let (Some(name), Some(thread)) = (name, self.threads.get_mut(&call.thread)) {
                    thread.name = Some(name.to_owned());
                }
            }
            _ => {}
        }
    }
}

impl Call {
    /// Returns the descriptor that the call is about.
    pub(crate) fn descriptor(&self) -> Option<i32> {
        // epoll_ctl(poller, what, descriptor, …)
        let place = if self.name == "epoll_ctl" { 2 } else { 0 };
        self.arguments.split(", ").nth(place)?.parse().ok()
    }

    /// Returns the descriptor that an accept() returned, or the thread that a clone() did.
    pub(crate) fn brought(&self) -> Option<i32> {
        self.result.and_then(|number| i32::try_from(number).ok()).filter(|&number| number > 0)
    }

    /// Returns the port of the client that an accept() brought.
    pub(crate) fn port(&self) -> Option<u16> {
        self.arguments.split_once("port=htons(")?.1.split_once(')')?.0.parse().ok()
    }

    pub(crate) fn has_failed(&self) -> bool {
        self.result.is_none_or(|result| result < 0)
    }
}

/// Splits a line of the form `THREAD SECONDS.MICROS WHAT`.
fn split(line: &str) -> Option<(i32, Micros, &str)> {
    let (thread, rest) = line.split_once(' ')?;
    let (time, what) = rest.trim_start().split_once(' ')?;
    Some((thread.parse().ok()?, micros(time)?, what))
}

fn micros(time: &str) -> Option<Micros> {
    let (seconds, fraction) = time.split_once('.')?;
    let seconds: Micros = seconds.parse().ok()?;
    (fraction.len() == 6).then_some(())?;
    Some(seconds * 1_000_000 + fraction.parse::<Micros>().ok()?)
}

/// Parses `NAME(ARGUMENTS) = RESULT ERRNO (…) <TIME>`. The last parts may be missing. Without a time, the call ended
/// when the line was `seen`.
fn call(thread: i32, start: Micros, seen: Micros, text: &str) -> Option<Call> {
    let (name, rest) = text.split_once('(')?;
    if name.is_empty() || !name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') {
        return None;
    }
    // The last equals sign is the one before the result, because neither a number nor the name of an error has one.
    let (arguments, outcome) = rest.rsplit_once(" = ").unwrap_or((rest, "?"));
    let mut words = outcome.split_whitespace();
    let result = words.next().and_then(number);
    let errno = words.next().filter(|_| result == Some(-1)).map(str::to_owned);
    let took = outcome.rsplit_once('<').and_then(|(_, took)| micros(took.strip_suffix('>')?));
    Some(Call {
        thread,
        name: name.to_owned(),
        arguments: arguments.trim_end().strip_suffix(')').unwrap_or(arguments).to_owned(),
        result,
        errno,
        start,
        end: took.map_or(seen, |took| start + took),
    })
}

fn number(word: &str) -> Option<i64> {
    match word.strip_prefix("0x") {
        Some(digits) => i64::from_str_radix(digits, 16).ok(),
        None => word.parse().ok(),
    }
}

/// The calls that say to which client a descriptor belongs, or that it belongs to none any more.
const CLIENTS_BY: [&str; 4] = ["accept", "accept4", "close", "getpeername"];
/// The most calls in [`CLIENTS_BY`] that are kept: more than the connections of the last seconds cause.
const MOST_KEPT: usize = 4_000;
/// The end of a call that has not returned.
pub(crate) const NOT_YET: Micros = Micros::MAX;

#[cfg(test)]
mod tests {
    use super::*;

    const LINES: &str = r#"700 1000.000000 execve("./zen-threaded", ["./zen-threaded"], 0x7ffe /* 35 vars */) = 0 <0.000204>
700 1000.001000 clone3({flags=CLONE_VM|CLONE_FILES|CLONE_THREAD, exit_signal=0} <unfinished ...>
701   1000.001050 prctl(PR_SET_NAME, "worker-1" <unfinished ...>
700 1000.001100 <... clone3 resumed> => {parent_tid=[701]}, 88) = 701 <0.000090>
701 1000.001110 <... prctl resumed>) = 0 <0.000060>
701 1000.002000 accept4(3,  <unfinished ...>
700 1000.002500 write(2, "a = b (c", 8)       = 8 <0.000010>
701 1000.003000 <... accept4 resumed>{sa_family=AF_INET, sin_port=htons(34454), sin_addr=inet_addr("127.0.0.1")}, [128 => 16], SOCK_CLOEXEC) = 9 <0.000990>
701 1000.003100 recvfrom(9, "Simple is better than?", 4096, 0, NULL, NULL) = 22 <0.040188>
701 1000.050000 accept4(3, 0x7ffc, [128], SOCK_CLOEXEC) = -1 EINTR (Interrupted system call) <0.001000>
701 1000.051000 --- SIGTERM {si_signo=SIGTERM, si_code=SI_USER, si_pid=1, si_uid=0} ---
700 1000.052000 clone3({flags=CLONE_VM|CLONE_VFORK, exit_signal=SIGCHLD}, 88) = 702 <0.000010>
702 1000.053000 recvfrom(4,  <unfinished ...>
700 1000.060000 exit_group(0)   = ?
701 1000.060100 recvfrom(9,  <unfinished ...>) = ?
701 1000.060200 +++ exited with 0 +++
700 1000.060300 +++ exited with 0 +++
"#;

    fn named<'a>(log: &'a Log, thread: i32, name: &str) -> Vec<&'a Call> {
        log.calls_of(thread).filter(|call| call.name == name).collect()
    }

    #[test]
    fn halves_are_put_together() {
        let log = Log::parse(LINES);
        let accepts = named(&log, 701, "accept4");
        assert_eq!(accepts[0].port(), Some(34454));
        assert_eq!((accepts[0].result, accepts[0].start, accepts[0].end), (Some(9), 1_000_002_000, 1_000_002_990));
        assert!(accepts[0].arguments.starts_with("3, {sa_family") && accepts[0].arguments.ends_with("SOCK_CLOEXEC"));
        let received = named(&log, 701, "recvfrom")[0];
        assert_eq!((received.descriptor(), received.end - received.start), (Some(9), 40_188));
    }

    #[test]
    fn an_interrupted_call_has_its_error() {
        let log = Log::parse(LINES);
        let interrupted = named(&log, 701, "accept4")[1];
        assert_eq!((interrupted.result, interrupted.errno.as_deref()), (Some(-1), Some("EINTR")));
        assert!(interrupted.has_failed() && interrupted.port().is_none());
    }

    #[test]
    fn a_call_that_did_not_return_lasts_until_the_end() {
        let log = Log::parse(LINES);
        assert_eq!(named(&log, 702, "recvfrom")[0].end, 1_000_060_300);
        assert_eq!(named(&log, 700, "exit_group")[0].result, None);
        assert_eq!(log.threads[&701].ended, Some(1_000_060_200));
        assert_eq!(log.threads[&702].ended, None);
    }

    #[test]
    fn a_log_is_read_as_it_grows() {
        let mut log = Log::default();
        log.read(r#"700 1000.000000 accept4(3, {sin_port=htons(34454)}, [128 => 16], SOCK_CLOEXEC) = 9 <0.000990>"#);
        log.read_beginning("700 1000.002000 recvfrom(9, ");
        let asleep = named(&log, 700, "recvfrom")[0].clone();
        assert_eq!((asleep.descriptor(), asleep.start, asleep.end), (Some(9), 1_000_002_000, NOT_YET));
        log.read("700 1000.002000 recvfrom(9,  <unfinished ...>");
        log.read("701 1000.003000 getpid() = 700 <0.000001>");
        assert_eq!(named(&log, 700, "recvfrom"), [&asleep]);
        log.read(r#"700 1000.004000 <... recvfrom resumed>"?", 4096, 0, NULL, NULL) = 1 <0.002000>"#);
        let returned = named(&log, 700, "recvfrom");
        assert_eq!((returned.len(), returned[0].result, returned[0].end), (1, Some(1), 1_000_004_000));
        assert_eq!(log.calls.iter().map(|call| call.thread).collect::<Vec<_>>(), [700, 700, 701]);
    }

    #[test]
    fn the_client_of_an_open_descriptor_is_not_forgotten() {
        let mut log = Log::default();
        log.read("700 1000.000000 accept4(3, {sin_port=htons(1)}, [16], 0) = 8 <0.000001>");
        log.read(r#"700 1000.000001 recvfrom(8, "?", 1, 0, NULL, NULL) = 1 <0.000001>"#);
        for time in 10..10 + MOST_KEPT {
            log.read(&format!("700 1000.{time:06} accept4(3, {{sin_port=htons(2)}}, [16], 0) = 9 <0.000001>"));
            log.read(&format!("700 1000.{time:06} close(9) = 0 <0.000001>"));
        }
        log.read("701 1000.900000 +++ exited with 0 +++");
        log.forget(2_000_000_000);
        assert_eq!((log.calls.len(), log.calls[0].port()), (1 + MOST_KEPT, Some(1)));
        assert!(named(&log, 700, "recvfrom").is_empty());
        assert_eq!(log.threads.keys().collect::<Vec<_>>(), [&700]);
    }

    #[test]
    fn threads_have_their_names_and_processes() {
        let log = Log::parse(LINES);
        assert_eq!((log.threads[&701].name.as_deref(), log.threads[&701].process), (Some("worker-1"), 700));
        assert_eq!((log.threads[&702].name.as_deref(), log.threads[&702].process), (None, 702));
        assert_eq!(log.processes(), [700, 702]);
    }

    #[test]
    fn a_literal_may_look_like_a_result() {
        let write = call(1, 0, 0, r#"write(2, "a = b (c", 8)       = 8 <0.000010>"#).expect("it is a call");
        assert_eq!((write.arguments.as_str(), write.result, write.end), (r#"2, "a = b (c", 8"#, Some(8), 10));
        let flags = call(1, 0, 0, "fcntl(9, F_GETFD) = 0x1 (flags FD_CLOEXEC) <0.000003>").expect("it is a call");
        assert_eq!((flags.result, flags.errno), (Some(1), None));
        assert!(Log::parse("noise\n1 2 3\n700 1000.000001 strange\n").calls.is_empty());
        let of_epoll = call(1, 0, 5, "epoll_ctl(9, EPOLL_CTL_ADD, 14, {events=EPOLLIN}) = 0 <0.000003>");
        assert_eq!(of_epoll.expect("it is a call").descriptor(), Some(14));
    }
}
