//! The page in a real browser: read, guessed, played and stepped through as its reader does.

use std::fs;

use anyhow::{Context, Result, anyhow, ensure};
use serde_json::{Value, json};

use super::browser::Browser;
use super::explanations::{self, ATTEMPTS};
use super::{live, recorded, written};
use crate::harness::folder::Folder;
use crate::harness::{chromium, strace};
use crate::servers::{self, SERVERS};
use crate::trace::model::{Model, Outcome};
use crate::trace::recording::Scene;
use crate::trace::scenario;
use crate::trial::Trial;
use crate::workspace;

/// Returns the tests of the recordings and of the page.
pub(crate) fn trials() -> Result<Vec<Trial>> {
    workspace::build()?;
    let mut trials = Vec::new();
    for case in OUTCOMES {
        let name = format!("play::outcome::{}::{}", case.scenario, case.server);
        trials.push(Trial::new(name, move || has_the_expected_outcome(case)));
    }
    trials.extend(explanations::trials());
    trials.push(Trial::new("play::browser_finds_faults", browser_finds_faults));
    trials.push(Trial::new("play::page", the_page));
    trials.extend(live::trials());
    Ok(trials)
}

/// Records a scenario once.
fn record(server: &str, scenario: &str, folder: &Folder) -> Result<Model> {
    let scene = Scene::new(servers::named(server)?, scenario::named(scenario)?, &[]).map_err(|why| anyhow!(why))?;
    recorded(&[scene], folder.path())?.pop().context("there is no recording")
}

struct Case {
    scenario: &'static str,
    server: &'static str,
    client: usize,
    outcome: Outcome,
}

fn has_the_expected_outcome(case: &Case) -> Result<()> {
    strace()?;
    let folder = Folder::new()?;
    let mut seen = None;
    // A machine that is busy for a moment can change the outcome, but hardly each time.
    for _ in 0..ATTEMPTS {
        let model = record(case.server, case.scenario, &folder)?;
        seen = model.client(case.client).map(|lane| lane.outcome);
        if seen == Some(case.outcome) {
            return Ok(());
        }
    }
    Err(anyhow!("client {} sees {seen:?}, not {:?}", case.client, case.outcome))
}

fn the_page() -> Result<()> {
    strace()?;
    chromium()?;
    let folder = Folder::new()?;
    let pairs = [
        ("single", "silent-client"),
        ("poll", "silent-client"),
        ("single", "too-many-clients"),
        ("poll", "too-many-clients"),
        ("completion", "three-talkers"),
    ];
    let models: Vec<Model> =
        pairs.iter().map(|(server, scenario)| record(server, scenario, &folder)).collect::<Result<_>>()?;
    let own = format!("file://{}", written(&models, folder.path())?.display());
    let mut browser = Browser::open(&format!("{own}#silent-client/single/poll/en"))?;
    let names = names(&models);

    plays_after_a_guess(&mut browser)?;
    steps_by_keys(&mut browser)?;
    ends_on_the_slider(&mut browser)?;
    chooses_clients_and_servers(&mut browser)?;
    switches_language(&mut browser, &names)?;
    browser.evaluate(EVERY_CHOICE).context("every choice")?;
    for width in [360, 800, 1400] {
        for theme in ["light", "dark"] {
            browser.prefer(&[("prefers-color-scheme", theme), ("prefers-reduced-motion", "reduce")])?;
            browser.resize(width, 900)?;
            for language in ["en", "zh"] {
                fits(&mut browser, language, &names).with_context(|| format!("{width} pixels, {theme}, {language}"))?;
            }
        }
    }
    browser.check_log_and_requests(&own)
}

/// Returns the names that are the same in every language: of servers, threads and system calls.
fn names(models: &[Model]) -> Vec<String> {
    let intervals = models.iter().flat_map(Model::shown).flat_map(|lane| &lane.intervals);
    let calls = intervals.filter_map(|interval| interval.call.clone());
    // What follows the first word, such as `of process 2`, is translated.
    let threads =
        models.iter().flat_map(Model::shown).filter_map(|lane| lane.name.split(' ').next().map(str::to_owned));
    let servers = SERVERS.iter().map(|entry| entry.name.to_owned());
    calls.chain(threads).chain(servers).collect()
}

