//! The source line at which a thread of a server waits, found by its text.

use std::fs;

use anyhow::{Context, Result};

use super::model::{Activity, Lane, Source};
use crate::servers::Entry;
use crate::workspace;

/// The lines at which the threads of a server wait, send, or simulate work.
#[derive(Default)]
pub(crate) struct Lines(Vec<(Doing, Source)>);

/// What a thread does, and whether it only simulates it by sleeping.
type Doing = (Activity, bool);

impl Lines {
    /// Finds the lines of a server, each in the first of its files that has one.
    pub(crate) fn of(entry: &Entry) -> Result<Lines> {
        let Some(row) = ROWS.iter().find(|row| row.servers.contains(&entry.name)) else { return Ok(Lines::default()) };
        let root = workspace::root()?;
        let read = |file: &&'static str| {
            let text = fs::read_to_string(root.join(file)).with_context(|| format!("cannot read {file}"))?;
            Ok((*file, text))
        };
        let files: Vec<(&str, String)> = row.files.iter().map(read).collect::<Result<_>>()?;
        let wanted = WORDS.into_iter().chain([((Activity::Poll, false), row.polls)]);
        let lines = wanted.filter_map(|(doing, words)| Some((doing, line(&files, words)?)));
        Ok(Lines(lines.collect()))
    }

    /// Sets the source of each interval: a place in [`Lines::sources`].
    pub(crate) fn set_sources(&self, lanes: &mut [Lane]) {
        for interval in lanes.iter_mut().flat_map(|lane| &mut lane.intervals) {
            let sleeps = interval.call.as_deref().is_some_and(|call| call.ends_with("nanosleep"));
            let doing = (interval.activity, interval.activity == Activity::Work && sleeps);
            interval.source = self.0.iter().position(|(other, _)| *other == doing);
        }
    }

    /// Returns the lines themselves.
    pub(crate) fn sources(&self) -> Vec<Source> {
        self.0.iter().map(|(_, source)| source.clone()).collect()
    }
}

/// Returns the first line of these files that has some words, outside of comments.
fn line(files: &[(&str, String)], words: &[&str]) -> Option<Source> {
    let is_found = |line: &str| words.iter().any(|words| line.contains(words)) && !line.trim_start().starts_with("//");
    files.iter().find_map(|(file, text)| {
        let (place, line) = text.lines().enumerate().find(|(_, line)| is_found(line))?;
        Some(Source { file: (*file).to_owned(), line: place + 1, text: line.trim().to_owned() })
    })
}

/// Where servers wait.
struct Row {
    servers: &'static [&'static str],
    /// The files of the architecture, then those that it shares with others.
    files: &'static [&'static str],
    /// What the line has in which a thread waits for any client.
    polls: &'static [&'static str],
}

/// What the lines of all servers have.
const WORDS: [(Doing, &[&str]); 6] = [
    ((Activity::Accept, false), &["server.accept()"]),
    ((Activity::Recv, false), &["match read(stream"]),
    ((Activity::Send, false), &["write("]),
    ((Activity::WaitsToSend, false), &["write("]),
    ((Activity::Thread, false), &["wait_timeout("]),
    ((Activity::Work, true), &["server.answer(question)", "server().answer(&question)"]),
];

const ROWS: &[Row] = &[
    Row { servers: &["single"], files: &["zen-single/src/serve.rs"], polls: &[] },
    Row {
        servers: &["workers", "processes"],
        files: &["zen-threaded/src/workers.rs", "zen-threaded/src/converse.rs"],
        polls: &[],
    },
    Row {
        servers: &["per-connection"],
        files: &["zen-threaded/src/per_connection.rs", "zen-threaded/src/converse.rs"],
        polls: &[],
    },
    Row {
        servers: &["per-process"],
        files: &["zen-threaded/src/per_process.rs", "zen-threaded/src/converse.rs"],
        polls: &[],
    },
    Row { servers: &["pool"], files: &["zen-threaded/src/pool.rs", "zen-threaded/src/converse.rs"], polls: &[] },
    Row {
        servers: &["poll", "poll-loops", "poll-processes"],
        files: &["zen-poll/src/event_loop.rs", "zen-poll/src/callback.rs"],
        polls: &["self.poller.wait("],
    },
    Row {
        servers: &["poll-chat"],
        files: &["zen-poll/src/event_loop.rs", "zen-poll/src/chat.rs"],
        polls: &["self.poller.wait("],
    },
    Row {
        servers: &["smol", "smol-threads"],
        files: &["zen-async/src/on_smol.rs"],
        polls: &["block_on(executor.run(accept"],
    },
    Row { servers: &["async-std"], files: &["zen-async/src/on_async_std.rs"], polls: &["block_on(accept_all"] },
    Row { servers: &["raw", "per-core"], files: &["zen-poll/examples/raw.rs"], polls: &["poller.wait("] },
    Row { servers: &["edge"], files: &["zen-poll/examples/edge.rs"], polls: &["poller.wait("] },
    Row {
        servers: &["own-executor"],
        files: &["zen-async/examples/own_executor/reactor.rs", "zen-async/examples/own_executor/main.rs"],
        polls: &["self.poller.wait("],
    },
    Row { servers: &["on-tokio"], files: &["zen-async/examples/on_tokio.rs"], polls: &["block_on(accept_all"] },
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::servers::SERVERS;
    use crate::trace::model::Interval;

    /// Returns the line at which a server waits.
    fn line(server: &str, activity: Activity, call: &str) -> Option<Source> {
        let entry = SERVERS.iter().find(|entry| entry.name == server).expect("it is a server");
        let call = Some(call.to_owned());
        let interval = Interval { from: 0, until: 1, activity, client: None, call, calls: 1, source: None };
        let lane = Lane { name: String::new(), process: 1, thread: 1, intervals: vec![interval], matters: true };
        let lines = Lines::of(entry).expect("its files can be read");
        let mut lanes = [lane];
        lines.set_sources(&mut lanes);
        Some(lines.sources().swap_remove(lanes[0].intervals[0].source?))
    }

    #[test]
    fn each_wait_of_each_server_has_its_line() {
        for row in ROWS {
            for server in row.servers.iter().filter(|name| SERVERS.iter().any(|entry| entry.name == **name)) {
                let waits: &[Activity] = match row.polls {
                    [] => &[Activity::Accept, Activity::Recv, Activity::Send],
                    _ => &[Activity::Poll, Activity::Send],
                };
                for &activity in waits {
                    assert!(line(server, activity, "").is_some(), "{server}: {activity:?}");
                }
                let answers = line(server, Activity::Work, "clock_nanosleep");
                assert!(answers.is_some_and(|source| source.text.contains("answer")), "{server}");
            }
        }
        assert!(line("pool", Activity::Thread, "futex").is_some_and(|source| source.file.ends_with("pool.rs")));
        assert!(line("single", Activity::Work, "close").is_none());
    }
}
