//! `zen-client load` against honest servers, slow ones, faulty ones and none.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Output};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;
use socket2::{Domain, SockRef, Socket, Type};

use crate::fake_server::{Fault, converse};
use crate::running::{Died, Running, client, client_of, serve, text};

/// Starts a server with `fault`, for this number of `clients` at a time.
pub(crate) fn server(clients: usize, fault: Fault) -> SocketAddr {
    serve(clients, move |mut stream| {
        let _ = stream.set_nodelay(true);
        let _ = converse(&mut stream, fault);
        Ok(())
    })
}

/// Starts a server for eight clients at a time that calls `first` for each, and then keeps the protocol.
fn after(first: impl Fn(&mut TcpStream) + Send + Sync + 'static) -> SocketAddr {
    serve(8, move |mut stream| {
        first(&mut stream);
        let _ = converse(&mut stream, Fault::None);
        Ok(())
    })
}

fn report(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"))
}

/// Makes a short run, with four connections unless `arguments` have `-c`. Returns its JSON and its output.
pub(crate) fn load(server: SocketAddr, arguments: &str) -> (Value, Output) {
    let connections = if arguments.contains("-c ") { "" } else { "-c 4" };
    let output = client_of(server, &format!("load --json -d 300ms --warmup 0 {connections} {arguments}"));
    (report(&output), output)
}

/// Asserts status 1, a line that says why, and failures of this kind only.
pub(crate) fn fails_by(kind: &str, (report, output): &(Value, Output)) -> u64 {
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let stderr = text(&output.stderr);
    assert!(stderr.starts_with("error: ") && stderr.lines().count() == 1, "{stderr}");
    for (other, n) in report["failures"].as_object().unwrap() {
        assert_eq!(n.as_u64().unwrap() > 0, other == kind, "{report}");
    }
    report["failures"][kind].as_u64().unwrap()
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("{value} is no number"))
}

pub(crate) fn verdict<'a>(report: &'a Value, name: &str) -> &'a Value {
    let verdicts = report["verdicts"].as_array().unwrap();
    verdicts.iter().find(|verdict| verdict["name"] == name).unwrap_or_else(|| panic!("{report}"))
}

#[test]
fn a_closed_loop_has_all_that_the_schema_promises() {
    let server = server(4, Fault::None);
    let (report, output) = load(server, "--seed 7 --histogram");
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    assert_eq!(report["schema"], "zen-client load 2");
    assert_eq!((&report["settings"]["connections"], &report["settings"]["seed"]), (&4.into(), &7.into()));
    let answers = report["answers"].as_u64().unwrap();
    assert!(answers > 0);
    assert_eq!(number(&report["answers_per_second"]).round(), (answers as f64 / 0.3).round());
    assert_eq!(report["failures"].as_object().unwrap().len(), 6);
    assert_eq!(report["service_time_us"], report["response_time_us"]);
    let retried = ["connections", "questions", "answered", "given_up"].map(|name| &report["retries"][name]);
    assert_eq!(retried, [&Value::from(0); 4]);
    assert_eq!(report["retries"]["by_kind"], report["failures"]);
    assert_eq!(report["servers"], Value::from(vec![format!("127.0.0.1:{}", server.port())]));
    let times = ["p50", "p90", "p99", "p999", "max"].map(|name| number(&report["service_time_us"][name]));
    assert!(times.is_sorted() && times[0] > 0.0, "{times:?}");
    let rows = report["per_second"].as_array().unwrap();
    assert_eq!(rows.iter().map(|row| row["answers"].as_u64().unwrap()).sum::<u64>(), answers);
    let buckets = report["histogram"]["response_time_us"].as_array().unwrap();
    assert_eq!(buckets.iter().map(|bucket| bucket[1].as_u64().unwrap()).sum::<u64>(), answers);
    assert!(number(&report["cpu_seconds"]) > 0.0);
    assert!((3.0..=4.01).contains(&number(&report["in_flight"])), "{report}");
    assert_eq!(verdict(&report, "littles_law")["ok"], true, "{report}");
    assert_eq!(verdict(&report, "served")["ok"], true);
}