/// Checks that each check of a page fails on a page with one fault.
fn browser_finds_faults() -> Result<()> {
    chromium()?;
    let folder = Folder::new()?;
    let file = folder.path().join("page.html");
    fs::write(&file, "<!DOCTYPE html><html lang=en><link rel=icon href=data:,><body></body>")?;
    let own = format!("file://{}", file.display());
    let mut browser = Browser::open(&own)?;
    let mut shows = |body: &str, words: &str| -> Result<()> {
        browser.evaluate(&format!("document.body.innerHTML = {}", json!(body)))?;
        let found = browser.check_layout().and_then(|()| browser.check_language("zh", &["smol".to_owned()]));
        let found = found.err().map_or(String::new(), |error| format!("{error:#}"));
        ensure!(found == words, "{body}: {found:?}, not {words:?}");
        Ok(())
    };
    shows("<p>一</p><p>smol 睡在 recv() 里，收到“ugly.”</p><select><option>二</select>", "")?;
    shows("<p>一</p><p style='margin-top: -2.5em'>二</p>", "一 lies on 二")?;
    shows("<svg class=trace><text y=20>一</text><text y=22 x=5>二</text></svg>", "一 lies on 二")?;
    shows("<svg class=trace width=50><text y=20 x=40>一二三</text></svg>", "outside: 一二三")?;
    shows("<button style='width: 2em; padding: 0; white-space: nowrap'>一二三四五</button>", "outside: 一二三四五")?;
    shows("<div style='position: absolute; left: 0; width: 3000px'>一</div>", "wider than the window: 3000")?;
    shows("<p>一</p><p hidden>Play</p><details><summary>二</summary><p>Pause</p></details>", "")?;
    shows("<p>一 Play</p>", "not in zh: Play")?;
    shows("<select><option>一<option>Play</select>", "not in zh: Play")?;
    shows("<p aria-label='Play 一'>一</p>", "not in zh: Play")?;
    browser.evaluate("document.body.textContent = 'one, 中文, 一'")?;
    let found = browser.check_language("en", &[]).err().map(|error| format!("{error:#}"));
    ensure!(found.as_deref() == Some("not in en: 一"), "{found:?}");

    browser.check_log_and_requests(&own)?;
    for script in [
        "console.error('a fault')",
        "console.warn('a fault')",
        "setTimeout(() => { throw Error('a fault'); })",
        "void Promise.reject(Error('a fault'))",
        "void fetch('http://127.0.0.1:9/').catch(() => 0)",
        "new Image().src = 'http://127.0.0.1:9/'",
    ] {
        browser.evaluate(script)?;
        // Waits for what the script does later.
        browser.evaluate("new Promise(done => setTimeout(done, 50))")?;
        ensure!(browser.check_log_and_requests(&own).is_err(), "the fault of this script is not noticed: {script}");
        browser.problems.clear();
        let is_request = script.contains("http");
        ensure!(browser.check_log_and_requests(&own).is_err() == is_request, "{script}: {:?}", browser.requests);
        browser.requests.clear();
    }
    Ok(())
}

/// Guesses right for `single` and wrong for `poll`. Then the page shows both verdicts, and the reasons.
fn plays_after_a_guess(browser: &mut Browser) -> Result<()> {
    let text = |browser: &mut Browser, selector: &str| -> Result<String> {
        let value = browser.evaluate(&format!("document.querySelector('{selector}').textContent"))?;
        Ok(value.as_str().unwrap_or_default().to_owned())
    };
    let question = text(browser, "#questions legend")?;
    ensure!(question.contains("single: what will client 2 see?"), "the page asks {question:?}");
    browser.click("#start")?;
    ensure!(text(browser, "#missing")? == "Choose an answer first.", "the page does not ask for a guess");
    browser.click("#questions fieldset:nth-child(1) input[value=answered-late]")?;
    browser.click("#questions fieldset:nth-child(2) input[value=rejected]")?;
    browser.evaluate("document.getElementById('speed').value = '4'")?;
    browser.click("#start")?;
    browser.wait_until("Number(document.getElementById('scrubber').value) > 0")?;
    browser.wait_until("document.body.dataset.stage === 'told'")?;
    let verdicts = "[...document.querySelectorAll('.result')].map(result => result.dataset.verdict).join()";
    let verdicts = browser.evaluate(verdicts)?;
    ensure!(verdicts == "right,wrong", "{verdicts}");
    let focused = browser.evaluate("document.activeElement.id")?;
    ensure!(focused == "play", "after a guess the focus is on {focused}");
    let why = text(browser, ".why")?;
    let is_told = ["Client 2 has to wait", "asleep in recv() for client 1", "zen-single/src/serve.rs:"];
    ensure!(is_told.iter().all(|words| why.contains(words)), "{why}");
    ensure!(text(browser, "#score")? == "1 of 2 guesses right", "{}", text(browser, "#score")?);
    Ok(())
}

