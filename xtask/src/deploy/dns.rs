//! dns: one name with three addresses, resolved by a real dnsmasq in a network namespace. At one address there is no
//! server.

use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use rustix::process::{Signal, getuid};

use super::fixture::{part, succeeds};
use super::service::entry;
use crate::bench::load::{Report, Retries};
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

/// One of the two running servers answers, whatever address comes first, and the client prints its address.
fn the_next_address_answers() -> Result<()> {
    let host = Host::make()?;
    let _servers = [host.start(0)?, host.start(2)?];
    let mut answered = [0, 0];
    for _ in 0..VISITS {
        let printed = succeeds(host.client()?.args([NAME, "-v", "-n", "1"]))?;
        let by = [0, 2].map(|number| printed.contains(&format!("{}:1060", SERVERS[number])));
        ensure!(by[0] != by[1], "it is not clear which server has answered: {printed}");
        answered[usize::from(by[1])] += 1;
    }
    note(format!("{VISITS} questions to a name with three addresses, the second dead: {answered:?} by the others"));
    // dnsmasq rotates the addresses, so it is not always the same server.
    ensure!(answered.iter().all(|&answers| answers > 0), "the two servers gave {answered:?} answers");
    Ok(())
}

/// The second server never runs, and the first one is killed under load. Every question is answered.
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
    let printed = String::from_utf8_lossy(&load.stdout);
    let report = Report::parse(&load.stdout)
        .with_context(|| format!("{}: {printed}{}", load.status, String::from_utf8_lossy(&load.stderr)))?;
    let Report { answers, retries: Retries { connections, questions, answered, given_up }, missed, .. } = &report;
    note(format!(
        "1,000 visits a second at a name with three addresses, the second dead, the first killed: {answers} answers, \
         {missed} missed, {connections} reconnections, {questions} questions asked again, {given_up} lost"
    ));
    ensure!(load.status.success() && *given_up == 0, "{} with {given_up} lost: {printed}", load.status);
    ensure!(*answered > 0, "no question was answered after a retry, so nothing is tested: {printed}");
    Ok(())
}

/// A network namespace with all four addresses, in which dnsmasq resolves the name.
struct Host {
    namespace: Group,
    _dnsmasq: Group,
}

impl Host {
    fn make() -> Result<Host> {
        ensure!(getuid().is_root(), Missing("root, which network namespaces need,".to_owned()));
        let dnsmasq = tool("dnsmasq")?;
        let folder = Folder::new()?;
        let resolver = folder.write("resolv.conf", &format!("nameserver {BALANCER}\n"))?;
        let switch = folder.write("nsswitch.conf", "hosts: files dns\n")?;
        let conf = folder.write("dnsmasq.conf", &part("dnsmasq.conf")?)?;
        let mut command = Command::new(tool("unshare")?);
        command.args(["--net", "--mount", "sh", "-c", SET_UP, "sh"]).arg(tool("ip")?).arg(resolver).arg(switch);
        let namespace = started(command.args([BALANCER]).args(SERVERS), "here")?;
        let mut command = entering(&namespace)?;
        // dnsmasq stays in the foreground, and reports on stderr when it has started.
        command.arg(dnsmasq).args(["--keep-in-foreground", "--log-facility=-"]);
        command.arg(format!("--pid-file={}", folder.path().join("pid").display()));
        let dnsmasq = started(command.arg("-C").arg(conf), "started")?;
        Ok(Host { namespace, _dnsmasq: dnsmasq })
    }

    /// Starts a server at one of the addresses of the name.
    fn start(&self, number: usize) -> Result<Server> {
        let inner = entry(number)?.command()?;
        let mut command = entering(&self.namespace)?;
        Server::run(command.arg(inner.get_program()).args(inner.get_args()).arg(SERVERS[number]))
    }

    /// Returns the command `zen-client` on this host.
    fn client(&self) -> Result<Command> {
        let mut command = entering(&self.namespace)?;
        command.arg(workspace::binary("zen-client")?);
        Ok(command)
    }
}

/// Starts a program and waits until it prints a word on stderr.
fn started(command: &mut Command, word: &str) -> Result<Group> {
    let mut group = Group::start(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()))?;
    let stderr = group.capture_stderr()?;
    let found = stderr.wait_for(WAIT_LIMIT, |text| String::from_utf8_lossy(text).contains(word).then_some(()));
    found.with_context(|| format!("{command:?} printed {}", stderr.text()))?;
    Ok(group)
}

/// Returns the beginning of a command that runs on the host.
fn entering(namespace: &Group) -> Result<Command> {
    let mut command = Command::new(tool("nsenter")?);
    let of = format!("/proc/{}/ns", namespace.id());
    command.args([format!("--net={of}/net"), format!("--mount={of}/mnt")]);
    Ok(command)
}

/// A script with the arguments ip, two files and the addresses. It makes names resolve through dnsmasq alone, and gives
/// the host all addresses.
const SET_UP: &str = "ip=$1
mount --bind \"$2\" /etc/resolv.conf && mount --bind \"$3\" /etc/nsswitch.conf || exit
\"$ip\" link set lo up
shift 3
for address; do \"$ip\" address add \"$address/32\" dev lo || exit; done
echo here >&2
exec sleep 600";

/// The name and addresses in `dnsmasq.conf`.
const NAME: &str = "zen.example";
const BALANCER: &str = "10.0.0.10";
const SERVERS: [&str; 3] = ["10.0.0.11", "10.0.0.12", "10.0.0.13"];

const VISITS: usize = 30;

/// A thousand questions a second, each on a new connection.
const LOAD: [&str; 12] =
    ["--rate", "1000", "--churn", "-c", "200", "--retries", "8", "--duration", "3s", "--warmup", "0", "--json"];

/// The time from the start of the load until a server is killed: half of its length.
const LATER: Duration = Duration::from_millis(1500);
