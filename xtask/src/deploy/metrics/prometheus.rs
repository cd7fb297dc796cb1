//! `prometheus.yml` and `alerts.yml`, checked by promtool and used by a real Prometheus.

use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;
use serde::Deserialize;

use super::super::fixture::{part, succeeds};
use crate::harness::folder::Folder;
use crate::harness::group::Group;
use crate::harness::metrics::{ask, metrics_of};
use crate::harness::{Server, WAIT_LIMIT, free_address, tool, wait_for};
use crate::servers;
use crate::trial::Trial;

pub(super) fn trials() -> Vec<Trial> {
    vec![Trial::new("deploy::metrics::rules", rules), Trial::new("deploy::metrics::alert_fires", alert_fires)]
}

/// The files are well formed, and the alerts fire in exactly the cases of `alerts.test.yml`.
fn rules() -> Result<()> {
    let (promtool, folder) = (tool("promtool")?, Folder::new()?);
    for name in ["prometheus.yml", "alerts.yml", "alerts.test.yml"] {
        folder.write(name, &part(name)?)?;
    }
    let tests = part("alerts.test.yml")?;
    let rules = part("alerts.yml")?;
    for alert in rules.lines().filter_map(|line| line.trim_start().strip_prefix("- alert: ")) {
        ensure!(tests.contains(&format!("alertname: {alert}\n")), "no case makes {alert} fire");
    }
    for arguments in
        [["check", "config", "prometheus.yml"], ["check", "rules", "alerts.yml"], ["test", "rules", "alerts.test.yml"]]
    {
        succeeds(Command::new(&promtool).args(arguments).current_dir(folder.path()))?;
    }
    Ok(())
}

/// Of three servers, one exits and one is frozen: an alert fires for these two. When both serve again, none fires.
fn alert_fires() -> Result<()> {
    let prometheus = tool("prometheus")?;
    let entry = servers::named("poll")?;
    let start = || Server::start(entry, &["--metrics", "0"]);
    let (well, mut ended, frozen) = (start()?, start()?, start()?);
    let addresses = [metrics_of(&well)?, metrics_of(&ended)?, metrics_of(&frozen)?].map(|address| address.to_string());
    let folder = Folder::new()?;
    let mut config = part("prometheus.yml")?;
    for (port, address) in ["127.0.0.1:11061", "127.0.0.1:11062", "127.0.0.1:11063"].iter().zip(&addresses) {
        ensure!(config.contains(port), "prometheus.yml does not scrape {port}");
        config = config.replace(port, address);
    }
    // The intervals are a tenth of those in production.
    for (slow, fast) in [("interval: 5s", "interval: 500ms"), ("timeout: 2s", "timeout: 200ms")] {
        ensure!(config.contains(slow), "prometheus.yml has no {slow}");
        config = config.replace(slow, fast);
    }
    folder.write("alerts.yml", &part("alerts.yml")?.replace("for: 15s", "for: 1500ms"))?;
    let config = folder.write("prometheus.yml", &config)?;
    let here = free_address()?;
    let mut command = Command::new(prometheus);
    command.arg(format!("--config.file={}", config.display()));
    command.arg(format!("--storage.tsdb.path={}", folder.path().join("data").display()));
    command.arg(format!("--web.listen-address={here}"));
    let mut group = Group::start(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()))?;
    let stderr = group.capture_stderr()?;
    let alarmed = || -> Result<Vec<String>> {
        let answer: Answer = serde_json::from_str(&ask(here, "/api/v1/alerts")?.1)?;
        let fires = answer
            .data
            .alerts
            .into_iter()
            .filter(|alert| alert.state == "firing" && alert.labels.alertname == "ZenDown");
        let mut instances: Vec<String> = fires.map(|alert| alert.labels.instance).collect();
        instances.sort_unstable();
        Ok(instances)
    };
    let become_so = |expected: &[&String]| {
        let mut expected: Vec<String> = expected.iter().map(ToString::to_string).collect();
        expected.sort_unstable();
        let so = wait_for(2 * WAIT_LIMIT, || {
            std::thread::sleep(Duration::from_millis(100));
            alarmed().is_ok_and(|alarmed| alarmed == expected).then_some(())
        });
        so.with_context(|| {
            let (alerts, printed) = (alarmed(), stderr.text());
            format!("expected alerts for {expected:?}, but they are {alerts:?}; Prometheus prints:\n{printed}")
        })
    };
    let sees_all = || {
        let (_, up) = ask(here, "/api/v1/query?query=sum(up)").ok()?;
        up.contains("\"3\"]").then_some(())
    };
    wait_for(2 * WAIT_LIMIT, sees_all).with_context(|| format!("not all three are scraped:\n{}", stderr.text()))?;
    become_so(&[])?;
    ended.stop(WAIT_LIMIT)?;
    frozen.signal(Signal::STOP)?;
    become_so(&[&addresses[1], &addresses[2]])?;
    frozen.signal(Signal::CONT)?;
    let again = Server::start(entry, &["--metrics", &addresses[1]])?;
    become_so(&[])?;
    drop((well, again));
    Ok(())
}

/// The part of Prometheus's answer about alerts that is used here.
#[derive(Deserialize)]
struct Answer {
    data: Alerts,
}

#[derive(Deserialize)]
struct Alerts {
    alerts: Vec<Alert>,
}

#[derive(Deserialize)]
struct Alert {
    state: String,
    labels: Labels,
}

#[derive(Deserialize)]
struct Labels {
    alertname: String,
    instance: String,
}
