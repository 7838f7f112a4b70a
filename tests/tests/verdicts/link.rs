//! What stands before IP: tags, PPPoE, other stations, interfaces without a slot.

use anyhow::Result;
use ctguard_layout::{Class, Counter, Interface, Outcome, STATIONS};
use ctguard_tests::{data_path::DataPath, frames::flags, require};

use crate::{
    packets::{self, LOCAL, LOCAL6, REMOTE, REMOTE6, in_pppoe, pppoe, tagged},
    row::{self, Row, drops, passes},
};
use Counter::{Flows, Packets, Wakeups};
use Outcome::{Admitted, Exempt, Known, NotOurs, RefusedGrant, RefusedSource, UnknownInterface};

const NEW_TCP: [Counter; 1] = [Flows(Admitted, Class::Tcp)];
const NEW_OTHER: [Counter; 1] = [Flows(Admitted, Class::Other)];
const DOT1Q: u16 = 0x8100;
const DOT1AD: u16 = 0x88a8;
/// The station that the tables' frames are for.
const STATION: u64 = 0x0404_0404_0404;

/// Fails when a flow escapes its judge behind tags or a PPPoE session, when such a frame is charged
/// to another source than the same one bare, or when a frame for another station is charged.
#[test]
fn a_flow_is_judged_behind_tags_and_in_a_pppoe_session() -> Result<()> {
    if !require::root("a_flow_is_judged_behind_tags_and_in_a_pppoe_session") {
        return Ok(());
    }
    row::check(&rows())
}

pub(crate) fn rows() -> Vec<Row> {
    let syn = packets::syn(1);
    let syn6 = packets::tcp(REMOTE6, LOCAL6, 1, flags::SYN);
    let mut rows = Vec::new();
    let dressed = [
        ("802.1Q", tagged(&syn, &[DOT1Q])),
        ("802.1ad", tagged(&syn, &[DOT1AD])),
        ("QinQ", tagged(&syn, &[DOT1AD, DOT1Q])),
        ("two 802.1Q", tagged(&syn, &[DOT1Q, DOT1Q])),
        ("PPPoE", in_pppoe(&syn)),
        ("PPPoE in a VLAN", tagged(&in_pppoe(&syn), &[DOT1Q])),
        ("PPPoE in QinQ", tagged(&in_pppoe(&syn), &[DOT1AD, DOT1Q])),
        ("IPv6 in 802.1Q", tagged(&syn6, &[DOT1Q])),
        ("IPv6 in PPPoE", in_pppoe(&syn6)),
    ];
    for (name, frame) in dressed {
        rows.push(passes(name, frame.clone(), &NEW_TCP));
        let six = name.contains("IPv6");
        rows.push(
            row::refuses(name, frame, RefusedSource, Class::Tcp)
                .after(move |path| exhaust(path, six)),
        );
    }
    let many = tagged(&syn, &[DOT1Q, DOT1Q, DOT1Q]);
    let refused = [Flows(RefusedGrant, Class::Other), Wakeups];
    rows.extend([
        passes("more tags than are read", many.clone(), &NEW_OTHER),
        passes("multilink PPP", pppoe(0x003d, &syn[14..]), &NEW_OTHER),
        passes("compressed PPP", pppoe(0x00fd, &syn[14..]), &NEW_OTHER),
        passes("a PPP protocol of one byte", pppoe(0x2145, &syn[14..]), &NEW_OTHER),
        passes("the same again, told from nothing", many.clone(), &NEW_OTHER)
            .after_arrival_of(many.clone()),
        drops("more tags than are read, no grant", many, &refused).without_grant(),
        passes("an interface without a slot", syn.clone(), &[Packets(UnknownInterface)])
            .after(|path| path.set_interface(|interface| *interface = Interface::FREE)),
        drops(
            "an interface without a slot, no grant",
            syn.clone(),
            &[Flows(RefusedGrant, Class::Tcp), Wakeups],
        )
        .after(|path| path.set_interface(|interface| *interface = Interface::FREE))
        .without_grant(),
        passes("an answer there", packets::udp_to(REMOTE, LOCAL, 53, 4000), &[Packets(Known)])
            .after_departure_of(packets::udp_to(LOCAL, REMOTE, 4000, 53))
            .after(|path| path.set_interface(|interface| *interface = Interface::FREE))
            .without_grant(),
    ]);
    rows.extend(stations(&syn));
    rows
}

fn stations(syn: &[u8]) -> Vec<Row> {
    let another = [STATION + 1; STATIONS];
    let bridge = [STATION + 1, STATION + 1, STATION + 1, STATION];
    let for_group = [&[1, 0, 0x5e, 0, 1, 1], &syn[6..]].concat();
    let arp = packets::ethernet(0x0806, &[0; 28]);
    let promiscuous = |row: Row, stations: [u64; STATIONS]| {
        row.where_environment(|environment| environment.daemon.stations_in_use = 1)
            .after(move |path| path.set_interface(|interface| interface.stations = stations))
    };
    vec![
        promiscuous(passes("a frame for us", syn.to_vec(), &NEW_TCP), [STATION; STATIONS]),
        promiscuous(passes("a frame for the bridge", syn.to_vec(), &NEW_TCP), bridge),
        promiscuous(passes("a frame for another", syn.to_vec(), &[Packets(NotOurs)]), another),
        promiscuous(passes("ARP for another", arp.clone(), &[Packets(NotOurs)]), another),
        promiscuous(passes("a frame for a group", for_group, &NEW_TCP), another),
        promiscuous(passes("a port that tracks all", syn.to_vec(), &NEW_TCP), [0; STATIONS]),
        passes("ARP", arp, &[Packets(Exempt)]),
    ]
}

fn exhaust(path: &mut DataPath, six: bool) -> Result<()> {
    for port in 100..100 + u16::try_from(row::BURST)? {
        let frame =
            if six { packets::tcp(REMOTE6, LOCAL6, port, flags::SYN) } else { packets::syn(port) };
        path.judge(&frame)?;
    }
    Ok(())
}
