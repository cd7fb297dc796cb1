//! The server and its clients, and the pages that watch them.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use http_body_util::channel::{Channel, Sender};
use hyper::body::{Bytes, Frame};
use serde::{Deserialize, Serialize};
use tokio::task::spawn_local;
use tokio::time::{MissedTickBehavior, interval};

use super::clients::{Behaviour, Client};
use super::counters::{Counter, Counters};
use super::picture::{News, Picture};
use super::traced::Traced;
use crate::servers::{self, Entry};
use crate::trace::recording::DEFAULT_BACKLOG;
use crate::trace::scenario::{Visit, now};
use crate::trace::strace::Micros;

/// The state of a run.
pub(super) struct Stage {
    entry: &'static Entry,
    /// `None` while the server is swapped, and after that has failed.
    traced: Option<Traced>,
    /// Why that failed.
    error: Option<String>,
    is_swapping: bool,
    clients: Vec<Client>,
    /// The number of the newest client, which counts those that have been removed.
    numbered: usize,
    /// When the server was started, by the clock.
    start: Micros,
    /// The threads that have served, or waited for a client to serve.
    serving: BTreeSet<i32>,
    counter: Counter,
    pages: Vec<Page>,
    /// When the run ends, unless a page is open then.
    end: Instant,
    lost_after: Duration,
}

/// An open page.
struct Page {
    events: Sender<Bytes>,
    /// The page has received what ended before this time, in microseconds since the server was started.
    seen: Micros,
}

/// What a page may ask for.
#[derive(Deserialize)]
#[serde(tag = "do", rename_all = "kebab-case")]
pub(super) enum Action {
    Add { behaviour: Behaviour },
    Remove { client: usize },
    Swap { server: String },
    Stop,
}

impl Stage {
    /// Returns an empty stage that waits ten times `lost_after` for its first page.
    pub(super) fn new(entry: &'static Entry, lost_after: Duration) -> Stage {
        Stage {
            entry,
            traced: None,
            error: None,
            is_swapping: false,
            clients: Vec::new(),
            numbered: 0,
            start: now(),
            serving: BTreeSet::new(),
            counter: Counter::new(),
            pages: Vec::new(),
            end: Instant::now() + 10 * lost_after,
            lost_after,
        }
    }

    /// Returns the events of a page that has been opened.
    pub(super) fn open_page(&mut self) -> Result<Channel<Bytes>> {
        ensure!(self.pages.len() < MOST_PAGES, "{MOST_PAGES} pages are open: close one");
        let (events, body) = Channel::new(UNREAD);
        self.pages.push(Page { events, seen: 0 });
        Ok(body)
    }

    fn add(&mut self, behaviour: Behaviour) -> Result<()> {
        ensure!(self.clients.len() < MOST_CLIENTS, "{MOST_CLIENTS} clients are connected: remove one");
        self.numbered += 1;
        let mut client = Client::new(self.numbered, behaviour);
        if let Some(traced) = &self.traced {
            client.connect(traced.address());
        }
        self.clients.push(client);
        Ok(())
    }

    /// Connects the clients to a server that has been started.
    fn open(&mut self, started: Result<Traced>) -> Result<()> {
        self.start = now();
        self.serving.clear();
        self.pages.iter_mut().for_each(|page| page.seen = 0);
        self.error = started.as_ref().err().map(|error| format!("{error:#}"));
        let traced = self.traced.insert(started?);
        self.clients.iter_mut().for_each(|client| client.connect(traced.address()));
        Ok(())
    }

    /// Returns whether the run ends: a page asked for that, or none has been open for `lost_after`.
    fn is_over(&mut self) -> bool {
        if !self.pages.is_empty() {
            self.end = Instant::now() + self.lost_after;
        }
        Instant::now() >= self.end
    }

