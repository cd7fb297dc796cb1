//! The default command: asks one question at a time.

mod conversation;
mod failure;
mod late_note;

use std::io::Write;
use std::iter;
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use anyhow::{Result, anyhow};
use fastrand::Rng;
use zen_proto::{APHORISMS, TOO_MANY};

use crate::connect::Addresses;
use crate::options::{Server, duration};
use crate::pause::pause;
use crate::text;

use conversation::Conversation;
use failure::Failure;
use late_note::{LateNote, Progress};

/// The options of `zen-client` without a command.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    #[command(flatten)]
    server: Server,
    /// How many questions to ask, in shuffled rounds of the three
    #[arg(short = 'n', value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..))]
    questions: u64,
    /// Shuffle the same way each time
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// The longest wait for the address of a name, for a connection to each, and for an answer, such as 10s or 500ms
    /// [default: 0, wait for ever]
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    timeout: Option<Duration>,
    /// After a failure connect to the next address and ask again, at most N times for each question
    #[arg(long, value_name = "N", default_value_t = 0)]
    retries: u32,
    /// Say on stderr which address answers
    #[arg(short, long)]
    verbose: bool,
    /// Send a question without its `?`, then hang up
    #[arg(short = 'e', long, conflicts_with_all = ["questions", "retries", "verbose"])]
    cause_error: bool,
}

