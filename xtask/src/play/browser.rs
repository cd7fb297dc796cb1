//! A headless Chromium, controlled over the DevTools protocol.
//!
//! The protocol runs over two pipes, descriptors 3 and 4 of the browser. Messages are JSON and end in a zero byte.

use std::io::{BufRead, BufReader, Write};
use std::process::{ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};
use serde_json::{Value, json};

use crate::harness::folder::Folder;
use crate::harness::group::Group;
use crate::harness::{WAIT_LIMIT, chromium};

/// A browser with one page. It ends when this is dropped.
pub(crate) struct Browser {
    // The first field is dropped first: the browser ends before its profile is removed.
    _group: Group,
    _profile: Folder,
    orders: ChildStdin,
    messages: Receiver<Value>,
    session: Option<String>,
    sent: u64,
    /// What the page wrote to the console as a warning or an error, and exceptions that it did not catch.
    pub(crate) problems: Vec<String>,
    /// The addresses that the page requested, its own first.
    pub(crate) requests: Vec<String>,
}

impl Browser {
    /// Starts a browser and opens a page in it.
    pub(crate) fn open(address: &str) -> Result<Browser> {
        let profile = Folder::new()?;
        let browser = chromium()?;
        let mut command = Command::new("sh");
        command.args(["-c", "exec \"$@\" 3<&0 4>&1 </dev/null >&2", "sh"]).arg(browser.get_program());
        command.args(browser.get_args()).arg("--remote-debugging-pipe");
        command.arg(format!("--user-data-dir={}", profile.path().display()));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut group = Group::start(&mut command)?;
        let orders = group.child().stdin.take().context("it is piped")?;
        let answers = group.child().stdout.take().context("it is piped")?;
        let (sender, messages) = channel();
        thread::spawn(move || {
            let read = BufReader::new(answers).split(0).map_while(Result::ok);
            // Ends when the browser ends, or when the receiver is dropped.
            let _ = read.filter_map(|json| serde_json::from_slice(&json).ok()).try_for_each(|json| sender.send(json));
        });
        let (problems, requests) = (Vec::new(), Vec::new());
        let mut browser =
            Browser { _group: group, _profile: profile, orders, messages, session: None, sent: 0, problems, requests };
        let target = browser.call("Target.createTarget", json!({ "url": "about:blank" }))?["targetId"].clone();
        let attached = browser.call("Target.attachToTarget", json!({ "targetId": target, "flatten": true }))?;
        browser.session = attached["sessionId"].as_str().map(str::to_owned);
        for domain in ["Page", "Runtime", "Log", "Network"] {
            browser.call(&format!("{domain}.enable"), json!({}))?;
        }
        browser.call("Page.navigate", json!({ "url": address }))?;
        browser.wait_until("document.readyState === 'complete' && location.href !== 'about:blank'")?;
        Ok(browser)
    }

    /// Evaluates an expression in the page, and waits if it is a promise.
    pub(crate) fn evaluate(&mut self, script: &str) -> Result<Value> {
        let asked = json!({ "expression": script, "returnByValue": true, "awaitPromise": true });
        let answer = self.call("Runtime.evaluate", asked)?;
        if let Some(exception) = answer.get("exceptionDetails") {
            bail!("{script} throws {exception}");
        }
        Ok(answer["result"]["value"].clone())
    }

