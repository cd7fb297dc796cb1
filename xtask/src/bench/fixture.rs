//! An invented result, always the same, for tests that do not measure.

use std::collections::BTreeMap;

use super::machine::Machine;
use super::results::{Idle, Level, Measurement, Probe, Results, Row, SCHEMA, Settings, SystemCalls};
use super::target::Target;
use super::workload::{SATURATED, Workload};
use crate::servers::SERVERS;

/// Returns a result with every server of the list, the duplicate of the control, and a peer whose name needs escaping.
pub(crate) fn results() -> Results {
    let mut servers: Vec<Row> = SERVERS.iter().enumerate().map(|(at, entry)| row(&Target::server(entry), at)).collect();
    let control = servers.iter().position(|row| row.name == "poll").unwrap_or(0);
    let duplicate =
        Row { name: format!("{} again", servers[control].name), is_duplicate: true, ..servers[control].clone() };
    let peer =
        Row { name: "a <b> & \"c\"".to_owned(), family: "peer".to_owned(), ..row(&Target::server(&SERVERS[4]), 13) };
    let control = Some((servers[control].name.clone(), duplicate.name.clone()));
    servers.extend([peer, duplicate]);
    Results {
        schema: SCHEMA.to_owned(),
        name: "fixture".to_owned(),
        taken: "2000-01-01T00:00:00Z".to_owned(),
        settings: Settings {
            workload: Workload::named(SATURATED, false, 1).expect("it is in the list"),
            quick: true,
            rounds: ROUNDS,
            seconds: 0.2,
            pipeline: 1,
            seed: 7,
            max_connections: 10_100,
            backlog: 4096,
            control,
            server_processors: vec![0],
            load_processors: vec![1],
            load_threads: 1,
            took_seconds: 60.0,
        },
        machine: Machine {
            processor: "A processor".to_owned(),
            processors: 2,
            is_virtual: false,
            memory_bytes: 8 << 30,
            kernel: "Linux 6.1 x86_64".to_owned(),
            load_average: 0.1,
            descriptor_limit: Some(20_000),
            sysctls: BTreeMap::from([("net.core.somaxconn".to_owned(), "4096".to_owned())]),
            commit: Some("0123456789ab".to_owned()),
            is_changed: false,
            toolchain: "rustc 1.95.0".to_owned(),
            profile: "release".to_owned(),
            versions: BTreeMap::from([("polling".to_owned(), "3.11.0".to_owned())]),
        },
        servers,
        problems: Vec::new(),
        notes: vec!["invented, not measured".to_owned()],
    }
}

fn row(target: &Target, at: usize) -> Row {
    let most = target.at_once.unwrap_or(usize::MAX);
    let mut levels: Vec<usize> = [1, 16, 256, 1000, 10_000].map(|level| most.min(level)).into();
    levels.dedup();
    let share = 1.0 + at as f64 * 0.06;
    let idle = Idle {
        clients: 10_000,
        bytes_before: 3 << 20,
        bytes_with: (3 << 20) + (200 << at) * 10_000,
        bytes_per_client: (200 << at) as f64,
    };
    Row {
        name: target.name.clone(),
        family: target.family().to_owned(),
        is_duplicate: false,
        command: format!("{} -p 0", target.name),
        at_once: target.at_once,
        reported: Some(format!("at most {most} clients at once, backlog 4096")),
        system_calls: Probe::Found(SystemCalls {
            connections: 16,
            answers: 1000,
            per_answer: 2.0 * share,
            calls: BTreeMap::from([("recvfrom".to_owned(), 1.0), ("sendto".to_owned(), 1.0)]),
        }),
        idle: match target.at_once {
            Some(at_once) => Probe::Missing(format!("it serves {at_once} at once")),
            None => Probe::Found(idle),
        },
        levels: levels.into_iter().map(|connections| level(connections, share)).collect(),
    }
}

/// Returns figures that fall with more connections and rise a little in each round.
fn level(connections: usize, share: f64) -> Level {
    let cost = share * (2.0 + 10.0 / (connections as f64).sqrt());
    let round = |round: usize| {
        let cost = cost * (1.0 + round as f64 * 0.01);
        let rate = 1e6 / cost;
        let wait = connections as f64 / rate * 1e6;
        Measurement {
            objectives: Vec::new(),
            round,
            seconds: 0.2,
            answers: (rate * 0.2) as u64,
            answers_per_second: rate,
            cpu_us_per_answer: cost,
            busy: 1.0,
            p50_us: Some(wait),
            p90_us: Some(wait * 1.5),
            p99_us: Some(wait * 3.0),
            p999_us: Some(wait * 9.0),
            max_us: Some(wait * 20.0),
            voluntary_switches_per_answer: 0.5,
            involuntary_switches_per_answer: 0.01,
            threads: 3,
            descriptors: 10 + connections,
            failed: 0,
            missed: 0,
            unserved: 0,
            is_held: true,
            load_busy: 0.5,
            load_was_bottleneck: connections == 256,
        }
    };
    let latency = [(50.0, 1.0), (75.0, 1.2), (90.0, 1.5), (99.0, 3.0), (99.9, 9.0), (99.99, 20.0)];
    let wait = connections as f64 * cost;
    Level {
        connections,
        rounds: (0..ROUNDS).map(round).collect(),
        latency: latency.map(|(percentile, times)| (percentile, times * wait)).into(),
    }
}

const ROUNDS: usize = 3;
