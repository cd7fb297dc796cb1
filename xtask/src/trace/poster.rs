//! One page with every architecture under the same three clients, side by side and on the same scale of time.

use super::recording::Recording;
use super::summary::millis;
use super::svg;
use crate::svg::escaped;

/// Returns the whole page, which is self-contained.
pub(crate) fn page(recordings: &[Recording]) -> String {
    let span = recordings.iter().map(|recording| recording.model.length).max().unwrap_or(1);
    let cards: String = recordings.iter().map(|recording| card(recording, &svg::figure(recording, span))).collect();
    let rows: String = recordings.iter().map(row).collect();
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<title>Which thread waits for which client</title>\n\
         <style>{}{STYLE}</style>\n</head>\n<body>\n<header>\n<h1>Which thread waits for which client</h1>\n<p>{INTRODUCTION}</p>\n\
         <div class=\"top\">\n<div class=\"wide\"><table>\n<caption>The same scenario with {} servers</caption>\n{HEADINGS}{rows}</table></div>\n\
         <div class=\"wide\">{}</div>\n</div>\n</header>\n<main>\n{cards}</main>\n</body>\n</html>\n",
        svg::STYLE,
        recordings.len(),
        svg::legend_only()
    )
}

fn card(recording: &Recording, figure: &str) -> String {
    let left_out = recording.left_out_text().unwrap_or_default();
    format!(
        "<article id=\"{0}\">\n<h2>{0} <code>{1}</code></h2>\n<p>{2}</p>\n<div class=\"wide\">{figure}</div>\n<p class=\"small\">{3}</p>\n</article>\n",
        recording.model.server,
        escaped(&recording.model.command),
        escaped(&recording.verdict()),
        escaped(&format!("{} {left_out}", recording.cost_of_strace()))
    )
}

fn row(recording: &Recording) -> String {
    let name = recording.model.server;
    let waits = (2..=recording.model.clients.len())
        .map(|client| format!("<td>{} ms</td>", millis(recording.first_wait(client))));
    let (class, told) = if recording.makes_clients_wait() { (" class=\"waits\"", "yes") } else { ("", "no") };
    format!(
        "<tr{class}><th scope=\"row\"><a href=\"#{name}\">{name}</a></th><td>{told}</td>{}<td>{:.0} %</td><td>{:.1}</td></tr>\n",
        waits.collect::<String>(),
        recording.idle(),
        recording.calls_per_answer()
    )
}

const INTRODUCTION: &str = "Three clients ask three questions each. Client 1 connects first and thinks for 40 ms before each further question; \
clients 2 and 3 connect while it thinks, and ask without a pause. Everything but the architecture of the server is the same. The times are \
those under strace, which sees every system call and makes each of them slower; the system calls include those \
that open and close connections, and those that only a debug build makes.";

const HEADINGS: &str = "<tr><th scope=\"col\">server</th><th scope=\"col\">client 3 waits for client 1</th><th scope=\"col\">client 2: first answer after</th>\
<th scope=\"col\">client 3: first answer after</th><th scope=\"col\">threads asleep</th><th scope=\"col\">system calls per answer</th></tr>\n";

const STYLE: &str = "
:root { color-scheme: light dark; --ink: #1b1f24; --paper: #f4f6f8; --card: #fff; --soft: #57606a; --line: #dfe3e8; --mark: #fff1e0; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e9ed; --paper: #0c0f12; --card: #14181d; --soft: #a3acb7; --line: #2c333b; --mark: #3a2810; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 110rem; padding: 1.5rem clamp(.75rem, 2vw, 2.5rem); background: var(--paper); color: var(--ink);
  font: 1rem/1.5 system-ui, sans-serif; }
h1 { margin: 0 0 .25rem; font-size: clamp(1.6rem, 4vw, 2.4rem); line-height: 1.2; }
header p { max-width: 60rem; }
h2 { margin: 0; font-size: 1.25rem; }
h2 code { font-size: .85rem; font-weight: 400; color: var(--soft); }
article p { margin: .35rem 0 .5rem; }
.small { font-size: .85rem; color: var(--soft); }
.top { display: grid; gap: 1.25rem; grid-template-columns: repeat(auto-fit, minmax(min(100%, 30rem), 1fr)); align-items: start; margin: 1.25rem 0; }
main { columns: 3 25rem; column-gap: 1.25rem; }
article { break-inside: avoid; margin-bottom: 1.25rem; }
article, .top > div { background: var(--card); border: 1px solid var(--line); border-radius: .6rem; padding: 1rem; min-width: 0; }
.wide { overflow-x: auto; }
.wide svg { display: block; width: 100%; min-width: 22rem; height: auto; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
caption { text-align: left; font-weight: 700; padding-bottom: .4rem; }
th, td { padding: .25rem .6rem; border-top: 1px solid var(--line); text-align: right; }
td { white-space: nowrap; }
th:first-child { text-align: left; white-space: nowrap; }
th[scope=col] { font-size: .8rem; font-weight: 600; color: var(--soft); vertical-align: bottom; border-top: 0; }
.waits { background: var(--mark); }
@media (max-width: 40rem) { table { font-size: .85rem; } th, td { padding: .25rem; } }
a { color: inherit; }
";