    /// Sends each page what is new to it. A page that does not read is dropped.
    fn send(&mut self) {
        let now = now();
        if let Some(ended) = self.traced.as_mut().and_then(Traced::ended) {
            self.error = Some(ended);
            self.traced = None;
            self.clients.iter_mut().for_each(Client::disconnect);
        }
        let counters = self.counter.count(self.traced.as_ref(), &self.clients);
        let from = self.start.max(now - WINDOW);
        let visits: Vec<Visit> = self.clients.iter().flat_map(|client| client.visits(from, now)).collect();
        let times = [self.start, from, now];
        let draw =
            |traced: &Traced| Picture::of(&traced.log_since(from), traced.lines(), &visits, times, &mut self.serving);
        let picture = self.traced.as_ref().map(draw).unwrap_or_default();
        for page in std::mem::take(&mut self.pages) {
            let event = Event {
                server: self.entry.name,
                is_starting: self.is_swapping,
                error: self.error.as_deref(),
                seats: DEFAULT_BACKLOG + 1,
                now: now - self.start,
                counters,
                news: picture.since(page.seen),
            };
            let json = serde_json::to_string(&event).expect("it has text for keys");
            let mut page = Page { seen: event.now, ..page };
            if page.events.try_send(Frame::data(format!("data: {json}\n\n").into())).is_ok() {
                self.pages.push(page);
            }
        }
    }

    fn remove(&mut self, number: usize) -> Result<()> {
        let place = self.clients.iter().position(|client| client.number == number);
        self.clients.remove(place.with_context(|| format!("there is no client {number}"))?);
        Ok(())
    }
}

/// What the pages receive.
#[derive(Serialize)]
struct Event<'a> {
    server: &'a str,
    is_starting: bool,
    error: Option<&'a str>,
    /// How many connections the kernel keeps until the server accepts them.
    seats: usize,
    /// The time of the event, since the server was started.
    now: Micros,
    counters: Counters,
    #[serde(flatten)]
    news: News<'a>,
}

/// Does what a page asks for.
pub(super) async fn act(stage: &Rc<RefCell<Stage>>, action: Action) -> Result<()> {
    match action {
        Action::Add { behaviour } => stage.borrow_mut().add(behaviour),
        Action::Remove { client } => stage.borrow_mut().remove(client),
        Action::Swap { server } => {
            // A task of its own, so that it is completed even if the page does not wait.
            let swapped = spawn_local(swap(Rc::clone(stage), servers::named(&server)?));
            swapped.await.context("starting the server panicked")?
        }
        Action::Stop => {
            stage.borrow_mut().end = Instant::now();
            stage.borrow_mut().pages.clear();
            Ok(())
        }
    }
}

/// Ends the server, and starts another to which the clients connect.
pub(super) async fn swap(stage: Rc<RefCell<Stage>>, entry: &'static Entry) -> Result<()> {
    ensure!(
        !entry.uses_io_uring(),
        "{} submits its calls through io_uring, where strace does not see them: choose another server",
        entry.name
    );
    ensure!(!stage.borrow().is_swapping, "a server is being started: wait for it");
    stage.borrow_mut().is_swapping = true;
    let stopped = close(&stage).await;
    stage.borrow_mut().entry = entry;
    let started = Traced::start(entry).await;
    let mut stage = stage.borrow_mut();
    stage.is_swapping = false;
    stage.open(started.with_context(|| format!("cannot start {}", entry.name)))?;
    stopped
}

/// Closes the clients' connections and ends the server.
pub(super) async fn close(stage: &RefCell<Stage>) -> Result<()> {
    stage.borrow_mut().clients.iter_mut().for_each(Client::disconnect);
    let traced = stage.borrow_mut().traced.take();
    match traced {
        Some(traced) => traced.stop().await.context("cannot end the server"),
        None => Ok(()),
    }
}

/// Sends events to the pages, until none has been open for a while.
pub(super) async fn stream(stage: &RefCell<Stage>) {
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while !stage.borrow_mut().is_over() {
        stage.borrow_mut().send();
        ticks.tick().await;
    }
}

/// The interval at which a page is updated. A person hardly notices so short a delay.
const TICK: Duration = Duration::from_millis(100);
/// The time that a page shows.
pub(super) const WINDOW: Micros = 10_000_000;
/// The most clients at a time.
const MOST_CLIENTS: usize = 200;
/// The most pages at a time.
const MOST_PAGES: usize = 4;
/// The most events that wait for a page to read them. If there are more, the page is dropped.
const UNREAD: usize = 50;