#[test]
fn an_open_loop_asks_what_is_due() {
    for more in ["", "--threads 2", "--churn", "-P 4", "--arrivals poisson --seed 1"] {
        let (report, output) = load(server(8, Fault::None), &format!("-r 200 {more}"));
        assert!(output.status.success(), "{output:?}");
        let sum = report["answers"].as_u64().unwrap() + report["missed"].as_u64().unwrap();
        // Of a Poisson process, 60 is the mean, and its standard deviation 8.
        let spread = if more.contains("poisson") { 40 } else { 0 };
        assert!(sum.abs_diff(60) <= spread, "{more} {report}");
        assert_eq!(verdict(&report, "littles_law")["ok"], true, "{report}");
    }
}

#[test]
fn connections_are_opened_no_faster_than_asked() {
    let server = server(16, Fault::None);
    let run = |more: &str| {
        let start = Instant::now();
        let output = client_of(server, &format!("load -d 50ms --warmup 0 -c 9 --idle 3 --json {more}"));
        assert!(output.status.success(), "{output:?}");
        start.elapsed()
    };
    assert!(run("--connect-rate 20") >= Duration::from_millis(550 + 50), "11 of the 12 have waited for 50 ms each");
    assert!(run("--connect-rate 1000") < Duration::from_millis(550));
}

#[test]
fn an_objective_decides_about_the_exit_status() {
    // A server that resets every tenth client.
    let clients = AtomicUsize::new(0);
    let flaky = serve(8, move |mut stream| {
        if clients.fetch_add(1, Ordering::SeqCst) % 10 == 9 {
            return SockRef::from(&stream).set_linger(Some(Duration::ZERO)).map_err(|_| Died);
        }
        let _ = converse(&mut stream, Fault::None);
        Ok(())
    });
    for (fail_if, true_one) in [
        ("errors>90%", ""),
        ("errors>90%,p50>10s", ""),
        ("errors>0%", "errors>0%: errors was "),
        ("p50>0ms,errors>90%", "p50>0s: p50 was "),
        ("p99>10s", "p99>10s: p99 was without bound, because questions failed"),
    ] {
        let (report, output) = load(flaky, &format!("--churn -r 200 --fail-if {fail_if}"));
        let stderr = text(&output.stderr);
        assert_eq!(output.status.code(), Some(i32::from(!true_one.is_empty())), "{fail_if}: {output:?}");
        let is_said = stderr.starts_with(&format!("error: --fail-if {true_one}")) && stderr.lines().count() == 1;
        assert!(if true_one.is_empty() { stderr.is_empty() } else { is_said }, "{fail_if}: {stderr}");
        assert!(report["failures"]["reset"].as_u64() > Some(0), "{report}");
        assert_eq!(verdict(&report, "objective")["ok"], stderr.is_empty() || fail_if.starts_with("errors>9"));
    }
    let (_, output) = load(server(8, Fault::AnswersTwice), "--fail-if p50>10s");
    assert!(text(&output.stderr).contains(" wrong answers: "), "a wrong answer is never a result: {output:?}");
}

#[test]
fn the_highest_rate_comes_with_each_run_of_the_search() {
    let output = client_of(server(4, Fault::None), "load --find-max p50<40ms,errors<1% --warmup 0 -c 1 --json");
    let found = report(&output);
    let rate = found["find_max"]["rate"].as_u64().unwrap();
    assert_eq!(found["find_max"]["objective"], "p50<40ms,errors<1%");
    assert_eq!(found["settings"]["rate"], rate, "the result is that of a run at the highest rate");
    let steps = found["find_max"]["steps"].as_array().unwrap();
    assert_eq!(steps.iter().filter(|step| step["rate"] == rate && step["held"] == true).count(), 2, "{found}");
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
}

