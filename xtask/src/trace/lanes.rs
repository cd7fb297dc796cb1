//! Turns system calls into lanes: what each thread of the server did at any time, and what each client waited for.

mod descriptors;

use std::collections::BTreeMap;

use descriptors::Descriptors;

use super::model::{Activity, ClientInterval, ClientLane, ClientState, Event, Interval, Kind, Lane, Outcome};
use super::scenario::Visit;
use super::strace::{Call, Log, Micros};

/// The numbers of the clients, by their ports.
pub(crate) type Ports = BTreeMap<u16, usize>;

/// Returns the lanes of all threads that lived between `start` and `end`, by processes and in the order of their birth.
pub(crate) fn threads(log: &Log, ports: &Ports, start: Micros, end: Micros) -> Vec<Lane> {
    let descriptors = Descriptors::of(log, ports);
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
        // The first of several processes only supervises the others.
        let name = match (processes.len(), place(thread.process)) {
            (1, _) => own.to_owned(),
            (_, 0) => format!("{own} of the parent"),
            (_, process) => format!("{own} of process {process}"),
        };
        let calls: Vec<&Call> = log.calls_of(number).filter(|call| call.start < end && call.end >= start).collect();
        let from = thread.born.max(start);
        let until = thread.ended.unwrap_or(end).min(end);
        let (mut intervals, has_served) = intervals(&calls, &descriptors, thread.process, from, until);
        // A thread that polls in a process without accept() supervises other processes. One that sleeps in poll()
        // instead of epoll_wait() waits for signals.
        let polls = calls
            .iter()
            .any(|call| call.name.starts_with("epoll_p") || call.name == "epoll_wait" || call.name == "io_uring_enter");
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

/// Adds a number to the names of threads that have the same name.
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

/// Divides the time from `from` to `until` without a gap. Also returns whether the thread served a client or slept in
/// accept().
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
    // How long the longest call of the last interval took.
    let mut longest = 0;
    let mut spend = |now: &mut Micros, to: Micros, activity, client, call: Option<&Call>| {
        let (from, to) = (*now, to.clamp(*now, until));
        *now = to;
        if from == to {
            return;
        }
        match intervals.last_mut() {
            Some(last) if last.activity == activity && last.client == client => last.until = to,
            _ => {
                longest = 0;
                intervals.push(Interval { from, until: to, activity, client, call: None, calls: 0, source: None });
            }
        }
        let (Some(call), Some(last)) = (call, intervals.last_mut()) else { return };
        last.calls += 1;
        if to - from > longest {
            longest = to - from;
            last.call = Some(call.name.clone());
        }
    };
    for call in calls {
        let about = descriptors.at(process, call);
        spend(&mut now, call.start, Activity::Work, client, None);
        let blocks = descriptors.blocks(process, call);
        let activity = activity(call, about, blocks, client);
        matters |= about.is_some() || activity == Activity::Accept;
        match activity {
            Activity::Work | Activity::Send => {
                client = about.or(client);
                spend(&mut now, call.end, activity, client, Some(call));
            }
            _ => spend(&mut now, call.end, activity, about, Some(call)),
        }
        match (activity, call.name.as_str()) {
            (Activity::Accept, _) | (_, "accept" | "accept4") => client = descriptors.brought(call),
            (_, "close") if about.is_some() => client = None,
            (activity, _) if activity.is_waiting() => client = about,
            _ => {}
        }
    }
    spend(&mut now, until, Activity::Work, client, None);
    (intervals, matters)
}

