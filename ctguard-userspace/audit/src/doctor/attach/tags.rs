//! VLAN tags that the device removes before XDP sees the frame.

use super::super::{finding::Finding, guard::Health};
use ctguard_kernel::net::{Link, Offloads};

/// `ethtool -K … rxvlan`.
const STRIPS: &str = "rx-vlan-hw-parse";

/// All limits hold without the tag. But the answer to a challenge is the received frame, sent back:
/// it leaves without a tag. Generic XDP keeps the tag in the `sk_buff`.
pub(super) fn judge(
    links: &[Link],
    guard: Option<&Health>,
    link: &Link,
    offloads: &Offloads,
) -> Option<Finding> {
    let name = &link.name;
    let unanswering = guard.is_some_and(|guard| guard.unanswering.contains(name));
    if unanswering || !offloads.is_on(STRIPS) {
        return None;
    }
    let is_child = |child: &&Link| {
        child.is_a("vlan") && child.lower == Some(link.index) && !child.lower_elsewhere
    };
    let child = &links.iter().find(is_child)?.name;
    let what = format!("{name} strips VLAN tags, and {child} is a VLAN on it");
    let finding = Finding::warning("vlan-tags", what)
        .read(format!("ethtool: {STRIPS} of {name}"), "on")
        .because(
            "native XDP does not see the tag and sends answers to challenges without it: new clients \
             on the VLAN cannot connect while the guard challenges",
        );
    let off = (!offloads.is_fixed(STRIPS)).then(|| format!("ethtool -K {name} rxvlan off"));
    let finding = off.into_iter().fold(finding, Finding::by_hand);
    Some(finding.tune(format!("ctguard set interface.{name}.answer=off")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn links() -> Vec<Link> {
        let wan = Link { index: 2, name: "wan0".to_owned(), ..Link::default() };
        let child = Link {
            index: 3,
            name: "wan0.7".to_owned(),
            kind: Some("vlan".to_owned()),
            lower: Some(2),
            ..Link::default()
        };
        vec![wan, child]
    }

    fn found(links: &[Link], guard: Option<&Health>, offloads: &Offloads) -> Option<Finding> {
        judge(links, guard, &links[0], offloads)
    }

    #[test]
    fn a_tag_that_is_stripped_matters_where_there_is_a_vlan() {
        let strips = Offloads::new(&[STRIPS], &[STRIPS]);
        assert_eq!(found(&links(), None, &strips).unwrap().mend.len(), 2);
        assert!(found(&links()[..1], None, &strips).is_none(), "without a VLAN");
        assert!(found(&links(), None, &Offloads::new(&[], &[STRIPS])).is_none());
        let fixed = found(&links(), None, &Offloads::new(&[STRIPS], &[])).unwrap();
        assert!(fixed.mend.iter().all(|mend| mend.reversible), "ethtool cannot mend it");
    }

    #[test]
    fn a_vlan_on_the_same_number_of_another_namespace_is_another_devices() {
        let mut links = links();
        links[1].lower_elsewhere = true;
        assert!(found(&links, None, &Offloads::new(&[STRIPS], &[STRIPS])).is_none());
    }

    #[test]
    fn a_guard_that_answers_nothing_loses_no_tag() {
        let silent = Health { unanswering: vec!["wan0".to_owned()], ..Health::default() };
        assert!(found(&links(), Some(&silent), &Offloads::new(&[STRIPS], &[])).is_none());
    }
}
