//! The figures in the project's READMEs: one table and one picture of three workloads, which `--readme` writes.

use std::fmt::Write;
use std::fs;

use anyhow::{Context, Result, bail, ensure};

use super::format::{self, bytes, comparison, count, number};
use super::ranking::{against_control, cost, headline, ranked};
use super::report;
use super::results::{CPU, P99, Results, Row};
use super::statistics::Comparison;
use super::workload::{MOSTLY_IDLE, SATURATED, SLOW_ANSWERS};
use crate::servers::SERVERS;
use crate::workspace;

/// The workloads that the table compares.
pub(crate) const WORKLOADS: [&str; 3] = [SATURATED, MOSTLY_IDLE, SLOW_ANSWERS];

/// Returns the servers that the table compares: all but the examples.
pub(crate) fn servers() -> Vec<String> {
    SERVERS.iter().filter(|entry| !entry.is_example).map(|entry| entry.name.to_owned()).collect()
}

/// Writes the table and the picture; `all` has a result for each of [`WORKLOADS`].
pub(crate) fn write(all: &[Results]) -> Result<()> {
    let problems: Vec<&str> = all.iter().flat_map(|results| &results.problems).map(String::as_str).collect();
    ensure!(problems.is_empty(), "the run had problems, so no README was written: {}", problems.join("; "));
    let [saturated, idle, slow] = all else { bail!("the READMEs need a result of {}", WORKLOADS.join(", ")) };
    let runs = Runs { saturated, idle, slow };
    let root = workspace::root()?;
    let (picture, text) = report::picture(saturated);
    fs::write(root.join(PICTURE), picture).context("cannot write the picture")?;
    for (name, section) in
        [("README.md", runs.section(&ENGLISH, &text)), ("README.zh-CN.md", runs.section(&CHINESE, ALTERNATIVE))]
    {
        let path = root.join(name);
        let readme = fs::read_to_string(&path).context(name)?;
        fs::write(&path, filled(&readme, &section).context(name)?).with_context(|| format!("cannot write {name}"))?;
    }
    Ok(())
}

/// Returns the text with everything between the markers replaced.
fn filled(readme: &str, section: &str) -> Result<String> {
    let markers = || format!("it needs a line {BEGIN} and below it a line {END}");
    let (before, rest) = readme.split_once(BEGIN).with_context(markers)?;
    let (_, after) = rest.split_once(END).with_context(markers)?;
    Ok(format!("{before}{BEGIN}\n{section}{END}{after}"))
}

/// The results from which the table is made, one of each workload.
struct Runs<'a> {
    saturated: &'a Results,
    idle: &'a Results,
    slow: &'a Results,
}

