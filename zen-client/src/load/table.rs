//! The result as text.

use comfy_table::{CellAlignment, Table, presets};

use super::failures::Retries;
use super::find_max::{Search, Step};
use super::plan::Plan;
use super::report::{Report, Settings, Times};
use super::schedule::Arrivals;

/// Returns the whole report, in several lines.
pub(super) fn table(report: &Report) -> String {
    let mut text = report.find_max.as_ref().map(search).unwrap_or_default();
    text.push_str(&format!("{}\n{}\n{}\n", headline(report), counts(report), times(report)));
    text.push_str(report.times);
    text.push('\n');
    if (2..=MOST_ROWS).contains(&report.per_second.len()) {
        text.push_str(&format!("{}\n", seconds(report)));
    }
    for verdict in &report.verdicts {
        let sign = match verdict.ok {
            Some(true) => "ok",
            Some(false) => "NOT OK",
            None => "not judged",
        };
        text.push_str(&format!("{sign}: {}\n", verdict.text));
    }
    text
}

fn search(search: &Search) -> String {
    let mut table = plain();
    table.set_header(vec!["questions a second", "held", "outcome"]);
    for Step { rate, held, outcomes, .. } in &search.steps {
        let held = if *held { "yes" } else { "no" };
        table.add_row(vec![rate.to_string(), held.to_owned(), outcomes.join("\n")]);
    }
    let steps = if search.steps.is_empty() { String::new() } else { format!("{table}\n") };
    format!("{steps}{}; the last run:\n", search.text)
}

fn headline(report: &Report) -> String {
    let Settings { plan, drip, silent, .. } = &report.settings;
    let Plan { connections, idle, pipeline, threads, rate, arrivals, churn, .. } = *plan;
    let mut text = format!("{}: {connections} connection{}", report.servers.join(", "), plural(connections));
    if *drip + *silent > 0 {
        text.push_str(&format!(" ({drip} drip, {silent} silent)"));
    }
    if idle > 0 {
        text.push_str(&format!(" and {idle} idle"));
    }
    match rate {
        Some(rate) => {
            let random = if arrivals == Arrivals::Poisson { " at random" } else { "" };
            text.push_str(&format!(", open loop of {rate} questions a second{random}"));
        }
        None => text.push_str(", closed loop"),
    }
    if pipeline > 1 {
        text.push_str(&format!(", {pipeline} questions in flight"));
    }
    if churn {
        text.push_str(", a connection for each question");
    }
    let interrupted = if report.interrupted { ", interrupted" } else { "" };
    format!("{text}, {threads} thread{}, {:.1} s{interrupted}", plural(threads), report.seconds)
}

fn plural(n: usize) -> &'static str {
    if n == 1 { "" } else { "s" }
}

fn counts(report: &Report) -> Table {
    let mut table = plain();
    table.add_row(vec!["answers".to_owned(), report.answers.to_string()]);
    table.add_row(vec!["answers a second".to_owned(), format!("{:.0}", report.answers_per_second)]);
    table.add_row(vec!["failures".to_owned(), report.failures.to_string()]);
    if report.settings.plan.retries > 0 {
        let Retries { connections, by_kind, questions, answered, given_up } = report.retries;
        let why = if connections > 0 { format!(" ({by_kind})") } else { String::new() };
        table.add_row(vec!["connections reopened after a failure".to_owned(), format!("{connections}{why}")]);
        let outcome = format!("{questions}: {answered} answered, {given_up} given up");
        table.add_row(vec!["questions asked again".to_owned(), outcome]);
    }
    if report.settings.plan.rate.is_some() {
        table.add_row(vec!["missed".to_owned(), report.missed.to_string()]);
    }
    if report.reopened > 0 {
        table.add_row(vec!["ended by the server with nothing pending".to_owned(), report.reopened.to_string()]);
    }
    let mut cost = format!("{:.2} s", report.cpu_seconds);
    if report.answers > 0 {
        cost.push_str(&format!(", {:.2} µs an answer", report.cpu_seconds / report.answers as f64 * 1e6));
    }
    table.add_row(vec!["own processor time".to_owned(), cost]);
    table
}

fn times(report: &Report) -> Table {
    let mut table = plain();
    table.set_header(vec!["µs", "p50", "p90", "p99", "p99.9", "max"]);
    for (name, times) in [("service time", &report.service_time_us), ("response time", &report.response_time_us)] {
        let Times { p50, p90, p99, p999, max, .. } = times;
        let cells = [p50, p90, p99, p999, max].map(|time| number(*time));
        table.add_row(std::iter::once(name.to_owned()).chain(cells));
    }
    right(table)
}

fn seconds(report: &Report) -> Table {
    let mut table = plain();
    table.set_header(vec!["second", "answers", "mean µs", "max µs"]);
    for row in &report.per_second {
        table.add_row(vec![
            (row.second + 1).to_string(),
            row.answers.to_string(),
            number(row.mean_us),
            number(row.max_us),
        ]);
    }
    right(table)
}

fn plain() -> Table {
    let mut table = Table::new();
    table.load_preset(presets::UTF8_BORDERS_ONLY);
    table
}

/// Aligns all columns but the first to the right, because they hold numbers.
fn right(mut table: Table) -> Table {
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

fn number(micros: Option<f64>) -> String {
    micros.map_or("–".to_owned(), |micros| format!("{micros:.1}"))
}

/// With more rows, only `--json` has them.
const MOST_ROWS: usize = 20;
