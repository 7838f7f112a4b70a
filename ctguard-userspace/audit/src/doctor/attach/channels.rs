//! How many queues a network card has, and needs.

use super::{
    super::finding::{Finding, Severity},
    card::Card,
    native,
};
use ctguard_kernel::net::Channels;

/// Why the driver cannot give XDP queues to send with.
pub(super) fn for_native(card: &Card, cpus: Option<u32>) -> Option<Finding> {
    match card.driver.as_str() {
        "ena" => half(card),
        "bnxt_en" => combined(card),
        "virtio_net" if native::merging(card).is_none() => locked(card, cpus?),
        _ => None,
    }
}

/// `ena_xdp_legal_queue_count`, `drivers/net/ethernet/amazon/ena/ena_xdp.h`.
fn half(card: &Card) -> Option<Finding> {
    let Card { name, channels, .. } = card;
    let Channels { combined, combined_max, .. } = (*channels)?;
    let most = combined_max / 2;
    let what = format!("{name} uses {combined} of {combined_max} queues");
    let severity = if most == 0 { Severity::Note } else { Severity::Warning };
    let finding = Finding::of("channels", severity, what)
        .read(format!("ethtool: channels of {name}"), format!("combined {combined}"))
        .because(
            "with XDP, ena needs as many queues again to send with, and refuses the program: generic \
             XDP is used instead, which protects as well at more CPU time. With half the queues, \
             fewer CPUs share the incoming packets",
        );
    let fewer = (most > 0).then(|| format!("ethtool -L {name} combined {most}"));
    let finding = fewer.into_iter().fold(finding, Finding::by_hand);
    finding.when(combined.saturating_mul(2) > combined_max)
}

/// `bnxt_xdp_set`, `drivers/net/ethernet/broadcom/bnxt/bnxt_xdp.c`.
fn combined(card: &Card) -> Option<Finding> {
    let (name, receive) = (&card.name, card.channels?.receive);
    Finding::warning("channels", format!("{name} has receive-only queues"))
        .read(format!("ethtool: channels of {name}"), format!("rx {receive}"))
        .because(
            "bnxt_en refuses native XDP unless all queues are combined: generic XDP is used instead, \
             which protects as well at more CPU time",
        )
        .by_hand(format!("ethtool -L {name} rx 0 tx 0 combined {receive}"))
        .when(receive > 0)
}

/// `virtnet_xdp_set`, `drivers/net/virtio_net.c`: since Linux 5.13 no refusal.
fn locked(card: &Card, cpus: u32) -> Option<Finding> {
    let (name, Channels { combined, combined_max: most, .. }) = (&card.name, card.channels?);
    let used = format!("{name} uses {combined} of {most} queues");
    Finding::note("channels", format!("{used}, which leaves too few for {cpus} CPUs"))
        .read(format!("ethtool: channels of {name}"), format!("combined {combined} of {most}"))
        .because(
            "native XDP works, but its answers to challenges share queues with other traffic. The \
             hypervisor can provide more queues (QEMU: mq=on, queues=)",
        )
        .when(combined.saturating_add(cpus) > most)
}

pub(super) fn single(card: &Card) -> Option<Finding> {
    let Card { name, channels, is_hardware, .. } = card;
    let channels = channels.filter(|it| it.receiving() == 1 && *is_hardware)?;
    let finding = Finding::note("queues", format!("{name} receives on one queue"))
        .read(format!("ethtool: channels of {name}"), "1");
    Some(match channels.combined_max {
        0 | 1 => finding.because("one CPU must handle a whole flood; the card has only this queue"),
        most => finding
            .because(format!("one CPU must handle a whole flood, and the card has {most} queues"))
            .by_hand(format!("ethtool -L {name} combined {most}")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::finding::Severity;
    use ctguard_kernel::net::Offloads;

    fn card(driver: &str, combined: u32, combined_max: u32) -> Card {
        let channels = Some(Channels { combined, combined_max, ..Channels::default() });
        let (name, driver) = ("wan0".to_owned(), driver.to_owned());
        Card { name, driver, channels, is_hardware: true, ..Card::default() }
    }

    fn severity(card: &Card) -> Option<Severity> {
        for_native(card, Some(4)).map(|finding| finding.severity)
    }

    #[test]
    fn ena_needs_as_many_queues_again() {
        let found = for_native(&card("ena", 8, 8), None).unwrap();
        assert_eq!(found.severity, Severity::Warning);
        assert_eq!(found.mend[0].command, "ethtool -L wan0 combined 4");
        assert_eq!(severity(&card("ena", 4, 8)), None);
        assert_eq!(severity(&card("ena", 1, 1)), Some(Severity::Note), "nothing mends it");
    }

    #[test]
    fn virtio_without_queues_to_spare_is_no_fault() {
        assert_eq!(severity(&card("virtio_net", 4, 4)), Some(Severity::Note));
        assert_eq!(severity(&card("virtio_net", 4, 8)), None);
    }

    #[test]
    fn virtio_that_refuses_native_xdp_needs_no_queues_for_it() {
        let offloads = Some(Offloads::new(&["rx-gro-hw"], &[]));
        assert_eq!(severity(&Card { offloads, ..card("virtio_net", 4, 4) }), None);
    }

    #[test]
    fn bnxt_wants_combined_queues() {
        assert_eq!(severity(&card("bnxt_en", 8, 8)), None);
        let channels = Some(Channels { receive: 4, receive_max: 8, ..Channels::default() });
        let found = severity(&Card { channels, ..card("bnxt_en", 0, 8) });
        assert_eq!(found, Some(Severity::Warning));
    }

    #[test]
    fn drivers_without_a_rule_have_enough_queues() {
        assert_eq!(severity(&card("veth", 1, 1)), None);
        assert_eq!(severity(&Card { channels: None, ..card("ena", 8, 8) }), None);
    }

    #[test]
    fn one_queue_is_mended_only_where_the_card_has_more() {
        assert!(single(&card("igb", 1, 1)).unwrap().mend.is_empty());
        assert_eq!(single(&card("igb", 1, 4)).unwrap().mend.len(), 1);
        assert!(single(&card("igb", 2, 4)).is_none());
        assert!(single(&Card { is_hardware: false, ..card("veth", 1, 1) }).is_none());
    }
}
