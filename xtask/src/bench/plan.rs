//! The plan of a run: servers × connections × rounds, their order, and the time of each measurement.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::Flags;
use super::target::Target;
use super::workload::{MOST_WAITING, MOSTLY_IDLE, SATURATED, Workload};
use crate::servers::{self, SERVERS};

/// Everything that a run does.
pub(crate) struct Plan {
    pub(crate) targets: Vec<Target>,
    /// The index of the A/A control: the target that is measured twice, under two names.
    pub(crate) control: Option<usize>,
    /// Every pair of a target and a number of connections.
    pub(crate) cells: Vec<Cell>,
    pub(crate) workload: Workload,
    pub(crate) rounds: usize,
    /// Whether all rounds are run, however long they take.
    pub(crate) is_exact: bool,
    pub(crate) pipeline: usize,
    pub(crate) seed: u64,
    /// How many clients are idle while memory is measured.
    pub(crate) idle: usize,
    /// At a fixed rate, each measurement lasts long enough for this number of answers, unless `duration` is set.
    pub(crate) fewest_answers: u64,
    /// How long the whole run may take.
    pub(crate) budget: Duration,
    /// The length of one measurement; `None`: as long as the budget allows.
    pub(crate) duration: Option<Duration>,
}

/// A target with a number of connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Cell {
    pub(crate) connections: usize,
    pub(crate) target: usize,
}

impl Plan {
    /// Returns the plan for a workload with these servers, or all, and the peers of the command line.
    pub(crate) fn of(flags: &Flags, servers: &[String], workload: Workload) -> Result<Plan> {
        let mut targets = targets(servers, &flags.peer, &workload)?;
        let control = enter_twice(&mut targets);
        let levels = if flags.connections.is_empty() { &workload.clients } else { &flags.connections };
        let is_memory_measured = [SATURATED, MOSTLY_IDLE].contains(&workload.name.as_str());
        let idle = match (is_memory_measured, flags.quick) {
            (false, _) => 0,
            (true, true) => QUICK_IDLE,
            (true, false) => IDLE,
        };
        let rounds = flags.rounds.unwrap_or(if flags.quick { QUICK_ROUNDS } else { ROUNDS });
        Ok(Plan {
            cells: cells(&targets, levels, workload.is_closed()),
            workload,
            targets,
            control,
            rounds,
            is_exact: flags.rounds.is_some() || flags.duration.is_some(),
            pipeline: flags.pipeline,
            seed: flags.seed.unwrap_or_else(|| fastrand::u32(..).into()),
            idle,
            fewest_answers: if flags.quick { FEWEST_ANSWERS } else { ENOUGH_ANSWERS },
            budget: if flags.quick { QUICK_BUDGET } else { BUDGET },
            duration: flags.duration,
        })
    }

    /// Returns the largest number of connections, busy or idle, that any server gets. Every server has this limit.
    pub(crate) fn most_clients(&self) -> usize {
        self.cells.iter().map(|cell| cell.connections).max().unwrap_or(1).max(self.idle)
    }

    /// Removes the cells with more connections than the limit of `descriptors` allows, and returns a note about them.
    ///
    /// Servers and load inherit the limit.
    pub(crate) fn fit(&mut self, descriptors: usize) -> Option<String> {
        let most = descriptors.saturating_sub(SPARE);
        let too_many = self.cells.extract_if(.., |cell| cell.connections > most).map(|cell| cell.connections);
        let least = too_many.min();
        self.idle = self.idle.min(most);
        least.map(|least| {
            format!("the descriptor limit of {descriptors} leaves no room for {least} connections: see ulimit -Hn")
        })
    }

    /// Returns the cells of one round in random order, grouped by the number of connections.
    ///
    /// So servers that are compared are measured right after each other, and none is always the first.
    pub(crate) fn order(&self, round: usize) -> Vec<Cell> {
        let mut random = fastrand::Rng::with_seed(self.seed.wrapping_add(round as u64));
        let mut levels: Vec<usize> = self.levels();
        random.shuffle(&mut levels);
        let mut order = Vec::with_capacity(self.cells.len());
        for level in levels {
            let mut cells: Vec<Cell> = self.cells.iter().filter(|cell| cell.connections == level).copied().collect();
            random.shuffle(&mut cells);
            order.extend(cells);
        }
        order
    }

