//! One scenario for every server: three clients with three questions each, of which the first thinks in between.

use std::net::SocketAddr;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, anyhow, bail};

use super::strace::Micros;
use crate::harness::client::APHORISMS;
use crate::harness::{Client, WAIT_LIMIT};

/// Number of clients.
pub(crate) const CLIENTS: usize = 3;
/// How many answers each gets.
pub(crate) const QUESTIONS: usize = APHORISMS.len();
/// How long client 1 thinks before each further question.
pub(crate) const THINKING: Duration = Duration::from_millis(40);
/// Time between two clients' connects, so short that all connect while client 1 thinks for the first time.
const APART: Duration = Duration::from_millis(8);

/// What one client saw, by the clock that strace reads too.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Visit {
    /// 1, 2 or 3.
    pub(crate) client: usize,
    /// By which the server's accept() tells it from the others.
    pub(crate) port: u16,
    pub(crate) came: Micros,
    pub(crate) asked: Vec<Micros>,
    pub(crate) answered: Vec<Micros>,
    pub(crate) left: Micros,
}

impl Visit {
    /// From coming to the first answer.
    pub(crate) fn first_wait(&self) -> Micros {
        self.answered.first().map_or(self.left, |answered| *answered) - self.came
    }
}

/// From a question to its answer: half of them took no longer.
pub(crate) fn median_answer(visits: &[Visit]) -> Micros {
    let mut times: Vec<Micros> = visits
        .iter()
        .flat_map(|visit| visit.asked.iter().zip(&visit.answered))
        .map(|(asked, got)| got - asked)
        .collect();
    times.sort_unstable();
    times.get(times.len() / 2).copied().unwrap_or_default()
}

/// Runs the scenario. Client 1 connects first and is answered once before client 2 connects; client 3 is last.
pub(crate) fn play(address: SocketAddr) -> Result<Vec<Visit>> {
    thread::scope(|scope| {
        let (answered, first_answer) = channel();
        let start = |client: usize, thinking: Duration, answered: Option<Sender<()>>| {
            scope.spawn(move || visit(address, client, thinking, answered).with_context(|| format!("client {client}")))
        };
        let mut clients = vec![start(1, THINKING, Some(answered))];
        match first_answer.recv_timeout(WAIT_LIMIT) {
            Ok(()) => {}
            // It has failed, and says below how.
            Err(RecvTimeoutError::Disconnected) => {}
            Err(RecvTimeoutError::Timeout) => bail!("client 1 had no answer within {WAIT_LIMIT:?}"),
        }
        for client in 2..=CLIENTS {
            thread::sleep(APART);
            clients.push(start(client, Duration::ZERO, None));
        }
        clients.into_iter().map(|client| client.join().map_err(|_| anyhow!("a client panicked"))?).collect()
    })
}

fn visit(address: SocketAddr, client: usize, thinking: Duration, first: Option<Sender<()>>) -> Result<Visit> {
    let came = now()?;
    let mut connection = Client::connect(address)?;
    let port = connection.stream().local_addr()?.port();
    let (mut asked, mut answered) = (Vec::new(), Vec::new());
    for (question, answer) in APHORISMS {
        if !asked.is_empty() {
            thread::sleep(thinking);
        }
        asked.push(now()?);
        connection.ask(question, answer)?;
        answered.push(now()?);
        // The receiver may be gone, and then the result is not needed.
        first.as_ref().map(|first| first.send(()));
    }
    // Taken before the connection closes, so that whatever the server does next comes later.
    Ok(Visit { client, port, came, asked, answered, left: now()? })
}

fn now() -> Result<Micros> {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).context("the clock stands before 1970")?;
    Micros::try_from(since.as_micros()).context("the clock is far ahead")
}