/// Returns what a thread does in `call`. The call's descriptor belongs to the client `about`, and `blocks` if it is in
/// blocking mode; the thread works for `client`. Calls that cannot sleep are work.
fn activity(call: &Call, about: Option<usize>, blocks: bool, client: Option<usize>) -> Activity {
    let says = |word: &str| call.arguments.contains(word);
    let ends_at_once = || call.errno.as_deref() == Some("EAGAIN") && call.end - call.start < AT_ONCE;
    // With a timeout of 0 the call does not sleep. epoll_pwait() has two more arguments after the timeout.
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
        "sendto" | "sendmsg" | "write" | "writev" if about.is_some() && call.end - call.start >= AT_ONCE => {
            Activity::WaitsToSend
        }
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

/// A call that ends within this time has not waited.
const AT_ONCE: Micros = 5_000;

/// Returns the clients' own lanes: what they saw, and when the server accepted them. An answer takes `work`.
pub(crate) fn clients(log: &Log, visits: &[Visit], start: Micros, work: Micros) -> Vec<ClientLane> {
    let ports = visits.iter().map(|visit| (visit.port, visit.client)).collect();
    let descriptors = Descriptors::of(log, &ports);
    visits.iter().map(|visit| client(visit, descriptors.accepted(visit.port), start, work)).collect()
}

fn client(visit: &Visit, accepted: Option<Micros>, start: Micros, work: Micros) -> ClientLane {
    let mut intervals: Vec<ClientInterval> = Vec::new();
    let connected = visit.times(Kind::Connected).next().unwrap_or(visit.came);
    // If strace did not see the accept(), it is taken to have happened when the first answer arrived.
    let first = visit.times(Kind::Answered).next().unwrap_or(visit.left);
    let accepted = accepted.unwrap_or(first).clamp(visit.came, first.max(visit.came));
    let mut from = visit.came;
    let mut spend = |until: Micros, stay| {
        let at = from.max(visit.came);
        match intervals.last_mut() {
            _ if until <= at => {}
            Some(last) if last.stay == stay => last.until = until - start,
            _ => intervals.push(ClientInterval { from: at - start, until: until - start, stay }),
        }
        from = from.max(until);
    };
    if visit.port == 0 || connected - visit.came > AT_ONCE {
        spend(connected.max(visit.came + 1), ClientState::Connecting);
    }
    if visit.port != 0 {
        spend(accepted, ClientState::Backlog);
    }
    let (mut stay, mut pending) = (ClientState::Idle, 0);
    for event in &visit.events {
        spend(event.at, stay);
        stay = match event.kind {
            Kind::StoppedReading => ClientState::NotReading,
            _ if stay == ClientState::NotReading => stay,
            Kind::Asked => {
                pending += event.count;
                ClientState::Answer
            }
            Kind::Answered => {
                pending = pending.saturating_sub(event.count);
                if pending > 0 { ClientState::Answer } else { ClientState::Idle }
            }
            Kind::Sent if pending == 0 => ClientState::Sending,
            _ => stay,
        };
    }
    spend(visit.left, stay);
    let since = |event: &Event| Event { at: event.at - start, ..event.clone() };
    ClientLane {
        client: visit.client,
        behaviour: visit.behaviour,
        intervals,
        events: visit.events.iter().map(since).collect(),
        outcome: outcome(visit, work),
    }
}

/// Returns the outcome for a client. An answer takes `work`.
fn outcome(visit: &Visit, work: Micros) -> Outcome {
    let saw = |kind| visit.times(kind).next().is_some();
    let [asked, connected] = [Kind::Asked, Kind::Connected].map(|kind| visit.times(kind).next().unwrap_or(visit.came));
    match visit.times(Kind::Answered).next() {
        _ if saw(Kind::Refused) => Outcome::Refused,
        _ if saw(Kind::Rejected) => Outcome::Rejected,
        _ if saw(Kind::Reset) => Outcome::Reset,
        None if saw(Kind::Ended) => Outcome::Closed,
        None => Outcome::Nothing,
        Some(_) if saw(Kind::Ended) => Outcome::AnsweredThenClosed,
        Some(_) if visit.events.iter().any(|event| event.kind == Kind::Answered && event.count > 1) => {
            Outcome::AnsweredTogether
        }
        Some(answered) if answered - asked > work + LATE || connected - visit.came > LATE => Outcome::AnsweredLate,
        Some(_) => Outcome::AnsweredAtOnce,
    }
}

/// An answer that takes longer than the work on it by this much is late. An idle machine needs a few milliseconds.
const LATE: Micros = 40_000;

#[cfg(test)]
mod tests;