#[test]
fn an_objective_that_holds_at_no_rate_is_an_error() {
    let slow = after(|stream| {
        let mut question = [0; 64];
        while let Ok(n @ 1..) = stream.read(&mut question) {
            thread::sleep(Duration::from_millis(5));
            let _ = stream.write_all(zen_proto::answer_to(&question[..n]).as_bytes());
        }
    });
    let output = client_of(slow, "load --find-max max<1ms --warmup 0 -c 8 --timeout 1s");
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let start = "error: max<1ms holds at no rate: the fastest answer took 5.";
    assert!(text(&output.stderr).starts_with(start), "{output:?}");
    assert!(text(&output.stdout).starts_with("max<1ms holds at no rate: the fastest answer took 5."), "{output:?}");
}

#[test]
fn what_could_not_be_sent_is_missed_and_shows_in_the_response_time() {
    // Prompt at first, then stuck for longer than the run lasts.
    let stuck = after(|stream| {
        let mut question = [0; 64];
        for delay in [0, 600] {
            let n = stream.read(&mut question).unwrap_or(0);
            thread::sleep(Duration::from_millis(delay));
            let _ = stream.write_all(zen_proto::answer_to(&question[..n]).as_bytes());
        }
    });
    let (report, output) = load(stuck, "-c 1 -r 100");
    assert!(output.status.success(), "{output:?}");
    assert_eq!((report["answers"].as_u64(), report["missed"].as_u64()), (Some(2), Some(28)), "{report}");
    assert_eq!(verdict(&report, "rate")["ok"], false);
    let p50 = number(&report["response_time_us"]["p50"]);
    assert!((100_000.0..=200_000.0).contains(&p50), "half of them had waited for 150 ms when the run ended: {p50}");
}

#[test]
fn pipelines_churn_threads_and_misbehaving_clients_cause_no_failure() {
    for arguments in ["-P 16", "--churn", "--threads 3", "--idle 3", "--mix good=2,drip=1,silent=1", "-P 1000"] {
        let (report, output) = load(server(16, Fault::None), arguments);
        assert!(output.status.success(), "{arguments} {output:?}");
        assert!(report["answers"].as_u64().unwrap() > 0, "{arguments} {report}");
        assert_eq!(verdict(&report, "littles_law")["ok"], true, "{arguments} {report}");
    }
}

#[test]
fn a_second_answer_counts_as_wrong() {
    fails_by("wrong", &load(server(8, Fault::AnswersTwice), ""));
}

#[test]
fn clients_that_are_never_served_are_reported() {
    let (report, output) = load(server(1, Fault::None), "");
    assert!(output.status.success(), "{output:?}");
    assert_eq!(report["unserved"], 3, "{report}");
    assert_eq!(verdict(&report, "served")["ok"], false);
    let (report, _) = load(server(1, Fault::None), "--churn");
    assert_eq!(report["unserved"], 0, "{report}");
}

#[test]
fn without_any_answer_there_is_no_result() {
    let (report, output) = load(server(8, Fault::NeverAnswers), "");
    assert_eq!((&report["answers"], output.status.code()), (&0.into(), Some(1)));
    assert_eq!(report["service_time_us"]["p50"], Value::Null);
    assert!(text(&output.stderr).starts_with("error: no answer arrived"), "{output:?}");
    assert_eq!(verdict(&report, "littles_law")["ok"], Value::Null, "{report}");
    let table = client_of(server(8, Fault::NeverAnswers), "load -d 100ms --warmup 0 -c 1");
    let table = text(&table.stdout);
    assert!(
        table.contains("\nnot judged: Little's law, because nothing was answered\n") && !table.contains("µs an answer")
    );
}

#[test]
fn a_missing_answer_counts_as_timed_out() {
    fails_by("timed_out", &load(server(64, Fault::NeverAnswers), "--timeout 100ms"));
}

#[test]
fn a_close_before_the_answer_counts_as_lost() {
    let hanging_up = after(|stream| {
        let _ = stream.read(&mut [0; 64]);
        let _ = stream.shutdown(std::net::Shutdown::Both);
    });
    fails_by("lost", &load(hanging_up, ""));
}

#[test]
fn a_reset_before_the_answer_counts_as_reset() {
    let resetting = serve(8, |mut stream| {
        let _ = stream.read(&mut [0; 64]);
        SockRef::from(&stream).set_linger(Some(Duration::ZERO)).map_err(|_| Died)
    });
    fails_by("reset", &load(resetting, ""));
}

