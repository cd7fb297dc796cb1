//! The client that a call is about: by the port of the client to which its descriptor belongs.

use std::collections::BTreeMap;

use super::Ports;
use crate::trace::strace::{Call, Log, Micros};

/// The client of each descriptor, and from when on.
pub(super) struct Descriptors<'a> {
    ports: &'a Ports,
    /// By process and descriptor, in the order of time.
    since: BTreeMap<(i32, i32), Vec<Ownership>>,
    /// When clients were accepted, by their ports.
    accepted: BTreeMap<u16, Micros>,
}

/// The client to which a descriptor belongs from a time on; `None` after it is closed.
struct Ownership {
    time: Micros,
    client: Option<usize>,
    /// Whether a call for it may sleep.
    blocks: bool,
}

impl<'a> Descriptors<'a> {
    pub(super) fn of(log: &Log, ports: &'a Ports) -> Descriptors<'a> {
        let mut descriptors = Descriptors { ports, since: BTreeMap::new(), accepted: BTreeMap::new() };
        for call in &log.calls {
            let process = log.process_of(call.thread);
            let (descriptor, client) = match call.name.as_str() {
                "accept" | "accept4" => {
                    descriptors.accepted.extend(call.port().map(|port| (port, call.end)));
                    (call.brought(), descriptors.brought(call))
                }
                // A process for one client inherits the connection, and gets the client's address from getpeername().
                "getpeername" => (call.descriptor(), descriptors.brought(call)),
                "close" => (call.descriptor(), None),
                _ => continue,
            };
            let blocks = !call.arguments.contains("SOCK_NONBLOCK");
            let place = (process, descriptor.unwrap_or(-1));
            descriptors.since.entry(place).or_default().push(Ownership { time: call.end, client, blocks });
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

    fn since(&self, process: i32, call: &Call) -> Option<&Ownership> {
        let since = self.since.get(&(process, call.descriptor()?))?;
        // strace rounds: a call may seem to begin a microsecond before the one before it ended.
        since.iter().rev().find(|since| since.time <= call.start + 1)
    }

    /// Returns the client that an accept() returned.
    pub(super) fn brought(&self, call: &Call) -> Option<usize> {
        call.port().filter(|_| !call.has_failed()).and_then(|port| self.ports.get(&port)).copied()
    }

    /// Returns when the client of this port was accepted.
    pub(super) fn accepted(&self, port: u16) -> Option<Micros> {
        self.accepted.get(&port).copied()
    }
}
