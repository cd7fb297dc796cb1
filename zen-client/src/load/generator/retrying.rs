//! When a connection fails, its questions are asked again over another one, or have failed.
//!
//! 1. The questions without an answer keep their order, and the times at which they were due.
//! 2. The slot's next connection goes to the next address: immediately, or after a pause if every address has failed.
//! 3. It asks them again. A question whose tries are used up is a failure.
//!
//! None of this runs while answers arrive. Without `--retries` every failure is final.

use std::cmp::Reverse;

use super::super::clock::{Nanos, nanos};
use super::super::failures::Failure;
use super::super::mix::Kind;
use super::{Generator, Stage, question};
use crate::pause::pause;

/// The pause after a refused connection when there are no retries.
const PAUSE_WITHOUT_RETRIES: Nanos = 1_000_000_000;

impl Generator {
    /// Handles a connection that is of no use any more. Final failures are counted: each lost answer if the connection
    /// was lost or reset, else the failure once.
    pub(super) fn fail(&mut self, slot: usize, failure: Failure) {
        let Self { connections, tally, now, plan, .. } = self;
        let connection = &mut connections[slot];
        connection.close();
        connection.failed_in_a_row += 1;
        if connection.kind != Kind::Good {
            connection.asked.clear();
        }
        let unanswered = connection.asked.len();
        let is_wrong = failure == Failure::Wrong;
        if is_wrong {
            // The answer would be wrong again.
            connection.asked.pop_front().into_iter().for_each(|asked| tally.abandoned(asked, *now));
        }
        connection.asked.retain_mut(|asked| tally.failed(asked, *now, plan.retries));
        let kept = connection.asked.len();
        // If nothing was asked, the connection itself is tried again.
        let is_retried = kept > 0 || unanswered == 0 && !is_wrong && connection.failed_in_a_row <= plan.retries;
        if is_retried {
            tally.retries.note(failure);
        }
        if kept < unanswered || !is_retried {
            let times = match failure {
                Failure::Lost | Failure::Reset => (unanswered - kept).max(1),
                _ => 1,
            };
            tally.failures.note(failure, times as u64);
            connection.has_failed = true;
        }
        if is_retried {
            self.postpone(slot);
        } else {
            connection.failed_in_a_row = 0;
            if matches!(failure, Failure::Refused | Failure::NotOpened) {
                connection.not_before = *now + PAUSE_WITHOUT_RETRIES;
            }
        }
    }

    /// Schedules the next try: at the next address immediately, at the first one again only after a pause.
    fn postpone(&mut self, slot: usize) {
        let Self { connections, random, addresses, .. } = self;
        let connection = &mut connections[slot];
        let addresses = addresses.len() as u32;
        let is_round_over = connection.failed_in_a_row % addresses == 0;
        let wait = if is_round_over { nanos(pause(connection.failed_in_a_row / addresses, random)) } else { 0 };
        connection.not_before = self.now + wait;
        self.reopen_queue.push(Reverse((connection.not_before, slot)));
    }

    /// Returns when the next failed connection is opened again.
    pub(super) fn next_reopen(&self) -> Option<Nanos> {
        self.reopen_queue.peek().map(|Reverse((at, _))| *at)
    }

    /// Opens the connections again whose pause is over.
    pub(super) fn reopen_due(&mut self) {
        while self.next_reopen().is_some_and(|at| at <= self.now) {
            if let Some(Reverse((_, slot))) = self.reopen_queue.pop() {
                self.reopen(slot);
            }
        }
    }

    /// Opens the connection of a slot that has none, if there is something for it to do.
    pub(super) fn reopen(&mut self, slot: usize) {
        let connection = &self.connections[slot];
        let asks_nothing = connection.asked.is_empty();
        let is_over = self.stage == Stage::Waiting && asks_nothing;
        if connection.stream.is_some() || connection.not_before > self.now || is_over {
            return;
        }
        if !asks_nothing {
            self.ask_again(slot);
        } else if self.plan.churn && slot < self.good {
            self.ask(slot);
        } else {
            self.open(slot);
        }
    }

