//! What a start attaches to: what it is told to guard, and what may be that.

use std::io;

use crate::interfaces::{Held, Plan, interfaces_of_daemon};
use ctguard_kernel::{bpf::Pins, net::Link};

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Targets {
    pub(super) links: Vec<Link>,
    /// The operator's names that lead to each.
    pub(super) names: Vec<Vec<String>>,
    /// How many of them names lead to. An earlier daemon guarded the others, which stay as they are.
    named: usize,
    /// Names to wait for.
    pub(super) absent: Vec<String>,
    /// Those that no interface has.
    pub(super) missing: Vec<String>,
}

impl Targets {
    pub(super) fn new(pins: &Pins, links: &[Link], plan: &Plan) -> io::Result<Self> {
        let mut former = Vec::new();
        if !plan.absent.is_empty() {
            let known = interfaces_of_daemon().unwrap_or_default().held;
            for ifindex in pins.attached()? {
                let names = known.iter().find(|it| it.ifindex == ifindex);
                let names = names.map(|it| it.names.clone()).unwrap_or_default();
                // The filter for what leaves may be gone: it is attached again.
                if pins.has_xdp(ifindex).unwrap_or(false) {
                    former.push(Held { ifindex, names, ..Held::default() });
                }
            }
        }
        Ok(Self::among(links, &former, plan))
    }

    /// While a name leads nowhere, one of the `former` that it may mean stays: a device under a VLAN that
    /// comes late, or one that has another name now.
    fn among(links: &[Link], former: &[Held], plan: &Plan) -> Self {
        let mut targets = Self {
            links: plan.added.clone(),
            names: plan.added.iter().map(|link| plan.names_of(link.index, &[])).collect(),
            named: plan.added.len(),
            absent: plan.absent.clone(),
            missing: plan.missing().cloned().collect(),
        };
        for held in former.iter().filter(|held| held.may_be(&plan.absent)) {
            let is_there = |link: &&Link| link.index == held.ifindex;
            if plan.added.iter().any(|link| is_there(&link)) {
                continue;
            }
            if let Some(link) = links.iter().find(is_there) {
                targets.links.push(link.clone());
                targets.names.push(plan.names_of(link.index, &held.names));
            }
        }
        targets
    }

    /// Whether no name leads to the link at this position.
    pub(super) const fn is_spared(&self, position: usize) -> bool {
        position >= self.named
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(index: u32, name: &str) -> Link {
        Link { index, name: name.to_owned(), hardware: 1, ..Link::default() }
    }

    fn targets(links: &[Link], former: &[(u32, &[&str])], names: &[&str]) -> Targets {
        let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        let former = former.iter().map(|&(ifindex, names)| Held {
            ifindex,
            names: owned(names),
            ..Held::default()
        });
        let names: Vec<String> = owned(names);
        let plan = Plan::of_start(links, &names, |_| false);
        Targets::among(links, &former.collect::<Vec<_>>(), &plan)
    }

    /// Fails when a start lets go of a live device because the name that led to it is missing.
    #[test]
    fn a_device_that_a_missing_name_led_to_is_taken_over() {
        let links = [link(2, "eth0"), link(3, "lan0")];
        let former: [(u32, &[&str]); 2] = [(2, &["eth0.100"]), (3, &["lan0"])];
        let found = targets(&links, &former, &["lan0", "eth0.100"]);
        assert_eq!(found.links, [link(3, "lan0"), link(2, "eth0")]);
        assert_eq!(found.names, [["lan0"], ["eth0.100"]]);
        assert!(!found.is_spared(0) && found.is_spared(1));
    }

    #[test]
    fn one_that_cannot_be_guarded_is_waited_for_and_not_missing() {
        let ppp0 = Link { hardware: 512, ..link(4, "ppp0") };
        let found = targets(&[link(2, "eth0"), ppp0], &[(2, &["ppp0"])], &["ppp0", "late0"]);
        assert_eq!((found.absent.len(), &found.missing[..]), (2, &["late0".to_owned()][..]));
        assert_eq!(found.links, [link(2, "eth0")], "what was guarded for it stays");
    }

    #[test]
    fn one_that_was_guarded_for_a_reason_nobody_knows_is_taken_over_while_a_name_is_missing() {
        let links = [link(2, "eth0"), link(3, "lan0")];
        assert_eq!(targets(&links, &[(2, &[])], &["lan0", "late0"]).links.len(), 2);
        assert_eq!(targets(&links, &[(2, &[])], &["lan0"]).links.len(), 1);
    }

    #[test]
    fn one_that_nobody_names_any_more_or_that_is_gone_is_not_taken_over() {
        let links = [link(2, "eth0"), link(3, "lan0")];
        let former: [(u32, &[&str]); 2] = [(2, &["eth0"]), (9, &["late0"])];
        assert_eq!(targets(&links, &former, &["lan0", "late0"]).links, [link(3, "lan0")]);
    }
}
