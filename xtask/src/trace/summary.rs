//! The figures of a recording: how long each thread slept and why, what an answer cost, what strace cost.

use std::collections::BTreeMap;

use super::model::{Activity, ClientLane, ClientState, Interval, Kind, Lane, Outcome};
use super::recording::Recording;
use super::scenario::{THREE_TALKERS, Visit, median_answer};
use super::strace::Micros;

/// The time of one thread, divided by what it did.
#[derive(Debug, Default)]
pub(crate) struct Spent {
    /// Time by activity; for recv() by client too.
    pub(crate) each: BTreeMap<(Activity, Option<usize>), Micros>,
    /// The whole time.
    pub(crate) all: Micros,
}

impl Spent {
    /// Divides the time of a lane between `from` and `until`.
    pub(crate) fn between(lane: &Lane, from: Micros, until: Micros) -> Spent {
        let mut spent = Spent::default();
        for interval in &lane.intervals {
            let time = interval.until.min(until) - interval.from.max(from);
            if time > 0 {
                let client =
                    interval.client.filter(|_| matches!(interval.activity, Activity::Recv | Activity::WaitsToSend));
                *spent.each.entry((interval.activity, client)).or_default() += time;
                spent.all += time;
            }
        }
        spent
    }

    /// Divides the time of a whole lane.
    pub(crate) fn of(lane: &Lane) -> Spent {
        Spent::between(lane, Micros::MIN, Micros::MAX)
    }

    /// Returns the time asleep.
    pub(crate) fn asleep(&self) -> Micros {
        self.each.iter().filter(|((activity, _), _)| activity.is_waiting()).map(|(_, time)| time).sum()
    }

    /// Returns the share of the time asleep, in percent.
    pub(crate) fn idle(&self) -> f64 {
        percent(self.asleep(), self.all)
    }

    /// Returns activities and their times, the longest first.
    pub(crate) fn sorted(&self) -> Vec<(Activity, Option<usize>, Micros)> {
        let mut sorted: Vec<_> =
            self.each.iter().map(|(&(activity, client), &time)| (activity, client, time)).collect();
        sorted.sort_by_key(|&(.., time)| -time);
        sorted
    }
}

fn percent(part: Micros, all: Micros) -> f64 {
    if all == 0 { 100.0 } else { 100.0 * part as f64 / all as f64 }
}

impl Recording {
    /// Returns how much of their time the threads that are shown were asleep, in percent.
    pub(crate) fn idle(&self) -> f64 {
        let spent: Vec<Spent> = self.model.shown().map(Spent::of).collect();
        percent(spent.iter().map(Spent::asleep).sum(), spent.iter().map(|spent| spent.all).sum())
    }

    /// Returns the system calls per answer, including those that accept and close connections.
    pub(crate) fn calls_per_answer(&self) -> f64 {
        self.calls.len() as f64 / self.visits.iter().map(Visit::answers).sum::<usize>().max(1) as f64
    }

    /// Returns the system calls by name, the most frequent first.
    pub(crate) fn calls_by_name(&self) -> Vec<(&str, usize)> {
        let mut names: BTreeMap<&str, usize> = BTreeMap::new();
        self.calls.iter().for_each(|call| *names.entry(call.name.as_str()).or_default() += 1);
        let mut names: Vec<_> = names.into_iter().collect();
        names.sort_by_key(|&(name, count)| (usize::MAX - count, name));
        names
    }

    /// Returns how long a client waited from connecting to its first answer, under strace.
    pub(crate) fn first_wait(&self, client: usize) -> Micros {
        self.visits.iter().find(|visit| visit.client == client).map_or(0, Visit::first_wait)
    }

    /// Returns whether the last client had to wait until the first one had left.
    pub(crate) fn makes_clients_wait(&self) -> bool {
        let left = self.visits.first().map(|visit| visit.left);
        let last = self.visits.last().and_then(|visit| visit.times(Kind::Answered).next());
        last.zip(left).is_some_and(|(answered, left)| answered > left)
    }

