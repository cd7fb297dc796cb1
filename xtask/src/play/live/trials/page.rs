//! The live page in a real browser, used as its reader does.

use anyhow::{Context, Result, ensure};

use super::Run;
use crate::harness::WAIT_LIMIT;
use crate::play::browser::Browser;
use crate::servers::SERVERS;

/// Lets a silent client block `single` for the next client, and swaps to `poll`, which serves both.
pub(super) fn in_a_browser() -> Result<()> {
    let run = Run::start("single", WAIT_LIMIT)?;
    let mut browser = Browser::open(&run.page.url())?;
    browser.click("#add-silent")?;
    browser.wait_until(&says("#threads", "asleep in recv() for client 1"))?;
    browser.wait_until(&says("#threads", "zen-single/src/serve.rs:"))?;
    browser.click("#add-honest")?;
    browser.wait_until(&says("#clients [data-number='2']", "is connected, in the backlog"))?;
    browser.wait_until("document.querySelector('#lanes .taken + text')?.textContent === '2'")?;

    browser
        .evaluate("{ const server = document.getElementById('server'); server.value = 'poll'; server.onchange(); }")?;
    browser.wait_until("Number(document.querySelector(\"#clients [data-number='2']\")?.cells[5].textContent) > 1")?;
    browser.wait_until(&says("#threads", "asleep in epoll_wait()"))?;
    browser.wait_until(&says("#clients [data-number='1']", "says nothing"))?;

    browser.evaluate("document.getElementById('lanes').focus()")?;
    browser.press("ArrowDown")?;
    browser.wait_until(&says(".detail", "ms, from "))?;
    // From bar to bar, until one waits.
    let next = "lanes.dispatchEvent(new KeyboardEvent('keydown', { key: 'ArrowRight' }))";
    browser.wait_until(&format!("({next}, {})", says(".source:not([hidden])", "self.poller.wait(")))?;
    browser.click("#clients [data-number='1'] button")?;
    browser.wait_until("!document.querySelector(\"#clients [data-number='1']\")")?;

    for behaviour in ["silent", "dripping", "never-reading", "pipelining", "half-question"] {
        browser.click(&format!("#add-{behaviour}"))?;
    }
    browser.wait_until("document.getElementById('clients').rows.length === 6")?;
    let names: Vec<String> = SERVERS.iter().map(|entry| entry.name).chain(["main"]).map(str::to_owned).collect();
    for width in [360, 800, 1400] {
        for theme in ["light", "dark"] {
            browser.prefer(&[("prefers-color-scheme", theme)])?;
            browser.resize(width, 900)?;
            for language in ["zh-CN", "en"] {
                browser.click("#language")?;
                ensure!(browser.evaluate("document.documentElement.lang")? == language, "it is not in {language}");
                let is_fine = browser.check_layout().and_then(|()| browser.check_language(&language[..2], &names));
                is_fine.with_context(|| format!("{width} pixels, {theme}, {language}"))?;
            }
        }
    }
    let missing = browser.evaluate("Object.keys(WORDS.en).filter(key => !(key in WORDS.zh)).join()")?;
    ensure!(missing == "", "not in Chinese: {missing}");
    browser.check_log_and_requests(&run.page.url())?;
    browser.click("#stop")?;
    run.ends()
}

/// Returns a condition: an element has this text.
fn says(selector: &str, text: &str) -> String {
    format!("document.querySelector(\"{selector}\")?.textContent.includes('{text}')")
}
