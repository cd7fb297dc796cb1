//! The command line as a contract: a wrong one is refused with one line of error, and the ready line is correct.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::process::{Command, Output, Stdio};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::{Case, Ctx, bare, case, served};
use crate::harness::capture::Capture;
use crate::harness::client::Client;
use crate::harness::group::{Group, run_within};
use crate::harness::metrics::metrics_of;
use crate::harness::network::in_own_network;
use crate::harness::{Missing, Server, WAIT_LIMIT, expect_one_error, free_address, shown, tool};
use crate::servers::Entry;
use crate::workspace;

/// Returns a case with a wrong command line, for the first row of each binary.
const fn wrong(name: &'static str, arguments: &'static [&'static str]) -> Case {
    bare(name, is_refused).arguments(arguments).on(Entry::is_first_of_package)
}

const fn on_threaded(case: Case) -> Case {
    case.on(|entry| entry.name == "workers")
}

const fn on_poll(case: Case) -> Case {
    case.on(|entry| entry.name == "poll")
}

const fn on_async(case: Case) -> Case {
    case.on(|entry| entry.name == "smol")
}

pub(crate) const CASES: &[Case] = &[
    wrong("unknown_flag", &["--no-such-flag"]),
    wrong("two_hosts", &["127.0.0.1", "127.0.0.2"]),
    wrong("port_no_number", &["-p", "http"]),
    wrong("port_too_high", &["-p", "65536"]),
    wrong("port_without_value", &["-p"]),
    wrong("delay_bare_number", &["--delay", "10"]),
    wrong("delay_no_duration", &["--delay", "soon"]),
    wrong("delay_and_burn", &["--delay", "1ms", "--burn", "1ms"]),
    wrong("burn_bare_number", &["--burn", "10"]),
    wrong("idle_timeout_bare_number", &["--idle-timeout", "60"]),
    wrong("question_timeout_bare_number", &["--question-timeout", "10"]),
    wrong("max_connections_zero", &["--max-connections", "0"]),
    wrong("backlog_negative", &["--backlog=-1"]),
    wrong("grace_bare_number", &["--grace", "10"]),
    wrong("processes_zero", &["--processes", "0"]),
    wrong("inetd_unknown", &["--inetd", "maybe"]),
    wrong("idle_exit_without_wait", &["--idle-exit", "1s"]),
    on_threaded(wrong("workers_zero", &["--workers", "0"])),
    on_threaded(wrong("mode_unknown", &["--mode", "forking"])),
    on_threaded(wrong("workers_with_per_connection", &["--mode", "per-connection", "--workers", "2"])),
    on_threaded(wrong("workers_with_per_process", &["--mode", "per-process", "--workers", "2"])),
    on_threaded(wrong("processes_with_per_process", &["--mode", "per-process", "--processes", "2"])),
    on_threaded(wrong("queue_with_per_process", &["--mode", "per-process", "--queue", "2"])),
    on_threaded(wrong("queue_zero", &["--mode", "pool", "--queue", "0"])),
    on_threaded(wrong("queue_with_workers", &["--mode", "workers", "--queue", "2"])),
    on_threaded(wrong("queue_with_per_connection", &["--mode", "per-connection", "--queue", "2"])),
    on_poll(wrong("loops_zero", &["--loops", "0"])),
    on_poll(wrong("style_unknown", &["--style", "telegraph"])),
    on_async(wrong("threads_zero", &["--threads", "0"])),
    on_async(wrong("runtime_unknown", &["--runtime", "tokio"])),
    on_async(wrong("await_and_offload", &["--await", "--offload"])),
    on_async(wrong("await_and_burn", &["--await", "--burn", "1ms"])),
    bare("a_port_as_host", a_port_as_host).on(Entry::is_first_of_package),
    bare("unusable_address", unusable_address).on(Entry::is_first_of_package),
    case("ipv4_as_ipv6", ipv4_as_ipv6).arguments(&["::ffff:127.0.0.1"]).on(Entry::is_first_of_package),
    bare("no_interface", no_interface).on(Entry::is_first_of_package),
    bare("an_interface", an_interface).on(Entry::is_first_of_package),
    bare("help", help).on(Entry::is_first_of_package),
    bare("busy_port", busy_port).on(Entry::is_first_of_package),
    bare("foreign_address", foreign_address).on(Entry::is_first_of_package),
    bare("one_socket_for_all_streams", one_socket_for_all_streams).on(Entry::is_first_of_package),
    bare("help_through_a_full_pipe", help_through_a_full_pipe).on(Entry::is_first_of_package),
    bare("ready_line_through_a_full_pipe", ready_line_through_a_full_pipe),
    case("ready_line", ready_line),
    bare("ipv6", ipv6).arguments(&["::1"]).on(Entry::is_first_of_package),
    case("every_address", every_address).arguments(&[""]).on(|entry| entry.is_first_of_package()),
    case("a_name", a_name).arguments(&["localhost"]).on(|entry| entry.is_first_of_package()),
];

/// Expects exit status 2, nothing on stdout, and on stderr one line that names the flag and says where to look.
fn is_refused(entry: &Entry, arguments: &[&str]) -> Result<()> {
    let output = run(entry, arguments)?;
    expect_one_error(&output, 2)?;
    let line = String::from_utf8_lossy(&output.stderr);
    ensure!(line.contains("try --help"), "no `try --help` in {line:?}");
    // The error names the last flag of the arguments or, if there is none, the last word.
    let word =
        arguments.iter().rev().find(|word| word.starts_with('-')).or(arguments.last()).context("no arguments")?;
    let flag = match word.split('=').next().context("a word")? {
        "-p" => "--port",
        flag => flag,
    };
    ensure!(line.contains(flag), "{flag} is not named in {line:?}");
    Ok(())
}

/// A port in the place of HOST is an easy mistake; the error says what to write instead.
fn a_port_as_host(entry: &'static Entry, _: &'static [&'static str]) -> Result<()> {
    for (host, advice) in [
        ("8080", ": use -p 8080;"),
        ("127.0.0.1:8080", ": use 127.0.0.1 -p 8080;"),
        ("1.8080", ": an IPv4 address has four numbers up to 255, and a port goes into -p;"),
    ] {
        is_refused(entry, &[host])?;
        let output = run(entry, &[host])?;
        ensure!(String::from_utf8_lossy(&output.stderr).contains(advice), "{}", shown(&output.stderr));
    }
    Ok(())
}

/// Addresses that no server can listen on are refused with advice.
fn unusable_address(entry: &'static Entry, _: &'static [&'static str]) -> Result<()> {
    for (host, advice) in [
        ("ff02::1", "ff02::1 is a multicast address"),
        ("224.0.0.1", "224.0.0.1 is a multicast address"),
        ("::1%lo", "only link-local ones take %: use ::1"),
    ] {
        let output = run(entry, &["-p", "0", host])?;
        expect_one_error(&output, 1)?;
        ensure!(String::from_utf8_lossy(&output.stderr).contains(advice), "{host}: {}", shown(&output.stderr));
    }
    Ok(())
}

/// An IPv4 address in IPv6 notation is used as IPv4.
fn ipv4_as_ipv6(ctx: &mut Ctx) -> Result<()> {
    let address = ctx.server.address();
    ensure!(address.ip() == Ipv4Addr::LOCALHOST, "it listens on {address}");
    ctx.client()?.ask_all()
}

/// A link-local address without an interface is refused.
fn no_interface(entry: &'static Entry, _: &'static [&'static str]) -> Result<()> {
    for arguments in [&["fe80::1"][..], &["[fe80::1]"], &["--metrics", "[fe80::1]:0"], &["--metrics", "fe80::1:0"]] {
        let output = run(entry, &[&["-p", "0"], arguments].concat())?;
        expect_one_error(&output, 1)?;
        let printed = String::from_utf8_lossy(&output.stderr);
        ensure!(printed.contains("fe80::1") && printed.contains("append %INTERFACE"), "{arguments:?}: {printed}");
    }
    let output = run(entry, &["-p", "0", "fe80::1%nowhere"])?;
    expect_one_error(&output, 1)?;
    ensure!(String::from_utf8_lossy(&output.stderr).contains("the interface after %"), "{}", shown(&output.stderr));
    Ok(())
}

/// A link-local address with its interface works, with and without brackets, for clients and for metrics.
fn an_interface(entry: &'static Entry, _: &'static [&'static str]) -> Result<()> {
    in_own_network(|| {
        ensure!(TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).is_ok(), Missing("IPv6".to_owned()));
        let address = ["address", "add", "fe80::1/64", "dev", "lo", "nodad"]; // usable immediately
        let output = run_within(WAIT_LIMIT, Command::new(tool("ip")?).args(address))?;
        ensure!(output.status.success(), "{}", shown(&output.stderr));
        for host in ["fe80::1%lo", "[fe80::1%lo]", "fe80::1%1"] {
            for port in ["[fe80::1%lo]:0", "fe80::1%lo:0"] {
                let mut server = Server::start(entry, &["-v", host, "--metrics", port])?;
                server.client()?.ask_all().with_context(|| host)?;
                let is_named = |log: &str| log.contains(" [fe80::1%1]:").then_some(());
                server.wait_for_log(WAIT_LIMIT, is_named).context("the log does not name the client's interface")?;
                Client::connect(metrics_of(&server)?).context(port)?;
                server.stop(WAIT_LIMIT)?;
            }
        }
        Ok(())
    })
}

fn help(entry: &'static Entry, _: &'static [&'static str]) -> Result<()> {
    let output = run(entry, &["--help"])?;
    ensure!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    let text = String::from_utf8_lossy(&output.stdout);
    ensure!(text.contains("--port") && text.contains("--delay"), "the help lacks --port or --delay: {text}");
    Ok(())
}

fn help_through_a_full_pipe(entry: &'static Entry, _: &'static [&'static str]) -> Result<()> {
    let mut command = Command::new(workspace::binary(entry.binary)?);
    through_a_full_pipe(command.arg("--help"), "--delay")
}

fn ready_line_through_a_full_pipe(entry: &'static Entry, _: &'static [&'static str]) -> Result<()> {
    let address = free_address()?;
    let port = address.port().to_string();
    through_a_full_pipe(entry.command()?.args(["-p", &port]), &format!("listening on {address}\n"))
}

/// The pipe is non-blocking, as a parent such as Node makes it, and full until the test reads it.
fn through_a_full_pipe(command: &mut Command, expected: &str) -> Result<()> {
    let (reader, mut writer) = io::pipe()?;
    rustix::io::ioctl_fionbio(&writer, true)?;
    let mut filler = 0;
    while let Ok(n) = writer.write(&[0; 4096]) {
        filler += n;
    }
    let _group = Group::start(command.stdin(Stdio::null()).stdout(writer).stderr(Stdio::null()))?;
    command.stdout(Stdio::null()); // `command` held the writer
    thread::sleep(TIME_TO_WRITE);
    let stdout = Capture::of(reader)?;
    let is_there = |printed: &[u8]| {
        let printed = String::from_utf8_lossy(printed.get(filler..)?);
        printed.contains(expected).then_some(())
    };
    let found = stdout.wait_for(WAIT_LIMIT, is_there);
    found.with_context(|| format!("{expected:?} is not in the pipe after its first {filler} bytes"))
}

/// The time for a program to start and to begin to write into the full pipe.
const TIME_TO_WRITE: Duration = Duration::from_millis(300);

fn busy_port(entry: &'static Entry, _: &'static [&'static str]) -> Result<()> {
    let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let port = taken.local_addr()?.port().to_string();
    let output = run(entry, &["-p", &port])?;
    expect_one_error(&output, 1)?;
    ensure!(
        String::from_utf8_lossy(&output.stderr).contains(&port),
        "the port is not named: {}",
        shown(&output.stderr)
    );
    Ok(())
}

fn foreign_address(entry: &'static Entry, _: &'static [&'static str]) -> Result<()> {
    // An address for documentation: no machine has it.
    let output = run(entry, &["-p", "0", "192.0.2.1"])?;
    expect_one_error(&output, 1)?;
    ensure!(
        String::from_utf8_lossy(&output.stderr).contains("192.0.2.1"),
        "the address is not named: {}",
        shown(&output.stderr)
    );
    Ok(())
}

/// Errors go to stderr also when it is a socket, except under `--inetd`, where that socket is the client.
fn one_socket_for_all_streams(entry: &'static Entry, _: &'static [&'static str]) -> Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let printed = |arguments: &[&str]| -> Result<String> {
        let ours = TcpStream::connect(listener.local_addr()?)?;
        ours.set_read_timeout(Some(WAIT_LIMIT))?;
        let theirs = OwnedFd::from(listener.accept()?.0);
        let mut command = Command::new(workspace::binary(entry.binary)?);
        command.args(arguments).stdin(theirs.try_clone()?).stdout(theirs.try_clone()?).stderr(theirs);
        let mut group = Group::start(command.env_remove("RUST_LOG"))?;
        drop(command); // it holds the socket too
        group.ended_within(WAIT_LIMIT).with_context(|| format!("{arguments:?}: it does not exit"))?;
        let mut printed = String::new();
        (&ours).read_to_string(&mut printed)?;
        Ok(printed)
    };
    for (arguments, wrong) in [(&["-p", "http"][..], "try --help"), (&["192.0.2.1"], "192.0.2.1")] {
        let line = printed(arguments)?;
        ensure!(line.starts_with("error: ") && line.contains(wrong), "{arguments:?}: it prints {line:?}");
        ensure!(line.ends_with('\n') && line.lines().count() == 1, "{arguments:?}: it prints {line:?}");
    }
    for arguments in [&["--inetd", "wait"][..], &["--inetd=wait"], &["--inetd", "nowait", "-p", "http"]] {
        let line = printed(arguments)?;
        ensure!(line.is_empty(), "{arguments:?}: the client received {line:?}");
    }
    Ok(())
}

/// The ready line has the default address and the real port, and is printed when clients can connect. Its form was
/// checked when it was read; the verdict checks that nothing follows it.
fn ready_line(ctx: &mut Ctx) -> Result<()> {
    let address = ctx.server.address();
    ensure!(address.ip() == Ipv4Addr::LOCALHOST, "it listens on {address}");
    ctx.client()?.ask_all()
}

/// Without IPv6, an IPv6 address is refused.
fn ipv6(entry: &'static Entry, arguments: &'static [&'static str]) -> Result<()> {
    if !can_listen(Ipv6Addr::LOCALHOST) {
        let output = run(entry, &["-p", "0", "::1"])?;
        expect_one_error(&output, 1)?;
        let line = String::from_utf8_lossy(&output.stderr);
        ensure!(line.contains("::1"), "the address is not named: {line:?}");
        return Ok(());
    }
    served(entry, &[], arguments, false, |ctx| {
        let address = ctx.server.address();
        ensure!(address.ip() == Ipv6Addr::LOCALHOST, "it listens on {address}");
        ctx.client()?.ask_all()
    })
}

/// `''` listens on both families with one listener, or on IPv4 alone where the kernel has no IPv6.
fn every_address(ctx: &mut Ctx) -> Result<()> {
    let address = ctx.server.address();
    let every = if can_listen(Ipv6Addr::UNSPECIFIED) {
        IpAddr::from(Ipv6Addr::UNSPECIFIED)
    } else {
        Ipv4Addr::UNSPECIFIED.into()
    };
    ensure!(address.ip() == every, "it listens on {address}");
    let mut own = vec![IpAddr::from(Ipv4Addr::LOCALHOST)];
    // A kernel with IPv6 may have it disabled on every interface.
    own.extend(can_listen(Ipv6Addr::LOCALHOST).then_some(IpAddr::from(Ipv6Addr::LOCALHOST)));
    own.into_iter().try_for_each(|ip| Client::connect(SocketAddr::new(ip, address.port()))?.ask_all())
}

/// Of the addresses of a name, IPv4 is used first.
fn a_name(ctx: &mut Ctx) -> Result<()> {
    let address = ctx.server.address();
    ensure!(address.ip() == Ipv4Addr::LOCALHOST, "localhost is {address}");
    ctx.client()?.ask_all()
}

fn can_listen(ip: Ipv6Addr) -> bool {
    TcpListener::bind((ip, 0)).is_ok()
}

/// Runs the binary with these arguments alone; it must exit by itself.
fn run(entry: &Entry, arguments: &[&str]) -> Result<Output> {
    run_within(WAIT_LIMIT, Command::new(workspace::binary(entry.binary)?).args(arguments))
}