impl Runs<'_> {
    fn section(&self, words: &Words, alternative: &str) -> String {
        let mut text = format!("![{alternative}]({PICTURE})\n\n");
        let _ = writeln!(text, "{}\n| ---: | --- | ---: | ---: | ---: | ---: | ---: | ---: |", self.headings(words));
        let level = headline(self.saturated);
        let fewer = self.saturated.servers.iter().filter(|row| row.level(level).is_none()).map(|row| (row, None));
        for (row, rank) in ranked(self.saturated, level).into_iter().chain(fewer) {
            if row.is_duplicate {
                continue;
            }
            let cells = [
                format::rank(rank),
                row.name.clone(),
                with_fewer(words, level, row, cost),
                self.compared(words, row, level),
                p99(words, self.idle, &row.name),
                p99(words, self.slow, &row.name),
                row.idle.found().map_or("–".to_owned(), |found| bytes(found.bytes_per_client)),
                unserved(row),
            ];
            let _ = writeln!(text, "| {} |", cells.join(" | "));
        }
        // smol-await and smol-offload are measured in this workload only.
        for row in self.slow.servers.iter().filter(|row| self.saturated.row(&row.name).is_none()) {
            let _ = writeln!(text, "| – | {} | – | – | – | {} | – | – |", row.name, p99(words, self.slow, &row.name));
        }
        let _ = writeln!(text, "\n{}", self.origin(words));
        text
    }

    fn headings(&self, words: &Words) -> String {
        let most = self.idle.levels().last().copied().unwrap_or(0);
        let control = self.saturated.pair().map_or("–", |(control, _)| &control.name);
        let values = [
            ("{clients}", count(headline(self.saturated) as f64)),
            ("{control}", control.to_owned()),
            ("{crowd}", count(most as f64)),
            ("{asking}", count(self.idle.settings.workload.asking(most) as f64)),
        ];
        filled_in(words.headings, &values)
    }

    fn compared(&self, words: &Words, row: &Row, level: usize) -> String {
        match against_control(self.saturated, row, level, CPU) {
            Some(Comparison::NoDifference) => words.no_difference.to_owned(),
            Some(times) => comparison(times),
            None => "–".to_owned(),
        }
    }

    /// Returns the sentences that say on what machine, and how, the figures were measured.
    fn origin(&self, words: &Words) -> String {
        let (machine, taken) = (&self.saturated.machine, &self.saturated.taken);
        let rounds = |results: &Results| {
            let settings = &results.settings;
            format!("`{}` {} × {} s", settings.workload.name, settings.rounds, number(settings.seconds))
        };
        let noise = self.saturated.noise(headline(self.saturated), CPU).share();
        let values = [
            ("{machine}", machine.shown()),
            ("{commit}", machine.commit_shown()),
            ("{toolchain}", machine.toolchain.clone()),
            ("{day}", taken.split('T').next().unwrap_or(taken).to_owned()),
            ("{rounds}", [self.saturated, self.idle, self.slow].map(rounds).join(", ")),
            ("{noise}", format::percent(noise)),
        ];
        filled_in(words.origin, &values)
    }
}

/// Formats a figure with this number of connections. If the server was measured only with fewer, formats the figure
/// with most connections, and adds their number.
fn with_fewer(words: &Words, level: usize, row: &Row, figure: impl Fn(&Row, usize) -> String) -> String {
    match row.levels.last() {
        _ if row.level(level).is_some() => figure(row, level),
        Some(last) => {
            let clients = if last.connections == 1 { words.one_client } else { words.clients };
            let clients = clients.replace("{}", &count(last.connections as f64));
            format!("{}{clients}", figure(row, last.connections))
        }
        None => "–".to_owned(),
    }
}

/// Returns the 99th percentile in milliseconds with as many clients as possible, or why there is none.
fn p99(words: &Words, results: &Results, name: &str) -> String {
    let (Some(row), Some(&most)) = (results.row(name), results.levels().last()) else { return "–".to_owned() };
    with_fewer(words, most, row, |row, connections| {
        let asking = results.settings.workload.asking(connections);
        match row.level(connections) {
            Some(level) if level.unserved() > 0 => words.unserved.replace("{}", &share(level.unserved(), asking)),
            Some(level) if level.is_held() => {
                row.series(connections, P99).range().map_or("–".to_owned(), |range| number(range.median / 1e3))
            }
            _ => words.not_held.to_owned(),
        }
    })
}

/// Returns how many clients were never served in the worst round, at the largest number of connections.
///
/// There is no figure for a server that serves few clients at a time, because it got no more clients than that.
fn unserved(row: &Row) -> String {
    match row.levels.last() {
        Some(level) if row.at_once.is_none() => share(level.unserved(), level.connections),
        _ => "–".to_owned(),
    }
}

/// Replaces the names in a template by their values.
fn filled_in(template: &str, values: &[(&str, String)]) -> String {
    values.iter().fold(template.to_owned(), |text, (name, value)| text.replace(name, value))
}

fn share(part: u64, whole: usize) -> String {
    format!("{} / {}", count(part as f64), count(whole as f64))
}

/// The words around the figures in one language.
struct Words {
    headings: &'static str,
    one_client: &'static str,
    clients: &'static str,
    no_difference: &'static str,
    not_held: &'static str,
    unserved: &'static str,
    origin: &'static str,
}

