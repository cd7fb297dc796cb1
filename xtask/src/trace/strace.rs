//! What strace wrote, read back: `strace -f -ttt -T`, a line for a call or for half of one.

use std::collections::BTreeMap;

/// Microseconds: of the clock in a log, since the first client came in a picture.
pub(crate) type Micros = i64;

/// All that was said of a server.
#[derive(Debug, Default)]
pub(crate) struct Log {
    /// In the order in which they began.
    pub(crate) calls: Vec<Call>,
    pub(crate) threads: BTreeMap<i32, Thread>,
}

/// One system call of one thread.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Call {
    pub(crate) thread: i32,
    pub(crate) name: String,
    /// What stands in the parentheses.
    pub(crate) arguments: String,
    /// `None`: it did not come back, as the thread ended.
    pub(crate) result: Option<i64>,
    pub(crate) errno: Option<String>,
    pub(crate) start: Micros,
    pub(crate) end: Micros,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Thread {
    /// As the server names it; `None` for the first thread of a process.
    pub(crate) name: Option<String>,
    /// The number of its process, which is that of the process's first thread.
    pub(crate) process: i32,
    pub(crate) born: Micros,
    pub(crate) ended: Option<Micros>,
}

impl Log {
    /// Reads a whole log. Lines that say nothing of a call or an end (signals, noise) are passed over.
    pub(crate) fn parse(text: &str) -> Log {
        let mut log = Log::default();
        let mut pending: BTreeMap<i32, (Micros, String)> = BTreeMap::new();
        let mut last = 0;
        for line in text.lines() {
            let Some((thread, time, what)) = split(line) else { continue };
            last = last.max(time);
            log.threads.entry(thread).or_insert(Thread { name: None, process: thread, born: time, ended: None });
            if what.starts_with("+++ ") {
                log.ended(thread, time);
            } else if let Some(begun) = what.strip_suffix(" <unfinished ...>").filter(|_| !what.starts_with("<... ")) {
                pending.insert(thread, (time, begun.to_owned()));
            } else if let Some((_, rest)) = what.strip_prefix("<... ").and_then(|what| what.split_once(" resumed>")) {
                if let Some((start, begun)) = pending.remove(&thread) {
                    log.calls.extend(call(thread, start, time, &(begun + rest)));
                }
            } else {
                log.calls.extend(call(thread, time, time, what));
            }
        }
        // A thread that slept when the log ended slept until then.
        let asleep = pending.into_iter().filter_map(|(thread, (start, begun))| call(thread, start, last, &begun));
        log.calls.extend(asleep);
        log.calls.sort_by_key(|call| call.start);
        log.name_threads();
        log
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

    /// Records names, which prctl() gives, and the process of a new thread, which is that of its creator.
    fn name_threads(&mut self) {
        for call in &self.calls {
            let born = call.result.and_then(|number| i32::try_from(number).ok()).filter(|&number| number > 0);
            match (call.name.as_str(), born) {
                ("clone" | "clone3", Some(born)) if call.arguments.contains("CLONE_THREAD") => {
                    let process = self.process_of(call.thread);
                    if let Some(thread) = self.threads.get_mut(&born) {
                        thread.process = process;
                    }
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
}

impl Call {
    /// Returns the descriptor that the call is about.
    pub(crate) fn descriptor(&self) -> Option<i32> {
        // epoll_ctl(poller, what, descriptor, …)
        let place = if self.name == "epoll_ctl" { 2 } else { 0 };
        self.arguments.split(", ").nth(place)?.parse().ok()
    }

    /// Returns the port of the client that an accept() brought.
    pub(crate) fn port(&self) -> Option<u16> {
        self.arguments.split_once("port=htons(")?.1.split_once(')')?.0.parse().ok()
    }

    pub(crate) fn has_failed(&self) -> bool {
        self.result.is_none_or(|result| result < 0)
    }
}

/// `THREAD SECONDS.MICROS WHAT`
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

/// `NAME(ARGUMENTS) = RESULT ERRNO (…) <TIME>`, of which the last parts may lack.
fn call(thread: i32, start: Micros, seen: Micros, text: &str) -> Option<Call> {
    let (name, rest) = text.split_once('(')?;
    if name.is_empty() || !name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') {
        return None;
    }
    // In what follows the last equals sign there is none: neither numbers nor the names of errors have one.
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
    fn what_did_not_come_back_lasts_until_the_end() {
        let log = Log::parse(LINES);
        assert_eq!(named(&log, 702, "recvfrom")[0].end, 1_000_060_300);
        assert_eq!(named(&log, 700, "exit_group")[0].result, None);
        assert_eq!(log.threads[&701].ended, Some(1_000_060_200));
        assert_eq!(log.threads[&702].ended, None);
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