    /// Returns all numbers of connections, the smallest first.
    pub(crate) fn levels(&self) -> Vec<usize> {
        let levels: BTreeSet<usize> = self.cells.iter().map(|cell| cell.connections).collect();
        levels.into_iter().collect()
    }

    /// Returns the length of each measurement if all of them together may take the time `left`.
    ///
    /// `overhead` is the time that one measurement takes in addition: to start the server, connect and close.
    pub(crate) fn measured_time(&self, left: Duration, overhead: Duration) -> Duration {
        if let Some(duration) = self.duration {
            return duration;
        }
        let each = left.as_secs_f64() / (self.cells.len() * self.rounds) as f64 - overhead.as_secs_f64();
        let share = |cell: &Cell| each - cell.connections as f64 * PER_CONNECTION;
        let mean = self.cells.iter().map(share).sum::<f64>() / self.cells.len() as f64;
        let time = Duration::from_secs_f64(mean.max(0.0) * (1.0 - WARMUP));
        let shortest = SHORTEST.max(self.workload.time_of(self.fewest_answers));
        let longest = LONGEST.max(self.workload.time_of(ENOUGH_ANSWERS));
        time.clamp(shortest, longest)
    }
}

/// Returns the servers with these names, or all if there are none, and the peers.
pub(crate) fn targets(servers: &[String], peers: &[String], workload: &Workload) -> Result<Vec<Target>> {
    let mut targets: Vec<Target> = Vec::new();
    servers.iter().try_for_each(|name| servers::named(name).map(drop))?;
    let is_chosen = |name: &str| servers.is_empty() || servers.iter().any(|chosen| chosen == name);
    targets.extend(SERVERS.iter().filter(|entry| is_chosen(entry.name)).map(Target::server));
    if workload.sleeps() {
        let smol = targets.iter().find(|target| target.name == "smol").cloned();
        targets.extend(smol.iter().flat_map(|smol| WAYS.map(|(name, flags)| smol.with(name, flags))));
    }
    for peer in peers {
        targets.push(Target::peer(peer)?);
    }
    let names: BTreeSet<&str> = targets.iter().map(|target| target.name.as_str()).collect();
    ensure!(names.len() == targets.len(), "two servers have the same name");
    Ok(targets)
}

/// The share of a measurement's time that is warm-up.
pub(crate) const WARMUP: f64 = 0.25;

/// Adds one target a second time, as the A/A control, and returns its index.
///
/// It is `poll` if that takes part, else the first target that serves any number of clients.
pub(crate) fn enter_twice(targets: &mut Vec<Target>) -> Option<usize> {
    let is_first_choice = |target: &Target| target.name == "poll";
    let takes_many = |target: &Target| target.at_once.is_none();
    let position = |is: &dyn Fn(&Target) -> bool| targets.iter().position(is);
    let control = position(&is_first_choice).or_else(|| position(&takes_many)).unwrap_or(0);
    let duplicate = targets.get(control)?.duplicate();
    targets.push(duplicate);
    Some(control)
}

/// Returns the cells of these targets. In a closed loop, a server that serves n clients at the same time gets at most n
/// connections, because further clients would only wait.
pub(crate) fn cells(targets: &[Target], levels: &[usize], is_closed: bool) -> Vec<Cell> {
    let mut cells = BTreeSet::new();
    for (number, target) in targets.iter().enumerate() {
        let most = match target.at_once {
            Some(at_once) if is_closed => at_once,
            Some(_) => MOST_WAITING,
            None => target.most_clients(),
        };
        cells.extend(levels.iter().map(|&level| Cell { connections: level.min(most), target: number }));
    }
    cells.into_iter().collect()
}

/// Parses a number of connections, as in `--connections 1,16,256`.
pub(crate) fn level(text: &str) -> Result<usize> {
    let level: usize = text.replace(['_', '\''], "").parse().context("not a number")?;
    ensure!((1..=MOST).contains(&level), "expected 1 to {MOST} connections");
    Ok(level)
}

