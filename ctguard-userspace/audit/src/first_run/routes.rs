//! Which interfaces have routes: `/proc/net/route` (`fib_route_seq_show`, `net/ipv4/fib_trie.c`) and
//! `/proc/net/ipv6_route` (`rt6_print_ipv6_route`, `net/ipv6/route.c`).

use std::collections::BTreeMap;

use crate::host::{Host, Unread};

const IPV4: &str = "/proc/net/route";
const IPV6: &str = "/proc/net/ipv6_route";
/// `RTF_UP`, and `RTF_REJECT`, `RTF_LOCAL`, `RTF_ANYCAST` of `include/uapi/linux/{ipv6_,}route.h`.
const UP: u32 = 1;
const NOT_TO_OTHERS: u32 = 0x0200 | 0x8000_0000 | 0x0010_0000;

/// Interfaces with a route to other machines, by name; true for those with a default route.
pub(super) fn routes(host: &Host) -> Result<BTreeMap<String, bool>, Unread> {
    let mut found = BTreeMap::new();
    for line in host.text(IPV4)?.unwrap_or_default().lines().skip(1) {
        let words: Vec<_> = line.split_whitespace().collect();
        let [name, destination, _, flags, _, _, _, mask, ..] = words[..] else { continue };
        note(&mut found, name, flags, is_zero(destination) && is_zero(mask));
    }
    for line in host.text(IPV6)?.unwrap_or_default().lines() {
        let words: Vec<_> = line.split_whitespace().collect();
        let [destination, length, .., flags, name] = words[..] else { continue };
        // Each interface has routes for link-local and multicast addresses.
        if !destination.starts_with("fe80") && !destination.starts_with("ff") {
            note(&mut found, name, flags, length == "00");
        }
    }
    Ok(found)
}

fn note(found: &mut BTreeMap<String, bool>, name: &str, flags: &str, is_default: bool) {
    let flags = u32::from_str_radix(flags, 16).unwrap_or_default();
    if flags & UP != 0 && flags & NOT_TO_OTHERS == 0 && name != "lo" {
        *found.entry(name.to_owned()).or_default() |= is_default;
    }
}

fn is_zero(hexadecimal: &str) -> bool {
    hexadecimal.bytes().all(|digit| digit == b'0')
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::testing::Fake;

    #[test]
    fn default_routes_are_told_from_others_in_both_families() {
        let fake = Fake::new(
            "routes",
            &[
                (
                    IPV4,
                    "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\n\
                     wan0\t00000000\t010200C0\t0003\t0\t0\t0\t00000000\t0\t0\t0\n\
                     wan0\t000200C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n\
                     lan0\t0000A8C0\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\t0\t0\n\
                     off0\t00000000\t00000000\t0000\t0\t0\t0\t00000000\t0\t0\t0\n",
                ),
                (
                    IPV6,
                    "20010db8000000000000000000000000 40 00000000000000000000000000000000 00 \
                     00000000000000000000000000000000 00000100 00000001 00000000 00000001     lan6\n\
                     fe800000000000000000000000000000 40 00000000000000000000000000000000 00 \
                     00000000000000000000000000000000 00000100 00000001 00000000 00000001   quiet0\n\
                     00000000000000000000000000000000 00 00000000000000000000000000000000 00 \
                     fe800000000000000000000000000001 00000400 00000001 00000000 00450003     wan6\n\
                     00000000000000000000000000000000 00 00000000000000000000000000000000 00 \
                     00000000000000000000000000000000 ffffffff 00000001 00000000 00200200       lo\n",
                ),
            ],
        );
        let expected = [("lan0", false), ("lan6", false), ("wan0", true), ("wan6", true)];
        let expected = expected.map(|(name, is_default)| (name.to_owned(), is_default));
        assert_eq!(routes(&fake.host).unwrap(), BTreeMap::from(expected));
    }
}