const ENGLISH: Words = Words {
    headings: "| rank | server | processor µs per answer, {clients} clients at full speed | against {control} | \
        p99 ms, {asking} of {crowd} clients ask | p99 ms, each answer waits 20 ms | memory per idle client | \
        never served at full speed |",
    one_client: " (1 client)",
    clients: " ({} clients)",
    no_difference: "no difference",
    not_held: "rate not held",
    unserved: "never served: {}",
    origin: "{machine}; commit {commit}, {toolchain}; {day}. Rounds: {rounds}. The server that took part twice \
        differed from itself by {noise} in the worst round.",
};

const CHINESE: Words = Words {
    headings: "| 名次 | 服务器 | 每个回答的处理器时间（µs），{clients} 个客户端全速提问 | 与 {control} 相比 | \
        p99（毫秒），{crowd} 个客户端中 {asking} 个提问 | p99（毫秒），每个回答要等 20 毫秒 | 每个空闲客户端的内存 | \
        全速提问时始终没有得到服务的 |",
    one_client: "（1 个客户端）",
    clients: "（{} 个客户端）",
    no_difference: "没有差别",
    not_held: "达不到这个速率",
    unserved: "始终没有得到服务：{}",
    origin: "{machine}；提交 {commit}，{toolchain}；{day}。轮次：{rounds}。参加了两次的那个服务器，\
        在最差的一轮里与自己相差 {noise}。",
};

/// The text alternative of the picture, whose own text is English.
const ALTERNATIVE: &str = "各个服务器每个回答所用的处理器时间，随连接数变化";
const BEGIN: &str = "<!-- bench:begin -->";
const END: &str = "<!-- bench:end -->";
/// The path of the picture. It is not at the top level, which has only the usual files of a repository.
const PICTURE: &str = ".github/bench.svg";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::fixture;
    use crate::bench::results::Level;
    use crate::bench::workload::Workload;

    #[test]
    fn only_the_text_between_the_markers_changes() {
        let readme = format!("a\n{BEGIN}\nold\n{END}\nb\n");
        let once = filled(&readme, "new\n").expect("it has markers");
        assert_eq!(once, format!("a\n{BEGIN}\nnew\n{END}\nb\n"));
        assert_eq!(filled(&once, "new\n").expect("it still has them"), once);
        assert!(filled("none", "new").is_err());
    }

    #[test]
    fn the_table_has_every_server_and_says_what_is_not_served() {
        let [saturated, mut idle, mut slow] = WORKLOADS.map(|name| {
            let mut results = fixture::results();
            results.settings.workload = Workload::named(name, false, 1).expect("it is in the list");
            results
        });
        let last = |results: &mut Results, name: &str, change: fn(&mut Level)| {
            let row = results.servers.iter_mut().find(|row| row.name == name).expect("it is in the list");
            change(row.levels.last_mut().expect("it was measured"));
        };
        last(&mut idle, "per-connection", |level| level.rounds[1].unserved = 30);
        last(&mut slow, "smol", |level| level.rounds[0].is_held = false);
        let runs = Runs { saturated: &saturated, idle: &idle, slow: &slow };
        let text = runs.section(&ENGLISH, "a picture");
        let line = |name: &str| {
            let cell = format!(" | {name} | ");
            text.lines().find(|line| line.contains(&cell)).unwrap_or_else(|| panic!("no row {name} in {text}"))
        };
        for name in servers() {
            assert_eq!(line(&name).matches(" | ").count(), 7, "{}", line(&name));
        }
        assert!(line("per-connection").contains("| never served: 30 / 100 |"), "{text}");
        assert!(line("per-connection").ends_with("| 0 / 10,000 |"), "{text}");
        assert!(line("smol").contains("| rate not held |"), "{text}");
        assert!(line("workers").starts_with("| – | workers | ") && line("workers").contains("(4 clients)"), "{text}");
        assert!(line("single").contains("(1 client)"), "{text}");
        assert!(line("poll").contains(" | – | ") && line("raw").contains(" | +"), "{text}");
        assert!(!text.contains("poll again") && !text.contains('{'), "{text}");
        let chinese = runs.section(&CHINESE, ALTERNATIVE);
        assert_eq!(chinese.lines().count(), text.lines().count());
        assert!(chinese.contains("始终没有得到服务：30 / 100") && !chinese.contains("clients"), "{chinese}");
    }
}
