//! The guarded interfaces: which entry a device has, and that it has one only.

use std::collections::BTreeSet;

use ctguard_kernel::{
    bpf::Mode,
    net::{Link, Stations},
};

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Guarded {
    pub(crate) name: String,
    pub(crate) ifindex: u32,
    pub(crate) mode: Mode,
    /// It exists and the program is on it.
    pub(crate) attached: bool,
    pub(crate) stations: Stations,
    /// The operator's names that led to it; see [`crate::interfaces::Held`].
    pub(crate) names: Vec<String>,
}

impl Guarded {
    /// As [`position_of`] takes it.
    pub(super) fn entry(&self) -> (&str, u32, bool) {
        (&self.name, self.ifindex, self.attached)
    }
}

/// Position of the entry that guards `link`, or will as soon as the guard has seen that `link` has come
/// in the place of a device that is gone. An entry is a name, an index, and whether the program is there:
/// the index of a device that is gone may be another's now.
pub(crate) fn position_of<'e>(
    mut entries: impl Iterator<Item = (&'e str, u32, bool)> + Clone,
    links: &[Link],
    link: &Link,
) -> Option<usize> {
    let is_there = |index: u32| links.iter().any(|link| link.index == index);
    entries
        .clone()
        .position(|(name, ifindex, is_attached)| {
            ifindex == link.index && (is_attached || name == link.name)
        })
        .or_else(|| {
            entries.position(|(name, index, is_attached)| {
                name == link.name && !(is_attached && is_there(index))
            })
        })
}

/// Position of the entry that guards device `ifindex`, other than the one at `position`.
pub(super) fn another_of(interfaces: &[Guarded], position: usize, ifindex: u32) -> Option<usize> {
    let mut all = interfaces.iter().enumerate();
    all.find(|(other, it)| *other != position && it.ifindex == ifindex).map(|(other, _)| other)
}

/// Has the entry at `other` stand for the one at `position`, which goes.
pub(super) fn merge(interfaces: &mut Vec<Guarded>, position: usize, other: usize) -> Guarded {
    let former = interfaces[position].clone();
    merge_names(&mut interfaces[other].names, &former.names);
    interfaces.remove(position)
}

/// Positions of entries that are not in `stays` and whose device no entry there has.
pub(crate) fn gone(ifindices: &[u32], stays: &BTreeSet<usize>) -> Vec<usize> {
    let is_kept = |ifindex| stays.iter().any(|&other| ifindices[other] == ifindex);
    let positions = (0..ifindices.len()).filter(|position| !stays.contains(position));
    positions.filter(|&position| !is_kept(ifindices[position])).collect()
}

/// Removes the entries whose position is not in `stays`; returns those whose device no other entry has.
/// One entry stays for each device.
pub(super) fn keep(interfaces: &mut Vec<Guarded>, stays: &BTreeSet<usize>) -> Vec<Guarded> {
    let (mut kept, mut leaving) = (Vec::<Guarded>::new(), Vec::new());
    for (position, guarded) in std::mem::take(interfaces).into_iter().enumerate() {
        if !stays.contains(&position) {
            leaving.push(guarded);
        } else if let Some(own) = kept.iter_mut().find(|own| own.ifindex == guarded.ifindex) {
            merge_names(&mut own.names, &guarded.names);
        } else {
            kept.push(guarded);
        }
    }
    leaving.retain(|it| kept.iter().all(|own| own.ifindex != it.ifindex));
    *interfaces = kept;
    leaving
}

/// Names that lead to a device of another name, with that. Not those that are another device's own.
pub(super) fn elsewhere(interfaces: &[Guarded]) -> Vec<(String, String)> {
    let is_device = |name: &String| interfaces.iter().any(|it| it.name == *name);
    let of_one = |it: &Guarded| {
        let names = it.names.iter().filter(|name| !is_device(name));
        names.map(|name| (name.clone(), it.name.clone())).collect::<Vec<_>>()
    };
    interfaces.iter().flat_map(of_one).collect()
}

