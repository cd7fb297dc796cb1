//! The default command: a conversation, one question at a time.

mod conversation;
mod patience;

use std::io::{self, Write};
use std::iter;
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use anyhow::{Result, anyhow};
use fastrand::Rng;
use zen_proto::{APHORISMS, TOO_MANY};

use crate::connect::Addresses;
use crate::options::{Server, duration};
use crate::text;

use conversation::Conversation;
use patience::{Patience, Progress};

/// What `zen-client` without a command takes.
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
    /// The longest wait for a connection, and for an answer, such as 10s or 500ms [default: 0, wait for ever]
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    timeout: Option<Duration>,
    /// After a failure connect to the next address and ask again, at most N times for each question
    #[arg(long, value_name = "N", default_value_t = 0)]
    retries: u32,
    /// Send a question without its `?`, then hang up
    #[arg(short = 'e', long, conflicts_with_all = ["questions", "retries"])]
    cause_error: bool,
}

/// Asks, and prints a line `QUESTION ANSWER` for each answer.
pub(crate) fn ask(options: &Options) -> Result<ExitCode> {
    let timeout = options.timeout.filter(|timeout| !timeout.is_zero());
    let random = options.seed.map_or_else(Rng::new, Rng::with_seed);
    let patience = Patience::start();
    let mut addresses = Addresses::resolve(&options.server)?;
    let mut questions = shuffled_questions(random);
    if options.cause_error {
        let question = questions.next().unwrap_or_default();
        let (mut stream, _) = addresses.connect(timeout)?;
        // What becomes of it is not our business: we hang up.
        let _ = stream.write_all(question.trim_end_matches('?').as_bytes());
        return Ok(ExitCode::SUCCESS);
    }
    let mut asker = Asker { addresses, conversation: None, timeout, retries: options.retries, patience };
    let mut missing = options.questions;
    let mut stdout = io::stdout().lock();
    for question in questions {
        let answer = asker.answer_to(question).map_err(|failure| match failure {
            Failure::Ended(what) => anyhow!("{what}; {missing} of {} answers are missing", options.questions),
            Failure::NotConnected(error) | Failure::Refused(error) => error,
        })?;
        text::say(&mut stdout, format_args!("{question} {}", text::printable(&answer)))?;
        missing -= 1;
        if missing == 0 {
            break;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// All three in random order, again and again.
fn shuffled_questions(mut random: Rng) -> impl Iterator<Item = &'static str> {
    iter::repeat_with(move || {
        let mut round = APHORISMS.map(|aphorism| aphorism.question);
        random.shuffle(&mut round);
        round
    })
    .flatten()
}

/// Why a question has no answer.
enum Failure {
    /// No address took us. Another try may help.
    NotConnected(anyhow::Error),
    /// The conversation is over without the answer. Another try may help.
    Ended(String),
    /// The server said something that it would say again.
    Refused(anyhow::Error),
}

/// Gets answers, with as many conversations as that takes.
struct Asker {
    addresses: Addresses,
    conversation: Option<Conversation>,
    timeout: Option<Duration>,
    retries: u32,
    patience: Patience,
}

/// The pause before the second try. It doubles with each further one.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
/// Long enough not to press a server that restarts, short enough for somebody who waits.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

impl Asker {
    /// The answer to one question, asked at most `retries` times again.
    fn answer_to(&mut self, question: &str) -> Result<String, Failure> {
        let mut pause = FIRST_PAUSE;
        let mut tries_left = self.retries;
        loop {
            match self.try_once(question) {
                Err(Failure::NotConnected(_) | Failure::Ended(_)) if tries_left > 0 => tries_left -= 1,
                outcome => return outcome,
            }
            self.conversation = None;
            thread::sleep(pause);
            pause = (2 * pause).min(LONGEST_PAUSE);
        }
    }

    fn try_once(&mut self, question: &str) -> Result<String, Failure> {
        let conversation = match &mut self.conversation {
            Some(conversation) => conversation,
            none => {
                self.patience.reached(Progress::Connecting);
                let (stream, peer) = self.addresses.connect(self.timeout).map_err(Failure::NotConnected)?;
                self.patience.reached(Progress::Connected);
                none.insert(Conversation::new(stream, peer, self.timeout))
            }
        };
        let answer = conversation.answer_to(question)?;
        self.patience.reached(Progress::Answered);
        let peer = conversation.peer;
        if answer == TOO_MANY.as_str() {
            return Err(Failure::Ended(format!("{peer} is full (\"{answer}\"): try later, or with --retries 5")));
        }
        if answer.starts_with("Error:") {
            let answer = text::quoted(answer.as_bytes());
            let advice = "is it a zen server? `zen-client check` tells";
            return Err(Failure::Refused(anyhow!("{peer} answered {answer} to \"{question}\": {advice}")));
        }
        Ok(answer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_round_holds_all_three_questions() {
        let asked: Vec<_> = shuffled_questions(Rng::with_seed(7)).take(300).collect();
        let mut expected = APHORISMS.map(|aphorism| aphorism.question);
        expected.sort_unstable();
        for round in asked.chunks(3) {
            let mut round = round.to_vec();
            round.sort_unstable();
            assert_eq!(round, expected);
        }
        assert!(asked.chunks(3).any(|round| round != &asked[..3]), "the order changes");
    }
}