#[test]
fn a_rejection_counts_as_refused() {
    let clients = Arc::new(AtomicUsize::new(0));
    let full = serve(8, move |mut stream| {
        if clients.fetch_add(1, Ordering::SeqCst) > 1 {
            let _ = stream.write_all(b"Error: too many clients.");
            let _ = std::io::copy(&mut stream, &mut std::io::sink());
        } else {
            let _ = converse(&mut stream, Fault::None);
        }
        Ok(())
    });
    fails_by("refused", &load(full, ""));
}

#[test]
fn without_a_server_there_is_one_line() {
    let unused = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let output = client_of(unused, "load --json");
    assert_eq!((output.status.code(), text(&output.stdout)), (Some(1), ""));
    let stderr = text(&output.stderr);
    assert!(stderr.starts_with(&format!("error: connection refused by {unused}: ")), "{stderr}");
    assert_eq!(stderr.lines().count(), 1);
}

#[test]
fn a_wrong_command_line_names_the_flag() {
    for (arguments, flag) in [
        ("-c 0", "--connections"),
        ("-P 0", "--pipeline"),
        ("-d 0", "--duration"),
        ("-d 5", "--duration"),
        ("--timeout 0", "--timeout"),
        ("-r 0", "--rate"),
        ("--retries 1001", "--retries"),
        ("--threads 5 -c 4", "--threads"),
        ("--churn -P 2", "--churn"),
        ("--mix drip=1", "--mix"),
        ("--histogram", "--json"),
        ("--idle many", "--idle"),
        ("--find-max p99=5ms", "--find-max"),
        ("--find-max p99<5ms -r 5", "--find-max"),
        ("--fail-if p98>5ms", "--fail-if"),
        ("--arrivals uneven", "--arrivals"),
        ("--arrivals poisson -r 10000000", "--arrivals"),
        ("--connect-rate 0", "--connect-rate"),
    ] {
        let output = client(&format!("load {arguments}"));
        let stderr = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{arguments}: {output:?}");
        assert!(stderr.starts_with("error: ") && stderr.contains(flag) && stderr.lines().count() == 1, "{stderr}");
    }
}

#[test]
fn the_table_has_the_main_figures_and_no_progress_bar() {
    let output = client_of(server(4, Fault::None), "load -c 4 -d 300ms --warmup 0");
    let table = text(&output.stdout);
    for part in ["closed loop", "answers a second", "service time", "response time", "ok: Little's law holds"] {
        assert!(table.contains(part), "{table}");
    }
    assert!(output.stderr.is_empty(), "no progress bar without a terminal: {output:?}");
}

/// A process inherits what its parent has blocked.
#[test]
fn an_interrupt_that_the_parent_blocked_is_handled() {
    nix::sys::signal::SigSet::from(nix::sys::signal::Signal::SIGINT).thread_block().unwrap();
    an_interrupted_run_has_a_result();
}

#[test]
fn an_interrupted_run_has_a_result() {
    let server = server(4, Fault::None);
    let running = Running::start(&format!("load --json -d 50s --warmup 0 -c 2 -p {}", server.port()));
    thread::sleep(Duration::from_millis(700));
    running.interrupt();
    let output = running.output();
    let report = report(&output);
    assert!(output.status.success(), "{output:?}");
    assert_eq!(report["interrupted"], true);
    assert!(number(&report["seconds"]) < 40.0 && report["answers"].as_u64().unwrap() > 0, "{report}");
}

/// A shell without job control ignores SIGINT for what it puts into the background, and nohup(1) SIGHUP.
#[test]
fn an_ignored_signal_stays_ignored() {
    for (signal, name) in [(Signal::INT, "INT"), (Signal::TERM, "TERM")] {
        let arguments = format!("load --json -d 1s --warmup 0 -c 2 -p {}", server(4, Fault::None).port());
        let ignoring = format!("trap '' {name}; exec \"$@\"");
        let mut command = Command::new("sh");
        command.args(["-c", &ignoring, "sh", env!("CARGO_BIN_EXE_zen-client")]).args(arguments.split_whitespace());
        let running = Running::of(&mut command);
        thread::sleep(Duration::from_millis(500));
        running.signal(signal);
        let output = running.output();
        assert!(output.status.success(), "SIG{name}: {output:?}");
        assert_eq!(report(&output)["interrupted"], false, "SIG{name}");
    }
}

