//! The scenarios: what the clients do, and to which servers each scenario applies.
//!
//! Client 1 starts first. The others start at fixed times after its first step is complete.

pub(crate) mod client;

use std::net::SocketAddr;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::Duration;

use anyhow::{Result, anyhow, bail};

use super::strace::Micros;
use crate::harness::WAIT_LIMIT;
use crate::harness::client::APHORISMS;
use crate::servers::Entry;
use client::Step;
pub(crate) use client::{Visit, now};

/// What the clients do, and what is done to the server meanwhile.
pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    /// In one sentence.
    pub(crate) about: &'static str,
    /// Options of the server, or why the scenario does not apply to it.
    pub(crate) arguments: fn(&Entry) -> Result<Vec<&'static str>, &'static str>,
    pub(crate) clients: fn(&Entry) -> Vec<Plan>,
    /// How long the server works on an answer: the `--delay` in `arguments`.
    pub(crate) work: Duration,
    /// The time from the first client's first step to SIGTERM; `None`: the server is not drained.
    pub(crate) drains_after: Option<Duration>,
    /// Whether the server may open only one more descriptor.
    pub(crate) lacks_descriptors: bool,
}

/// What one client does.
pub(crate) struct Plan {
    pub(crate) behaviour: &'static str,
    /// Whether a question can be about it.
    pub(crate) is_subject: bool,
    /// When it connects, after the first client has done its first step.
    pub(crate) after: Duration,
    pub(crate) steps: Vec<Step>,
}

/// Returns the scenario of this name.
pub(crate) fn named(name: &str) -> Result<&'static Scenario> {
    let names = || SCENARIOS.iter().map(|scenario| scenario.name).collect::<Vec<_>>().join(", ");
    SCENARIOS.iter().find(|scenario| scenario.name == name).ok_or_else(|| anyhow!("no scenario {name}: {}", names()))
}

impl Scenario {
    /// Runs the clients against a server and returns what each saw. Calls `drain` at the time of SIGTERM.
    pub(crate) fn play(
        &self,
        entry: &Entry,
        address: SocketAddr,
        drain: impl FnOnce() -> Result<()>,
    ) -> Result<Vec<Visit>> {
        thread::scope(|scope| {
            let (begun, has_begun) = channel();
            let start = |client: usize, plan: Plan, begun: Option<Sender<()>>| {
                scope.spawn(move || client::visit(address, client, &plan, begun))
            };
            let mut plans = (self.clients)(entry).into_iter();
            let mut clients: Vec<_> = plans.next().map(|plan| start(1, plan, Some(begun))).into_iter().collect();
            match has_begun.recv_timeout(WAIT_LIMIT) {
                Ok(()) => {}
                // It has failed, and its error is returned below.
                Err(RecvTimeoutError::Disconnected) => {}
                Err(RecvTimeoutError::Timeout) => bail!("client 1 did not finish its first step within {WAIT_LIMIT:?}"),
            }
            for (place, plan) in plans.enumerate() {
                clients.push(start(place + 2, plan, None));
            }
            if let Some(after) = self.drains_after {
                thread::sleep(after);
                drain()?;
            }
            clients.into_iter().map(|client| client.join().map_err(|_| anyhow!("a client panicked"))?).collect()
        })
    }
}

/// Returns the median time from a question to its answer.
pub(crate) fn median_answer(visits: &[Visit]) -> Micros {
    let mut times: Vec<Micros> = visits.iter().flat_map(Visit::answer_times).collect();
    times.sort_unstable();
    times.get(times.len() / 2).copied().unwrap_or_default()
}

/// The scenario that `trace` draws unless another is named.
pub(crate) const THREE_TALKERS: &Scenario = &SCENARIOS[0];

