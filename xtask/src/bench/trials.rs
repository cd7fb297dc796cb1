//! What of `bench` cannot be a unit test: a whole run, and its report in a real browser. No speed decides.

use std::fs;
use std::path::PathBuf;
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
use crate::harness::{Missing, WAIT_LIMIT, tool};
use crate::servers::SERVERS;
use crate::trial::Trial;
use crate::workspace::{self, Profile};

pub(crate) fn trials() -> Result<Vec<Trial>> {
    workspace::build()?;
    let mut trials = vec![Trial::new("bench::a_whole_run", a_whole_run).alone()];
    for (name, width) in [("narrow", 500), ("wide", 1280)] {
        trials.push(Trial::new(format!("bench::report_in_a_browser::{name}"), move || report_in_a_browser(width)));
    }
    Ok(trials)
}

/// Two servers and a second name, measured for a moment, written and read again.
fn a_whole_run() -> Result<()> {
    let folder = Folder::new()?;
    let server = |name: &str| SERVERS.iter().find(|entry| entry.name == name).map(Target::server);
    let (single, poll) = (server("single").context("single")?, server("poll").context("poll")?);
    let targets = vec![single, poll.clone(), poll.duplicate()];
    let cells = [(1, 0), (1, 1), (1, 2), (4, 1), (4, 2)];
    let cells = cells.into_iter().map(|(connections, target)| Cell { connections, target });
    let plan = Plan {
        targets,
        control: Some(1),
        cells: cells.collect(),
        workload: Workload::named("saturated", true, 1)?,
        rounds: 2,
        is_exact: true,
        pipeline: 1,
        seed: 1,
        idle: 20,
        budget: Duration::from_secs(20),
        duration: Some(Duration::from_millis(700)),
    };
    let results = measure_all(&plan, Profile::Debug, folder.path())?;
    ensure!(results.problems.is_empty(), "{:?}", results.problems);
    let path = folder.path().join("results.json");
    results.write(&path)?;
    let read = Results::read(&path)?;
    ensure!(read == results, "what was written is not what is read");
    let somaxconn = results.machine.sysctls.get("net.core.somaxconn").and_then(|most| most.parse().ok());
    let backlog = somaxconn.unwrap_or(results.settings.backlog).min(results.settings.backlog);
    for (row, levels) in results.servers.iter().zip([&[1][..], &[1, 4], &[1, 4]]) {
        for &level in levels {
            let rounds = row.level(level).map(|level| level.rounds.as_slice()).unwrap_or_default();
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

/// The page as a browser of this width shows it: nothing complains, nothing is fetched, every picture is drawn, no text
/// stands outside its picture or on another.
fn report_in_a_browser(width: u32) -> Result<()> {
    let folder = Folder::new()?;
    let page = report::page(&fixture::results())?;
    ensure!(!page.contains("http:") && !page.contains("https:"), "the page names another address");
    let path = folder.path().join("report.html");
    fs::write(&path, page.replace("</body>", &format!("<pre id=\"said\"></pre><script>{WITNESS}</script></body>")))?;
    let output = run_within(
        WAIT_LIMIT * 3,
        browser()?.args([
            &format!("--user-data-dir={}", folder.path().join("profile").display()),
            &format!("--window-size={width},1000"),
            "--dump-dom",
            &format!("file://{}", path.display()),
        ]),
    )?;
    let (dom, log) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    let complaints: Vec<&str> = log.lines().filter(|line| line.contains("CONSOLE")).collect();
    ensure!(complaints.is_empty(), "the browser complains: {complaints:?}");
    let said = dom.split_once("<pre id=\"said\">").and_then(|(_, rest)| Some(rest.split_once("</pre>")?.0));
    let said = said.with_context(|| format!("the browser shows nothing, and says {log}"))?;
    // The cost, the memory, and one for each of four families twice.
    ensure!(said == "10 pictures, all well", "{said}");
    Ok(())
}

/// Returns a browser that does nothing but show a page.
fn browser() -> Result<Command> {
    let names = ["chromium", "chromium-browser", "google-chrome"];
    let found: Option<PathBuf> = names.iter().find_map(|name| tool(name).ok());
    let mut command = Command::new(found.ok_or_else(|| Missing("chromium".to_owned()))?);
    command.args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"]);
    command.args(["--disable-background-networking", "--disable-component-update", "--enable-logging=stderr"]);
    Ok(command)
}

/// Runs in the page.
const WITNESS: &str = r#"
const complaints = [];
const pictures = [...document.querySelectorAll("svg")].filter(svg => getComputedStyle(svg).display !== "none");
for (const svg of pictures) {
  const name = svg.querySelector("title").textContent, box = svg.getBoundingClientRect();
  if (box.width < 200 || box.height < 100) complaints.push(name + ": too small");
  if (!svg.querySelector("desc").textContent.trim()) complaints.push(name + ": not in words");
  const marks = [...svg.querySelectorAll("circle, path.line")];
  if (!marks.length || /NaN|Infinity/.test(svg.innerHTML)) complaints.push(name + ": not drawn");
  const colours = new Set(marks.map(mark => getComputedStyle(mark).stroke));
  if (colours.has("none") || colours.has(getComputedStyle(document.body).backgroundColor)) complaints.push(name + ": cannot be seen");
  const texts = [...svg.querySelectorAll("text")].map(text => [text.textContent, text.getBoundingClientRect()]);
  texts.forEach(([text, at], n) => {
    if (at.left < box.left - 1 || at.right > box.right + 1 || at.top < box.top - 1 || at.bottom > box.bottom + 1)
      complaints.push(name + ": outside: " + text);
    for (const [other, there] of texts.slice(n + 1))
      if (Math.min(at.right, there.right) - Math.max(at.left, there.left) > 2 && Math.min(at.bottom, there.bottom) - Math.max(at.top, there.top) > 5)
        complaints.push(name + ": " + text + " stands on " + other);
  });
}
for (const entry of performance.getEntriesByType("resource")) complaints.push("fetched: " + entry.name);
if (document.documentElement.scrollWidth > innerWidth) complaints.push("wider than the window");
document.getElementById("said").textContent = pictures.length + " pictures, " + (complaints.join("; ") || "all well");
"#;
