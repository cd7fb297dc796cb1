//! Options of several commands: the server, and durations.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use clap::Args;

/// The server to connect to.
#[derive(Debug, Clone, Args)]
pub(crate) struct Server {
    /// Name or address of the server; of a name, every address is tried
    #[arg(value_name = "HOST", default_value = Server::DEFAULT_HOST, value_parser = host)]
    pub(crate) host: String,
    /// Port of the server
    #[arg(short, long, default_value_t = 1060, value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) port: u16,
}

impl Server {
    pub(crate) const DEFAULT_HOST: &str = "127.0.0.1";
}

/// Parses a name or an address. The name of a command is refused, as in `zen-client -p 1060 check`.
fn host(text: &str) -> Result<String, String> {
    if COMMANDS.contains(&text) {
        return Err("this is a command, and a command comes first".to_owned());
    }
    if text.is_empty() {
        return Err("a name or an address is missing".to_owned());
    }
    if text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(format!("digits alone are a port: use -p {text}"));
    }
    // The C library reads 1.8080 as 1.0.31.144, and 127.1 as 127.0.0.1.
    let is_numeric = text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    if is_numeric && text.split('.').any(|number| number.parse().is_ok_and(|number: u64| number > 255)) {
        return Err("an IPv4 address has four numbers up to 255, and a port goes into -p".to_owned());
    }
    let ip = without_brackets(text).parse::<IpAddr>().ok();
    if ip.is_some_and(|ip| ip.is_multicast()) {
        return Err("TCP cannot use a multicast address: write the server's own".to_owned());
    }
    let before_zone = without_brackets(text).split_once('%').map_or("", |(address, _)| address);
    if before_zone.parse().is_ok_and(|ip: IpAddr| !lacks_zone(&SocketAddr::new(ip, 0))) {
        return Err(format!("only a link-local address takes %INTERFACE: use {before_zone}"));
    }
    if ip.is_some_and(|ip| lacks_zone(&SocketAddr::new(ip, 0))) {
        return Err("this address is link-local: append %INTERFACE, as in fe80::1%eth0".to_owned());
    }
    Ok(text.to_owned())
}

/// Strips the brackets around an IPv6 address.
pub(crate) fn without_brackets(host: &str) -> &str {
    host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host)
}

/// Returns whether this is a link-local address without its interface.
pub(crate) fn lacks_zone(address: &SocketAddr) -> bool {
    matches!(address, SocketAddr::V6(address) if address.ip().is_unicast_link_local() && address.scope_id() == 0)
}

/// Parses `10s`, `500ms` or `0`.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text).map_err(|error| format!("{error}; write 10s, 500ms or 0"))
}

/// Parses a duration from `least` to `most`.
pub(crate) fn duration_within(text: &str, least: Duration, most: Duration) -> Result<Duration, String> {
    let duration = duration(text)?;
    if (least..=most).contains(&duration) {
        return Ok(duration);
    }
    let [least, most] = [least, most].map(humantime::format_duration);
    Err(format!("must be {least} to {most}"))
}

/// The names of the commands, which are never taken for a host.
pub(crate) const COMMANDS: [&str; 4] = ["check", "say", "load", "selftest"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_zero_needs_no_unit() {
        assert_eq!(duration("10s"), Ok(Duration::from_secs(10)));
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("0"), Ok(Duration::ZERO));
        for wrong in ["", "10", "-1s", "1.5.2s", "s", "99999999999999999999s", "soon"] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
    }
}
