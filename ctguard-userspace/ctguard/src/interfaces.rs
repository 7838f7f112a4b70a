//! Which interfaces are guarded for which names, and which names are waited for: a file that the daemon
//! writes and commands read. What becomes of both when other names are configured.

use std::{fs, io, path::PathBuf};

use serde::{Deserialize, Serialize};

use crate::{
    daemon::{gone, position_of},
    files::{FileError, publish},
};
use ctguard_kernel::{
    net::{Link, Refusal, Resolved, lacks_members, resolve},
    run_directory,
};
use ctguard_settings::{InterfaceSettings, Settings};

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Interfaces {
    pub(crate) held: Vec<Held>,
    pub(crate) waiting: Vec<Waited>,
}

/// A guarded interface.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Held {
    pub(crate) name: String,
    pub(crate) ifindex: u32,
    /// The program is on it. Daemons of before did not say so.
    #[serde(default = "yes")]
    pub(crate) is_attached: bool,
    /// The operator's names that led to it: its own, another of its names, that of a VLAN on it. None if
    /// an earlier daemon guarded it for a reason that is not known.
    pub(crate) names: Vec<String>,
}

const fn yes() -> bool {
    true
}

/// A name that cannot be guarded yet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Waited {
    pub(crate) name: String,
    /// Why not, though there is such an interface.
    pub(crate) obstacle: Option<String>,
}

impl Held {
    /// Whether it may be what one of these names means, which no interface has.
    pub(crate) fn may_be(&self, absent: &[String]) -> bool {
        let is_named = self.names.iter().any(|name| absent.contains(name));
        !absent.is_empty() && (self.names.is_empty() || is_named)
    }
}

impl Waited {
    /// `late0 (not there yet)`.
    pub(crate) fn text(&self) -> String {
        match &self.obstacle {
            Some(obstacle) => format!("{} (cannot be guarded: {obstacle})", self.name),
            None => format!("{} (not there yet)", self.name),
        }
    }
}

/// What names ask for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Plan {
    /// Positions of guarded interfaces that stay because a name leads to them …
    pub(crate) kept: Vec<usize>,
    /// … or because a name that leads nowhere may be theirs.
    pub(crate) spared: Vec<usize>,
    /// Devices to attach to.
    pub(crate) added: Vec<Link>,
    /// Names to wait for.
    pub(crate) absent: Vec<String>,
    /// Those that lead to no device that is guarded or can be, also if none is waited for.
    nowhere: Vec<String>,
    /// Of the names to wait for, those of interfaces that are there and cannot be guarded, unless that is
    /// known.
    pub(crate) refused: Vec<(String, Refusal)>,
    /// Those that lead to a bond without members, with that, unless they are waited for already.
    memberless: Vec<(String, String)>,
    /// Where the other names lead.
    leads: Vec<(String, u32)>,
    /// Names that there are, if one leads nowhere.
    pub(crate) existing: Vec<String>,
    /// What the operator should know of the devices to attach to.
    pub(crate) notes: Vec<String>,
}

impl Plan {
    /// For a start, where another guard may have left its program on some devices.
    pub(crate) fn of_start(
        links: &[Link],
        names: &[String],
        has_program: impl Fn(u32) -> bool,
    ) -> Self {
        Self::made(links, &Interfaces::default(), names, has_program)
    }

    /// For a reload.
    ///
    /// # Errors
    /// If a new name is that of an interface that cannot be guarded.
    pub(crate) fn new(
        links: &[Link],
        present: &Interfaces,
        names: &[String],
    ) -> Result<Self, Refusal> {
        let plan = Self::made(links, present, names, |_| false);
        match plan.refused.first() {
            Some((_, refusal)) => Err(refusal.clone()),
            None => Ok(plan),
        }
    }