/// Starts a server that answers five questions of each client, and then none for a minute.
fn falling_silent() -> SocketAddr {
    after(|stream| {
        let mut question = [0; 64];
        for _ in 0..5 {
            let n = stream.read(&mut question).unwrap_or(0);
            let _ = stream.write_all(zen_proto::answer_to(&question[..n]).as_bytes());
        }
        thread::sleep(Duration::from_secs(60));
    })
}

/// An interrupted run ends within 1.5 s; a busy machine may need longer, but nothing like `--timeout`.
const SOON: Duration = Duration::from_secs(7);

#[test]
fn an_interrupt_after_the_measured_time_gives_the_result() {
    for (signal, more) in
        [(Signal::INT, ""), (Signal::TERM, ""), (Signal::INT, "--retries 1000"), (Signal::INT, "-r 100")]
    {
        let port = falling_silent().port();
        let arguments = format!("load --json -d 200ms --warmup 0 -c 2 --timeout 40s {more} -p {port}");
        let running = Running::start(&arguments);
        thread::sleep(Duration::from_millis(1200));
        let start = Instant::now();
        running.signal(signal);
        let output = running.output();
        assert!(start.elapsed() < SOON, "{more}: {:?}", start.elapsed());
        let report = report(&output);
        assert!(output.status.success() && report["answers"].as_u64().unwrap() > 0, "{output:?}");
        assert_eq!(report["interrupted"], true);
        assert_eq!(verdict(&report, "littles_law")["ok"], true, "{report}");
    }
}

#[test]
fn an_interrupt_during_the_warm_up_ends_the_run() {
    let running = Running::start(&format!("load --warmup 50s --timeout 40s -c 2 -p {}", falling_silent().port()));
    thread::sleep(Duration::from_millis(500));
    let start = Instant::now();
    running.interrupt();
    let output = running.output();
    assert!(start.elapsed() < SOON, "{:?}", start.elapsed());
    assert_eq!(text(&output.stderr), "error: interrupted before any answer was measured\n");
    for not_judged in ["Little's law, because nothing was answered", "the load generator, because nothing was measured"]
    {
        assert!(text(&output.stdout).contains(&format!("\nnot judged: {not_judged}\n")), "{output:?}");
    }
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn an_interrupt_while_it_connects_ends_it() {
    // The backlog has room for one client, and one is in it. The kernel drops the SYNs of further clients, which wait.
    let listener = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    listener.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    listener.listen(0).unwrap();
    let full = listener.local_addr().unwrap().as_socket().unwrap();
    let _queued = TcpStream::connect(full).unwrap();
    let unused = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    for (server, more) in [(full, ""), (full, "--threads 2 --idle 3"), (unused, "--retries 1000")] {
        let running = Running::start(&format!("load --timeout 40s {more} -p {}", server.port()));
        thread::sleep(Duration::from_millis(500));
        let start = Instant::now();
        running.interrupt();
        let output = running.output();
        assert!(start.elapsed() < SOON, "{more}: {:?}", start.elapsed());
        assert_eq!(text(&output.stderr), "error: interrupted before any answer was measured\n");
        assert_eq!((output.status.code(), text(&output.stdout)), (Some(1), ""));
    }
}

#[test]
fn a_second_interrupt_ends_it_at_once() {
    let port = falling_silent().port();
    let running = Running::start(&format!("load -d 200ms --warmup 0 -c 2 --timeout 40s -p {port}"));
    thread::sleep(Duration::from_millis(1200));
    running.interrupt();
    thread::sleep(Duration::from_millis(100));
    running.interrupt();
    let output = running.output();
    assert_eq!((output.status.code(), text(&output.stdout)), (Some(130), ""), "{output:?}");
}