    /// Returns the sentence that the picture illustrates: what a client saw, and what the threads did meanwhile.
    pub(crate) fn verdict(&self) -> String {
        let subjects = || self.model.subjects.iter().filter_map(|&client| self.model.client(client));
        let unusual = subjects().find(|lane| lane.outcome != Outcome::AnsweredAtOnce);
        let Some(lane) = unusual.or_else(|| subjects().next_back()) else { return String::new() };
        let client = lane.client;
        let (came, waited) = (lane.came(), self.first_wait(client));
        let is_late = match self.model.scenario == THREE_TALKERS.name {
            true => self.makes_clients_wait(),
            false => lane.outcome == Outcome::AnsweredLate,
        };
        if !is_late && self.model.scenario == THREE_TALKERS.name {
            return format!(
                "Client {client} has its first answer after {} ms, while client 1 still thinks{}",
                millis(waited),
                self.why_no_client_waits(client).map_or(".".into(), |why| format!(": {why}."))
            );
        }
        let doing = self.model.shown().filter_map(|lane| {
            let (activity, client, time) = *Spent::between(lane, came, came + waited).sorted().first()?;
            Some((time, format!("for {} ms of that, {} was {}", millis(time), lane.name, during(activity, client))))
        });
        let why = doing.max_by_key(|(time, _)| *time).map(|(_, text)| text).unwrap_or_default();
        if is_late {
            let until = if self.makes_clients_wait() { ", until client 1 has left" } else { "" };
            return format!("Client {client} waits {} ms for its first answer{until}: {why}.", millis(waited));
        }
        format!("Client {client} {} after {} ms.", outcome_text(lane.outcome), millis(waited))
    }

    /// Returns why the last client does not wait while client 1 thinks: which thread serves each of them.
    fn why_no_client_waits(&self, client: usize) -> Option<String> {
        let asleep = |lane: &&Lane| {
            let key = (Activity::Recv, Some(1));
            Spent::of(lane).each.get(&key).is_some_and(|&time| time > self.model.length / 2)
        };
        let serves =
            |lane: &&Lane| lane.intervals.iter().any(|i| i.activity == Activity::Send && i.client == Some(client));
        let last = &self.model.shown().find(serves)?.name;
        Some(match self.model.shown().find(asleep) {
            Some(lane) => {
                format!("{} sleeps in recv() for client 1 alone, but {last} serves client {client}", lane.name)
            }
            None if self.model.shown().count() == 1 => {
                format!("{last} never sleeps for one client, only in epoll_wait(), where any client wakes it")
            }
            None => "no thread ever sleeps for one client alone, any client wakes one".into(),
        })
    }

    /// Returns a sentence with the threads that are not drawn.
    pub(crate) fn left_out_text(&self) -> Option<String> {
        let told = |(name, count): (&str, usize)| match count {
            1 => name.to_owned(),
            _ => format!("{name} of {count} processes"),
        };
        let names: Vec<String> = self.left_out().into_iter().map(told).collect();
        (!names.is_empty()).then(|| format!("Not drawn, as they serve no client: {}.", names.join(", ")))
    }

    /// Returns a sentence about what strace itself costs.
    pub(crate) fn cost_of_strace(&self) -> String {
        let (with, without) = (median_answer(&self.visits), median_answer(&self.untraced));
        let times = with as f64 / without.max(1) as f64;
        let told = if times < 1.2 { "no difference".into() } else { format!("{times:.1} times as long") };
        format!(
            "What strace costs: half of the answers came within {} ms, without it within {} ms: {told}.",
            fine(with),
            fine(without)
        )
    }
}

/// Returns an activity in words.
pub(crate) fn activity_text(activity: Activity, client: Option<usize>) -> String {
    match (activity, client) {
        (Activity::Accept, _) => "waits in accept()".into(),
        (Activity::Recv, Some(client)) => format!("waits in recv() for client {client}"),
        (Activity::Recv, None) => "waits in recv()".into(),
        (Activity::WaitsToSend, Some(client)) => format!("waits in send() for client {client}"),
        (Activity::WaitsToSend, None) => "waits in send()".into(),
        (Activity::Poll, _) => "waits in epoll_wait()".into(),
        (Activity::Thread, _) => "waits for another thread".into(),
        (Activity::Other, _) => "waits for something else".into(),
        (Activity::Send, _) => "sends".into(),
        (Activity::Work, _) => "works".into(),
    }
}

fn during(activity: Activity, client: Option<usize>) -> String {
    match activity {
        Activity::Send => "sending".into(),
        Activity::Work => "working".into(),
        _ => activity_text(activity, client).replacen("waits", "asleep", 1),
    }
}