/// A device that is guarded for a reason that is not known stays one.
fn merge_names(names: &mut Vec<String>, more: &[String]) {
    if names.is_empty() || more.is_empty() {
        names.clear();
        return;
    }
    let new: Vec<_> = more.iter().filter(|name| !names.contains(name)).cloned().collect();
    names.extend(new);
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use ctguard_kernel::net::Surroundings;

    pub(in crate::daemon) fn guarded(name: &str, ifindex: u32, names: &[&str]) -> Guarded {
        let stations = Stations::of(&Surroundings::of(Vec::new(), &[]), &link(ifindex, name));
        Guarded {
            name: name.to_owned(),
            ifindex,
            mode: Mode::Native,
            attached: true,
            stations,
            names: names.iter().map(|name| (*name).to_owned()).collect(),
        }
    }

    pub(in crate::daemon) fn link(index: u32, name: &str) -> Link {
        Link { index, name: name.to_owned(), hardware: 1, ..Link::default() }
    }

    fn names(interfaces: &[Guarded]) -> Vec<&[String]> {
        interfaces.iter().map(|it| &it.names[..]).collect()
    }

    /// Fails when a reload detaches from a named device because another entry for it is not named.
    #[test]
    fn a_device_of_two_entries_stays_while_one_of_them_does() {
        let mut interfaces = vec![guarded("eth0", 9, &["eth0"]), guarded("eth0", 9, &["eth0.100"])];
        let gone = keep(&mut interfaces, &BTreeSet::from([0]));
        assert_eq!((gone.len(), interfaces.len()), (0, 1));
    }

    #[test]
    fn two_entries_of_one_device_become_one_that_has_the_names_of_both() {
        let mut interfaces = vec![
            guarded("eth0", 9, &["eth0"]),
            guarded("lan0", 3, &["lan0"]),
            guarded("eth0", 9, &["eth0", "eth0.100"]),
        ];
        let gone = keep(&mut interfaces, &BTreeSet::from([0, 2]));
        assert_eq!(gone, [guarded("lan0", 3, &["lan0"])]);
        assert_eq!(names(&interfaces), [["eth0", "eth0.100"]]);
    }

    #[test]
    fn an_entry_whose_name_leads_to_another_guarded_device_becomes_part_of_that_devices_entry() {
        let mut interfaces = vec![guarded("old0", 4, &["old0"]), guarded("eth0", 2, &["eth0"])];
        assert_eq!(another_of(&interfaces, 0, 2), Some(1));
        assert_eq!(another_of(&interfaces, 1, 2), None);
        assert_eq!(merge(&mut interfaces, 0, 1).ifindex, 4);
        assert_eq!(names(&interfaces), [["eth0", "old0"]]);
    }

    #[test]
    fn a_name_that_leads_to_another_device_is_told_apart() {
        let interfaces =
            [guarded("eth0", 2, &["eth0", "eth0.100", "lan0"]), guarded("lan0", 3, &["lan0"])];
        assert_eq!(elsewhere(&interfaces), [("eth0.100".to_owned(), "eth0".to_owned())]);
    }

    #[test]
    fn a_reason_that_is_not_known_stays_unknown() {
        let mut interfaces = vec![guarded("old0", 4, &["old0"]), guarded("eth0", 2, &[])];
        merge(&mut interfaces, 0, 1);
        assert!(interfaces[0].names.is_empty());
    }

    /// Fails when a device that was made again gets a second entry before the first has followed it.
    #[test]
    fn a_device_that_was_made_again_has_the_entry_of_its_predecessor() {
        let entries = [("eth1", 2, true), ("eth0", 5, true)];
        let position =
            |links: &[Link], link: &Link| position_of(entries.iter().copied(), links, link);
        let new = link(9, "eth0");
        assert_eq!(position(&[link(2, "eth1"), new.clone()], &new), Some(1));
        assert_eq!(position(&[link(2, "eth1")], &link(2, "eth1")), Some(0));
        // The predecessor has another name now.
        assert_eq!(position(&[link(5, "dsl0"), new.clone()], &new), None);
    }

    /// Fails when a device is said to be guarded that got the index of one that is gone, and is open.
    #[test]
    fn a_device_that_got_the_index_of_one_that_is_gone_has_no_entry() {
        let entries = [("wan0", 5, false)];
        let position =
            |links: &[Link], link: &Link| position_of(entries.iter().copied(), links, link);
        let (late, back) = (link(5, "late0"), link(9, "wan0"));
        assert_eq!(position(std::slice::from_ref(&late), &late), None);
        assert_eq!(position(&[late, back.clone()], &back), Some(0));
        assert_eq!(position(&[link(5, "wan0")], &link(5, "wan0")), Some(0));
    }
}