    /// An interface that is guarded under its name stays, also while it is gone. What was guarded for a
    /// name that has gone stays too, and the name is not waited for unless it was. A name that is waited
    /// for is, until the daemon has tried to guard what it leads to.
    fn made(
        links: &[Link],
        present: &Interfaces,
        names: &[String],
        has_program: impl Fn(u32) -> bool,
    ) -> Self {
        let Interfaces { held, waiting } = present;
        let mut plan = Self::default();
        for name in names {
            if let Some(position) = held.iter().position(|it| it.name == *name) {
                plan.keep(name, position, held[position].ifindex);
                continue;
            }
            let is_awaited = waiting.iter().any(|it| it.name == *name);
            let Resolved { link, instead_of } = match resolve(links, name) {
                Ok(resolved) => resolved,
                Err(refusal) => {
                    plan.miss(name, refusal, is_awaited || is_held_for(held, name));
                    continue;
                }
            };
            let entries = held.iter().map(|it| (&it.name[..], it.ifindex, it.is_attached));
            if let Some(position) = position_of(entries, links, &link) {
                plan.keep(name, position, held[position].ifindex);
                continue;
            }
            let is_memberless = lacks_members(links, &link) && !has_program(link.index);
            if is_awaited || is_memberless {
                if !plan.nowhere.contains(name) {
                    plan.nowhere.push(name.clone());
                    plan.memberless.extend((!is_awaited).then(|| (name.clone(), link.name)));
                }
                continue;
            }
            plan.leads.push((name.clone(), link.index));
            if let Some(kind) = instead_of {
                let device = &link.name;
                plan.notes.push(format!("{name} is a {kind} on {device}; guarding {device}"));
            }
            if !plan.added.iter().any(|added| added.index == link.index) {
                plan.added.push(link);
            }
        }
        plan.kept.sort_unstable();
        plan.kept.dedup();
        let spared = |position: &usize| {
            !plan.kept.contains(position) && held[*position].may_be(&plan.nowhere)
        };
        plan.spared = (0..held.len()).filter(spared).collect();
        let is_awaited =
            |name: &&String| waiting.iter().any(|it| it.name == **name) || !is_held_for(held, name);
        plan.absent = plan.nowhere.iter().filter(is_awaited).cloned().collect();
        plan
    }

    fn miss(&mut self, name: &str, refusal: Refusal, is_known: bool) {
        if self.nowhere.iter().any(|own| own == name) {
            return;
        }
        self.nowhere.push(name.to_owned());
        if let Refusal::Unknown { existing, .. } = refusal {
            self.existing = existing;
        } else if !is_known {
            self.refused.push((name.to_owned(), refusal));
        }
    }

    /// Why a start fails that is to guard these names, if it does. A running daemon would guard on, so a
    /// start waits as well, unless there is nothing else to guard or to take over. Whoever types a name on
    /// a command line is there to hear that it is wrong.
    pub(crate) fn refusal_of_start(&self, is_typed: bool, takes_over: bool) -> Option<&Refusal> {
        let (_, first) = self.refused.first()?;
        let has_more = !self.added.is_empty() || self.absent.len() > self.refused.len();
        (is_typed || !takes_over && !has_more).then_some(first)
    }

    fn keep(&mut self, name: &str, position: usize, ifindex: u32) {
        self.kept.push(position);
        self.leads.push((name.to_owned(), ifindex));
    }

    /// Names to wait for that no interface has.
    pub(crate) fn missing(&self) -> impl Iterator<Item = &String> {
        let refused = self.refused.iter().map(|(name, _)| name);
        let memberless = self.memberless.iter().map(|(name, _)| name);
        let others = refused.chain(memberless);
        self.absent.iter().filter(move |name| !others.clone().any(|other| other == *name))
    }

    /// What it says of a name that it waits for.
    pub(crate) fn why_absent(&self, name: &str) -> String {
        let device = self.memberless.iter().find(|(own, _)| own == name);
        device.map_or_else(|| "it is not there".to_owned(), |(_, it)| memberless(it))
    }

    /// The guarded interfaces that go.
    pub(crate) fn leaving<'h>(&self, held: &'h [Held]) -> impl Iterator<Item = &'h Held> {
        let indices: Vec<_> = held.iter().map(|it| it.ifindex).collect();
        let stays = self.staying().collect();
        gone(&indices, &stays).into_iter().map(|position| &held[position])
    }

    /// Positions of the guarded interfaces that stay.
    pub(crate) fn staying(&self) -> impl Iterator<Item = usize> {
        self.kept.iter().chain(&self.spared).copied()
    }

    /// Names that lead to this device, of which `former` are known.
    pub(crate) fn names_of(&self, ifindex: u32, former: &[String]) -> Vec<String> {
        let leads = self.leads.iter().filter(|(_, index)| *index == ifindex);
        let gone = former.iter().filter(|name| self.nowhere.contains(name));
        leads.map(|(name, _)| name).chain(gone).cloned().collect()
    }

    /// Those that a configuration is applied to: default ones for what it names, also for names to wait
    /// for, and those `in_force` for what may be meant.
    pub(crate) fn settings(
        &self,
        held: &[Held],
        in_force: impl Fn(&Held) -> InterfaceSettings,
    ) -> Settings {
        let kept = self.kept.iter().map(|&position| &held[position].name);
        let added = self.added.iter().map(|link| &link.name);
        let names = kept.chain(added).chain(&self.absent);
        let mut settings = Settings::of_new_guard(names.map(String::as_str));
        let spared = self.spared.iter().map(|&position| in_force(&held[position]));
        settings.interfaces.extend(spared);
        settings
    }

    /// Names of which nobody knows which device they mean.
    pub(crate) fn nowhere(&self) -> &[String] {
        &self.nowhere
    }

    /// Whether there are any.
    pub(crate) fn is_unsure(&self) -> bool {
        !self.nowhere.is_empty()
    }
}

