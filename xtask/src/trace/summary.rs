//! What a recording comes to in numbers: which thread slept how long and why, what an answer cost, what strace cost.

use std::collections::BTreeMap;

use super::lanes::{Activity, Interval, Lane};
use super::recording::Recording;
use super::scenario::{CLIENTS, QUESTIONS, Visit, median_answer};
use super::strace::Micros;

/// How many answers a recording holds.
pub(crate) const ANSWERS: usize = CLIENTS * QUESTIONS;

/// What one thread did with its time.
#[derive(Debug, Default)]
pub(crate) struct Spent {
    /// Time by activity; for recv() by client too.
    pub(crate) each: BTreeMap<(Activity, Option<usize>), Micros>,
    /// The whole time.
    pub(crate) all: Micros,
}

impl Spent {
    /// In a lane, as far as it overlaps with what lies between `from` and `until`.
    pub(crate) fn between(lane: &Lane, from: Micros, until: Micros) -> Spent {
        let mut spent = Spent::default();
        for interval in &lane.intervals {
            let time = interval.until.min(until) - interval.from.max(from);
            if time > 0 {
                let client = interval.client.filter(|_| interval.activity == Activity::Recv);
                *spent.each.entry((interval.activity, client)).or_default() += time;
                spent.all += time;
            }
        }
        spent
    }

    /// In a whole lane.
    pub(crate) fn of(lane: &Lane) -> Spent {
        Spent::between(lane, Micros::MIN, Micros::MAX)
    }

    /// Returns the time asleep, for whatever reason.
    pub(crate) fn asleep(&self) -> Micros {
        self.each.iter().filter(|((activity, _), _)| activity.is_waiting()).map(|(_, time)| time).sum()
    }

    /// In percent.
    pub(crate) fn idle(&self) -> f64 {
        percent(self.asleep(), self.all)
    }

    /// Returns what it did longest, the longest first.
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
        let spent: Vec<Spent> = self.shown().map(Spent::of).collect();
        percent(spent.iter().map(Spent::asleep).sum(), spent.iter().map(|spent| spent.all).sum())
    }

    /// System calls for one answer, coming and going of the clients included.
    pub(crate) fn calls_per_answer(&self) -> f64 {
        self.calls.len() as f64 / ANSWERS as f64
    }

    /// Returns the system calls by name, the most frequent first.
    pub(crate) fn calls_by_name(&self) -> Vec<(&str, usize)> {
        let mut names: BTreeMap<&str, usize> = BTreeMap::new();
        self.calls.iter().for_each(|call| *names.entry(call.name.as_str()).or_default() += 1);
        let mut names: Vec<_> = names.into_iter().collect();
        names.sort_by_key(|&(name, count)| (usize::MAX - count, name));
        names
    }

    /// Returns what each client waited from coming to its first answer, under strace.
    pub(crate) fn first_wait(&self, client: usize) -> Micros {
        self.visits.iter().find(|visit| visit.client == client).map_or(0, Visit::first_wait)
    }

    /// Returns whether the last client had to wait until the first one had left.
    pub(crate) fn makes_wait(&self) -> bool {
        let left = self.visits.iter().find(|visit| visit.client == 1).map(|visit| visit.left);
        let last = self.visits.iter().find(|visit| visit.client == CLIENTS).and_then(|visit| visit.answered.first());
        last.zip(left).is_some_and(|(&answered, left)| answered > left)
    }

    /// The sentence for which the picture is drawn: what client 3 waited for its first answer, and what the threads
    /// did meanwhile.
    pub(crate) fn verdict(&self) -> String {
        let Some(visit) = self.visits.iter().find(|visit| visit.client == CLIENTS) else { return String::new() };
        let (from, until) = (visit.came - self.start, visit.came - self.start + visit.first_wait());
        let waited = millis(visit.first_wait());
        if !self.makes_wait() {
            return format!(
                "Client {CLIENTS} has its first answer after {waited} ms, while client 1 still thinks{}",
                self.why_nobody_waits().map_or(".".into(), |why| format!(": {why}."))
            );
        }
        let doing = self.shown().filter_map(|lane| {
            let (activity, client, time) = *Spent::between(lane, from, until).sorted().first()?;
            Some((time, format!("for {} ms of that, {} was {}", millis(time), lane.name, during(activity, client))))
        });
        let why = doing.max_by_key(|(time, _)| *time).map(|(_, text)| text).unwrap_or_default();
        format!("Client {CLIENTS} waits {waited} ms for its first answer, until client 1 has left: {why}.")
    }

    /// Says which clients wait for client 1 while it thinks, and which thread serves the last client.
    fn why_nobody_waits(&self) -> Option<String> {
        let asleep = |lane: &&Lane| {
            let key = (Activity::Recv, Some(1));
            Spent::of(lane).each.get(&key).is_some_and(|&time| time > self.length / 2)
        };
        let serves =
            |lane: &&Lane| lane.intervals.iter().any(|i| i.activity == Activity::Send && i.client == Some(CLIENTS));
        let last = &self.shown().find(serves)?.name;
        Some(match self.shown().find(asleep) {
            Some(lane) => {
                format!("{} sleeps in recv() for client 1 alone, but {last} serves client {CLIENTS}", lane.name)
            }
            None if self.shown().count() == 1 => {
                format!("{last} never sleeps for one client, only in epoll_wait(), where any client wakes it")
            }
            None => "no thread ever sleeps for one client alone, any client wakes one".into(),
        })
    }

    /// Returns what the other threads were left out for.
    pub(crate) fn left_out_told(&self) -> Option<String> {
        let told = |(name, count): (&str, usize)| match count {
            1 => name.to_owned(),
            _ => format!("{name} of {count} processes"),
        };
        let names: Vec<String> = self.left_out().into_iter().map(told).collect();
        (!names.is_empty()).then(|| format!("Not drawn, as they serve no client: {}.", names.join(", ")))
    }

    /// Returns what strace itself costs, in a sentence.
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

