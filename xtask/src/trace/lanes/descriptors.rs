//! Which client a call is about: by its descriptor, which an accept() gave to a client with a port.

use std::collections::BTreeMap;

use crate::trace::scenario::Visit;
use crate::trace::strace::{Call, Log, Micros};

/// Which client a descriptor is, and when.
pub(super) struct Descriptors {
    ports: BTreeMap<u16, usize>,
    /// By process and descriptor, in the order of time.
    since: BTreeMap<(i32, i32), Vec<Since>>,
}

/// From this time on a descriptor is this client's, or no client's any more.
struct Since {
    time: Micros,
    client: Option<usize>,
    /// Whether a call for it may sleep.
    blocks: bool,
}

impl Descriptors {
    pub(super) fn of(log: &Log, visits: &[Visit]) -> Descriptors {
        let ports = visits.iter().map(|visit| (visit.port, visit.client)).collect();
        let mut descriptors = Descriptors { ports, since: BTreeMap::new() };
        for call in &log.calls {
            let (descriptor, client) = match call.name.as_str() {
                "accept" | "accept4" => {
                    (call.result.and_then(|number| i32::try_from(number).ok()), descriptors.brought(call))
                }
                "close" => (call.descriptor(), None),
                _ => continue,
            };
            let blocks = !call.arguments.contains("SOCK_NONBLOCK");
            let place = (log.process_of(call.thread), descriptor.unwrap_or(-1));
            descriptors.since.entry(place).or_default().push(Since { time: call.end, client, blocks });
        }
        descriptors.since.values_mut().for_each(|since| since.sort_by_key(|since| since.time));
        descriptors
    }

    /// Returns the client that the call is about.
    pub(super) fn at(&self, process: i32, call: &Call) -> Option<usize> {
        self.since(process, call)?.client
    }

    /// Returns whether a call about a client may sleep.
    pub(super) fn blocks(&self, process: i32, call: &Call) -> bool {
        self.since(process, call).is_none_or(|since| since.blocks)
    }

    fn since(&self, process: i32, call: &Call) -> Option<&Since> {
        let since = self.since.get(&(process, call.descriptor()?))?;
        // strace rounds: a call may seem to begin a microsecond before the one before it ended.
        since.iter().rev().find(|since| since.time <= call.start + 1)
    }

    /// Returns the client that an accept() returned.
    pub(super) fn brought(&self, call: &Call) -> Option<usize> {
        call.port().filter(|_| !call.has_failed()).and_then(|port| self.ports.get(&port)).copied()
    }

    /// Returns when each client was accepted.
    pub(super) fn accepted(&self) -> BTreeMap<usize, Micros> {
        self.since.values().flatten().filter_map(|since| Some((since.client?, since.time))).collect()
    }
}
