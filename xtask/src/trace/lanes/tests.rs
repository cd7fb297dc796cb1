//! A short log and the lanes that it must give.

use super::*;

const LINES: &str = r#"700 1.000000 clone3({flags=CLONE_VM|CLONE_THREAD}, 88) = 701 <0.000010>
701 1.000020 prctl(PR_SET_NAME, "worker-1") = 0 <0.000005>
700 1.000030 clone3({flags=CLONE_VM|CLONE_THREAD}, 88) = 702 <0.000010>
702 1.000050 prctl(PR_SET_NAME, "log") = 0 <0.000005>
702 1.000060 futex(0x1, FUTEX_WAIT_BITSET_PRIVATE, 1, NULL) = 0 <0.900000>
700 1.000070 futex(0x1, FUTEX_WAIT_BITSET_PRIVATE, 1, NULL) = 0 <0.900000>
701 1.000100 accept4(3, {sa_family=AF_INET, sin_port=htons(4001), sin_addr=inet_addr("127.0.0.1")}, [128 => 16], SOCK_CLOEXEC) = 9 <0.001000>
701 1.001200 recvfrom(9, "Simple is better than?", 4096, 0, NULL, NULL) = 22 <0.000300>
701 1.001600 clock_nanosleep(CLOCK_MONOTONIC, 0, {tv_sec=0}, NULL) = 0 <0.000400>
701 1.002100 sendto(9, "complex.", 8, MSG_NOSIGNAL, NULL, 0) = 8 <0.000100>
701 1.002300 recvfrom(9, "", 4096, 0, NULL, NULL) = 0 <0.040000>
701 1.042400 close(9) = 0 <0.000100>
701 1.042600 accept4(3, 0x7ff, [128], SOCK_CLOEXEC) = -1 EAGAIN (Resource temporarily unavailable) <0.250000>
"#;

fn visit() -> Visit {
    let event = |at, kind, count| Event { at, kind, count, text: String::new() };
    Visit {
        client: 2,
        behaviour: "honest",
        is_subject: true,
        port: 4001,
        came: 1_000_900,
        events: vec![event(1_000_950, Kind::Asked, 1), event(1_002_250, Kind::Answered, 1)],
        left: 1_042_000,
    }
}

fn ports() -> Ports {
    Ports::from([(4001, 2)])
}

/// Returns what a client saw on the whole that did nothing but this.
fn outcome_of(events: &[(Micros, Kind, usize)]) -> Outcome {
    let events = events.iter().map(|&(at, kind, count)| Event { at, kind, count, text: String::new() }).collect();
    outcome(&Visit { came: 0, events, left: 900_000, ..visit() }, 20_000)
}

#[test]
fn a_threads_time_is_divided_without_a_gap() {
    let lanes = threads(&Log::parse(LINES), &ports(), 1_000_500, 1_050_000);
    let worker = lanes.iter().find(|lane| lane.name == "worker-1").expect("it has a lane");
    assert!(worker.matters);
    let told: Vec<_> = worker.intervals.iter().map(|i| (i.from, i.until, i.activity, i.client)).collect();
    assert_eq!(
        told,
        [
            (0, 600, Activity::Accept, None),
            (600, 700, Activity::Work, Some(2)),
            (700, 1_000, Activity::Recv, Some(2)),
            (1_000, 1_600, Activity::Work, Some(2)),
            (1_600, 1_700, Activity::Send, Some(2)),
            (1_700, 1_800, Activity::Work, Some(2)),
            (1_800, 41_800, Activity::Recv, Some(2)),
            (41_800, 42_000, Activity::Work, Some(2)),
            (42_000, 42_100, Activity::Work, None),
            (42_100, 49_500, Activity::Accept, None),
        ]
    );
}

#[test]
fn a_thread_that_serves_no_client_does_not_matter() {
    let lanes = threads(&Log::parse(LINES), &ports(), 1_000_500, 1_050_000);
    let matters: Vec<_> = lanes.iter().map(|lane| (lane.name.as_str(), lane.matters)).collect();
    assert_eq!(matters, [("main", false), ("worker-1", true), ("log", false)]);
}

#[test]
fn a_client_waits_in_the_backlog_and_for_its_answer() {
    let lanes = clients(&Log::parse(LINES), &[visit()], 1_000_500, 0);
    let told: Vec<_> = lanes[0].intervals.iter().map(|interval| (interval.until, interval.stay)).collect();
    assert_eq!(told, [(600, ClientState::Backlog), (1_750, ClientState::Answer), (41_500, ClientState::Idle)]);
    assert_eq!((lanes[0].client, lanes[0].came(), lanes[0].outcome), (2, 400, Outcome::AnsweredAtOnce));
    assert_eq!(lanes[0].answered().collect::<Vec<_>>(), [1_750]);
}