/// Returns an activity, as a person would call it.
pub(crate) fn told(activity: Activity, client: Option<usize>) -> String {
    match (activity, client) {
        (Activity::Accept, _) => "waits in accept()".into(),
        (Activity::Recv, Some(client)) => format!("waits in recv() for client {client}"),
        (Activity::Recv, None) => "waits in recv()".into(),
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
        _ => told(activity, client).replacen("waits", "asleep", 1),
    }
}

/// Returns a whole lane in a few words: what it did longest.
pub(crate) fn lane_told(lane: &Lane) -> String {
    let spent = Spent::of(lane);
    if spent.idle() < 50.0 {
        return format!("there for {} ms only", millis(spent.all));
    }
    let most = spent.sorted();
    let most = most.iter().filter(|(activity, ..)| activity.is_waiting()).take(1);
    let most: Vec<String> =
        most.map(|&(activity, client, time)| format!("{} ms {}", millis(time), what_for(activity, client))).collect();
    format!("{:.0} % asleep: {}", spent.idle(), most.join(", "))
}

fn what_for(activity: Activity, client: Option<usize>) -> String {
    told(activity, client).trim_start_matches("waits ").to_owned()
}

/// Returns the client of an interval, as a picture and a table show it.
pub(crate) fn described(interval: &Interval) -> String {
    match (interval.activity, interval.client) {
        (Activity::Work | Activity::Send, Some(client)) => {
            format!("{} for client {client}", told(interval.activity, None))
        }
        (activity, client) => told(activity, client),
    }
}

/// Milliseconds with one decimal, or none if there are many.
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
        let interval = |from, until, activity, client| Interval { from, until, activity, client };
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
        assert_eq!(lane_told(&lane), "90 % asleep: 0.1 ms in recv() for client 1");
    }

    #[test]
    fn milliseconds_are_short() {
        assert_eq!((millis(1_234).as_str(), millis(71_234).as_str()), ("1.2", "71"));
    }
}