    /// Asks the unanswered questions of the slot's last connection over a new one. Connecting is part of the try.
    fn ask_again(&mut self, slot: usize) {
        self.now = self.clock.now();
        let Self { connections, tally, outgoing, now, .. } = self;
        outgoing.clear();
        for asked in &mut connections[slot].asked {
            tally.asked_again(asked, *now);
            outgoing.extend_from_slice(question(asked.aphorism));
        }
        if let Err(failure) = self.connect_and_ask(slot) {
            self.fail(slot, failure);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{Shutdown, SocketAddr, TcpListener};
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::thread;
    use std::time::Duration;

    use crate::load::{Measured, Plan, Tally, measure_quietly};

    /// Starts a server for one connection after the other, which counts its reads: one for each question.
    fn counting() -> (SocketAddr, Arc<AtomicU64>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (address, visits) = (listener.local_addr().unwrap(), Arc::<AtomicU64>::default());
        let counter = Arc::clone(&visits);
        thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let mut question = [0; 64];
                while let Ok(n @ 1..) = stream.read(&mut question) {
                    counter.fetch_add(1, Ordering::Relaxed);
                    let _ = stream.write_all(zen_proto::answer_to(&question[..n]).as_bytes());
                }
            }
        });
        (address, visits)
    }

    /// Returns an address on which no server listens.
    fn unused() -> SocketAddr {
        TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
    }

    /// Runs 60 questions, each on a connection of its own.
    fn visit(addresses: &[SocketAddr]) -> Measured {
        let (warmup, duration) = (Duration::ZERO, Duration::from_millis(300));
        let plan =
            Plan { connections: 4, rate: Some(200), churn: true, retries: 1, warmup, duration, ..Plan::default() };
        let measured = measure_quietly(&plan, addresses).unwrap();
        let Tally { answers, missed, failures, .. } = &measured.tally;
        assert_eq!((answers + missed, failures.all()), (60, 0));
        measured
    }

    #[test]
    fn visits_are_spread_evenly_over_the_addresses() {
        let (servers, counts): (Vec<_>, Vec<_>) = (0..3).map(|_| counting()).unzip();
        let answers = visit(&servers).tally.answers;
        let counts: Vec<u64> = counts.iter().map(|count| count.load(Ordering::Relaxed)).collect();
        assert_eq!(counts.iter().sum::<u64>(), answers);
        assert!(
            counts.iter().max().unwrap() - counts.iter().min().unwrap() <= 4,
            "{counts:?}: one for each connection"
        );
    }

    #[test]
    fn where_one_of_two_is_dead_the_other_has_everything() {
        let (server, count) = counting();
        let Tally { answers, retries, .. } = visit(&[unused(), server]).tally;
        assert_eq!(count.load(Ordering::Relaxed), answers);
        assert_eq!((retries.connections, retries.by_kind.refused), (retries.questions, retries.questions));
        assert_eq!((retries.answered, retries.given_up), (retries.questions, 0));
        assert!(retries.questions > 0, "{retries:?}");
    }

    #[test]
    fn unanswered_questions_are_asked_again_in_order_at_the_next_address() {
        let listeners = [TcpListener::bind("127.0.0.1:0").unwrap(), TcpListener::bind("127.0.0.1:0").unwrap()];
        let addresses = listeners.each_ref().map(|listener| listener.local_addr().unwrap());
        let [first, second] = listeners;
        let unfaithful = thread::spawn(move || {
            let (mut stream, _) = first.accept().unwrap();
            let (mut asked, mut chunk) = (Vec::new(), [0; 256]);
            while asked.split_inclusive(|byte| *byte == b'?').count() < 3 {
                let n = stream.read(&mut chunk).unwrap();
                asked.extend_from_slice(&chunk[..n]);
            }
            // One answer and a half.
            let mut questions = asked.split_inclusive(|byte| *byte == b'?');
            let answers = [0, 1].map(|_| zen_proto::answer_to(questions.next().unwrap()));
            stream.write_all(&[answers[0].as_bytes(), &answers[1].as_bytes()[..2]].concat()).unwrap();
            stream.shutdown(Shutdown::Write).unwrap();
            let _ = std::io::copy(&mut stream, &mut std::io::sink());
            asked
        });
        let honest = thread::spawn(move || {
            let (mut stream, _) = second.accept().unwrap();
            let (mut asked, mut chunk) = (Vec::new(), [0; 256]);
            while let Ok(n @ 1..) = stream.read(&mut chunk) {
                asked.extend_from_slice(&chunk[..n]);
                for question in chunk[..n].split_inclusive(|byte| *byte == b'?') {
                    // A client whose run is over reads no more.
                    let _ = stream.write_all(zen_proto::answer_to(question).as_bytes());
                }
            }
            asked
        });
        let (warmup, duration) = (Duration::ZERO, Duration::from_millis(200));
        let plan = Plan { connections: 1, pipeline: 3, retries: 1, warmup, duration, ..Plan::default() };
        let tally = measure_quietly(&plan, &addresses).unwrap().tally;
        let (asked, asked_again) = (unfaithful.join().unwrap(), honest.join().unwrap());
        let unanswered = &asked[asked.iter().position(|byte| *byte == b'?').unwrap() + 1..];
        assert!(asked_again.starts_with(unanswered), "{} {}", asked.escape_ascii(), asked_again.escape_ascii());
        let retries = tally.retries;
        assert_eq!((retries.connections, retries.by_kind.lost, tally.failures.all()), (1, 1, 0));
        // Two are pending, and a third if it was asked before the end of file was seen.
        assert!((2..=3).contains(&retries.questions), "{retries:?}");
        assert_eq!((retries.answered, retries.given_up), (retries.questions, 0));
    }
}
