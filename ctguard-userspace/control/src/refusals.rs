//! Sources that open more flows than a limit allows, whether or not the limit is in force: so that an
//! operator can choose limits before they refuse anything.
//!
//! The data path samples what each source offers, and a copy of its token bucket here says how much
//! of that the limit refuses. Only what comes is looked at, never what was refused, so calm and a dry
//! run show the same sources as a guard that drops packets.

use std::{collections::HashMap, time::Duration};

use ctguard_datapath::sources::Tiers;
use ctguard_layout::{
    CLASS_SLOTS, CLASSES, Ceiling, Class, HashKey, Limits, OfferedSlot, Rate, SourceCells,
    SourceLine, Tier, shared::SharedWord, units::Ticks,
};

use super::sources::{KnownSources, SourceScope, fingerprint};
use crate::tuning::TUNING;
use ctguard_units::real;

/// Sources that are named.
const NAMED: usize = 10;

/// Known sources that are followed outside calm.
const MOST_KNOWN: usize = 3584;

/// A packet may name any source, but spoofed ones seldom name the same one look after look.
const FEWEST_LOOKS: u32 = 3;

/// Which limit a source is above.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LimitKind {
    /// The operator's ceiling, which holds always.
    Ceiling,
    /// A default ceiling, which does not hold in calm.
    DefaultCeiling,
    /// The share of each source outside calm; a default ceiling is part of it.
    Share,
}

impl LimitKind {
    /// Its name in JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ceiling => "ceiling",
            Self::DefaultCeiling => "default-ceiling",
            Self::Share => "share",
        }
    }
}

/// New flows per second of one source, and how many at once.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Limit {
    /// Which limit it is.
    pub kind: LimitKind,
    /// New flows per second.
    pub rate: f64,
    /// New flows at once.
    pub burst: f64,
}

/// A source above its limit.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Refusal {
    /// The source, as its packets name it.
    pub source: SourceScope,
    /// The class of the new flows.
    pub class: Class,
    /// New flows per second that it tries to open.
    pub flows_per_second: f64,
    /// Those of them that the limit refuses.
    pub refused_per_second: f64,
    /// The limit.
    pub limit: Limit,
}

/// The limits that sources are compared with.
#[derive(Clone, Copy, Debug)]
pub struct LimitsOfSources {
    /// Ceilings by class on the interface that allows most, and whether the operator set them.
    pub ceilings: [(Rate, bool); CLASSES],
    /// Stages and shares in force.
    pub in_force: Limits,
    /// Shares are in jiffies.
    pub jiffies_per_second: u32,
}

impl LimitsOfSources {
    /// What limits a source of this tier, or would outside calm.
    fn of(&self, tier: Tier, class: Class) -> Option<Limit> {
        let (Rate { flows_per_second, burst }, is_own) = self.ceilings[class as usize];
        let ceiling = |kind| Limit { kind, rate: flows_per_second.into(), burst: burst.into() };
        let own = is_own.then(|| ceiling(LimitKind::Ceiling));
        if self.in_force.is_calm() {
            // Who was there before is not held to a default ceiling outside calm either.
            let is_exempt = matches!(tier, Tier::Regulars | Tier::Earlier);
            return own.or_else(|| (!is_exempt).then(|| ceiling(LimitKind::DefaultCeiling)));
        }
        let share = self.share(self.in_force.shares[tier.slot()][class as usize]);
        match (own, share) {
            (Some(own), Some(share)) if own.rate <= share.rate => Some(own),
            (own, share) => share.or(own),
        }
    }

    fn share(&self, Ceiling { interval: Ticks(interval), tolerance }: Ceiling) -> Option<Limit> {
        let second = f64::from(self.jiffies_per_second) * real(Ticks::PER_JIFFY);
        (interval > 0).then(|| Limit {
            kind: LimitKind::Share,
            rate: second / real(interval),
            burst: 1.0 + real(tolerance.0) / real(interval),
        })
    }
}

