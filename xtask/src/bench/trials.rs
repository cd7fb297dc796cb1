//! Integration tests of `bench`: a whole run, peers, and the report in a real browser. No test depends on speed.

use std::fs;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::plan::{Cell, Plan};
use super::results::{CPU, Results};
use super::target::Target;
use super::workload::Workload;
use super::{diff, fixture, measure_all, report, table};
use crate::harness::folder::Folder;
use crate::harness::group::run_within;
use crate::harness::{WAIT_LIMIT, chromium, tool};
use crate::servers;
use crate::trial::{Trial, note};
use crate::workspace::{self, Profile};

pub(crate) fn trials() -> Result<Vec<Trial>> {
    workspace::build()?;
    let mut trials = vec![Trial::new("bench::a_whole_run", a_whole_run).alone()];
    for (name, tool, build, command) in PEERS {
        trials.push(
            Trial::new(format!("bench::peers::{name}"), move || a_peer_is_measured(tool, build, command)).alone(),
        );
    }
    for (name, width) in [("narrow", 500), ("wide", 1280)] {
        trials.push(Trial::new(format!("bench::report_in_a_browser::{name}"), move || report_in_a_browser(width)));
    }
    Ok(trials)
}

/// A command of xtask's README builds and starts a server in another language, and it is measured like ours.
fn a_peer_is_measured(needed: &str, build: &str, command: &str) -> Result<()> {
    let folder = Folder::for_programs()?;
    let places = [
        ("target/zen-go", folder.path().join("zen-go")),
        ("target/release/examples/on_tokio", workspace::binary("examples/on_tokio")?),
    ];
    let fill = |text: &str| {
        places.iter().fold(text.to_owned(), |text, (name, place)| text.replace(name, &place.to_string_lossy()))
    };
    let root = workspace::root()?;
    let readme = fs::read_to_string(root.join("xtask/README.md"))?;
    ensure!(
        readme.contains(build) && readme.contains(command),
        "xtask/README.md does not contain {build:?} and {command:?}"
    );
    if tool(needed).is_err() {
        note(format!("the peer {command:?} was not tested, because {needed} is not installed"));
        return Ok(());
    }
    if !build.is_empty() {
        let output = run_within(4 * WAIT_LIMIT, Command::new("sh").args(["-c", &fill(build)]).current_dir(root))?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    let workload = if command.contains("{work}") { "slow-answers" } else { "saturated" };
    let peer = Target::peer(&format!("peer={}", fill(command)))?;
    let results = measure_all(&plan(vec![peer], &[(4, 0)], workload)?, Profile::Debug, folder.path())?;
    ensure!(results.problems.is_empty(), "{:?}", results.problems);
    let rounds = results.servers.iter().flat_map(|row| row.rounds(4));
    ensure!(rounds.clone().count() == 2 && rounds.clone().all(|it| it.answers > 0), "{:?}", results.servers);
    let delay = Workload::named(workload, true, 1)?.work_seconds()? * 1e6;
    ensure!(rounds.clone().all(|it| it.p50_us.is_some_and(|p50| p50 >= delay)), "{:?}", results.servers);
    Ok(())
}

/// Two servers and the duplicate of one are measured briefly, and the result is written and read again.
fn a_whole_run() -> Result<()> {
    let folder = Folder::new()?;
    let server = |name: &str| servers::named(name).map(Target::server);
    let (single, poll) = (server("single")?, server("poll")?);
    let targets = vec![single, poll.clone(), poll.duplicate()];
    let cells = [(1, 0), (1, 1), (1, 2), (4, 1), (4, 2)];
    let plan = Plan { control: Some(1), idle: 20, ..plan(targets, &cells, "saturated")? };
    let results = measure_all(&plan, Profile::Debug, folder.path())?;
    ensure!(results.problems.is_empty(), "{:?}", results.problems);
    let path = folder.path().join("results.json");
    results.write(&path)?;
    let read = Results::read(&path)?;
    ensure!(read == results, "the result changed when it was written and read");
    let somaxconn = results.machine.sysctls.get("net.core.somaxconn").and_then(|most| most.parse().ok());
    let backlog = somaxconn.unwrap_or(results.settings.backlog).min(results.settings.backlog);
    for (row, levels) in results.servers.iter().zip([&[1][..], &[1, 4], &[1, 4]]) {
        for &level in levels {
            let rounds = row.rounds(level);
            let is_whole = rounds.len() == 2 && rounds.iter().all(|it| it.cpu_us_per_answer > 0.0 && it.answers > 0);
            ensure!(is_whole, "{} with {level} connections: {rounds:?}", row.name);
        }
        let reported = row.reported.as_deref().unwrap_or_default();
        ensure!(reported.contains(&format!(" backlog {backlog},")), "{} reports {reported:?}", row.name);
    }
    let pair = results.pair().context("the pair")?;
    ensure!(pair.0.series(4, CPU).against(&pair.1.series(4, CPU), results.noise(4, CPU)).is_some(), "no control");
    ensure!(table::of(&read).contains("poll again"), "the table lacks the control");
    ensure!(diff::of(&results, &read).ends_with("no difference\n"), "a result differs from itself");
    Ok(())
}

/// Returns a plan of two short rounds with these pairs of a number of connections and a target.
fn plan(targets: Vec<Target>, cells: &[(usize, usize)], workload: &str) -> Result<Plan> {
    Ok(Plan {
        targets,
        control: None,
        cells: cells.iter().map(|&(connections, target)| Cell { connections, target }).collect(),
        workload: Workload::named(workload, true, 1)?,
        rounds: 2,
        is_exact: true,
        pipeline: 1,
        seed: 1,
        idle: 0,
        fewest_answers: 1,
        budget: Duration::from_secs(20),
        duration: Some(Duration::from_millis(700)),
    })
}

/// A browser of this width shows the page without errors. It fetches nothing and draws every picture, and no text is
/// outside its picture or overlaps another.
fn report_in_a_browser(width: u32) -> Result<()> {
    let folder = Folder::new()?;
    let page = report::page(&fixture::results())?;
    ensure!(!page.contains("http:") && !page.contains("https:"), "the page names another address");
    let path = folder.path().join("report.html");
    fs::write(
        &path,
        page.replace("</body>", &format!("<pre id=\"verdict\"></pre><script>{PAGE_CHECK}</script></body>")),
    )?;
    let output = run_within(
        WAIT_LIMIT * 3,
        chromium()?.args([
            &format!("--user-data-dir={}", folder.path().join("profile").display()),
            &format!("--window-size={width},1000"),
            "--dump-dom",
            &format!("file://{}", path.display()),
        ]),
    )?;
    let (dom, log) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    let errors: Vec<&str> = log.lines().filter(|line| line.contains("CONSOLE")).collect();
    ensure!(errors.is_empty(), "the browser logs errors: {errors:?}");
    let verdict = dom.split_once("<pre id=\"verdict\">").and_then(|(_, rest)| Some(rest.split_once("</pre>")?.0));
    let verdict = verdict.with_context(|| format!("the browser shows nothing, and logs {log}"))?;
    // One picture of the cost, one of the memory, and four of connections and four of latency: one for each family.
    ensure!(verdict == "10 pictures, all well", "{verdict}");
    Ok(())
}

/// A peer: its name, a tool that it needs, how it is built, and its command, as in xtask's README.
type Peer = (&'static str, &'static str, &'static str, &'static str);

const PEERS: [Peer; 3] = [
    ("python", "python3", "", "python3 xtask/challenge/zen.py {port}"),
    ("go", "go", "go build -o target/zen-go xtask/challenge/zen.go", "target/zen-go -p {port} {work}"),
    ("tokio", "cargo", "", "target/release/examples/on_tokio -q -p {port} {work}"),
];

/// A script that checks the page from inside.
const PAGE_CHECK: &str = r#"
const faults = [];
const pictures = [...document.querySelectorAll("svg")].filter(svg => getComputedStyle(svg).display !== "none");
for (const svg of pictures) {
  const name = svg.querySelector("title").textContent, box = svg.getBoundingClientRect();
  if (box.width < 200 || box.height < 100) faults.push(name + ": too small");
  if (!svg.querySelector("desc").textContent.trim()) faults.push(name + ": not in words");
  const marks = [...svg.querySelectorAll("circle, path.line")];
  if (!marks.length || /NaN|Infinity/.test(svg.innerHTML)) faults.push(name + ": not drawn");
  const colours = new Set(marks.map(mark => getComputedStyle(mark).stroke));
  if (colours.has("none") || colours.has(getComputedStyle(document.body).backgroundColor))
      faults.push(name + ": cannot be seen");
  const texts = [...svg.querySelectorAll("text")].map(text => [text.textContent, text.getBoundingClientRect()]);
  texts.forEach(([text, at], n) => {
    if (at.left < box.left - 1 || at.right > box.right + 1 || at.top < box.top - 1 || at.bottom > box.bottom + 1)
      faults.push(name + ": outside: " + text);
    for (const [other, there] of texts.slice(n + 1)) {
      const across = Math.min(at.right, there.right) - Math.max(at.left, there.left);
      const along = Math.min(at.bottom, there.bottom) - Math.max(at.top, there.top);
      if (across > 2 && along > 5) faults.push(name + ": " + text + " overlaps " + other);
    }
  });
}
for (const entry of performance.getEntriesByType("resource")) faults.push("fetched: " + entry.name);
if (document.documentElement.scrollWidth > innerWidth) faults.push("wider than the window");
document.getElementById("verdict").textContent = pictures.length + " pictures, " + (faults.join("; ") || "all well");
"#;