/// Checks that the Tab key reaches the picture, and that the arrow keys select its bars.
fn steps_by_keys(browser: &mut Browser) -> Result<()> {
    browser.click("#again")?;
    let time = |browser: &mut Browser| browser.evaluate("Number(document.getElementById('scrubber').value)");
    let mut last = time(browser)?.as_f64();
    for _ in 0..3 {
        browser.click("#step")?;
        let next = time(browser)?.as_f64();
        ensure!(next > last, "a step leads from {last:?} to {next:?}");
        last = next;
    }
    browser.evaluate("document.getElementById('clock').previousElementSibling.querySelector('input').focus()")?;
    browser.press("Tab")?;
    let focused = browser.evaluate("document.activeElement.classList.contains('trace')")?;
    ensure!(focused == Value::Bool(true), "the picture has no focus");
    browser.press("ArrowDown")?;
    let told = |browser: &mut Browser| browser.evaluate("document.querySelector('.detail').textContent");
    let first = told(browser)?;
    browser.press("ArrowRight")?;
    let second = told(browser)?;
    ensure!(first != second && second.as_str().is_some_and(|told| told.contains("ms, from ")), "{first}, {second}");
    let rows = browser.evaluate("document.querySelectorAll('.rows')[0].rows.length")?;
    ensure!(rows.as_i64().is_some_and(|rows| rows > 10), "the table has {rows} rows");
    Ok(())
}

/// Checks that the End key on the slider gives the verdict, and that a reader of a small window sees it.
fn ends_on_the_slider(browser: &mut Browser) -> Result<()> {
    browser.resize(400, 800)?;
    browser.prefer(&[("prefers-reduced-motion", "reduce")])?;
    let is_seen = |selector: &str| {
        let place = format!("document.querySelector('{selector}').getBoundingClientRect()");
        format!("(({{ top, bottom }}) => top > -1 && bottom < innerHeight + 1)({place})")
    };
    // Another client makes the page ask again.
    browser.evaluate("{ const client = document.getElementById('client'); client.onchange(); scrollTo(0, 0); }")?;
    browser.click("#skip")?;
    let top = "document.getElementById('transport').getBoundingClientRect().top < 20";
    browser.wait_until(top).context("the timeline is not scrolled into view")?;
    browser.evaluate("document.getElementById('scrubber').focus()")?;
    browser.press("End")?;
    browser.wait_until("document.body.dataset.stage === 'told'").context("the End key gives no verdict")?;
    browser.wait_until(&is_seen(".result")).context("the verdict is not scrolled into view")?;
    browser.prefer(&[])?;
    browser.resize(1200, 900)
}

/// Checks that the page names the clients of both servers, says what a server is, and says which were not recorded.
fn chooses_clients_and_servers(browser: &mut Browser) -> Result<()> {
    let choose = |browser: &mut Browser, id: &str, value: &str| -> Result<()> {
        browser
            .evaluate(&format!(
                "{{ const choice = document.getElementById('{id}'); choice.value = '{value}'; choice.onchange(); }}"
            ))
            .map(|_| ())
    };
    let texts = |browser: &mut Browser, selector: &str| {
        browser.evaluate(&format!("[...document.querySelectorAll('{selector}')].map(e => e.textContent).join('|')"))
    };
    for (id, value) in [("scenario", "too-many-clients"), ("right", "poll")] {
        choose(browser, id, value)?;
    }
    let clients = texts(browser, "#client option")?;
    ensure!(clients.as_str().is_some_and(|text| text.contains("client 5 / 4")), "{clients}");
    let limits = texts(browser, ".limit")?;
    ensure!(limits == "One thread; the backlog has room for 2.|The limit is 2 clients at a time.", "{limits}");
    let about = texts(browser, "#left-about, #right-about")?;
    let expected = "One thread; accepts one client and stays with it until it leaves.\
                    |One thread; an event loop serves all clients with epoll.";
    ensure!(about == expected, "{about}");
    choose(browser, "scenario", "three-talkers")?;
    let replaced = texts(browser, "#not-recorded")?;
    let expected = "single was not recorded in this scenario. poll was not recorded in this scenario.";
    ensure!(replaced == expected, "{replaced}");
    let title = browser.evaluate("document.querySelector('#left option[value=single]').title")?;
    ensure!(title == "single was not recorded in this scenario.", "{title}");
    for (id, value) in [("scenario", "silent-client"), ("left", "single"), ("right", "poll")] {
        choose(browser, id, value)?;
    }
    Ok(())
}

