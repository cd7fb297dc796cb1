//! `cargo xtask deploy plan`: calculates how many machines a number of clients needs, from results of `cargo xtask
//! bench`.
//!
//! Everything that can run out on a machine is a [`Resource`]: what all clients together need of it, what one machine
//! has, and where both numbers come from. The resource that needs the most machines decides.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, ensure};

use super::format::{self, bytes, count, number, percent};
use super::read_result;
use super::results::{CPU, Level, Results, Row};

/// Calculates how many machines a number of clients needs, from what bench measured here
#[derive(clap::Args)]
pub(crate) struct Flags {
    /// How many clients are connected at the same time
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=MOST))]
    clients: u64,
    /// How many questions they ask in a second, all together
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=MOST))]
    rate: u64,
    /// The server
    #[arg(long, value_name = "NAME", default_value = "poll")]
    server: String,
    /// A results.json, its folder, or its name under target/bench
    #[arg(long, value_name = "PATH", default_value = "latest")]
    results: PathBuf,
    /// The share of processors and memory that stays free, in percent
    #[arg(long, value_name = "PERCENT", default_value_t = 30, value_parser = clap::value_parser!(u8).range(0..=90))]
    headroom: u8,
    /// The number of processors of a machine [default: as measured]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=4096))]
    processors: Option<u32>,
    /// The memory of a machine, in GiB [default: as measured]
    #[arg(long, value_name = "GIB", value_parser = clap::value_parser!(u32).range(1..=65_536))]
    memory: Option<u32>,
}

pub(crate) fn run(flags: &Flags) -> Result<ExitCode> {
    let results = read_result(&flags.results)
        .context("cannot read the results: run `cargo xtask bench` first, or name others with --results")?;
    print!("{}", text(flags, &results)?);
    Ok(ExitCode::SUCCESS)
}

/// A resource of which a machine has a limited amount.
#[derive(Debug)]
struct Resource {
    name: &'static str,
    /// What all clients together need.
    needed: f64,
    /// What one machine has.
    given: f64,
    write: fn(f64) -> String,
    /// Where the two numbers come from.
    origin: String,
}

impl Resource {
    /// Returns how many machines have enough of it.
    fn machines(&self) -> f64 {
        (self.needed / self.given).ceil().max(1.0)
    }

    /// Returns which share of it this number of machines uses.
    fn share(&self, machines: f64) -> f64 {
        self.needed / (self.given * machines)
    }
}

/// Returns the plan as sentences and a table.
fn text(flags: &Flags, results: &Results) -> Result<String> {
    let names = || results.servers.iter().map(|row| row.name.as_str()).collect::<Vec<_>>().join(", ");
    let row = results
        .row(&flags.server)
        .with_context(|| format!("the results have no {:?}, but {}", flags.server, names()))?;
    let machine = Machine::of(flags, results);
    let mut resources = resources(flags, results, row, &machine)?;
    let machines = resources.iter().map(Resource::machines).fold(1.0, f64::max);
    resources.sort_by(|one, other| other.share(machines).total_cmp(&one.share(machines)));
    let [clients, rate] = [flags.clients, flags.rate].map(|n| count(n as f64));
    let mut text = format!(
        "{clients} clients, {rate} questions a second, {}: {} machine{} of {} processor{} and {}, and another one, \
        so that one may fail\n\n",
        row.name,
        count(machines),
        plural(machines),
        machine.processors,
        plural(machine.processors),
        bytes(machine.memory),
    );
    let mut table = format::table(&["which", "needed", "per machine", "machines", "used"]);
    for it in &resources {
        let share = percent(it.share(machines));
        table.add_row([
            it.name.to_owned(),
            (it.write)(it.needed),
            (it.write)(it.given),
            count(it.machines()),
            share.trim_start_matches('+').to_owned(),
        ]);
    }
    text.push_str(&format!("{table}\n\n"));
    if let [first, second, ..] = &resources[..] {
        text.push_str(&format!(
            "First to run out on these machines: {}, at {} times this load. Next: {}, at {} times.\n",
            first.name,
            number(1.0 / first.share(machines)),
            second.name,
            number(1.0 / second.share(machines)),
        ));
    }
    text.push_str(&balancers(flags, results, machines));
    text.push_str(&each(flags, results, &machine));
    text.push_str("\nWhere the numbers come from\n");
    for it in &resources {
        text.push_str(&format!("- {}: {}\n", it.name, it.origin));
    }
    let settings = &results.settings;
    text.push_str(&format!(
        "- measured: {} of {}, commit {}, {} rounds of {:.0} ms, over loopback: a real network card costs more\n",
        results.name,
        results.taken,
        results.machine.commit_shown(),
        settings.rounds,
        settings.seconds * 1e3,
    ));
    for problem in results.problems.iter().filter(|problem| problem.starts_with(&format!("{}, ", row.name))) {
        text.push_str(&format!("- measure again, because its measurement failed: {problem}\n"));
    }
    text.push_str("- left out: the network's bandwidth, work on answers, connecting and closing\n");
    Ok(text)
}