/// What sources offered from look to look.
#[derive(Debug, Default)]
pub struct Refusals {
    looked: Option<Duration>,
    strangers: Vec<Followed>,
    /// Outside calm: the sources that are known.
    known: HashMap<SourceScope, Followed>,
}

/// Who asked in a slot, and what for.
#[derive(Clone, Debug, Default)]
struct Followed {
    source: Option<SourceScope>,
    /// Looks in which it asked.
    looks: u32,
    /// Seconds that the sums stand for.
    weight: f64,
    counted: [u32; CLASSES],
    asked: [Asked; CLASSES],
}

#[derive(Clone, Copy, Debug, Default)]
struct Asked {
    /// New flows since the last look.
    new: f64,
    /// New flows, a sum that decays.
    flows: f64,
    /// The same of those that its limit refused.
    refused: f64,
    /// New flows that its bucket holds.
    level: f64,
}

impl Refusals {
    /// The sources above their limits, those that lose most first; nobody until some looks have
    /// passed.
    pub fn look(
        &mut self,
        now: Duration,
        limits: &LimitsOfSources,
        offered: &[OfferedSlot],
        known: &KnownSources,
        cells: impl Iterator<Item = (SourceScope, [u32; CLASSES])>,
    ) -> Vec<Refusal> {
        let elapsed = self.looked.replace(now).map(|before| now.saturating_sub(before));
        let elapsed = elapsed.unwrap_or_default().as_secs_f64();
        let is_calm = limits.in_force.is_calm();
        let tier =
            |source| known.get(&source).map_or(Tier::Strangers, |tiers: &Tiers| tiers.tier());
        let mut found = Vec::new();
        self.strangers.resize(offered.len(), Followed::default());
        for (followed, slot) in self.strangers.iter_mut().zip(offered) {
            let Some(source) = SourceScope::of_slot(slot.address.load()) else { continue };
            followed.count(source, counts(&slot.offered), elapsed);
            // Outside calm, known sources are counted in cells of their own.
            let tier = if is_calm { tier(source) } else { Tier::Strangers };
            followed.judge(elapsed, |class| limits.of(tier, class), &mut found);
        }
        if is_calm {
            self.known.clear();
        } else {
            for (source, counted) in cells {
                if self.known.len() >= MOST_KNOWN && !self.known.contains_key(&source) {
                    continue;
                }
                let followed = self.known.entry(source).or_default();
                followed.count(source, counted, elapsed);
                followed.judge(elapsed, |class| limits.of(tier(source), class), &mut found);
            }
        }
        found.sort_by(|one, other| other.refused_per_second.total_cmp(&one.refused_per_second));
        found.truncate(NAMED);
        found
    }
}

impl Followed {
    /// Adds what was counted since the last look.
    fn count(&mut self, source: SourceScope, counted: [u32; CLASSES], elapsed: f64) {
        if self.source.replace(source) != Some(source) {
            *self = Self { source: Some(source), counted, ..Self::default() };
            return;
        }
        let fade = (-elapsed / TUNING.refusals_memory.as_secs_f64()).exp();
        self.weight = self.weight * fade + elapsed;
        let before = std::mem::replace(&mut self.counted, counted);
        self.looks += u32::from(before != counted);
        for ((asked, before), counted) in self.asked.iter_mut().zip(before).zip(counted) {
            // The counters of a slot with a new owner start at 0.
            let more = counted.checked_sub(before).unwrap_or(counted);
            asked.new = real(more.into());
            asked.flows = asked.flows * fade + asked.new;
            asked.refused *= fade;
        }
    }

