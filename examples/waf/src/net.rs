//! Networks: which peers are proxies whose word counts.

use std::collections::HashSet;
use std::net::IpAddr;
use std::str::FromStr;

use serde::de::{Deserialize, Deserializer, Error as _};

/// Addresses that begin with the same bits: `10.0.0.0/8`, or one address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    first: u128,
    bits: u32,
}

impl Network {
    pub fn contains(&self, address: IpAddr) -> bool {
        let differing = 128 - self.bits;
        differing == 128 || (mapped(address) ^ self.first) >> differing == 0
    }
}

/// Many networks, in which an address is found as quickly as among few.
#[derive(Clone, Default)]
pub struct Networks(Vec<(u32, HashSet<u128>)>);

impl Networks {
    /// Reads a list: a network a line; what follows a `#` is a remark. Gives the line that is none.
    pub fn parse(text: &str) -> Result<Vec<Network>, (usize, String)> {
        let content = |line: &str| line.split('#').next().unwrap_or_default().trim().to_owned();
        let lines = text.lines().map(content).enumerate().filter(|(_, line)| !line.is_empty());
        lines.map(|(at, line)| line.parse().map_err(|error| (at + 1, error))).collect()
    }

    pub fn contains(&self, address: IpAddr) -> bool {
        let address = mapped(address);
        self.0.iter().any(|(bits, networks)| networks.contains(&masked(address, *bits)))
    }
}

impl FromIterator<Network> for Networks {
    fn from_iter<I: IntoIterator<Item = Network>>(networks: I) -> Networks {
        let mut by_bits: Vec<(u32, HashSet<u128>)> = Vec::new();
        for Network { first, bits } in networks {
            let first = masked(first, bits);
            match by_bits.iter_mut().find(|(other, _)| *other == bits) {
                Some((_, same)) => drop(same.insert(first)),
                None => by_bits.push((bits, HashSet::from([first]))),
            }
        }
        Networks(by_bits)
    }
}

fn masked(address: u128, bits: u32) -> u128 {
    if bits == 0 { 0 } else { address & (u128::MAX << (128 - bits)) }
}

/// What tells one customer from another: an address, or with IPv6 its network of 64 bits, in which a customer changes addresses.
pub fn customer(client: IpAddr) -> IpAddr {
    match client {
        IpAddr::V4(_) => client,
        IpAddr::V6(address) => IpAddr::from((address.to_bits() >> 64 << 64).to_be_bytes()),
    }
}

/// An address as one of IPv6, as which a listener for both may see an address of IPv4.
fn mapped(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().to_bits(),
        IpAddr::V6(address) => address.to_bits(),
    }
}

impl FromStr for Network {
    type Err = String;

    fn from_str(text: &str) -> Result<Network, String> {
        let wrong = || format!("{text:?} is no network: write 192.0.2.0/24, 2001:db8::/32, or one address");
        let (address, bits) = text.split_once('/').map_or((text, None), |(address, bits)| (address, Some(bits)));
        let address: IpAddr = address.parse().map_err(|_| wrong())?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let bits = bits.map_or(Ok(most), str::parse).ok().filter(|bits| *bits <= most).ok_or_else(wrong)?;
        Ok(Network { first: mapped(address), bits: bits + 128 - most })
    }
}

impl<'de> Deserialize<'de> for Network {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Network, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::{Network, Networks};

    #[test]
    fn a_list_has_its_networks_and_no_others() {
        let list = Networks::parse("# known\n192.0.2.0/24\n\n198.51.100.7 # one\n2001:db8::/32\n").unwrap();
        let list: Networks = list.into_iter().collect();
        for inside in ["192.0.2.255", "::ffff:192.0.2.1", "198.51.100.7", "2001:db8::1"] {
            assert!(list.contains(inside.parse().unwrap()), "{inside}");
        }
        for outside in ["192.0.3.0", "198.51.100.8", "2001:db9::"] {
            assert!(!list.contains(outside.parse().unwrap()), "{outside}");
        }
        assert_eq!(Networks::parse("10.0.0.1\n\nhost\n").unwrap_err().0, 3);
    }

    #[test]
    fn a_network_has_its_addresses_and_no_others() {
        let holds =
            |network: &str, address: &str| network.parse::<Network>().unwrap().contains(address.parse().unwrap());
        for (network, inside, outside) in [
            ("192.0.2.0/24", "192.0.2.255", "192.0.3.0"),
            ("192.0.2.7", "::ffff:192.0.2.7", "192.0.2.8"),
            ("0.0.0.0/0", "255.0.0.1", "2001:db8::1"),
            ("2001:db8::/32", "2001:db8:ffff::", "2001:db9::"),
            ("::1", "::1", "127.0.0.1"),
        ] {
            assert!(holds(network, inside) && !holds(network, outside), "{network}");
        }
        assert!(holds("::/0", "10.0.0.1"));
        for text in ["", "10.0.0.0/33", "10.0.0/8", "host", "10.0.0.0/-1", "::/129"] {
            assert!(text.parse::<Network>().is_err(), "{text}");
        }
    }
}