/// Returns a table of what the same load takes with each server that was measured.
fn each(flags: &Flags, results: &Results, machine: &Machine) -> String {
    let mut table = format::table(&["server", "machines", "first to run out", "processors", "memory"]);
    for row in results.servers.iter().filter(|row| !row.is_duplicate) {
        let Ok(resources) = resources(flags, results, row, machine) else { continue }; // it was not measured
        let first = resources.iter().max_by(|one, other| one.share(1.0).total_cmp(&other.share(1.0)));
        let needed =
            |name| resources.iter().find(|it| it.name == name).map_or("–".into(), |it| (it.write)(it.needed));
        table.add_row([
            row.name.clone(),
            count(resources.iter().map(Resource::machines).fold(1.0, f64::max)),
            first.map_or("–", |first| first.name).to_owned(),
            needed("processors"),
            needed("memory"),
        ]);
    }
    format!("\nThe same load with each server\n\n{table}\n")
}

/// One of the machines, which are all equal.
struct Machine {
    processors: f64,
    memory: f64,
    /// The share of both that may be used.
    share: f64,
}

impl Machine {
    fn of(flags: &Flags, results: &Results) -> Machine {
        Machine {
            processors: flags.processors.map_or(results.machine.processors as f64, f64::from),
            memory: flags.memory.map_or(results.machine.memory_bytes as f64, |gib| f64::from(gib) * GIB),
            share: 1.0 - f64::from(flags.headroom) / 100.0,
        }
    }
}

/// Returns all resources that the results know of.
fn resources(flags: &Flags, results: &Results, row: &Row, machine: &Machine) -> Result<Vec<Resource>> {
    let clients = flags.clients as f64;
    let Machine { processors, share, .. } = *machine;
    let used = format!("{:.0} % of", share * 100.0);
    let level = row.levels.last().filter(|level| !level.rounds.is_empty());
    let level = level.with_context(|| format!("{} was not measured", row.name))?;
    let at = format!("servers[{}].levels[{}]", row.name, level.connections);
    let cost = row.series(level.connections, CPU).range().context("no cost was measured")?.median;
    let mut resources = vec![Resource {
        name: "processors",
        needed: flags.rate as f64 * cost / 1e6,
        given: processors * share,
        write: number,
        origin: format!(
            "{} µs per answer (the median of {at}.rounds[].cpu_us_per_answer); {used} {processors} processors, each \
            assumed to be busy with a process (--processes {processors})",
            number(cost)
        ),
    }];
    if let Some(idle) = row.idle.found() {
        let base = idle.bytes_before as f64 * processors;
        let given = machine.memory * share - base;
        ensure!(given > 0.0, "the machine is too small: the processes alone need {}", bytes(base));
        resources.push(Resource {
            name: "memory",
            needed: clients * (idle.bytes_per_client + KERNEL_BYTES),
            given,
            write: bytes,
            origin: format!(
                "{} per client (servers[{}].idle.bytes_per_client) and {} in the kernel for its socket (assumed, not \
                measured); {used} {}, less {} for each process (idle.bytes_before)",
                bytes(idle.bytes_per_client),
                row.name,
                bytes(KERNEL_BYTES),
                bytes(machine.memory),
                bytes(idle.bytes_before as f64),
            ),
        });
    }
    let sysctl = |name: &str| results.machine.sysctls.get(name).and_then(|value| value.parse::<f64>().ok());
    if let Some(most) = sysctl("fs.nr_open") {
        let hint = results.machine.descriptor_limit.map_or(String::new(), |limit| {
            format!("; the limit here is {}, so set LimitNOFILE={most} for a service", count(limit as f64))
        });
        resources.push(Resource {
            name: "descriptors",
            needed: clients,
            given: processors * (most - SPARE_DESCRIPTORS),
            write: count,
            origin: format!(
                "one per client, and {SPARE_DESCRIPTORS} for a process itself (assumed); {} per process \
                 (fs.nr_open){hint}",
                count(most)
            ),
        });
    }
    let fewest = &row.levels[0];
    let threads = |level: &Level| level.rounds.iter().map(|round| round.threads).max().unwrap_or_default() as f64;
    let per_client =
        (threads(level) - threads(fewest)) / (level.connections.saturating_sub(fewest.connections).max(1)) as f64;
    if let Some(most) = sysctl("kernel.pid_max").filter(|_| per_client > 0.5) {
        resources.push(Resource {
            name: "threads",
            needed: clients * per_client,
            given: most * share,
            write: count,
            origin: format!(
                "{} per client ({at}.rounds[].threads against levels[{}]); {used} {} (kernel.pid_max)",
                number(per_client),
                fewest.connections,
                count(most)
            ),
        });
    }
    if let Some(at_once) = row.at_once {
        resources.push(Resource {
            name: "clients at once",
            needed: clients,
            given: at_once as f64 * processors,
            write: count,
            origin: format!("servers[{}].at_once for each process; further clients wait", row.name),
        });
    }
    Ok(resources)
}

