//! The page as one document, which asks for nothing but its events and actions.

use crate::servers::SERVERS;
use crate::trace::svg;

/// Returns the page.
pub(super) fn html() -> String {
    let servers = SERVERS.iter().filter(|entry| !entry.uses_io_uring());
    let servers: String = servers.map(|entry| format!("<option>{}</option>", entry.name)).collect();
    let html = include_str!("page/live.html").replace("{{servers}}", &servers);
    html.replace("{{style}}", &[svg::STYLE, STYLE, LIVE_STYLE].concat()).replace("{{scripts}}", &SCRIPTS.concat())
}

const STYLE: &str = include_str!("../page/play.css");
const LIVE_STYLE: &str = include_str!("page/live.css");
/// The first two are also used by the page of recordings.
const SCRIPTS: [&str; 4] = [
    include_str!("../page/words.js"),
    include_str!("../page/lanes.js"),
    include_str!("page/words.js"),
    include_str!("page/live.js"),
];
