//! The explanations of the page: of real recordings, and of made-up ones whose sentences are known to the letter.

use std::fs;

use anyhow::{Context, Result, anyhow, ensure};
use serde_json::{Value, json};

use super::browser::Browser;
use super::{recorded, written};
use crate::harness::folder::Folder;
use crate::harness::{chromium, strace};
use crate::servers;
use crate::trace::recording::Scene;
use crate::trace::scenario;
use crate::trial::Trial;

/// Returns the tests of the explanations.
pub(super) fn trials() -> Vec<Trial> {
    let case = |case: &'static Case| {
        let name = format!("play::explanation::{}::{}::client_{}", case.scenario, case.server, case.client);
        Trial::new(name, move || explains(case))
    };
    let mut trials: Vec<Trial> = CASES.iter().map(case).collect();
    trials.push(Trial::new("play::made_up_recordings_are_explained", made_up_recordings_are_explained));
    trials
}

struct Case {
    scenario: &'static str,
    server: &'static str,
    client: usize,
    says: &'static [&'static str],
    never: &'static [&'static str],
}

/// Checks what the page says about a recording of a real server.
fn explains(case: &Case) -> Result<()> {
    strace()?;
    chromium()?;
    let folder = Folder::new()?;
    let mut text = String::new();
    // A machine that is busy for a moment can change the recording, but hardly each time.
    for _ in 0..ATTEMPTS {
        let (entry, scenario) = (servers::named(case.server)?, scenario::named(case.scenario)?);
        let scene = Scene::new(entry, scenario, &[]).map_err(|why| anyhow!(why))?;
        let models = recorded(&[scene], folder.path())?;
        let mut browser = Browser::open(&format!("file://{}", written(&models, folder.path())?.display()))?;
        text = why(&mut browser, &json!(models[0]), case.client, "en")?;
        let is_in_text = |words: &&str| text.contains(words);
        if case.says.iter().all(is_in_text) && !case.never.iter().any(is_in_text) {
            return Ok(());
        }
    }
    Err(anyhow!("the page says {text:?}, not {:?}, or it says {:?}", case.says, case.never))
}

/// Checks the sentences about recordings that leave nothing to chance.
fn made_up_recordings_are_explained() -> Result<()> {
    chromium()?;
    let folder = Folder::new()?;
    let file = folder.path().join("reasons.html");
    let scripts = [super::WORDS, super::LANES, super::QUESTIONS, super::REASONS].concat();
    fs::write(&file, format!("<!DOCTYPE html><meta charset=utf-8><script>{scripts}</script>"))?;
    let mut browser = Browser::open(&format!("file://{}", file.display()))?;
    let mut says = |model: &Value, language: &str, words: &str| -> Result<()> {
        let text = why(&mut browser, model, 3, language)?;
        ensure!(text.contains(words), "{text:?} lacks {words:?}");
        Ok(())
    };
    // Client 3 waits in the backlog until the process that accepts it has finished its own client.
    let busy = |from, until, client| json!({ "from": from, "until": until, "activity": "work", "client": client });
    let send = |at: u32, client: u32| json!({ "from": at, "until": at + 1, "activity": "send", "client": client });
    let accepts = [busy(0, 120_000, 1), send(120_000, 1), busy(120_001, 240_000, 3), send(240_000, 3)];
    let other = [busy(10_000, 130_000, 2), send(130_000, 2)];
    let two = json!([
        { "name": "zen-poll of process 1", "process": 7, "thread": 7, "intervals": accepts },
        { "name": "zen-poll of process 2", "process": 8, "thread": 8, "intervals": other },
    ]);
    let late = json!([{ "from": 20_000, "until": 120_001, "stay": "backlog" }]);
    let events = json!([{ "at": 240_000, "kind": "answered" }]);
    let third = json!({ "client": 3, "behaviour": "honest", "intervals": late, "events": events,
        "outcome": "answered-late" });
    let mut model = json!({ "server": "poll-processes", "scenario": "slow-answer", "command": "zen-poll",
        "work": 120_000,
        "sources": [], "threads": two, "clients": [third] });
    let own = "Of these 220 ms, process 1 works 100 ms for client 1; the last 120 ms are client 3’s own work.";
    says(&model, "en", own)?;
    says(&model, "zh", "这 220 ms 里，进程 1 为客户端 1 工作 100 ms；最后 120 ms 才是客户端 3 自己的回答。")?;
    // A cause that covers a small share of the wait is none.
    model["threads"] = json!([{ "name": "main", "process": 7, "thread": 7,
        "intervals": [busy(20_000, 20_600, 1), send(240_000, 3)] }]);
    model["scenario"] = json!("no-descriptors");
    says(&model, "en", "No descriptor is free, so accept() fails. The server pauses 100 ms and tries again,")?;
    // Start-up calls of a process for one client are no event loop.
    let start = [
        json!({ "from": 20_000, "until": 20_001, "activity": "poll", "call": "ppoll" }),
        busy(20_001, 150_000, 3),
        send(150_000, 3),
        json!({ "from": 150_001, "until": 160_000, "activity": "recv", "client": 3 }),
    ];
    model["threads"] = json!([{ "name": "zen-threaded of process 3", "process": 9, "thread": 9, "intervals": start }]);
    model["clients"][0]["outcome"] = json!("answered-at-once");
    says(&model, "en", "Process 3 was started for client 3 alone; the other clients have processes of their own.")?;
    says(&model, "zh", "进程 3 专为客户端 3 启动，其他客户端有各自的进程。")?;
    // An executor that another thread wakes is not the one in epoll_wait().
    let asleep = |activity| json!({ "from": 0, "until": 239_999, "activity": activity, "call": "epoll_pwait" });
    model["threads"] = json!([
        { "name": "executor", "process": 7, "thread": 8, "intervals": [asleep("thread"), send(239_999, 3)] },
        { "name": "async-io", "process": 7, "thread": 9, "intervals": [asleep("poll")] },
    ]);
    let words = "executor sleeps until async-io wakes it; async-io sleeps in epoll_wait() for all clients.";
    says(&model, "en", words)?;
    says(&model, "zh", "executor 睡着，等 async-io 唤醒；async-io 睡在 epoll_wait() 里，同时等所有客户端。")
}