    /// Charges the bucket of each class with what was counted last, and tells what is refused.
    fn judge(
        &mut self,
        elapsed: f64,
        limit: impl Fn(Class) -> Option<Limit>,
        found: &mut Vec<Refusal>,
    ) {
        let Some(source) = self.source else { return };
        for class in Class::ALL {
            let asked = &mut self.asked[class as usize];
            let new = std::mem::take(&mut asked.new);
            let Some(limit) = limit(class) else {
                (asked.level, asked.refused) = (0.0, 0.0);
                continue;
            };
            let level = asked.level + new - limit.rate * elapsed;
            asked.level = level.clamp(0.0, limit.burst);
            asked.refused += (level - limit.burst).max(0.0);
            // A sample more or less is chance.
            if asked.refused > f64::from(OfferedSlot::SAMPLE) && self.looks >= FEWEST_LOOKS {
                found.push(Refusal {
                    source,
                    class,
                    flows_per_second: asked.flows / self.weight,
                    refused_per_second: asked.refused / self.weight,
                    limit,
                });
            }
        }
    }
}

/// The known sources of a set, and what each asked for outside calm.
pub fn asked_by_known<'s>(
    lines: &'s [SourceLine],
    cells: &'s [SourceCells],
    known: &KnownSources,
    key: &HashKey,
) -> impl Iterator<Item = (SourceScope, [u32; CLASSES])> + 's {
    let by_hash: HashMap<u64, SourceScope> =
        known.keys().map(|&source| (fingerprint(source.hash(key)), source)).collect();
    let slots = lines.iter().flat_map(|line| &line.slots).zip(cells);
    slots.filter_map(move |(slot, cells)| {
        let source = by_hash.get(&fingerprint(slot.load()))?;
        Some((*source, counts(&cells.offered)))
    })
}

fn counts(offered: &[SharedWord; CLASS_SLOTS]) -> [u32; CLASSES] {
    let [tcp, udp, other, _] = offered.each_ref().map(SharedWord::load);
    [tcp, udp, other]
}

#[cfg(test)]
mod tests {
    use ctguard_datapath::sources::testing::Set;
    use ctguard_units::share as share_ceiling;

    use super::*;
    use crate::sources::{Changes, apply};

    const DEFAULTS: [(Rate, bool); CLASSES] =
        [(Rate { flows_per_second: 50, burst: 200 }, false); CLASSES];
    const EDGE: u64 = 0xc633_6407;

    /// A source that opens so many flows a second over TCP, for ten seconds and looks.
    fn after_ten_looks(
        per_second: u32,
        limits: &LimitsOfSources,
        known: &KnownSources,
    ) -> Vec<Refusal> {
        let (mut refusals, slot) = (Refusals::default(), OfferedSlot::default());
        slot.address.store(EDGE);
        let mut found = Vec::new();
        for second in 1..=10 {
            slot.offered[0].store(per_second * second);
            let now = Duration::from_secs(second.into());
            let slots = std::slice::from_ref(&slot);
            found = refusals.look(now, limits, slots, known, std::iter::empty());
        }
        found
    }

    fn calm() -> LimitsOfSources {
        LimitsOfSources { ceilings: DEFAULTS, in_force: Limits::default(), jiffies_per_second: 250 }
    }

    #[test]
    fn a_source_above_a_default_ceiling_is_named_with_what_it_would_lose() {
        let found = after_ten_looks(160, &calm(), &KnownSources::new());
        let [refusal] = found[..] else { panic!("{found:?}") };
        assert_eq!(refusal.source.to_string(), "198.51.100.7");
        assert_eq!((refusal.class, refusal.limit.kind), (Class::Tcp, LimitKind::DefaultCeiling));
        assert!((refusal.flows_per_second - 160.0).abs() < 1.0, "{refusal:?}");
        assert!((80.0..=110.0).contains(&refusal.refused_per_second), "{refusal:?}");
    }

    #[test]
    fn a_source_within_its_limit_is_not_named() {
        assert_eq!(after_ten_looks(48, &calm(), &KnownSources::new()), []);
    }

    #[test]
    fn who_was_there_before_is_never_held_to_a_default_ceiling() {
        for tiers in [Tiers::REGULAR, Tiers::PROVEN.and(Tiers::EARLIER)] {
            let known = KnownSources::from([(SourceScope::of_slot(EDGE).unwrap(), tiers)]);
            assert_eq!(after_ten_looks(160, &calm(), &known), []);
        }
        let proven = KnownSources::from([(SourceScope::of_slot(EDGE).unwrap(), Tiers::PROVEN)]);
        assert_eq!(after_ten_looks(160, &calm(), &proven).len(), 1);
    }