/// Returns a sentence about how many addresses a balancer needs. From one address it can open as many connections to a
/// server as it has ports.
fn balancers(flags: &Flags, results: &Results, machines: f64) -> String {
    let range = results.machine.sysctls.get("net.ipv4.ip_local_port_range");
    let bounds = range
        .and_then(|range| range.split_once(' '))
        .and_then(|(low, high)| Some((low.parse::<f64>().ok()?, high.parse::<f64>().ok()?)));
    let Some((low, high)) = bounds else { return String::new() };
    let ports = high - low + 1.0;
    let addresses = (flags.clients as f64 / machines / ports).ceil();
    format!(
        "Behind a balancer: {} of its addresses for each machine, because an address has {} ports ({}, \
        net.ipv4.ip_local_port_range).\n",
        count(addresses),
        count(ports),
        range.map_or("", String::as_str),
    )
}

fn plural(n: f64) -> &'static str {
    if n == 1.0 { "" } else { "s" }
}

/// Bytes that Linux keeps for a connected TCP socket with empty buffers: socket, inode, file, and entry in epoll.
const KERNEL_BYTES: f64 = 4096.0;

/// Descriptors for the listener, the log, epoll, the metrics, and a reserve.
const SPARE_DESCRIPTORS: f64 = 64.0;

const GIB: f64 = (1_u64 << 30) as f64;

