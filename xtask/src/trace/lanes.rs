//! From calls to lanes: what each thread of the server did all the time, and what each client waited for.

mod descriptors;

use std::collections::BTreeMap;

use descriptors::Descriptors;

use super::scenario::Visit;
use super::strace::{Call, Log, Micros};

/// What a thread does for a while, and for which client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Activity {
    /// Asleep in accept() until any client connects.
    Accept,
    /// Asleep in recv() until this one client sends.
    Recv,
    /// Asleep in epoll_wait(), poll() or io_uring_enter() until anything is ready, or done.
    Poll,
    /// Asleep until another thread or process wakes it.
    Thread,
    /// Asleep until a time, or in some other call.
    Other,
    /// In send().
    Send,
    /// Neither asleep nor in send(), or asleep to simulate work on an answer.
    Work,
}

/// A piece of a thread's time, in microseconds since the first client connected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Interval {
    pub(crate) from: Micros,
    pub(crate) until: Micros,
    pub(crate) activity: Activity,
    /// The client that it works or waits for; `None` if it is no particular one.
    pub(crate) client: Option<usize>,
}

/// One thread.
#[derive(Debug, Clone)]
pub(crate) struct Lane {
    pub(crate) name: String,
    pub(crate) process: i32,
    pub(crate) thread: i32,
    pub(crate) intervals: Vec<Interval>,
    /// Whether it served a client, or waited for one to serve.
    pub(crate) matters: bool,
}

/// What a client does for a while.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stay {
    /// It is connected, but the server has not accepted it: it waits in the backlog.
    Backlog,
    /// It has asked and has no answer yet.
    Answer,
    /// It has its answer and thinks about the next question.
    Thinking,
}

/// One client.
#[derive(Debug, Clone)]
pub(crate) struct ClientLane {
    pub(crate) client: usize,
    pub(crate) intervals: Vec<(Micros, Micros, Stay)>,
    pub(crate) answered: Vec<Micros>,
}

impl Interval {
    pub(crate) fn length(&self) -> Micros {
        self.until - self.from
    }
}

impl Activity {
    /// Returns whether the thread sleeps.
    pub(crate) fn is_waiting(self) -> bool {
        !matches!(self, Activity::Send | Activity::Work)
    }
}

/// Returns the lanes of all threads that lived between `start` and `end`, by processes and in the order of their birth.
pub(crate) fn threads(log: &Log, visits: &[Visit], start: Micros, end: Micros) -> Vec<Lane> {
    let descriptors = Descriptors::of(log, visits);
    let processes = log.processes();
    let place = |process: i32| processes.iter().position(|&other| other == process).unwrap_or_default();
    let mut threads: Vec<_> = log.threads.iter().collect();
    threads.retain(|(_, thread)| thread.born < end && thread.ended.is_none_or(|ended| ended > start));
    threads.sort_by_key(|(number, thread)| (place(thread.process), thread.born, **number));
    let accepts = |process: i32| {
        log.calls.iter().any(|call| call.name.starts_with("accept") && log.process_of(call.thread) == process)
    };
    let mut lanes: Vec<Lane> = Vec::new();
    for (&number, thread) in threads {
        let own = thread.name.as_deref().unwrap_or("main");
        // The first of several processes only looks after the others.
        let name = match (processes.len(), place(thread.process)) {
            (1, _) => own.to_owned(),
            (_, 0) => format!("{own} of the parent"),
            (_, process) => format!("{own} of process {process}"),
        };
        let calls: Vec<&Call> = log.calls_of(number).filter(|call| call.start < end && call.end >= start).collect();
        let from = thread.born.max(start);
        let until = thread.ended.unwrap_or(end).min(end);
        let (mut intervals, has_served) = intervals(&calls, &descriptors, thread.process, from, until);
        // A thread that polls in a process without accepts looks after other processes.
        let polls = intervals.iter().any(|interval| interval.activity == Activity::Poll);
        let matters = has_served || polls && accepts(thread.process);
        intervals.iter_mut().for_each(|interval| {
            interval.from -= start;
            interval.until -= start;
        });
        lanes.push(Lane { name, process: thread.process, thread: number, intervals, matters });
    }
    number_namesakes(&mut lanes);
    lanes
}

/// Threads that the server calls by the same name are told apart by a number.
fn number_namesakes(lanes: &mut [Lane]) {
    let mut namesakes: BTreeMap<String, usize> = BTreeMap::new();
    lanes.iter().for_each(|lane| *namesakes.entry(lane.name.clone()).or_default() += 1);
    let mut numbers: BTreeMap<String, usize> = BTreeMap::new();
    for lane in lanes.iter_mut().filter(|lane| namesakes[&lane.name] > 1) {
        let number = numbers.entry(lane.name.clone()).or_default();
        *number += 1;
        lane.name = format!("{} (no. {number})", lane.name);
    }
}