/// Descriptors that a process needs in addition to those of its clients.
pub(crate) const SPARE: usize = 100;
/// The flags with which zen-async does not block its executor during a slow answer, each with a name.
pub(crate) const WAYS: [(&str, &[&str]); 2] = [("await", &["--await"]), ("offload", &["--offload"])];
const ROUNDS: usize = 7;
const QUICK_ROUNDS: usize = 5;
const IDLE: usize = 10_000;
const QUICK_IDLE: usize = 1000;
/// The documented ten minutes, less a minute for the report.
const BUDGET: Duration = Duration::from_secs(9 * 60);
const QUICK_BUDGET: Duration = Duration::from_secs(52);
/// In shorter measurements, start and end would count too much.
const SHORTEST: Duration = Duration::from_millis(80);
/// Enough for the 99th percentile of one measurement.
const ENOUGH_ANSWERS: u64 = 100;
/// The answers of one measurement in quick runs and in `choose`. Their 99th percentile is that of all rounds together.
pub(crate) const FEWEST_ANSWERS: u64 = 20;
/// The longest measurement. Time that remains is better spent on more rounds.
const LONGEST: Duration = Duration::from_secs(2);
/// Seconds to open a connection, accept it, and close it on both sides.
const PER_CONNECTION: f64 = 120e-6;
/// The largest number of connections: a higher one is taken for a typing error.
const MOST: usize = 100_000;

#[cfg(test)]
mod tests {
    use super::*;

    fn plan() -> Plan {
        let targets: Vec<Target> = SERVERS.iter().map(Target::server).collect();
        let workload = Workload::named("saturated", true, 1).expect("it is in the list");
        let cells = cells(&targets, &workload.clients, true);
        Plan {
            targets,
            control: None,
            cells,
            workload,
            rounds: 3,
            is_exact: false,
            pipeline: 1,
            seed: 7,
            idle: 10,
            fewest_answers: ENOUGH_ANSWERS,
            budget: QUICK_BUDGET,
            duration: None,
        }
    }

    #[test]
    fn no_server_gets_more_connections_than_it_serves() {
        let plan = plan();
        for cell in &plan.cells {
            assert!(plan.targets[cell.target].at_once.is_none_or(|most| cell.connections <= most));
        }
        let single = plan.cells.iter().filter(|cell| plan.targets[cell.target].name == "single");
        assert_eq!(single.map(|cell| cell.connections).collect::<Vec<_>>(), [1]);
        assert_eq!(plan.levels(), [1, 4, 16, 256]);
    }

    #[test]
    fn each_round_has_every_cell_once_in_an_order_of_its_own() {
        let plan = plan();
        let (first, second) = (plan.order(0), plan.order(1));
        assert_ne!(first, second);
        assert_eq!(first, plan.order(0));
        for mut order in [first, second] {
            order.sort_unstable();
            assert_eq!(order, plan.cells);
        }
    }

    #[test]
    fn measurements_share_the_time() {
        let mut plan = plan();
        assert_eq!(plan.fit(1000), None);
        assert!(plan.fit(200).is_some_and(|why| why.contains("256")));
        assert_eq!(plan.levels(), [1, 4, 16]);
        let long = plan.measured_time(Duration::from_secs(600), Duration::ZERO);
        assert!(plan.measured_time(Duration::from_secs(45), Duration::ZERO) < long);
        assert_eq!(plan.measured_time(Duration::ZERO, Duration::from_millis(50)), SHORTEST);
        let at_a_rate = Plan { workload: Workload::named("slow-answers", true, 1).expect("it is in the list"), ..plan };
        assert_eq!(at_a_rate.measured_time(Duration::ZERO, Duration::ZERO), Duration::from_millis(2500));
        let chosen = Plan { duration: Some(Duration::from_secs(9)), ..at_a_rate };
        assert_eq!(chosen.measured_time(Duration::ZERO, Duration::from_millis(50)), Duration::from_secs(9));
    }
}
