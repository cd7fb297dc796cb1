//! The picture of a small recording: well-formed, complete, and on its own.

use super::*;
use crate::servers::SERVERS;
use crate::trace::model::{Event, Kind};
use crate::trace::recording::{Played, Scene};
use crate::trace::scenario::{THREE_TALKERS, Visit};
use crate::trace::strace::{Log, Micros};
use crate::trace::{perfetto, poster, terminal};

const LINES: &str = r#"700 1.000000 prctl(PR_SET_NAME, "a<b>&\"") = 0 <0.000010>
700 1.000100 accept4(3, {sa_family=AF_INET, sin_port=htons(4001), sin_addr=inet_addr("127.0.0.1")}, [128 => 16], SOCK_CLOEXEC) = 9 <0.000900>
700 1.001200 recvfrom(9, "Simple is better than?", 4096, 0, NULL, NULL) = 22 <0.000300>
700 1.002100 sendto(9, "complex.", 8, MSG_NOSIGNAL, NULL, 0) = 8 <0.000100>
700 1.002300 recvfrom(9, "", 4096, 0, NULL, NULL) = 0 <0.040000>
700 1.042400 close(9) = 0 <0.000100>
700 1.042600 accept4(3, {sa_family=AF_INET, sin_port=htons(4002), sin_addr=inet_addr("127.0.0.1")}, [128 => 16], SOCK_CLOEXEC) = 9 <0.000100>
700 1.042800 recvfrom(9, "Simple is better than?", 4096, 0, NULL, NULL) = 22 <0.000300>
700 1.043200 sendto(9, "complex.", 8, MSG_NOSIGNAL, NULL, 0) = 8 <0.000100>
700 1.043400 accept4(3, {sa_family=AF_INET, sin_port=htons(4003), sin_addr=inet_addr("127.0.0.1")}, [128 => 16], SOCK_CLOEXEC) = 9 <0.000100>
700 1.043600 recvfrom(9, "Simple is better than?", 4096, 0, NULL, NULL) = 22 <0.000300>
700 1.044200 sendto(9, "complex.", 8, MSG_NOSIGNAL, NULL, 0) = 8 <0.000100>
"#;

fn recording() -> Recording {
    let event = |at, kind| Event { at, kind, count: 1, text: String::new() };
    let visit = |client: usize, port, came: Micros, answered: Micros, left| Visit {
        client,
        behaviour: "honest",
        is_subject: client == CLIENTS,
        port,
        came,
        events: vec![event(came, Kind::Asked), event(answered, Kind::Answered)],
        left,
    };
    let visits = vec![
        visit(1, 4001, 1_000_500, 1_002_250, 1_042_000),
        visit(2, 4002, 1_008_000, 1_043_300, 1_043_350),
        visit(3, 4003, 1_016_000, 1_044_300, 1_044_400),
    ];
    let scene = Scene::new(&SERVERS[0], THREE_TALKERS, &[]).expect("every server plays it");
    Recording::from(&scene, &Log::parse(LINES), Played { visits, drained: None })
}

const CLIENTS: usize = 3;

/// Returns the names of the elements in a text, if each is closed where it should be.
fn elements(xml: &str) -> Vec<String> {
    let (mut open, mut all) = (Vec::new(), Vec::new());
    let mut rest = xml;
    while let Some((before, after)) = rest.split_once('<') {
        assert!(!before.contains('>'), "a stray bracket in {before:?}");
        let (tag, after) = after.split_once('>').expect("a tag ends");
        assert_eq!(tag.matches('"').count() % 2, 0, "quotes in <{tag}>");
        let name: String = tag.trim_start_matches('/').chars().take_while(|c| c.is_ascii_alphanumeric()).collect();
        if tag.starts_with('/') {
            assert_eq!(open.pop(), Some(name));
        } else {
            all.push(name.clone());
            if !tag.ends_with('/') {
                open.push(name);
            }
        }
        rest = after;
    }
    assert!(open.is_empty(), "not closed: {open:?}");
    all
}

#[test]
fn a_picture_is_well_formed_and_says_what_it_is() {
    let picture = document(&recording());
    let elements = elements(&picture);
    assert_eq!((elements[0].as_str(), elements[1].as_str(), elements[2].as_str()), ("svg", "title", "desc"));
    assert!(picture.contains("Client 3 waits 28 ms for its first answer, until client 1 has left"), "{picture}");
    assert!(picture.contains("a&lt;b&gt;&amp;"));
}

#[test]
fn every_client_and_thread_has_a_lane() {
    let recording = recording();
    let picture = document(&recording);
    for name in ["client 1", "client 2", "client 3"] {
        assert_eq!(picture.matches(&format!(r#"<tspan class="name">{name}</tspan>"#)).count(), 1, "{name}");
    }
    assert_eq!(picture.matches(r#"class="name""#).count(), recording.model.shown().count() + CLIENTS);
    assert_eq!(recording.model.shown().count(), 1);
}

#[test]
fn nothing_is_fetched_from_elsewhere() {
    let recording = [recording()];
    for text in [document(&recording[0]), poster::page(&recording)] {
        let elsewhere = text.replace("http://www.w3.org/2000/svg", "");
        for word in ["http:", "https:", "//", "src=", "@import", "<script", "<image"] {
            assert!(!elsewhere.contains(word), "{word}");
        }
        // Every pattern that is used is there.
        for used in text.split("url(#").skip(1).filter_map(|rest| rest.split(')').next()) {
            assert!(text.contains(&format!("id=\"{used}\"")), "{used}");
        }
    }
}

#[test]
fn the_terminal_reads_without_colour() {
    let text = terminal::text(&recording(), 60, false);
    assert!(!text.contains('\x1b') && text.contains('₁') && text.contains('%'), "{text}");
    assert!(terminal::text(&recording(), 60, true).contains('\x1b'));
}

#[test]
fn perfetto_is_given_every_lane() {
    let trace: serde_json::Value =
        serde_json::from_str(&perfetto::json(&recording()).expect("it can be written")).expect("it is JSON");
    let events = trace["traceEvents"].as_array().expect("there are events");
    let names = events.iter().filter(|event| event["name"] == "thread_name").count();
    assert_eq!(names, 1 + CLIENTS);
    assert!(
        events.iter().filter(|event| event["ph"] == "X").all(|event| event["dur"].as_i64().is_some_and(|dur| dur >= 0))
    );
}

#[test]
fn long_texts_are_wrapped() {
    assert_eq!(lines("one two three", 7), ["one two", "three"]);
    assert_eq!(lines("one two three four", 13), ["one two", "three four"]);
    assert!(lines("", 7).is_empty());
}
