//! Two hosts on one network: what a server does not notice, and at which addresses clients reach it.

use std::io::ErrorKind;
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::Experiment;
use super::fixture::{ESTABLISHED, connections, ms, time_answer};
use super::notes::{Notes, Text};
use crate::harness::client::APHORISMS;
use crate::harness::network::{HOST, Network};
use crate::harness::{Client, Server, WAIT_LIMIT};
use crate::servers;

pub(super) const UNPLUGGED: Experiment = Experiment {
    name: "unplugged",
    claim: Text("When a cable is pulled, the kernel reports it.", "网线被拔掉时，内核会告诉你。"),
    question: Text(
        "a client is connected to a server on another host. The client's link goes down. What do both sides see \
         after a second, and what ends it?",
        "客户端连着另一台主机上的服务器。客户端的网络链路断开。一秒后双方各看到什么？靠什么来结束？",
    ),
    run: unplugged,
    why: Text(
        "a connection is an agreement of two kernels, and no packet is needed to keep it. Without packets neither \
         can know that the other is gone: TCP's own keepalive begins after two hours. What ends it is a timeout of \
         the application, and the client's next question, which the kernel repeats for a quarter of an hour before \
         it gives up.",
        "连接是两个内核之间的约定，维持它不需要任何数据包。没有数据包，谁也无从知道对方已经不在：TCP 自己的 keepalive 两小时后才开始。\
         能结束它的是应用的超时；而客户端的下一个问题，内核会重发一刻钟才放弃。",
    ),
    read: &["zen-proto/src/conversation.rs", "zen-poll/src/event_loop.rs"],
    is_alone: false,
    is_slow: false,
};

fn unplugged(notes: &mut Notes) -> Result<()> {
    let network = Network::make()?;
    let patient = start(&network, "poll", &[HOST, "--idle-timeout", "0", "-v"])?;
    let strict = start(&network, "poll", &[HOST, "--idle-timeout", "500ms", "-v"])?;
    network.as_client(|| {
        let connect = |server: &Server| -> Result<Client> {
            let mut client = Client::connect(server.address())?;
            time_answer(&mut client)?;
            Ok(client)
        };
        let (mut left, _strict) = (connect(&patient)?, connect(&strict)?);
        network.cut()?;
        notes.doing("the link is down");
        thread::sleep(Duration::from_secs(1));
        // The client's kernel takes a question, and delivers it to no process.
        left.send(APHORISMS[0].0).context("send() while the link is down")?;
        let of = |server: &Server| {
            connections(&server.pid().to_string(), server.address().port(), ESTABLISHED).map(|all| all.len())
        };
        saw!(
            notes,
            "the link is down for 1 s. The client sends a question without an error; the server without a timeout \
             has {count} connection in ESTABLISHED",
            "链路断开 1 秒。客户端发送问题并不报错；没有超时的服务器仍有 {count} 个连接处于 ESTABLISHED",
            count = of(&patient)?,
        );
        ensure!(of(&patient)? == 1, "expected the server without a timeout to keep the connection");
        strict.logs(" closed: ")?;
        ensure!(of(&strict)? == 0, "expected the server with a timeout to close the connection");
        saw!(
            notes,
            "the server with --idle-timeout 500ms has closed its connection; the kernel has reported nothing",
            "设了 --idle-timeout 500ms 的服务器已经关闭它，内核始终一言未发"
        );
        network.mend()?;
        left.expect(APHORISMS[0].1).context("the question of before, when the link is up again")?;
        saw!(
            notes,
            "the link is up again: the question arrives after all, and is answered",
            "链路恢复：问题终于送达，并得到回答"
        );
        Ok(())
    })
}

pub(super) const LOOPBACK: Experiment = Experiment {
    name: "loopback",
    claim: Text(
        "A server on 127.0.0.1 in a container can be reached from outside.",
        "容器里监听 127.0.0.1 的服务器可以从外面访问。",
    ),
    question: Text(
        "a server runs in a network namespace of its own, as in a container, and a client outside. It listens on \
         127.0.0.1, then on every address. What does the client get?",
        "服务器像在容器里一样运行在自己的网络命名空间中，客户端在外面。它先监听 127.0.0.1，再监听所有地址。客户端分别得到什么？",
    ),
    run: loopback,
    why: Text(
        "every network namespace has a loopback of its own, so 127.0.0.1 means: only from this container. A packet \
         from outside is for the container's own address, and no program listens there. Bind to every address (HOST \
         ''), and let the firewall or the published port decide.",
        "每个网络命名空间都有自己的回环接口，所以 127.0.0.1 的意思是：只限本容器内部。外面来的数据包发往容器自己的地址，那里没有人监听。\
         应绑定所有地址（HOST 写成 ''），由防火墙或端口发布来决定谁能访问。",
    ),
    read: &["zen-proto/src/server/addresses.rs"],
    is_alone: false,
    is_slow: false,
};

fn loopback(notes: &mut Notes) -> Result<()> {
    let network = Network::make()?;
    let inside = start(&network, "poll", &["127.0.0.1"])?;
    let outside = |server: &Server| SocketAddr::new(HOST.parse().expect("an address"), server.address().port());
    let refused = network.as_client(|| Ok(TcpStream::connect_timeout(&outside(&inside), WAIT_LIMIT)))?;
    let error = refused.err().context("connected from outside to a server on 127.0.0.1")?;
    saw!(notes, "it listens on 127.0.0.1: from outside, {error}", "监听 127.0.0.1：从外面访问，{error}");
    ensure!(error.kind() == ErrorKind::ConnectionRefused, "{error:?}");
    let everywhere = start(&network, "poll", &[""])?;
    let time = network.as_client(|| time_answer(&mut Client::connect(outside(&everywhere))?))?;
    saw!(
        notes,
        "it listens on every address ({address}): from outside, an answer in {time}",
        "监听所有地址（{address}）：从外面访问，{time} 后得到回答",
        address = everywhere.address(),
        time = ms(time),
    );
    Ok(())
}

/// Starts a server of the list on the servers' host.
fn start(network: &Network, name: &str, arguments: &[&str]) -> Result<Server> {
    let [nsenter, namespace] = network.wrapper();
    Server::start_under(&[&nsenter, &namespace], servers::named(name)?, arguments)
}