fn switches_language(browser: &mut Browser, names: &[String]) -> Result<()> {
    for (lang, title, language) in [("zh-CN", "看服务器如何等待", "zh"), ("en", "Watch a server wait", "en")] {
        browser.click("#language")?;
        let seen = browser.evaluate("document.documentElement.lang + document.title")?;
        ensure!(seen == format!("{lang}{title}"), "{seen}");
        browser.evaluate("document.querySelectorAll('details').forEach(details => details.open = true)")?;
        browser.check_language(language, names)?;
        let missing = browser.evaluate("Object.keys(WORDS.en).filter(key => !(key in WORDS.zh)).join()")?;
        ensure!(missing == "", "not in Chinese: {missing}");
    }
    Ok(())
}

/// Checks the layout and the language of the page at a few moments of the animation.
fn fits(browser: &mut Browser, language: &str, names: &[String]) -> Result<()> {
    browser.evaluate(&format!(
        "document.documentElement.lang.startsWith('{language}') || document.getElementById('language').click()"
    ))?;
    for (scenario, place) in [("silent-client", 400), ("silent-client", 1000), ("too-many-clients", 600)] {
        browser.evaluate(&format!(
            "{{ const choice = document.getElementById('scenario'); choice.value = '{scenario}'; choice.onchange();
               document.getElementById('skip').click();
               const scrubber = document.getElementById('scrubber'); scrubber.value = {place}; scrubber.oninput(); }}"
        ))?;
        browser.evaluate("document.getElementById('legend').open = true")?;
        browser.check_layout().with_context(|| format!("{scenario} at {place}"))?;
        browser.check_language(language, names).with_context(|| format!("{scenario} at {place}"))?;
    }
    Ok(())
}

/// A script for the page that makes every choice and presses every button, one after the other.
const EVERY_CHOICE: &str = r##"(() => {
  for (const select of document.querySelectorAll("select")) {
    for (const { value } of [...select.options].filter(option => !option.disabled)) {
      select.value = value;
      select.dispatchEvent(new Event("change"));
      document.getElementById("skip").click();
      for (const button of document.querySelectorAll("#transport button, #language")) button.click();
    }
  }
})()"##;

/// Outcomes that are typical of a scenario, or that differ between architectures.
const OUTCOMES: &[Case] = &[
    Case { scenario: "silent-client", server: "workers", client: 2, outcome: Outcome::AnsweredAtOnce },
    Case { scenario: "silent-client", server: "single", client: 1, outcome: Outcome::Closed },
    Case { scenario: "dripping-client", server: "single", client: 2, outcome: Outcome::AnsweredLate },
    Case { scenario: "dripping-client", server: "smol", client: 1, outcome: Outcome::Closed },
    Case { scenario: "never-reading", server: "poll", client: 1, outcome: Outcome::Reset },
    Case { scenario: "pipelining", server: "poll", client: 1, outcome: Outcome::AnsweredTogether },
    Case { scenario: "half-close", server: "per-connection", client: 1, outcome: Outcome::AnsweredThenClosed },
    Case { scenario: "slow-answer", server: "poll", client: 3, outcome: Outcome::AnsweredLate },
    Case { scenario: "slow-answer", server: "per-connection", client: 3, outcome: Outcome::AnsweredAtOnce },
    Case { scenario: "too-many-clients", server: "single", client: 4, outcome: Outcome::AnsweredLate },
    Case { scenario: "too-many-clients", server: "poll", client: 3, outcome: Outcome::Rejected },
    Case { scenario: "no-descriptors", server: "poll", client: 2, outcome: Outcome::AnsweredLate },
    Case { scenario: "draining", server: "poll", client: 3, outcome: Outcome::AnsweredThenClosed },
    Case { scenario: "draining", server: "single", client: 4, outcome: Outcome::Refused },
];