/// All scenarios.
pub(crate) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "three-talkers",
        about: "three clients ask three questions each; the first thinks for 40 ms in between",
        arguments: |_| Ok(vec![]),
        clients: |_| {
            let thinks = Duration::from_millis(40);
            vec![
                Plan { is_subject: false, ..plan("honest", 0, asks(thinks)) },
                Plan { is_subject: false, ..plan("honest", 8, asks(Duration::ZERO)) },
                plan("honest", 16, asks(Duration::ZERO)),
            ]
        },
        ..PLAIN
    },
    Scenario {
        name: "silent-client",
        about: "the first client connects and says nothing, until it is disconnected",
        arguments: |entry| visible(entry, vec!["--idle-timeout", "600ms"]),
        clients: |_| {
            vec![
                plan("silent", 0, vec![Step::Listen(MOMENT), Step::Listen(LONG)]),
                plan("honest", 60, asks(Duration::ZERO)),
                Plan { is_subject: false, ..plan("honest", 120, asks(Duration::ZERO)) },
            ]
        },
        ..PLAIN
    },
    Scenario {
        name: "dripping-client",
        about: "the first client sends its question byte by byte, one byte every 80 ms",
        arguments: |entry| visible(entry, vec!["--question-timeout", "600ms"]),
        clients: |_| {
            let question = APHORISMS[0].0;
            let drip = question.chunks(1).flat_map(|byte| [Step::Send(byte), Step::Listen(Duration::from_millis(80))]);
            vec![plan("dripping", 0, drip.collect()), plan("honest", 100, asks(Duration::ZERO))]
        },
        ..PLAIN
    },
    Scenario {
        name: "never-reading",
        about: "the first client asks without end and reads no answer",
        arguments: |entry| visible(entry, vec!["--question-timeout", "500ms"]),
        clients: |_| {
            let flood = vec![Step::Listen(MOMENT), Step::Flood(LONG)];
            vec![plan("never-reading", 0, flood), plan("honest", 200, asks(Duration::ZERO))]
        },
        ..PLAIN
    },
    Scenario {
        name: "pipelining",
        about: "the first client sends three questions in one go, of which each takes 60 ms to answer",
        arguments: |entry| visible(entry, vec!["--delay", "60ms"]),
        clients: |_| {
            let all = b"Beautiful is better than?Explicit is better than?Simple is better than?";
            vec![
                plan("pipelining", 0, vec![Step::Send(all), Step::Answers(3)]),
                plan("honest", 20, asks(Duration::ZERO)[..1].to_vec()),
            ]
        },
        work: Duration::from_millis(60),
        ..PLAIN
    },
    Scenario {
        name: "half-close",
        about: "the first client sends two questions and a half, and ends its sending side",
        arguments: |entry| visible(entry, vec!["--delay", "40ms"]),
        clients: |_| {
            let half = b"Beautiful is better than?Explicit is better than?Simple is";
            vec![
                plan("half-question", 0, vec![Step::Send(half), Step::EndSending, Step::Listen(LONG)]),
                Plan { is_subject: false, ..plan("honest", 20, asks(Duration::ZERO)[..1].to_vec()) },
            ]
        },
        work: Duration::from_millis(40),
        ..PLAIN
    },
    Scenario {
        name: "slow-answer",
        about: "three clients ask at nearly the same time, and each answer takes 120 ms",
        arguments: |entry| visible(entry, vec!["--delay", "120ms"]),
        clients: |_| {
            // The first step is over when the question is sent, so the others ask meanwhile.
            let one = || vec![Step::Send(APHORISMS[0].0), Step::Answers(1)];
            let first = Plan { is_subject: false, ..plan("honest", 0, one()) };
            let second = Plan { is_subject: false, ..plan("honest", 10, one()) };
            vec![first, second, plan("honest", 20, one())]
        },
        work: Duration::from_millis(120),
        ..PLAIN
    },
    Scenario {
        name: "too-many-clients",
        about: "more clients connect than the server's limit or its backlog allows; the first ones stay for 450 ms",
        arguments: |entry| match entry {
            Entry { queue: Some(_), .. } => Ok(vec!["--max-connections", "6"]),
            Entry { at_once: Some(_), .. } => Ok(vec!["--backlog", "1"]),
            Entry { processes: 2.., .. } => Err("each process has its own limit: which client is rejected is chance"),
            _ => visible(entry, vec!["--max-connections", "2"]),
        },
        clients: too_many,
        ..PLAIN
    },
    Scenario {
        name: "no-descriptors",
        about: "the server may open one more descriptor, and two clients connect",
        arguments: |entry| match entry {
            Entry { is_example: true, .. } => Err("examples make no promise about running out of descriptors"),
            Entry { processes: 2.., .. } => Err("each process has descriptors of its own"),
            _ => Ok(vec![]),
        },
        clients: |_| {
            let stays = asks(Duration::from_millis(400))[..3].to_vec();
            let first = Plan { is_subject: false, ..plan("honest", 0, stays) };
            vec![first, plan("honest", 60, asks(Duration::ZERO)[..1].to_vec())]
        },
        lacks_descriptors: true,
        ..PLAIN
    },
    Scenario {
        name: "draining",
        about: "SIGTERM comes while one client is silent, one has sent half a question and one waits for an answer",
        arguments: |entry| match entry {
            Entry { is_example: true, .. } => Err("examples make no promise about draining"),
            _ => Ok(vec!["--delay", "150ms"]),
        },
        clients: |_| {
            let late = Step::Listen(LONG);
            vec![
                plan("silent", 0, vec![Step::Listen(MOMENT), late]),
                plan("half-question", 40, vec![Step::Send(b"Beautiful is"), late]),
                plan("honest", 200, vec![Step::Send(APHORISMS[2].0), late]),
                plan("honest", 1_400, vec![Step::Send(APHORISMS[1].0), late]),
            ]
        },
        work: Duration::from_millis(150),
        drains_after: Some(Duration::from_millis(260)),
        ..PLAIN
    },
];

