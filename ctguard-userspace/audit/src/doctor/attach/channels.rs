//! How many queues a card has, and needs.

use super::{super::finding::Finding, Card, native};

/// What keeps the driver from giving XDP the queues that it sends with.
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
    let channels = channels.filter(|it| it.combined.saturating_mul(2) > it.combined_max)?;
    let most = channels.combined_max / 2;
    // Of one queue there is no half.
    let what = format!("{name} uses {} of {} queues", channels.combined, channels.combined_max);
    let read = |finding: Finding| {
        finding
            .read(format!("ethtool: channels of {name}"), format!("combined {}", channels.combined))
            .because(
                "ena needs as many again to send with under XDP, and refuses the program: generic \
                 XDP is used then, which works as well and costs more; with half of them fewer \
                 CPUs share what arrives",
            )
    };
    Some(match most {
        0 => read(Finding::note("channels", what)),
        most => read(Finding::warning("channels", what))
            .by_hand(format!("ethtool -L {name} combined {most}")),
    })
}

/// `bnxt_xdp_set`, `drivers/net/ethernet/broadcom/bnxt/bnxt_xdp.c`.
fn combined(card: &Card) -> Option<Finding> {
    let Card { name, channels, .. } = card;
    let channels = channels.filter(|it| it.receive > 0)?;
    Some(
        Finding::warning("channels", format!("{name} has queues that only receive"))
            .read(format!("ethtool: channels of {name}"), format!("rx {}", channels.receive))
            .because(
                "bnxt_en refuses native XDP unless all are combined: generic XDP is used then, \
                 which works as well and costs more",
            )
            .by_hand(format!("ethtool -L {name} rx 0 tx 0 combined {}", channels.receive)),
    )
}

/// `virtnet_xdp_set`, `drivers/net/virtio_net.c`: since Linux 5.13 no refusal.
fn locked(card: &Card, cpus: u32) -> Option<Finding> {
    let Card { name, channels, .. } = card;
    let channels = channels.filter(|it| it.combined.saturating_add(cpus) > it.combined_max)?;
    let (combined, most) = (channels.combined, channels.combined_max);
    Some(
        Finding::note(
            "channels",
            format!(
                "{name} uses {combined} of {most} queues, and has none to spare for {cpus} CPUs"
            ),
        )
        .read(format!("ethtool: channels of {name}"), format!("combined {combined} of {most}"))
        .because(
            "under native XDP answers to challenges take turns with what else is sent; nothing is \
             refused for it. The hypervisor gives more (QEMU: mq=on, queues=)",
        ),
    )
}

/// One queue, one CPU.
pub(super) fn single(card: &Card) -> Option<Finding> {
    let Card { name, channels, is_hardware, .. } = card;
    let channels = channels.filter(|it| it.receiving() == 1 && *is_hardware)?;
    let finding = Finding::note("queues", format!("{name} has one queue for what arrives"))
        .read(format!("ethtool: channels of {name}"), "1");
    Some(if channels.combined_max > 1 {
        let most = channels.combined_max;
        finding
            .because(format!("one CPU takes all of a flood, and the card has {most} queues"))
            .by_hand(format!("ethtool -L {name} combined {most}"))
    } else {
        finding.because("one CPU takes all of a flood, and the card has no more")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Severity;
    use ctguard_kernel::net::{Channels, Offloads};

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