/// Divides the time from `from` to `until` without a gap. True: the thread served, or slept in accept().
fn intervals(
    calls: &[&Call],
    descriptors: &Descriptors,
    process: i32,
    from: Micros,
    until: Micros,
) -> (Vec<Interval>, bool) {
    let mut intervals: Vec<Interval> = Vec::new();
    let mut matters = false;
    let mut now = from;
    // The client that the thread works for: that of its last call, until it waits for something else.
    let mut client = None;
    let mut spend = |now: &mut Micros, to: Micros, activity, client| {
        let to = to.clamp(*now, until);
        match intervals.last_mut() {
            _ if to == *now => {}
            Some(last) if last.activity == activity && last.client == client => last.until = to,
            _ => intervals.push(Interval { from: *now, until: to, activity, client }),
        }
        *now = to;
    };
    for call in calls {
        let about = descriptors.at(process, call);
        spend(&mut now, call.start, Activity::Work, client);
        let blocks = descriptors.blocks(process, call);
        let activity = activity(call, about, blocks, client);
        matters |= about.is_some() || activity == Activity::Accept;
        match activity {
            Activity::Work | Activity::Send => {
                client = about.or(client);
                spend(&mut now, call.end, activity, client);
            }
            _ => spend(&mut now, call.end, activity, about),
        }
        match (activity, call.name.as_str()) {
            (Activity::Accept, _) | (_, "accept" | "accept4") => client = descriptors.brought(call),
            (_, "close") if about.is_some() => client = None,
            (activity, _) if activity.is_waiting() => client = about,
            _ => {}
        }
    }
    spend(&mut now, until, Activity::Work, client);
    (intervals, matters)
}

/// What a thread does in `call`, which is about a client or not, and works for a client or not. Calls that cannot sleep
/// are work.
fn activity(call: &Call, about: Option<usize>, blocks: bool, client: Option<usize>) -> Activity {
    let says = |word: &str| call.arguments.contains(word);
    let ends_at_once = || call.errno.as_deref() == Some("EAGAIN") && call.end - call.start < AT_ONCE;
    // A time-out of 0: it only looks. epoll_pwait() has two more arguments after it.
    let from_last = if call.name == "epoll_wait" { 0 } else { 2 };
    let is_look = call.arguments.rsplit(", ").nth(from_last) == Some("0");
    match call.name.as_str() {
        "accept" | "accept4" if says("SOCK_NONBLOCK") || ends_at_once() => Activity::Work,
        "accept" | "accept4" => Activity::Accept,
        "recvfrom" | "recvmsg" | "read" | "readv" if !blocks || says("MSG_DONTWAIT") || ends_at_once() => {
            Activity::Work
        }
        "recvfrom" | "recvmsg" | "read" | "readv" if about.is_some() => Activity::Recv,
        "recvfrom" | "recvmsg" => Activity::Other,
        "sendto" | "sendmsg" | "write" | "writev" if about.is_some() => Activity::Send,
        "epoll_wait" | "epoll_pwait" | "epoll_pwait2" if is_look => Activity::Work,
        "epoll_wait" | "epoll_pwait" | "epoll_pwait2" | "poll" | "ppoll" | "select" | "pselect6" => Activity::Poll,
        "io_uring_enter" => Activity::Poll,
        "futex" if says("FUTEX_WAIT") => Activity::Thread,
        "wait4" | "waitid" => Activity::Thread,
        // A server with --delay simulates work by sleeping.
        "nanosleep" | "clock_nanosleep" if client.is_some() => Activity::Work,
        "nanosleep" | "clock_nanosleep" | "restart_syscall" | "rt_sigtimedwait" | "pause" => Activity::Other,
        _ => Activity::Work,
    }
}

/// What fails within this time has not waited: its descriptor does not block.
const AT_ONCE: Micros = 5_000;

/// Returns the clients' own lanes: what they saw, and when the server accepted them.
pub(crate) fn clients(log: &Log, visits: &[Visit], start: Micros) -> Vec<ClientLane> {
    let accepted = Descriptors::of(log, visits).accepted();
    let lane = |visit: &Visit| {
        let mut intervals = Vec::new();
        let first = visit.answered.first().copied().unwrap_or(visit.left);
        let accepted = accepted.get(&visit.client).map_or(first, |&accepted| accepted.clamp(visit.came, first));
        intervals.push((visit.came, accepted, Stay::Backlog));
        intervals.push((accepted, first, Stay::Answer));
        for ((&before, &asked), &answered) in
            visit.answered.iter().zip(visit.asked.iter().skip(1)).zip(visit.answered.iter().skip(1))
        {
            intervals.push((before, asked, Stay::Thinking));
            intervals.push((asked, answered, Stay::Answer));
        }
        let intervals = intervals.into_iter().map(|(from, until, stay)| (from - start, until - start, stay));
        let answered = visit.answered.iter().map(|answered| answered - start).collect();
        ClientLane { client: visit.client, intervals: intervals.collect(), answered }
    };
    visits.iter().map(lane).collect()
}

#[cfg(test)]
mod tests;