    #[test]
    fn what_the_operator_set_is_named_as_such_whoever_is_above_it() {
        let own = [(Rate { flows_per_second: 100, burst: 100 }, true); CLASSES];
        let known = KnownSources::from([(SourceScope::of_slot(EDGE).unwrap(), Tiers::REGULAR)]);
        let found = after_ten_looks(160, &LimitsOfSources { ceilings: own, ..calm() }, &known);
        assert_eq!((found[0].limit.kind, found[0].limit.rate), (LimitKind::Ceiling, 100.0));
    }

    #[test]
    fn outside_calm_the_stricter_of_share_and_own_ceiling_is_named() {
        let mut limits = LimitsOfSources {
            ceilings: [(Rate { flows_per_second: 100, burst: 100 }, true); CLASSES],
            ..calm()
        };
        limits.in_force.tiers_in_use = 1;
        let none = KnownSources::new();
        assert_eq!(after_ten_looks(160, &limits, &none)[0].limit.kind, LimitKind::Ceiling);
        limits.in_force.shares[Tier::Strangers.slot()][0] = share_ceiling(10.0, 250);
        let found = after_ten_looks(160, &limits, &none);
        assert_eq!(found[0].limit.kind, LimitKind::Share);
        assert!((found[0].limit.rate - 10.0).abs() < 0.01, "{found:?}");
    }

    /// Fails when each packet of a spoofed flood names a source above its share.
    #[test]
    fn who_asks_in_one_look_alone_is_not_named() {
        let (mut refusals, slot) = (Refusals::default(), OfferedSlot::default());
        let mut limits = calm();
        limits.in_force.tiers_in_use = 1;
        limits.in_force.shares[Tier::Strangers.slot()][0] = share_ceiling(1.0, 250);
        for look in 1..100_u32 {
            slot.address.store(u64::from(look) << 8);
            slot.offered[0].store(look * 100);
            let now = Duration::from_millis(u64::from(look) * 250);
            let slots = std::slice::from_ref(&slot);
            let known = KnownSources::new();
            assert_eq!(refusals.look(now, &limits, slots, &known, std::iter::empty()), []);
        }
    }

    #[test]
    fn outside_calm_a_known_source_is_read_from_its_own_cells() {
        let key = HashKey { words: [0x9e37_79b9_7f4a_7c15; 12] };
        let source = SourceScope::of_slot(EDGE).unwrap();
        let known = KnownSources::from([(source, Tiers::PROVEN)]);
        let set = Set::default();
        let changes = Changes { written: vec![(source, Tiers::PROVEN)], ..Changes::default() };
        apply(&set, &key, changes, &mut KnownSources::new());
        let slot = set.lines.iter().flat_map(|line| &line.slots).position(|slot| slot.load() > 0);
        let cells = &set.cells[slot.unwrap()];
        let mut limits = calm();
        limits.in_force.tiers_in_use = 1;
        limits.in_force.shares[Tier::Proven.slot()][1] = share_ceiling(100.0, 250);
        let (mut refusals, mut found) = (Refusals::default(), Vec::new());
        for second in 1..=10_u32 {
            cells.offered[1].store(800 * second);
            let now = Duration::from_secs(second.into());
            let asked = asked_by_known(&set.lines, &set.cells, &known, &key);
            found = refusals.look(now, &limits, &[], &known, asked);
        }
        assert_eq!((found[0].source, found[0].class), (source, Class::Udp));
        assert_eq!(found[0].limit.kind, LimitKind::Share);
    }

    #[test]
    fn an_ipv6_source_is_its_64() {
        assert_eq!(
            SourceScope::of_slot(0x2001_0db8_0001_0002).unwrap().to_string(),
            "2001:db8:1:2::/64"
        );
        assert_eq!(SourceScope::of_slot(0), None);
    }
}
