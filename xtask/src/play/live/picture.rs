//! The lanes that a page shows: what the threads and the clients did in the last seconds.

use std::collections::BTreeSet;

use serde::Serialize;

use crate::trace::lanes;
use crate::trace::model::{self, Activity, ClientInterval, ClientLane, Interval, Lane, Source};
use crate::trace::scenario::Visit;
use crate::trace::sources::Lines;
use crate::trace::strace::{Log, Micros};

/// The lanes of the last seconds, in microseconds since the server was started.
#[derive(Default)]
pub(super) struct Picture {
    threads: Vec<Lane>,
    clients: Vec<ClientLane>,
    sources: Vec<Source>,
}

impl Picture {
    /// Draws what happened since `from` to a server that was started at `start`. `serving` has the threads that
    /// have been drawn before: they are drawn again, and new ones are added.
    pub(super) fn of(
        log: &Log,
        lines: &Lines,
        visits: &[Visit],
        [start, from, now]: [Micros; 3],
        serving: &mut BTreeSet<i32>,
    ) -> Picture {
        let ports = visits.iter().map(|visit| (visit.port, visit.client)).collect();
        let mut threads = lanes::threads(log, &ports, from, now);
        serving.extend(threads.iter().filter(|lane| lane.matters).map(|lane| lane.thread));
        threads.retain(|lane| serving.contains(&lane.thread));
        for lane in &mut threads {
            lane.intervals = coarse(std::mem::take(&mut lane.intervals));
            for interval in &mut lane.intervals {
                interval.from += from - start;
                interval.until += from - start;
            }
        }
        lines.set_sources(&mut threads);
        let mut clients: Vec<ClientLane> = Vec::new();
        for visit in lanes::clients(log, visits, start, 0) {
            match clients.last_mut().filter(|lane| lane.client == visit.client) {
                Some(lane) => {
                    lane.intervals.extend(visit.intervals);
                    lane.events.extend(visit.events);
                }
                None => clients.push(visit),
            }
        }
        Picture { threads, clients, sources: lines.sources() }
    }

    /// Returns the news for a page that has received what happened before `seen`.
    pub(super) fn since<'a>(&'a self, seen: Micros) -> News<'a> {
        let thread = |lane: &'a Lane| {
            let intervals: Vec<_> = lane.intervals.iter().filter(|interval| interval.until >= seen).collect();
            (!intervals.is_empty()).then_some(ThreadNews { thread: lane.thread, name: &lane.name, intervals })
        };
        let client = |lane: &'a ClientLane| ClientNews {
            client: lane.client,
            behaviour: lane.behaviour,
            intervals: lane.intervals.iter().filter(|interval| interval.until >= seen).collect(),
            events: lane.events.iter().filter(|event| event.at >= seen).collect(),
        };
        News {
            threads: self.threads.iter().filter_map(thread).collect(),
            clients: self.clients.iter().map(client).collect(),
            sources: &self.sources,
        }
    }
}

/// Joins intervals that are too short for a picture of several seconds. A thread that wakes up again and again is drawn
/// as working all the time, or as sending if it sent.
fn coarse(intervals: Vec<Interval>) -> Vec<Interval> {
    let mut joined: Vec<Interval> = Vec::new();
    for next in intervals {
        match joined.last_mut().filter(|last| !last.activity.is_waiting() && next.length() < SHORT) {
            Some(last) => {
                last.until = next.until;
                last.calls += next.calls;
                if next.activity == Activity::Send {
                    last.activity = Activity::Send;
                }
                last.client = last.client.filter(|_| next.client == last.client || next.activity.is_waiting());
            }
            None => joined.push(next),
        }
    }
    joined
}

/// The part of the lanes that a page has not received yet.
#[derive(Serialize)]
pub(super) struct News<'a> {
    threads: Vec<ThreadNews<'a>>,
    clients: Vec<ClientNews<'a>>,
    /// The lines at which the threads of this server wait.
    sources: &'a [Source],
}

/// What a thread did.
#[derive(Serialize)]
struct ThreadNews<'a> {
    thread: i32,
    name: &'a str,
    /// They replace what the page has, from the start of the first one on.
    intervals: Vec<&'a Interval>,
}

/// What a client did and saw.
#[derive(Serialize)]
struct ClientNews<'a> {
    client: usize,
    behaviour: &'a str,
    /// They replace what the page has, like those of a thread.
    intervals: Vec<&'a ClientInterval>,
    events: Vec<&'a model::Event>,
}

/// The time of one pixel in a window of usual width.
const SHORT: Micros = 8_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_pieces_are_joined_with_the_work_before_them() {
        let pieces = [
            (0, 50_000, Activity::Poll, None),
            (50_000, 50_100, Activity::Work, Some(1)),
            (50_100, 52_000, Activity::Poll, None),
            (52_000, 52_100, Activity::Send, Some(1)),
            (52_100, 90_000, Activity::Poll, None),
            (90_000, 90_100, Activity::Work, Some(1)),
            (90_100, 90_200, Activity::Work, Some(2)),
        ];
        let piece = |(from, until, activity, client)| {
            let (call, source) = (None, None);
            Interval { from, until, activity, client, call, calls: 1, source }
        };
        let joined = coarse(pieces.map(piece).into());
        let joined = joined.iter().map(|piece| (piece.from, piece.until, piece.activity, piece.client, piece.calls));
        let expected = [
            (0, 50_000, Activity::Poll, None, 1),
            (50_000, 52_100, Activity::Send, Some(1), 3),
            (52_100, 90_000, Activity::Poll, None, 1),
            (90_000, 90_200, Activity::Work, None, 2),
        ];
        assert_eq!(joined.collect::<Vec<_>>(), expected);
    }
}
