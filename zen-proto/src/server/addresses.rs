//! Addresses of the command line: HOST, and where `--metrics` listens.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs};

use anyhow::{Result, bail};

/// Parses HOST, a name or an address. A port in it is a common mistake, and the error says where the port goes.
pub(super) fn parse_host(text: &str) -> Result<String, String> {
    // `8080` or `localhost:8080`, but not the `::1` of IPv6.
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !host.contains(':') || host.ends_with(']') => (host, port),
        _ => ("", text),
    };
    if port.is_empty() || !port.bytes().all(|byte| byte.is_ascii_digit()) {
        // The C library reads 1.8080 as 1.0.31.144, and 127.1 as 127.0.0.1.
        let is_numeric = text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
        if is_numeric && text.split('.').any(|number| number.parse().is_ok_and(|number: u64| number > 255)) {
            return Err("an IPv4 address has four numbers up to 255, and a port goes into -p".to_owned());
        }
        return Ok(text.to_owned());
    }
    Err(format!("use {}", format!("{host} -p {port}").trim_start()))
}

/// Parses `[ADDRESS:]PORT` of `--metrics`. The default address is a loopback address.
///
/// # Errors
///
/// The text is neither a port nor an address with a port.
pub(super) fn parse_metrics_address(text: &str) -> Result<SocketAddr, String> {
    let (host, port) = text.rsplit_once(':').unwrap_or((LOCALHOST, text));
    let port = port.parse().ok().filter(|_| !host.is_empty()).ok_or("write PORT, or ADDRESS:PORT")?;
    let addresses = resolve(host, port).map_err(|error| error.to_string())?;
    addresses.first().copied().ok_or_else(|| "the name has no address".to_owned())
}

/// Returns the addresses to try: IPv4 first, otherwise in the order of the resolver. For HOST '' it is `[::]`, then
/// `0.0.0.0`.
pub(super) fn resolve(host: &str, port: u16) -> Result<Vec<SocketAddr>> {
    if host.is_empty() {
        let everywhere: [IpAddr; 2] = [Ipv6Addr::UNSPECIFIED.into(), Ipv4Addr::UNSPECIFIED.into()];
        return Ok(everywhere.map(|address| SocketAddr::new(address, port)).to_vec());
    }
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    let Ok(addresses) = (bare, port).to_socket_addrs() else {
        let what = match bare.split_once('%') {
            Some((address, _)) if takes_no_interface(address) => format!("only link-local ones take %: use {address}"),
            Some(_) => "check the interface after %".to_owned(),
            None => "check the name, or give an address".to_owned(),
        };
        bail!("cannot find an address for {host:?}: {what}");
    };
    let mut addresses: Vec<_> = addresses.map(with_canonical_ip).collect();
    if addresses.iter().any(|address| address.ip().is_multicast()) {
        bail!("{host} is a multicast address, which TCP cannot use: choose an address of this machine");
    }
    addresses.sort_by_key(SocketAddr::is_ipv6); // keeps the order within a family
    addresses.dedup();
    Ok(addresses)
}

/// Converts an IPv4-mapped IPv6 address (`::ffff:127.0.0.1`) to IPv4. Other addresses keep their interface.
pub(super) fn with_canonical_ip(mut address: SocketAddr) -> SocketAddr {
    address.set_ip(address.ip().to_canonical());
    address
}

/// Returns whether this is an address after which `%INTERFACE` is not permitted: neither link-local nor multicast.
fn takes_no_interface(address: &str) -> bool {
    address.parse().is_ok_and(|ip: IpAddr| match ip {
        IpAddr::V4(_) => true,
        IpAddr::V6(ip) => !ip.is_unicast_link_local() && !ip.is_multicast(),
    })
}

/// Returns whether an address is link-local and has no interface.
pub(super) fn lacks_interface(address: SocketAddr) -> bool {
    matches!(address, SocketAddr::V6(address) if address.ip().is_unicast_link_local() && address.scope_id() == 0)
}

/// The address of a PORT without an address.
const LOCALHOST: &str = "127.0.0.1";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_not_taken_for_a_host() {
        assert_eq!(parse_host("8080"), Err("use -p 8080".to_owned()));
        assert_eq!(parse_host(":8080"), Err("use -p 8080".to_owned()));
        assert_eq!(parse_host("localhost:80"), Err("use localhost -p 80".to_owned()));
        assert_eq!(parse_host("[fe80::1%lo]:80"), Err("use [fe80::1%lo] -p 80".to_owned()));
        assert!(["1.8080", "127.0.0.1.8080", "256.1"].iter().all(|host| parse_host(host).is_err()));
        for host in ["", "localhost", "127.1", "::1", "::", "[::1]", "fe80::1%lo", "[fe80::1%lo]", "1060.example"] {
            assert_eq!(parse_host(host), Ok(host.to_owned()));
        }
    }

    #[test]
    fn a_port_alone_is_on_this_machine() {
        assert_eq!(parse_metrics_address("9160"), Ok(([127, 0, 0, 1], 9160).into()));
        assert_eq!(parse_metrics_address("0.0.0.0:0"), Ok(([0, 0, 0, 0], 0).into()));
        assert_eq!(parse_metrics_address("[::1]:80"), Ok((Ipv6Addr::LOCALHOST, 80).into()));
        assert!(
            ["", "65536", "127.0.0.1", ":80", "no.such.name.invalid:80"]
                .iter()
                .all(|text| parse_metrics_address(text).is_err())
        );
    }

    #[test]
    fn an_address_may_name_its_interface() {
        let scope = |text: &str| match parse_metrics_address(text) {
            Ok(SocketAddr::V6(address)) => Some(address.scope_id()),
            _ => None,
        };
        // 1 is the loopback, in every network namespace.
        let zones = ["[fe80::1%lo]:80", "fe80::1%lo:80", "[fe80::1%1]:80", "fe80::1%1:80"];
        assert_eq!(zones.map(scope), [Some(1); 4]);
        assert_eq!(scope("[fe80::1]:80"), Some(0)); // refused when it is bound, as HOST is
        assert!(
            parse_metrics_address("[fe80::1%nowhere]:80").is_err_and(|error| error.contains("the interface after %"))
        );
    }

    #[test]
    fn only_ipv4_in_the_form_of_ipv6_is_changed() {
        let shown = |address: &str| with_canonical_ip(address.parse().expect("an address")).to_string();
        assert_eq!(shown("[::ffff:127.0.0.1]:80"), "127.0.0.1:80");
        assert_eq!(shown("[fe80::1%2]:80"), "[fe80::1%2]:80");
    }
}
