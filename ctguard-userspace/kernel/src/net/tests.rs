//! What a device tells, asked of one whose answers are known: a veth
//! (`drivers/net/veth.c`), in a network namespace of its own.

use std::process::Command;

use super::*;
use crate::conntrack::testing::TestTable;

pub(super) fn run(program: &str, arguments: &[&str]) {
    let status = Command::new(program).args(arguments).status().unwrap();
    assert!(status.success(), "{program} {arguments:?}");
}

fn pair() -> (Link, Link) {
    run("ip", &["link", "add", "one", "numrxqueues", "3", "type", "veth", "peer", "name", "two"]);
    let links = links().unwrap();
    let named = |name: &str| links.iter().find(|link| link.is_named(name)).unwrap().clone();
    (named("one"), named("two"))
}

/// Fails when names and numbers of statistics are not brought together.
#[test]
fn a_veth_tells_its_driver_and_the_number_of_its_peer() {
    let Some(namespace) = TestTable::make("a_veth_tells_its_driver") else { return };
    namespace.run(|| {
        let (one, two) = pair();
        let driver = Driver::of("one").unwrap().unwrap();
        assert_eq!(driver.name, "veth");
        let told = driver.statistics("one", |name| name == "peer_ifindex").unwrap();
        assert_eq!(told.iter().map(|it| it.value).collect::<Vec<_>>(), [u64::from(two.index)]);
        assert_eq!(driver.statistics("one", |name| name == "no_such").unwrap(), []);
        assert_eq!(received_by_queue(&one, Some(&driver)).unwrap(), None, "it counts drops alone");
    });
}

#[test]
fn a_veth_tells_its_xdp_features_and_its_channels() {
    let Some(namespace) = TestTable::make("a_veth_tells_its_xdp_features") else { return };
    namespace.run(|| {
        let (one, _) = pair();
        if let Some(features) = XdpFeatures::of(one.index).unwrap() {
            assert!(features.are_native() && features.have_fragments(), "{features:?}");
        }
        assert_eq!(Channels::of(one.index).unwrap().unwrap().receiving(), 3);
    });
}

/// Fails when the offloads that a device could have are taken for those that are on.
#[test]
fn an_offload_is_on_until_somebody_switches_it_off() {
    let Some(namespace) = TestTable::make("an_offload_is_on_until") else { return };
    namespace.run(|| {
        const OFFLOAD: &str = "rx-vlan-hw-parse";
        let (one, _) = pair();
        let offloads = || Offloads::of(one.index).unwrap().unwrap();
        assert!(offloads().is_on(OFFLOAD) && !offloads().is_fixed(OFFLOAD));
        run("ethtool", &["-K", "one", "rxvlan", "off"]);
        assert!(!offloads().is_on(OFFLOAD) && !offloads().is_fixed(OFFLOAD));
    });
}