    /// Waits until an expression is true.
    pub(crate) fn wait_until(&mut self, script: &str) -> Result<()> {
        let deadline = Instant::now() + WAIT_LIMIT;
        while self.evaluate(script)? != Value::Bool(true) {
            ensure!(Instant::now() < deadline, "not true within {WAIT_LIMIT:?}: {script}");
            thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// Clicks on the first element that a selector names.
    pub(crate) fn click(&mut self, selector: &str) -> Result<()> {
        self.evaluate(&format!("document.querySelector({}).click()", json!(selector))).map(|_| ())
    }

    /// Presses a key, such as `Tab` or `ArrowRight`, where the focus is.
    pub(crate) fn press(&mut self, key: &str) -> Result<()> {
        let code = match key {
            "Tab" => 9,
            "Enter" => 13,
            " " => 32,
            "End" => 35,
            "ArrowLeft" => 37,
            "ArrowUp" => 38,
            "ArrowRight" => 39,
            "ArrowDown" => 40,
            _ => bail!("no key code for {key}: add it to this list"),
        };
        let text = if key == " " { " " } else { "" };
        for kind in ["keyDown", "keyUp"] {
            let pressed = json!({ "type": kind, "key": key, "windowsVirtualKeyCode": code, "text": text });
            self.call("Input.dispatchKeyEvent", pressed)?;
        }
        Ok(())
    }

    /// Changes the size of the window, in CSS pixels.
    pub(crate) fn resize(&mut self, width: u32, height: u32) -> Result<()> {
        let size = json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": false });
        self.call("Emulation.setDeviceMetricsOverride", size)?;
        // After two frames the page has handled the event, and has drawn itself again.
        self.evaluate("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(() => done(true))))")?;
        Ok(())
    }

    /// Sets what a reader prefers: `prefers-color-scheme` to `dark`, `prefers-reduced-motion` to `reduce` …
    pub(crate) fn prefer(&mut self, features: &[(&str, &str)]) -> Result<()> {
        let features: Vec<_> = features.iter().map(|(name, value)| json!({ "name": name, "value": value })).collect();
        self.call("Emulation.setEmulatedMedia", json!({ "features": features })).map(|_| ())
    }

    /// Fails if the page logged a warning or an error, or requested an address that does not begin with its own.
    pub(crate) fn check_log_and_requests(&mut self, own: &str) -> Result<()> {
        // Events of earlier actions arrive before this answer.
        self.evaluate("0")?;
        ensure!(self.problems.is_empty(), "the browser logged {:?}", self.problems);
        let other: Vec<_> =
            self.requests.iter().filter(|url| !url.starts_with(own) && !url.starts_with("data:")).collect();
        ensure!(other.is_empty(), "the page requested {other:?}");
        Ok(())
    }

    /// Fails if a text overlaps another or extends beyond its container, or if the page is wider than the window.
    pub(crate) fn check_layout(&mut self) -> Result<()> {
        self.check("overlaps()")
    }

    /// Fails if a text, visible or for screen readers, has words that are not in `language` (`en` or `zh`). The `names`
    /// may occur in both languages.
    pub(crate) fn check_language(&mut self, language: &str, names: &[String]) -> Result<()> {
        let names: Vec<&str> = names.iter().map(String::as_str).chain(NAMES.iter().copied()).collect();
        self.check(&format!("foreign({}, {})", json!(language), json!(names)))
            .with_context(|| format!("not in {language}"))
    }

    /// Calls one of the [`CHECKS`]. Fails with the faults that it returns.
    fn check(&mut self, call: &str) -> Result<()> {
        let found = self.evaluate(&format!("(() => {{ {CHECKS} return {call}; }})()"))?;
        match found.as_str() {
            Some("") => Ok(()),
            found => bail!("{}", found.context("the check returned no text")?),
        }
    }

    fn call(&mut self, method: &str, parameters: Value) -> Result<Value> {
        self.sent += 1;
        let mut order = json!({ "id": self.sent, "method": method, "params": parameters });
        if let Some(session) = &self.session {
            order["sessionId"] = json!(session);
        }
        self.orders.write_all(format!("{order}\0").as_bytes()).context("the browser has ended")?;
        let deadline = Instant::now() + WAIT_LIMIT;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let message =
                self.messages.recv_timeout(left).map_err(|_| anyhow!("{method}: no answer within {WAIT_LIMIT:?}"))?;
            if message["id"] == json!(self.sent) {
                ensure!(message.get("error").is_none(), "{method}: {}", message["error"]);
                return Ok(message["result"].clone());
            }
            self.record_event(&message);
        }
    }

    /// Records an event.
    fn record_event(&mut self, message: &Value) {
        let told = &message["params"];
        match message["method"].as_str() {
            Some("Runtime.exceptionThrown") => self.problems.push(told["exceptionDetails"].to_string()),
            Some("Runtime.consoleAPICalled") if told["type"] == "error" || told["type"] == "warning" => {
                self.problems.push(told["args"].to_string());
            }
            Some("Log.entryAdded") if told["entry"]["level"] != "verbose" => {
                self.problems.push(told["entry"].to_string());
            }
            Some("Network.requestWillBeSent") => {
                self.requests.extend(told["request"]["url"].as_str().map(str::to_owned));
            }
            _ => {}
        }
    }
}

/// JavaScript functions that are run in the page.
const CHECKS: &str = include_str!("browser.js");

/// Words that occur in texts of both languages, and the names of the languages.
const NAMES: &[&str] = &[
    "strace",
    "backlog",
    "SIGTERM",
    "Linux",
    "epoll",
    "io_uring",
    "tokio",
    "asynchat",
    "SO_REUSEPORT",
    "ms",
    "MiB",
    "English",
    "中文",
];