/// Why a bond waits.
pub(crate) fn memberless(device: &str) -> String {
    format!("{device} has no member yet")
}

fn is_held_for(held: &[Held], name: &String) -> bool {
    held.iter().any(|it| it.names.contains(name))
}

/// The file of one namespace, until a reboot.
#[derive(Clone, Debug)]
pub(crate) struct InterfacesFile(PathBuf);

impl InterfacesFile {
    pub(crate) fn of_this_namespace() -> io::Result<Self> {
        run_directory::of_this_namespace("interfaces.json").map(Self)
    }

    pub(crate) fn write(&self, interfaces: &Interfaces) -> Result<(), FileError> {
        publish(&self.0, interfaces)
    }

    /// `None` if no daemon has written it.
    pub(crate) fn read(&self) -> Option<Interfaces> {
        serde_json::from_slice(&fs::read(&self.0).ok()?).ok()
    }
}

/// What the daemon of this namespace wrote last; it may be gone.
pub(crate) fn interfaces_of_daemon() -> Option<Interfaces> {
    InterfacesFile::of_this_namespace().ok()?.read()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `ARPHRD_ETHER`, `ARPHRD_PPP`.
    const ETHERNET: u16 = 1;
    const PPP: u16 = 512;

    fn link(index: u32, name: &str) -> Link {
        Link { index, name: name.to_owned(), hardware: ETHERNET, ..Link::default() }
    }

    fn vlan(index: u32, name: &str, lower: u32) -> Link {
        Link { kind: Some("vlan".to_owned()), lower: Some(lower), ..link(index, name) }
    }

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    fn held(name: &str, ifindex: u32, of: &[&str]) -> Held {
        Held { name: name.to_owned(), ifindex, is_attached: true, names: names(of) }
    }

    fn present(held: &[Held], waiting: &[&str]) -> Interfaces {
        let waited = |name: &&str| Waited { name: (*name).to_owned(), obstacle: None };
        Interfaces { held: held.to_vec(), waiting: waiting.iter().map(waited).collect() }
    }

    fn plan(links: &[Link], present: &Interfaces, of: &[&str]) -> Plan {
        Plan::new(links, present, &names(of)).unwrap()
    }

    #[test]
    fn a_start_attaches_to_what_is_there_and_waits_for_the_rest() {
        let plan = plan(&[link(2, "eth0")], &Interfaces::default(), &["eth0", "eth1", "eth1"]);
        assert_eq!(plan.added, [link(2, "eth0")]);
        assert_eq!((plan.absent, plan.existing), (names(&["eth1"]), names(&["eth0"])));
    }

    #[test]
    fn a_vlan_that_comes_late_is_waited_for_until_it_leads_to_its_device() {
        let guarded = present(&[held("eth0", 2, &["eth0"])], &["eth0.100"]);
        let wanted = ["eth0", "eth0.100"];
        let late = plan(&[link(2, "eth0")], &guarded, &wanted);
        assert_eq!((&late.kept, &late.absent), (&vec![0], &names(&["eth0.100"])));
        let there = plan(&[link(2, "eth0"), vlan(3, "eth0.100", 2)], &guarded, &wanted);
        assert_eq!((&there.kept, there.added.len(), there.absent.len()), (&vec![0], 0, 0));
        assert_eq!(there.names_of(2, &names(&["eth0"])), names(&["eth0", "eth0.100"]));
    }

    /// Fails when a reload lets go of a device because the VLAN that named it has gone, or because it has
    /// another name.
    #[test]
    fn what_was_guarded_for_a_name_that_has_gone_stays() {
        let guarded = present(&[held("eth0", 2, &["eth0.100"])], &[]);
        let gone = plan(&[link(2, "eth0")], &guarded, &["eth0.100"]);
        assert_eq!((&gone.spared, gone.absent.len()), (&vec![0], 0));
        assert_eq!(gone.names_of(2, &names(&["eth0.100"])), names(&["eth0.100"]));
        let renamed = present(&[held("dsl0", 2, &["wan0"])], &[]);
        assert_eq!(plan(&[link(2, "dsl0")], &renamed, &["wan0"]).spared, [0]);
    }

    #[test]
    fn one_that_is_guarded_for_an_unknown_reason_stays_while_a_name_leads_nowhere() {
        let guarded = present(&[held("eth0", 2, &[]), held("lan0", 3, &["lan0"])], &[]);
        let links = [link(2, "eth0"), link(3, "lan0")];
        assert_eq!(plan(&links, &guarded, &["lan0", "late0"]).spared, [0]);
        assert!(plan(&links, &guarded, &["lan0"]).spared.is_empty());
    }

    /// Fails when a name that nobody wants any more stays because another is waited for.
    #[test]
    fn one_whose_name_is_taken_away_goes_though_another_is_waited_for() {
        let guarded = present(&[held("eth0", 2, &["eth0"]), held("lan0", 3, &["lan0"])], &[]);
        let plan = plan(&[link(2, "eth0"), link(3, "lan0")], &guarded, &["eth0", "late0"]);
        assert_eq!(plan.staying().collect::<Vec<_>>(), [0]);
    }

    #[test]
    fn a_guarded_interface_that_is_gone_stays_and_is_no_name_to_wait_for() {
        let guarded = present(&[held("late0", 9, &["late0"])], &[]);
        let plan = plan(&[link(2, "eth0")], &guarded, &["late0", "eth0"]);
        assert_eq!((&plan.kept, plan.absent.len()), (&vec![0], 0));
        assert_eq!(plan.added, [link(2, "eth0")]);
    }

    /// Fails when a reload that comes before the look at the interfaces attaches to a device a second time.
    #[test]
    fn a_vlan_on_a_guarded_device_that_was_made_again_leads_to_its_entry() {
        let guarded = present(&[held("eth0", 5, &["eth0"])], &["eth0.100"]);
        let links = [link(9, "eth0"), vlan(10, "eth0.100", 9)];
        let plan = plan(&links, &guarded, &["eth0", "eth0.100"]);
        assert_eq!((&plan.kept, plan.added.len(), plan.absent.len()), (&vec![0], 0, 0));
        assert_eq!(plan.names_of(5, &[]), names(&["eth0", "eth0.100"]));
    }

    #[test]
    fn another_name_of_a_guarded_device_leads_to_it() {
        let eth0 = Link { other_names: names(&["wan"]), ..link(2, "eth0") };
        let plan = plan(&[eth0], &present(&[held("eth0", 2, &["eth0"])], &["wan"]), &["wan"]);
        assert_eq!((&plan.kept, plan.absent.len()), (&vec![0], 0));
    }

    fn ppp(name: &str) -> Link {
        Link { hardware: PPP, ..link(4, name) }
    }

    /// Fails when no reload is possible because an interface has come that cannot be guarded.
    #[test]
    fn a_reload_refuses_one_that_cannot_be_guarded_only_if_it_is_new() {
        let links = [link(2, "eth0"), ppp("ppp0")];
        let wanted = ["eth0", "ppp0"];
        let of = |present: &Interfaces| Plan::new(&links, present, &names(&wanted));
        let eth0 = held("eth0", 2, &["eth0"]);
        let refused = of(&present(std::slice::from_ref(&eth0), &[]));
        assert_eq!(refused, Err(Refusal::Ppp { name: "ppp0".to_owned() }));
        let known = of(&present(std::slice::from_ref(&eth0), &["ppp0"])).unwrap();
        assert_eq!((&known.kept, &known.absent), (&vec![0], &names(&["ppp0"])));
        // Its name led to another device.
        let known = of(&present(&[eth0, held("lan0", 3, &["ppp0"])], &[])).unwrap();
        assert_eq!((&known.kept, &known.spared), (&vec![0], &vec![1]));
    }

    /// Fails when a reload tries to attach where the daemon has just failed to, and is refused.
    #[test]
    fn what_is_waited_for_is_not_attached_to_by_a_reload() {
        let guarded = present(&[held("eth0", 2, &["eth0"])], &["late0"]);
        let plan = plan(&[link(2, "eth0"), link(3, "late0")], &guarded, &["eth0", "late0"]);
        assert_eq!((plan.added.len(), &plan.absent), (0, &names(&["late0"])));
    }

    /// Fails when a daemon does not start again because of an interface that it tolerated.
    #[test]
    fn a_start_waits_for_one_that_cannot_be_guarded_while_there_is_more_to_guard() {
        let links = [link(2, "eth0"), ppp("ppp0")];
        let refuses = |wanted: &[&str], is_typed, takes_over| {
            let plan = Plan::of_start(&links, &names(wanted), |_| false);
            assert!(plan.absent.contains(&"ppp0".to_owned()));
            plan.refusal_of_start(is_typed, takes_over).is_some()
        };
        assert!(!refuses(&["eth0", "ppp0"], false, false));
        assert!(!refuses(&["late0", "ppp0"], false, false));
        assert!(refuses(&["ppp0", "ppp0"], false, false) && !refuses(&["ppp0"], false, true));
        assert!(refuses(&["eth0", "ppp0"], true, false) && refuses(&["ppp0"], true, true));
    }

    fn bond(index: u32, name: &str) -> Link {
        Link { kind: Some("bond".to_owned()), ..link(index, name) }
    }

    /// Fails when the program is on a bond before its members, of which some then cannot join.
    #[test]
    fn a_start_and_a_reload_wait_for_the_members_of_a_bond() {
        let eth0 = held("eth0", 2, &["eth0"]);
        let mut links = vec![link(2, "eth0"), bond(7, "bond0"), vlan(8, "bond0.5", 7)];
        let wanted = names(&["eth0", "bond0", "bond0.5", "late0"]);
        let start = Plan::of_start(&links, &wanted, |_| false);
        assert_eq!((&start.added, start.refused.len()), (&vec![link(2, "eth0")], 0));
        assert_eq!(start.absent, wanted[1..]);
        assert_eq!(start.missing().collect::<Vec<_>>(), ["late0"]);
        assert_eq!(start.why_absent("bond0.5"), "bond0 has no member yet");
        let reload = Plan::new(&links, &present(&[eth0], &[]), &wanted).unwrap();
        assert_eq!((reload.added.len(), &reload.absent[..]), (0, &wanted[1..]));

        links.push(Link { master: Some(7), ..link(9, "eth9") });
        let joined = Plan::of_start(&links, &wanted, |_| false);
        assert_eq!((joined.added.len(), &joined.absent[..]), (2, &wanted[3..]));
    }

    /// Fails when a restart lets go of a bond whose last member has just gone.
    #[test]
    fn a_bond_that_is_guarded_stays_guarded_without_members() {
        let links = [bond(7, "bond0")];
        let wanted = names(&["bond0"]);
        let start = Plan::of_start(&links, &wanted, |ifindex| ifindex == 7);
        assert_eq!((start.added.len(), start.absent.len()), (1, 0));
        let reload = Plan::new(&links, &present(&[held("bond0", 7, &["bond0"])], &[]), &wanted);
        assert_eq!(reload.unwrap().kept, [0]);
    }

    /// Fails when `config diff` says that a device goes that another of its entries keeps.
    #[test]
    fn a_device_that_one_of_two_entries_keeps_does_not_leave() {
        let guarded =
            [held("eth0", 9, &["eth0"]), held("old0", 9, &["old0"]), held("lan0", 3, &["lan0"])];
        let links = [link(9, "eth0"), link(3, "lan0")];
        let plan = plan(&links, &present(&guarded, &[]), &["eth0"]);
        assert_eq!(plan.leaving(&guarded).map(|it| &it.name[..]).collect::<Vec<_>>(), ["lan0"]);
    }

    #[test]
    fn what_is_waited_for_says_why() {
        let mut waited = Waited { name: "ppp0".to_owned(), obstacle: None };
        assert_eq!(waited.text(), "ppp0 (not there yet)");
        waited.obstacle = Some("it is a PPP link".to_owned());
        assert_eq!(waited.text(), "ppp0 (cannot be guarded: it is a PPP link)");
    }
}
