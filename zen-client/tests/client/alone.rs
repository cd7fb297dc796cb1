//! In a network namespace of its own: a resolver that does not answer, and an address that needs its interface.

use std::process::Command;
use std::time::{Duration, Instant};

use crate::running::{Running, text};

/// Runs a script in namespaces of its own; `None` if this machine does not allow them, or lacks what `prepare` needs.
/// The script finds the client as `$0`.
fn alone(prepare: &str, script: &str) -> Option<(String, Duration)> {
    let script = format!("{{ ip link set lo up && {prepare}; }} >&2 && echo there && exec 2>&1 && {script}");
    if Command::new("unshare").arg("--version").output().is_err() {
        eprintln!("not tested: this machine has no unshare");
        return None;
    }
    let start = Instant::now();
    let mut command = Command::new("unshare");
    command.args(["--user", "--map-root-user", "--net", "--mount", "sh", "-c", &script]);
    let output = Running::of(command.arg(env!("CARGO_BIN_EXE_zen-client"))).output();
    let Some(said) = text(&output.stdout).strip_prefix("there\n") else {
        eprintln!("not tested: {}", text(&output.stderr));
        return None;
    };
    Some((said.to_owned(), start.elapsed()))
}

#[test]
fn an_address_of_an_interface_is_tried() {
    for host in ["fe80::1%lo", "[fe80::1%lo]"] {
        for command in ["", "check", "load", "say ?"] {
            let address = "ip address add fe80::1/64 dev lo nodad";
            let Some((said, _)) = alone(address, &format!("\"$0\" {command} {host}")) else { return };
            // A new network namespace may still be unreachable. Without its interface the address is an invalid
            // argument.
            let error = said.lines().last().unwrap_or_default();
            let is_tried = error.starts_with("error: ") && error.contains(" by [fe80::1%1]:1060: ");
            assert!(is_tried && !error.contains("Invalid argument"), "{command} {host}: {said}");
        }
    }
}

#[test]
fn the_resolver_is_waited_for_within_the_timeout() {
    // Whatever is sent to such an interface is lost.
    let prepare = "{ ip link add silent type dummy || ip tuntap add dev silent mode tun; } && \
        ip address add 192.0.2.1/24 dev silent && ip link set silent up && \
        folder=$(mktemp -d) && echo 'nameserver 192.0.2.2' > $folder/resolv && echo 'hosts: dns' > $folder/nsswitch && \
        mount --bind $folder/resolv /etc/resolv.conf && mount --bind $folder/nsswitch /etc/nsswitch.conf && \
        rm -r $folder";
    for command in ["", "check", "load", "say ?"] {
        let Some((said, took)) = alone(prepare, &format!("\"$0\" {command} server.test --timeout 300ms")) else {
            return;
        };
        let error = "error: no address of 'server.test' was found within 300ms: ";
        assert!(said.starts_with(error) && said.lines().count() == 1, "{command}: {said}");
        assert!(took < Duration::from_secs(4), "{command}: {took:?}, and the resolver takes 10 s");
    }
}