/// Returns a lane in a few words: what the thread did longest.
pub(crate) fn lane_text(lane: &Lane) -> String {
    let spent = Spent::of(lane);
    if spent.idle() < 50.0 {
        return format!("busy for most of its {} ms", millis(spent.all));
    }
    let most = spent.sorted();
    let most = most.iter().filter(|(activity, ..)| activity.is_waiting()).take(1);
    let most: Vec<String> =
        most.map(|&(activity, client, time)| format!("{} ms {}", millis(time), what_for(activity, client))).collect();
    format!("{:.0} % asleep: {}", spent.idle(), most.join(", "))
}

fn what_for(activity: Activity, client: Option<usize>) -> String {
    activity_text(activity, client).trim_start_matches("waits ").to_owned()
}

/// Returns the client of an interval, as a picture and a table show it.
pub(crate) fn described(interval: &Interval) -> String {
    match (interval.activity, interval.client) {
        (Activity::Work | Activity::Send, Some(client)) => {
            format!("{} for client {client}", activity_text(interval.activity, None))
        }
        (activity, client) => activity_text(activity, client),
    }
}

/// Returns what a client does, in words.
pub(crate) fn stay_text(stay: ClientState) -> &'static str {
    match stay {
        ClientState::Connecting => "is not connected yet, the backlog is full",
        ClientState::Backlog => "in the backlog, not accepted",
        ClientState::Answer => "waits for its answer",
        ClientState::Sending => "sends a part of a question",
        ClientState::Idle => "waits for nothing",
        ClientState::NotReading => "reads no answer",
    }
}

/// Returns the lane of a client in a few words.
pub(crate) fn client_text(lane: &ClientLane) -> String {
    let left = lane.intervals.last().map_or(0, |interval| interval.until);
    match lane.answered().next() {
        Some(first) => {
            let [first, all] = [first, left].map(|time| millis(time - lane.came()));
            format!("first answer after {first} ms, the last after {all} ms")
        }
        None => format!("{} after {} ms", outcome_text(lane.outcome), millis(left - lane.came())),
    }
}

fn outcome_text(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::AnsweredAtOnce => "is answered immediately",
        Outcome::AnsweredLate => "is answered late",
        Outcome::AnsweredTogether => "has several answers at the same time",
        Outcome::AnsweredThenClosed => "is answered, then the server closes",
        Outcome::Rejected => "is rejected",
        Outcome::Closed => "is disconnected without an answer",
        Outcome::Reset => "is reset",
        Outcome::Refused => "is refused",
        Outcome::Nothing => "sees nothing",
    }
}

/// Returns the time between two figures of an axis of this length: at most about ten of them.
pub(crate) fn step(length: Micros) -> Micros {
    STEPS.into_iter().find(|step| length / step <= 10).unwrap_or(length / 10)
}

const STEPS: [Micros; 8] = [1_000, 2_000, 5_000, 10_000, 20_000, 50_000, 100_000, 200_000];

/// Formats a time in milliseconds, with one decimal below 10.
pub(crate) fn millis(time: Micros) -> String {
    let millis = time as f64 / 1000.0;
    if millis >= 10.0 { format!("{millis:.0}") } else { format!("{millis:.1}") }
}

fn fine(time: Micros) -> String {
    format!("{:.2}", time as f64 / 1000.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_adds_up_by_activity() {
        let interval = |from, until, activity, client| Interval {
            from,
            until,
            activity,
            client,
            call: None,
            calls: 0,
            source: None,
        };
        let intervals = vec![
            interval(0, 10, Activity::Accept, None),
            interval(10, 15, Activity::Work, Some(1)),
            interval(15, 95, Activity::Recv, Some(1)),
            interval(95, 100, Activity::Send, Some(1)),
        ];
        let lane = Lane { name: "main".into(), process: 1, thread: 1, intervals, matters: true };
        let spent = Spent::of(&lane);
        assert_eq!((spent.all, spent.asleep(), spent.sorted()[0]), (100, 90, (Activity::Recv, Some(1), 80)));
        assert_eq!(Spent::between(&lane, 5, 20).each[&(Activity::Recv, Some(1))], 5);
        assert_eq!(lane_text(&lane), "90 % asleep: 0.1 ms in recv() for client 1");
    }

    #[test]
    fn milliseconds_are_short() {
        assert_eq!((millis(1_234).as_str(), millis(71_234).as_str()), ("1.2", "71"));
    }
}
