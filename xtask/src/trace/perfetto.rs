//! The recording as Chrome trace events, which <https://ui.perfetto.dev> opens: a lane for each thread of the server,
//! with its calls, and one for each client.

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::recording::Recording;
use super::scenario::Visit;
use super::summary::{described, stay_text};

/// Returns the whole file.
pub(crate) fn json(recording: &Recording) -> Result<String> {
    let mut events = Vec::new();
    for lane in &recording.model.threads {
        if lane.thread == lane.process {
            events.push(named("process_name", lane.process, lane.thread, recording.model.server));
        }
        events.push(named("thread_name", lane.process, lane.thread, &lane.name));
        let place = (lane.process, lane.thread);
        for interval in &lane.intervals {
            let category = if interval.activity.is_waiting() { "waiting" } else { "working" };
            events.push(slice(place, (interval.from, interval.until), &described(interval), category, json!({})));
        }
        for call in recording.calls.iter().filter(|call| call.thread == lane.thread) {
            let told = json!({ "arguments": call.arguments, "result": call.result, "errno": call.errno });
            let (from, until) =
                (call.start - recording.start, (call.end - recording.start).min(recording.model.length));
            events.push(slice(place, (from, until), &call.name, "system call", told));
        }
    }
    events.push(named("process_name", CLIENTS, CLIENTS, "clients"));
    for lane in &recording.model.clients {
        let place = (CLIENTS, CLIENTS + lane.client as i32);
        events.push(named("thread_name", place.0, place.1, &format!("client {}", lane.client)));
        for interval in &lane.intervals {
            let span = (interval.from, interval.until);
            events.push(slice(place, span, stay_text(interval.stay), "client", json!({})));
        }
    }
    let all = json!({ "displayTimeUnit": "ms", "traceEvents": events, "otherData": about(recording) });
    serde_json::to_string_pretty(&all).context("cannot write the trace")
}

fn about(recording: &Recording) -> Value {
    json!({
        "server": recording.model.server,
        "verdict": recording.verdict(),
        "first_answers_after_us": recording.visits.iter().map(Visit::first_wait).collect::<Vec<_>>(),
    })
}

fn named(what: &str, process: i32, thread: i32, name: &str) -> Value {
    json!({ "ph": "M", "name": what, "pid": process, "tid": thread, "args": { "name": name } })
}

fn slice((process, thread): (i32, i32), (from, until): (i64, i64), name: &str, category: &str, told: Value) -> Value {
    json!({ "ph": "X", "name": name, "cat": category, "pid": process, "tid": thread, "ts": from, "dur": until - from, "args": told })
}

/// The number of a process that stands for the clients. No real process has it.
const CLIENTS: i32 = 10_000_000;