/// The largest number of clients or questions a second: a higher one is taken for a typing error.
const MOST: u64 = 1_000_000_000_000;

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::bench::fixture;
    use crate::bench::results::Probe;

    #[derive(Parser)]
    struct CommandLine {
        #[command(flatten)]
        plan: Flags,
    }

    fn plan(arguments: &str) -> Flags {
        let words = format!("plan {arguments}");
        CommandLine::try_parse_from(words.split(' ')).expect("it is a command line").plan
    }

    /// Returns results in round numbers: a processor answers 100,000 questions a second, a client takes 904 bytes.
    fn results() -> Results {
        let mut results = fixture::results();
        let sysctls =
            [("fs.nr_open", "1000064"), ("kernel.pid_max", "10000"), ("net.ipv4.ip_local_port_range", "10001 20000")];
        results.machine.sysctls.extend(sysctls.map(|(name, value)| (name.to_owned(), value.to_owned())));
        results.machine.processors = 4;
        for row in &mut results.servers {
            for round in row.levels.iter_mut().flat_map(|level| &mut level.rounds) {
                round.cpu_us_per_answer = 10.0;
            }
            if let Probe::Found(idle) = &mut row.idle {
                (idle.bytes_before, idle.bytes_per_client) = (1 << 28, 904.0);
            }
        }
        results
    }

    fn of(arguments: &str, results: &Results) -> Vec<(&'static str, f64, f64, f64)> {
        let flags = plan(arguments);
        let row = results.row(&flags.server).expect("it is there");
        let resources = resources(&flags, results, row, &Machine::of(&flags, results)).expect("it fits");
        resources.iter().map(|it| (it.name, it.needed, it.given, it.machines())).collect()
    }

    #[test]
    fn each_resource_is_counted() {
        let counted = of("--clients 10000000 --rate 1000000 --headroom 50", &results());
        let expected = [
            // 10 µs × 1,000,000; half of four processors.
            ("processors", 10.0, 2.0, 5.0),
            // 904 + 4096 bytes each; half of 8 GiB, less four processes of 256 MiB: 3 GiB.
            ("memory", 50e9, 3_221_225_472.0, 16.0),
            // Four processes.
            ("descriptors", 10e6, 4e6, 3.0),
        ];
        assert_eq!(counted, expected);
    }

    #[test]
    fn machines_may_be_of_another_size() {
        let counted = of("--clients 10000000 --rate 1000000 --headroom 0 --processors 16 --memory 64", &results());
        let machines: Vec<f64> = counted.iter().map(|it| it.3).collect();
        assert_eq!(counted[0].2, 16.0);
        assert_eq!(counted[1].2, (60_u64 << 30) as f64);
        assert_eq!(machines, [1.0, 1.0, 1.0]);
    }

    #[test]
    fn threads_and_clients_at_once_are_limits() {
        let mut results = results();
        let row = results.servers.iter_mut().find(|row| row.name == "per-connection").expect("it is there");
        for level in &mut row.levels {
            level.rounds.iter_mut().for_each(|round| round.threads = 2 + level.connections);
        }
        let counted = of("--clients 50000 --rate 1 --headroom 50 --server per-connection", &results);
        assert_eq!(counted[3], ("threads", 50_000.0, 5_000.0, 10.0));
        let counted = of("--clients 100 --rate 1 --server workers", &results);
        assert_eq!(counted[2], ("clients at once", 100.0, 16.0, 7.0));
    }

    #[test]
    fn a_process_too_big_for_the_machine_is_an_error() {
        let flags = plan("--clients 1 --rate 1 --processors 64 --memory 1");
        let error = text(&flags, &results()).expect_err("64 times 256 MiB");
        assert_eq!(error.to_string(), "the machine is too small: the processes alone need 16.0 GiB");
        let error = text(&plan("--clients 1 --rate 1 --server none"), &results()).expect_err("no such server");
        assert!(error.to_string().starts_with("the results have no \"none\", but single, workers, "), "{error}");
    }

    #[test]
    fn the_text_has_the_origins() {
        let mut results = results();
        results.problems =
            ["poll, 1 connection: 3 reset", "poll-chat, 1 connection: 3 reset"].map(str::to_owned).into();
        results.servers.retain(|row| ["workers", "per-connection", "poll"].contains(&row.name.as_str()));
        let text = text(&plan("--clients 10000000 --rate 1000000 --headroom 50"), &results).expect("it fits");
        assert_eq!(text, TEXT, "{text}");
    }

    const TEXT: &str = "\
10,000,000 clients, 1,000,000 questions a second, poll: 16 machines of 4 processors and 8.00 GiB, and another one, \
so that one may fail

┌──────────────────────────────────────────────────────────┐
│ which             needed   per machine   machines   used │
╞══════════════════════════════════════════════════════════╡
│ memory          46.6 GiB      3.00 GiB         16   97 % │
│ processors          10.0          2.00          5   31 % │
│ descriptors   10,000,000     4,000,000          3   16 % │
└──────────────────────────────────────────────────────────┘

First to run out on these machines: memory, at 1.03 times this load. Next: processors, at 3.20 times.
Behind a balancer: 63 of its addresses for each machine, because an address has 10,000 ports (10001 20000, \
net.ipv4.ip_local_port_range).

The same load with each server

┌──────────────────────────────────────────────────────────────────────┐
│ server           machines   first to run out   processors     memory │
╞══════════════════════════════════════════════════════════════════════╡
│ workers           625,000    clients at once         10.0          – │
│ per-connection         16             memory         10.0   46.6 GiB │
│ poll                   16             memory         10.0   46.6 GiB │
└──────────────────────────────────────────────────────────────────────┘

Where the numbers come from
- memory: 904 B per client (servers[poll].idle.bytes_per_client) and 4.00 KiB in the kernel for its socket (assumed, \
not measured); 50 % of 8.00 GiB, less 256 MiB for each process (idle.bytes_before)
- processors: 10.0 µs per answer (the median of servers[poll].levels[10000].rounds[].cpu_us_per_answer); 50 % of 4 \
processors, each assumed to be busy with a process (--processes 4)
- descriptors: one per client, and 64 for a process itself (assumed); 1,000,064 per process (fs.nr_open); the limit \
here is 20,000, so set LimitNOFILE=1000064 for a service
- measured: fixture of 2000-01-01T00:00:00Z, commit 0123456789ab, 3 rounds of 200 ms, over loopback: a real network \
card costs more
- measure again, because its measurement failed: poll, 1 connection: 3 reset
- left out: the network's bandwidth, work on answers, connecting and closing
";
}
