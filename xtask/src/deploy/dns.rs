//! dns: one name with three addresses, of which one is dead, told by a real dnsmasq on a host of our own.

use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use rustix::process::{Signal, getuid};
use serde::Deserialize;

use super::fixture::{part, succeeds};
use super::service::entry;
use crate::harness::capture::Capture;
use crate::harness::folder::Folder;
use crate::harness::group::{Group, run_within};
use crate::harness::{Missing, Server, WAIT_LIMIT, tool};
use crate::trial::{Trial, note};
use crate::workspace;

pub(crate) fn trials() -> Result<Vec<Trial>> {
    Ok(vec![
        Trial::new("deploy::dns::the_next_address_answers", the_next_address_answers),
        Trial::new("deploy::dns::nothing_is_lost", nothing_is_lost),
    ])
}

/// Whichever address comes first, one of those that live answers, and the client says which.
fn the_next_address_answers() -> Result<()> {
    let host = Host::make()?;
    let _servers = [host.start(0)?, host.start(2)?];
    let mut answered = [0, 0];
    for _ in 0..VISITS {
        let said = succeeds(host.client()?.args([NAME, "-v", "-n", "1"]))?;
        let by = [0, 2].map(|number| said.contains(&format!("{}:1060", SERVERS[number])));
        ensure!(by[0] != by[1], "who has answered? {said}");
        answered[usize::from(by[1])] += 1;
    }
    note(format!("{VISITS} visits at a name with three addresses, the second dead: the others answered {answered:?}"));
    // They are named in turn, so it is not always the same one.
    ensure!(answered.iter().all(|&answers| answers > 0), "the two have answered {answered:?}");
    Ok(())
}

/// The second is dead all along, and the first dies under load.
fn nothing_is_lost() -> Result<()> {
    let host = Host::make()?;
    let [first, _last] = [host.start(0)?, host.start(2)?];
    let load = thread::scope(|scope| {
        let load = scope.spawn(|| run_within(2 * WAIT_LIMIT, host.client()?.args(["load", NAME]).args(LOAD)));
        thread::sleep(LATER);
        let killed = first.signal(Signal::KILL);
        let load = load.join().map_err(|_| anyhow!("the load panicked"))?;
        killed.and(load)
    })?;
    let said = String::from_utf8_lossy(&load.stdout);
    let report: Report = serde_json::from_str(&said)
        .with_context(|| format!("{}: {said}{}", load.status, String::from_utf8_lossy(&load.stderr)))?;
    let Report { answers, retries: Retries { connections, questions, answered, given_up }, missed } = &report;
    note(format!(
        "1,000 visits a second at a name with three addresses, the second dead, the first killed: {answers} answers, \
         {missed} missed, {connections} connections made anew, {questions} questions asked again, {given_up} lost"
    ));
    ensure!(load.status.success() && *given_up == 0, "{said}");
    ensure!(*answered > 0, "nobody came to those that are dead: {said}");
    Ok(())
}

/// What `zen-client load --json` tells, as far as it is asked here.
#[derive(Deserialize)]
struct Report {
    answers: u64,
    missed: u64,
    retries: Retries,
}

#[derive(Deserialize)]
struct Retries {
    connections: u64,
    questions: u64,
    answered: u64,
    given_up: u64,
}

/// A host with all four addresses, on which dnsmasq tells who has them.
struct Host {
    place: Group,
    _dnsmasq: Group,
}

impl Host {
    fn make() -> Result<Host> {
        ensure!(getuid().is_root(), Missing("root, who alone may make network namespaces,".to_owned()));
        let dnsmasq = tool("dnsmasq")?;
        let folder = Folder::new()?;
        let resolver = folder.write("resolv.conf", &format!("nameserver {BALANCER}\n"))?;
        let switch = folder.write("nsswitch.conf", "hosts: files dns\n")?;
        let conf = folder.write("dnsmasq.conf", &part("dnsmasq.conf")?)?;
        let mut command = Command::new(tool("unshare")?);
        command.args(["--net", "--mount", "sh", "-c", SET_UP, "sh"]).arg(tool("ip")?).arg(resolver).arg(switch);
        let place = started(command.args([BALANCER]).args(SERVERS), "here")?;
        let mut command = entering(&place)?;
        // It stays in the foreground, and says on stderr when it has started.
        command.arg(dnsmasq).args(["--keep-in-foreground", "--log-facility=-"]);
        command.arg(format!("--pid-file={}", folder.path().join("pid").display()));
        let dnsmasq = started(command.arg("-C").arg(conf), "started")?;
        Ok(Host { place, _dnsmasq: dnsmasq })
    }

    /// A server with the address that dnsmasq says it has.
    fn start(&self, number: usize) -> Result<Server> {
        let inner = entry(number)?.command()?;
        let mut command = entering(&self.place)?;
        Server::run(command.arg(inner.get_program()).args(inner.get_args()).arg(SERVERS[number]))
    }

    /// `zen-client` on this host.
    fn client(&self) -> Result<Command> {
        let mut command = entering(&self.place)?;
        command.arg(workspace::binary("zen-client")?);
        Ok(command)
    }
}

/// Starts what says a word on stderr when it is ready.
fn started(command: &mut Command, word: &str) -> Result<Group> {
    let mut group = Group::start(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()))?;
    let stderr = Capture::of(group.child().stderr.take().expect("it is piped"))?;
    let said = stderr.wait_for(WAIT_LIMIT, |said| String::from_utf8_lossy(said).contains(word).then_some(()));
    said.with_context(|| format!("{command:?} said {}", stderr.text()))?;
    Ok(group)
}

/// The beginning of a command that is to run on the host.
fn entering(place: &Group) -> Result<Command> {
    let mut command = Command::new(tool("nsenter")?);
    let of = format!("/proc/{}/ns", place.id());
    command.args([format!("--net={of}/net"), format!("--mount={of}/mnt")]);
    Ok(command)
}

/// With ip, two files and the addresses: names are looked up there alone, and all addresses are of this host.
const SET_UP: &str = "ip=$1
mount --bind \"$2\" /etc/resolv.conf && mount --bind \"$3\" /etc/nsswitch.conf || exit
\"$ip\" link set lo up
shift 3
for address; do \"$ip\" address add \"$address/32\" dev lo || exit; done
echo here >&2
exec sleep 600";

/// As `dnsmasq.conf` has them.
const NAME: &str = "zen.example";
const BALANCER: &str = "10.0.0.10";
const SERVERS: [&str; 3] = ["10.0.0.11", "10.0.0.12", "10.0.0.13"];

const VISITS: usize = 30;

/// A new connection for each of a thousand visits a second.
const LOAD: [&str; 12] =
    ["--rate", "1000", "--churn", "-c", "200", "--retries", "8", "--duration", "3s", "--warmup", "0", "--json"];

/// In the middle of it.
const LATER: Duration = Duration::from_millis(1500);