/// Asks, and prints a line `QUESTION ANSWER` for each answer.
pub(crate) fn ask(options: &Options) -> Result<ExitCode> {
    let timeout = options.timeout.filter(|timeout| !timeout.is_zero());
    let random = options.seed.map_or_else(Rng::new, Rng::with_seed);
    let late_note = LateNote::start();
    let mut addresses = Addresses::resolve(&options.server, timeout)?;
    let mut questions = shuffled_questions(random);
    if options.cause_error {
        let question = questions.next().unwrap_or_default();
        let (mut stream, _) = addresses.connect(timeout)?;
        // The outcome does not matter, because the connection is closed now.
        let _ = stream.write_all(question.trim_end_matches('?').as_bytes());
        return Ok(ExitCode::SUCCESS);
    }
    let Options { retries, verbose: is_verbose, .. } = *options;
    let mut asker =
        Asker { addresses, conversation: None, timeout, retries, is_verbose, late_note, random: Rng::new() };
    let mut missing = options.questions;
    let mut stdout = text::stdout();
    for question in questions {
        let answer = asker.answer_to(question).map_err(|failure| match failure {
            Failure::Ended(what) => anyhow!("{what}; {missing} of {} answers are missing", options.questions),
            Failure::NotConnected(error) | Failure::Refused(error) => error,
        })?;
        text::print(&mut stdout, format_args!("{question} {answer}"))?;
        missing -= 1;
        if missing == 0 {
            break;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Returns the three questions in random order, again and again.
fn shuffled_questions(mut random: Rng) -> impl Iterator<Item = &'static str> {
    iter::repeat_with(move || {
        let mut round = APHORISMS.each_ref().map(|aphorism| aphorism.question);
        random.shuffle(&mut round);
        round
    })
    .flatten()
}

/// Gets answers, over as many conversations as needed.
struct Asker {
    addresses: Addresses,
    conversation: Option<Conversation>,
    timeout: Option<Duration>,
    retries: u32,
    is_verbose: bool,
    late_note: LateNote,
    /// For pauses; the questions have a generator of their own.
    random: Rng,
}

impl Asker {
    /// Returns the answer to one question. After a failure it is asked again, at most `retries` times, each time at the
    /// next address.
    fn answer_to(&mut self, question: &str) -> Result<String, Failure> {
        let mut tries = 0;
        let mut tried = Vec::new();
        loop {
            let failure = match self.try_once(question) {
                Err(failure @ (Failure::NotConnected(_) | Failure::Ended(_))) => failure,
                outcome => return outcome,
            };
            let peer = self.conversation.take().map(|conversation| conversation.peer);
            tried.retain(|address| Some(*address) != peer);
            if tries == self.retries {
                return Err(failure.after(&tried));
            }
            tried.extend(peer);
            tries += 1;
            self.late_note.reached(Progress::Idle);
            thread::sleep(pause(tries, &mut self.random));
        }
    }

    fn try_once(&mut self, question: &str) -> Result<String, Failure> {
        let conversation = match &mut self.conversation {
            Some(conversation) => conversation,
            none => {
                self.late_note.reached(Progress::Connecting);
                let (stream, peer) = self.addresses.connect(self.timeout).map_err(Failure::NotConnected)?;
                none.insert(Conversation::new(stream, peer, self.timeout))
            }
        };
        self.late_note.reached(Progress::Asked);
        let answer = conversation.answer_to(question)?;
        let peer = conversation.peer;
        if answer == TOO_MANY.as_str() {
            return Err(Failure::Ended(format!("{peer} is full (\"{answer}\"): try later, or with --retries 5")));
        }
        if answer.starts_with("Error:") {
            let answer = text::quoted(answer.as_bytes());
            let advice = "is it a zen server? `zen-client check` tests that";
            return Err(Failure::Refused(anyhow!("{peer} answered {answer} to \"{question}\": {advice}")));
        }
        if self.is_verbose && !conversation.has_answered {
            text::print_error(&format!("{peer} answers"));
        }
        conversation.has_answered = true;
        self.late_note.reached(Progress::Answered);
        Ok(answer)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::net::{SocketAddr, TcpListener};

    use super::*;

    /// Starts a server that sends this to each client after its first read, and closes.
    fn answering(bytes: &'static [u8]) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let _ = stream.read(&mut [0; 256]);
                let _ = stream.write_all(bytes);
            }
        });
        address
    }

    fn asker(addresses: Vec<SocketAddr>, retries: u32) -> Asker {
        let (addresses, timeout) = (Addresses::new(1060, addresses), Some(Duration::from_secs(5)));
        let (late_note, random) = (LateNote::start(), Rng::new());
        Asker { addresses, conversation: None, timeout, retries, is_verbose: false, late_note, random }
    }

    #[test]
    fn after_a_failure_the_next_address_is_asked() {
        for failing in [&b""[..], b"ug", b"Error: too many clients."] {
            let honest = answering(b"ugly.");
            let mut asker = asker(vec![answering(failing), honest], 1);
            assert_eq!(asker.answer_to("Beautiful is better than?").unwrap(), "ugly.");
            assert_eq!(asker.conversation.unwrap().peer, honest);
        }
    }

    #[test]
    fn the_error_names_every_address_that_was_tried() {
        let [first, second] = [answering(b"ugl"), answering(b"ug")];
        let Err(Failure::Ended(what)) = asker(vec![first, second], 2).answer_to("Beautiful is better than?") else {
            panic!("no server answers");
        };
        let start = format!("{first} ended the conversation in the middle of an answer, \"ugl\": ");
        assert!(what.starts_with(&start) && what.ends_with(&format!("(tried before: {second})")), "{what}");
    }

    #[test]
    fn an_unknown_question_is_not_asked_elsewhere() {
        let mut asker = asker(vec![answering(b"Error: unknown aphorism."), answering(b"ugly.")], 5);
        assert!(matches!(asker.answer_to("Beautiful is better than?"), Err(Failure::Refused(_))));
    }

    #[test]
    fn each_round_holds_all_three_questions() {
        let asked: Vec<_> = shuffled_questions(Rng::with_seed(7)).take(300).collect();
        let mut expected = APHORISMS.each_ref().map(|aphorism| aphorism.question);
        expected.sort_unstable();
        for round in asked.chunks(3) {
            let mut round = round.to_vec();
            round.sort_unstable();
            assert_eq!(round, expected);
        }
        assert!(asked.chunks(3).any(|round| round != &asked[..3]), "the order changes");
    }
}
