//! The HTTP server of the page: it serves the page and its events, and carries out its actions.

use std::cell::RefCell;
use std::convert::Infallible;
use std::fmt::Write;
use std::net::Ipv4Addr;
use std::rc::Rc;

use anyhow::{Context, Error, Result};
use http_body_util::channel::Channel;
use http_body_util::{BodyExt, Limited};
use hyper::body::{Bytes, Frame, Incoming};
use hyper::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HOST, REFERRER_POLICY};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use rustix::rand::{GetRandomFlags, getrandom};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use super::page;
use super::stage::{self, Stage};

/// A listener, and the address under which it answers.
pub(super) struct Site {
    listener: TcpListener,
    /// The loopback address and the port, as a browser names them.
    host: String,
    /// The token, between slashes.
    folder: String,
}

impl Site {
    /// Listens on a free port.
    pub(super) async fn open() -> Result<Rc<Site>> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.context("cannot listen")?;
        let host = listener.local_addr()?.to_string();
        let mut token = [0; 16];
        getrandom(&mut token[..], GetRandomFlags::empty()).context("no random bytes")?;
        let mut folder = "/".to_owned();
        token.iter().for_each(|byte| _ = write!(folder, "{byte:02x}"));
        Ok(Rc::new(Site { listener, host, folder: folder + "/" }))
    }

    /// Returns the address of the page.
    pub(super) fn address(&self) -> String {
        format!("http://{}{}", self.host, self.folder)
    }

    /// Answers requests until the listener fails.
    pub(super) async fn serve(self: &Rc<Site>, stage: &Rc<RefCell<Stage>>) -> Error {
        let mut connections = JoinSet::new();
        loop {
            let stream = match self.listener.accept().await {
                Ok((stream, _)) => stream,
                Err(error) => return Error::new(error).context("cannot accept a connection of the page"),
            };
            while connections.try_join_next().is_some() {}
            if connections.len() < MOST_CONNECTIONS {
                let (site, stage) = (Rc::clone(self), Rc::clone(stage));
                let answer = move |request| {
                    let (site, stage) = (Rc::clone(&site), Rc::clone(&stage));
                    async move { Ok::<_, Infallible>(site.answer(request, &stage).await) }
                };
                let stream = TokioIo::new(stream);
                // The error of a connection is ignored, because the browser opens another one.
                connections.spawn_local(
                    http1::Builder::new().timer(TokioTimer::new()).serve_connection(stream, service_fn(answer)),
                );
            }
        }
    }

    async fn answer(&self, request: Request<Incoming>, stage: &Rc<RefCell<Stage>>) -> Response<Channel<Bytes>> {
        // Another site may let its own name resolve to this address (DNS rebinding).
        if request.headers().get(HOST).is_none_or(|host| *host != self.host) {
            return text(StatusCode::FORBIDDEN, "error: this is not the address of the page");
        }
        let path = request.uri().path().strip_prefix(&self.folder);
        match (request.method(), path) {
            (&Method::GET, Some("")) => content(StatusCode::OK, "text/html; charset=utf-8", &page::html()),
            (&Method::GET, Some("events")) => match stage.borrow_mut().open_page() {
                Ok(events) => response(StatusCode::OK, "text/event-stream", events),
                Err(error) => text(StatusCode::SERVICE_UNAVAILABLE, &format!("error: {error:#}")),
            },
            (&Method::POST, Some("actions")) => match act(request.into_body(), stage).await {
                Ok(()) => text(StatusCode::OK, "done"),
                Err(error) => text(StatusCode::CONFLICT, &format!("error: {error:#}")),
            },
            _ => text(StatusCode::NOT_FOUND, "error: there is no such page"),
        }
    }
}

async fn act(body: Incoming, stage: &Rc<RefCell<Stage>>) -> Result<()> {
    let body = Limited::new(body, LONGEST_ACTION).collect().await.map_err(Error::from_boxed)?;
    stage::act(stage, serde_json::from_slice(&body.to_bytes())?).await
}

fn text(status: StatusCode, text: &str) -> Response<Channel<Bytes>> {
    content(status, "text/plain; charset=utf-8", text)
}

fn content(status: StatusCode, kind: &'static str, content: &str) -> Response<Channel<Bytes>> {
    let (mut sender, body) = Channel::new(1);
    let sent = sender.try_send(Frame::data(Bytes::copy_from_slice(content.as_bytes())));
    sent.expect("there is room for one");
    response(status, kind, body)
}

fn response(status: StatusCode, kind: &'static str, body: Channel<Bytes>) -> Response<Channel<Bytes>> {
    let headers = [
        (CONTENT_TYPE, kind),
        (CACHE_CONTROL, "no-store"),
        (CONTENT_SECURITY_POLICY, POLICY),
        (REFERRER_POLICY, "no-referrer"),
    ];
    let response = headers
        .into_iter()
        .fold(Response::builder().status(status), |response, (name, value)| response.header(name, value));
    response.body(body).expect("the names and the values of the headers are valid")
}

/// The page asks this address only, and no other site may show it in a frame.
const POLICY: &str = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; connect-src 'self'; \
                      img-src data:; frame-ancestors 'none'; base-uri 'none'; form-action 'none'";
/// The most connections at a time. A browser opens six.
const MOST_CONNECTIONS: usize = 32;
/// The most bytes of an action.
const LONGEST_ACTION: usize = 1024;