/// Returns what the page says about a client of a recording. Its no-break spaces are returned as spaces.
fn why(browser: &mut Browser, model: &Value, client: usize, language: &str) -> Result<String> {
    let script = format!("reasons.why(words('{language}'), {model}, {client}).join(' ')");
    let text = browser.evaluate(&script)?;
    Ok(text.as_str().context("it is text")?.replace('\u{a0}', " "))
}

/// How often a scenario is recorded until it shows what is expected.
pub(super) const ATTEMPTS: usize = 3;

/// Explanations that were wrong once, or that are typical of an architecture.
const CASES: &[Case] = &[
    Case {
        scenario: "slow-answer",
        server: "per-process",
        client: 3,
        says: &["Process 3 was started for client 3 alone", "120 ms of these are the work on its own question"],
        never: &["epoll_wait"],
    },
    Case {
        scenario: "slow-answer",
        server: "poll",
        client: 3,
        says: &["ms for client 1 and 12", "ms for client 2; the last 12", "ms are client 3’s own work."],
        never: &["For 12"],
    },
    Case {
        scenario: "no-descriptors",
        server: "smol-threads",
        client: 2,
        says: &["No descriptor is free, so accept() fails."],
        never: &["for client 1"],
    },
    Case {
        scenario: "no-descriptors",
        server: "per-process",
        client: 2,
        says: &["Here even client 1 is rejected: starting a process takes more than one descriptor."],
        never: &[],
    },
    Case {
        scenario: "draining",
        server: "poll",
        client: 1,
        says: &["ms after SIGTERM.", "It is late because main first finishes its answer to client 3"],
        never: &["immediately"],
    },
    Case {
        scenario: "draining",
        server: "per-connection",
        client: 2,
        // Its recv() began 40 ms after the start, so it does not return at the time of SIGTERM.
        says: &["ms after SIGTERM.", "sleeps in recv() for client 2 and wakes about every 250 ms"],
        never: &["immediately"],
    },
    Case {
        scenario: "three-talkers",
        server: "async-std",
        client: 3,
        says: &["async-io", "in epoll_wait() for all clients"],
        never: &["executor never sleeps"],
    },
    Case {
        scenario: "silent-client",
        server: "single",
        client: 1,
        says: &["This server checks its deadlines only every 250 ms, so it notices late."],
        never: &[],
    },
    Case {
        scenario: "silent-client",
        server: "poll",
        client: 1,
        says: &["The idle timeout passed"],
        never: &["250 ms"],
    },
];