#[test]
fn an_interval_names_the_longest_of_its_calls() {
    let lanes = threads(&Log::parse(LINES), &ports(), 1_000_500, 1_050_000);
    let worker = lanes.iter().find(|lane| lane.name == "worker-1").expect("it has a lane");
    let told = worker.intervals.iter().map(|interval| (interval.call.as_deref(), interval.calls)).take(4);
    let accept = [(Some("accept4"), 1), (None, 0), (Some("recvfrom"), 1), (Some("clock_nanosleep"), 1)];
    assert_eq!(told.collect::<Vec<_>>(), accept);
}

#[test]
fn an_outcome_is_what_a_client_saw_on_the_whole() {
    let asked = (0, Kind::Asked, 1);
    assert_eq!(outcome_of(&[asked, (50_000, Kind::Answered, 1)]), Outcome::AnsweredAtOnce);
    assert_eq!(outcome_of(&[asked, (70_000, Kind::Answered, 1)]), Outcome::AnsweredLate);
    assert_eq!(outcome_of(&[(0, Kind::Asked, 3), (70_000, Kind::Answered, 3)]), Outcome::AnsweredTogether);
    assert_eq!(outcome_of(&[asked, (9, Kind::Answered, 1), (10, Kind::Ended, 0)]), Outcome::AnsweredThenClosed);
    assert_eq!(outcome_of(&[asked, (9, Kind::Rejected, 1), (10, Kind::Ended, 0)]), Outcome::Rejected);
    assert_eq!(outcome_of(&[(10, Kind::Ended, 0)]), Outcome::Closed);
    assert_eq!(outcome_of(&[asked, (10, Kind::Reset, 0)]), Outcome::Reset);
    assert_eq!(outcome_of(&[(10, Kind::Refused, 0)]), Outcome::Refused);
    assert_eq!(outcome_of(&[asked]), Outcome::Nothing);
}

#[test]
fn a_process_serves_the_client_that_its_parent_gave_it() {
    let lines = r#"700 1.000000 accept4(3, {sa_family=AF_INET, sin_port=htons(4001), sin_addr=inet_addr("127.0.0.1")}, [128 => 16], SOCK_CLOEXEC) = 9 <0.000100>
700 1.000300 clone3({flags=CLONE_VM|CLONE_VFORK, exit_signal=SIGCHLD}, 88) = 702 <0.000500>
702 1.001000 fcntl(0, F_DUPFD_CLOEXEC, 3) = 4 <0.000010>
702 1.001100 getpeername(4, {sa_family=AF_INET, sin_port=htons(4001), sin_addr=inet_addr("127.0.0.1")}, [128 => 16]) = 0 <0.000010>
702 1.002000 recvfrom(4, "Simple is better than?", 4096, 0, NULL, NULL) = 22 <0.040000>
"#;
    let lanes = threads(&Log::parse(lines), &ports(), 1_000_000, 1_050_000);
    let child = lanes.iter().find(|lane| lane.process == 702).expect("it has a lane");
    assert!(child.matters && child.intervals.iter().any(|i| (i.activity, i.client) == (Activity::Recv, Some(2))));
}

#[test]
fn what_cannot_sleep_is_work() {
    let one = |line: &str| {
        let log = Log::parse(line);
        activity(&log.calls[0], Some(1), true, Some(1))
    };
    assert_eq!(one("7 1.000000 accept4(3, NULL, NULL, SOCK_NONBLOCK) = 9 <0.000010>"), Activity::Work);
    assert_eq!(one("7 1.000000 recvfrom(9, \"?\", 9, MSG_DONTWAIT, NULL, NULL) = 1 <0.000010>"), Activity::Work);
    assert_eq!(one("7 1.000000 recvfrom(9, 0x1, 9, 0, NULL, NULL) = -1 EAGAIN (…) <0.000010>"), Activity::Work);
    assert_eq!(one("7 1.000000 recvfrom(9, 0x1, 9, 0, NULL, NULL) = -1 EAGAIN (…) <0.250000>"), Activity::Recv);
    assert_eq!(one("7 1.000000 epoll_pwait(9, [], 1024, 0, NULL, 8) = 0 <0.000010>"), Activity::Work);
    assert_eq!(one("7 1.000000 epoll_pwait(9, [], 1024, -1, NULL, 8) = 1 <0.000010>"), Activity::Poll);
    let look = Log::parse("7 1.000000 recvfrom(9, \"?\", 9, 0, NULL, NULL) = 1 <0.250000>");
    assert_eq!(activity(&look.calls[0], Some(1), false, None), Activity::Work);
    assert_eq!(one("7 1.000000 futex(0x1, FUTEX_WAKE_PRIVATE, 1) = 1 <0.000010>"), Activity::Work);
}

#[test]
fn namesakes_are_numbered() {
    let lines = LINES.replace("\"log\"", "\"client\"").replace("\"worker-1\"", "\"client\"");
    let names: Vec<_> =
        threads(&Log::parse(&lines), &Ports::new(), 1_000_500, 1_050_000).into_iter().map(|lane| lane.name).collect();
    assert_eq!(names, ["main", "client (no. 1)", "client (no. 2)"]);
}