/// The defaults of a scenario.
const PLAIN: Scenario = Scenario {
    name: "",
    about: "",
    arguments: |entry| visible(entry, vec![]),
    clients: |_| vec![],
    work: Duration::ZERO,
    drains_after: None,
    lacks_descriptors: false,
};

/// Returns the clients of `too-many-clients`: silent ones that fill the server and its queue, others that fill the
/// backlog, one that is over the limit, and one that connects after the silent ones have left.
fn too_many(entry: &Entry) -> Vec<Plan> {
    let (served, waiting) = match entry {
        Entry { queue: Some(_), .. } => (6, 0),
        Entry { at_once: Some(served), .. } => (*served, 2),
        _ => (2, 0),
    };
    let stay = Duration::from_millis(450);
    let holds = |place: usize| {
        let steps = vec![Step::Listen(MOMENT), Step::Listen(stay), Step::Ask(APHORISMS[0].0)];
        Plan { is_subject: false, ..plan("silent", 10 * place as u64, steps) }
    };
    let one = || asks(Duration::ZERO)[..1].to_vec();
    let waits = |place| plan("honest", 100 + 10 * place as u64, one());
    let mut plans: Vec<Plan> = (0..served).map(holds).collect();
    plans.extend((0..waiting).map(waits));
    plans.push(plan("honest", 200, one()));
    plans.push(plan("honest", 700, one()));
    plans
}

/// Returns `arguments`, or why the scenario does not apply: strace must see the calls of the server.
fn visible(entry: &Entry, arguments: Vec<&'static str>) -> Result<Vec<&'static str>, &'static str> {
    if entry.uses_io_uring() {
        return Err("it submits its calls through io_uring, where strace does not see them");
    }
    Ok(arguments)
}

/// Returns the steps that ask the three questions, with a pause of `thinks` between two of them.
fn asks(thinks: Duration) -> Vec<Step> {
    let mut steps = Vec::new();
    for (place, (question, _)) in APHORISMS.iter().enumerate() {
        if place > 0 && !thinks.is_zero() {
            steps.push(Step::Listen(thinks));
        }
        steps.push(Step::Ask(question));
    }
    steps
}

fn plan(behaviour: &'static str, after: u64, steps: Vec<Step>) -> Plan {
    Plan { behaviour, is_subject: true, after: Duration::from_millis(after), steps }
}

/// The length of a first step that only shows that the client is connected.
const MOMENT: Duration = Duration::from_millis(1);
/// Longer than any server waits in a scenario.
const LONG: Duration = Duration::from_millis(1_600);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::servers::SERVERS;

    #[test]
    fn each_server_has_scenarios_and_each_scenario_has_a_subject() {
        for scenario in SCENARIOS {
            let mut servers = SERVERS.iter().filter(|entry| (scenario.arguments)(entry).is_ok());
            let entry = servers.next().expect("some server plays it");
            assert!((scenario.clients)(entry).iter().any(|plan| plan.is_subject), "{}", scenario.name);
        }
        assert!(SERVERS.iter().all(|entry| (THREE_TALKERS.arguments)(entry).is_ok()));
        assert!(named("draining").is_ok() && named("drainage").is_err());
    }
}
