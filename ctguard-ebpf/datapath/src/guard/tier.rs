//! Finds the tier of a new flow, or challenges it, once a class is not calm or the strangers' grant
//! is spent. Also reads from RSTs whether a challenge was answered.

use super::{
    Guard, Memory, Tables,
    admit::Rules,
    opening::{Opening, Tuple},
};
use crate::{
    admission::grant::{self, Allowance},
    challenge::{self, Answer, Answering, Connection, Slot},
    hash,
    layout::{Class, Environment, Grant, MemoryLine, Outcome, Policy, Stage, Tier},
    memory::{self, Moment, Remembered},
    packet::{Ipv4, Ipv6},
    place::Place,
    retries::{self, evidence},
    sources::{self, Tiers},
    units::Jiffies,
};

/// Positions of a line of answers.
#[expect(clippy::cast_possible_truncation, reason = "it is 16")]
const POSITIONS: u32 = MemoryLine::WORDS as u32;

pub(super) enum TierOrChallenge {
    Tier(Standing),
    /// It is not admitted: it was challenged, or refused because it cannot be, or because what is
    /// left of the retried tier's grant is for packets with better evidence. Whether the daemon is to
    /// be woken, because the grant is spent in calm.
    Challenge(Outcome, bool),
}

/// How a new flow is served, in numbers (see `verifier`).
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub(super) struct Standing {
    /// The number of its tier.
    pub(super) tier: u32,
    /// The slot of its source in the set of known sources, or [`Standing::UNKNOWN`].
    pub(super) known: u32,
    /// The number of its class, or [`Class::ANSWERED`] or [`Class::RETRIED`]: cells that no spoofed
    /// packet charges, or only one that is sent twice.
    pub(super) cells: u32,
    /// Where the answer of its tuple is remembered, or 0 (see [`Guard::forget_answer`]).
    pub(super) answer: u32,
    /// 1 if a challenge is to wake the daemon, because the grant is spent in calm.
    pub(super) wakes: u32,
    /// 1 if the daemon lives, so that grants hold.
    pub(super) is_granted: u32,
    /// 1 if a known source is above its limit, so that a SYN is challenged instead of refused.
    pub(super) is_above_limit: u32,
}

impl Standing {
    /// No slot of the set.
    pub(super) const UNKNOWN: u32 = u32::MAX;
}

impl<T: Tables> Guard<'_, T> {
    /// The order of preference: allow list, known source, a tuple that answered or came again,
    /// stranger.
    ///
    /// A flood can spend a calm guard's grant before the daemon runs. Until it does, known sources
    /// take from their own grants. A SYN is challenged instead of refused, because the grant is
    /// spent or because packets that may be spoofed have spent what its source may open.
    #[inline(always)]
    pub(super) fn tier_or_challenge(
        &self,
        opening: &Opening,
        rules: &Rules<'_>,
        now: Jiffies,
    ) -> TierOrChallenge {
        let mut standing = Standing {
            tier: opening.tier,
            known: Standing::UNKNOWN,
            cells: opening.class,
            answer: 0,
            wakes: 0,
            is_granted: 0,
            is_above_limit: 0,
        };
        if opening.tier == Tier::Allowed as u32 {
            return TierOrChallenge::Tier(standing);
        }
        let tuple = &opening.tuple;
        let class = Class::from_number(opening.class);
        let is_challenged = rules.limits.stage(class) == Stage::Challenge;
        let of_strangers = self.allowance(rules, Tier::Strangers as u32, now);
        let is_spent = !is_challenged && of_strangers.is_spent();
        let is_calm = rules.limits.is_calm();
        let mut is_suspect = false;
        if !is_calm || is_spent {
            let scope = self.scope(tuple);
            let line_mask = self.environment.fixed.known_source_line_mask;
            let place = Place::of(scope, line_mask, self.zero());
            if let Some(found) = sources::find(&self.tables, place) {
                is_suspect = found.tiers.has(Tiers::CHALLENGED);
                let tier = found.tiers.tier();
                if !is_suspect || matches!(tier, Tier::AbovePart) {
                    standing = Standing { tier: tier as u32, known: found.slot, ..standing };
                }
            }
        }
        let is_stranger = standing.known == Standing::UNKNOWN;
        if !is_stranger || !is_challenged && !is_suspect {
            let instead_of_refusal = tuple.is_syn()
                && rules.can_answer()
                && (is_stranger && is_spent || self.is_above_limit(opening, rules, standing, now));
            if !instead_of_refusal {
                return TierOrChallenge::Tier(standing);
            }
            standing.is_above_limit = 1;
        }
        if !opening.has_tuple {
            return TierOrChallenge::Challenge(Outcome::RefusedChallenge, false);
        }
        standing.is_granted = u32::from(of_strangers.is_of_daemon());
        standing.wakes = u32::from(is_calm && of_strangers == Allowance::Spent);
        let mut standing = self.tables.cpu_state().standing.hide(standing);
        // Packets that arrive right after an admission belong to the same flow.
        if opening.follows_admission() {
            standing.tier = Tier::Answered as u32;
            return TierOrChallenge::Tier(standing);
        }
        let is_tcp = matches!(class, Class::Tcp);
        if is_tcp && !tuple.is_syn() {
            return TierOrChallenge::Challenge(Outcome::RefusedChallenge, standing.wakes != 0);
        }
        let mut may_be_asked = false;
        if rules.can_answer() && (is_tcp || is_dns(opening, rules)) {
            if is_tcp {
                standing.answer = self.find_answer(tuple, now);
            }
            may_be_asked = standing.answer == 0 && self.may_be_asked(tuple, rules.grant, now);
        }
        let may_be_asked = self.zero().hide(u32::from(may_be_asked)) != 0;
        let mut standing = self.tables.cpu_state().standing.hide(standing);
        let (challenged, tier) = if standing.answer != 0 {
            standing.cells = Class::ANSWERED;
            (None, Tier::Answered)
        } else if may_be_asked && is_tcp {
            (Some(self.challenge_by_ack(tuple, rules, now)), Tier::Strangers)
        } else {
            let evidence = self.zero().hide(self.challenge_by_silence(opening, now));
            let is_of_retried = standing.known == Standing::UNKNOWN || standing.is_above_limit != 0;
            if is_tcp && is_of_retried {
                standing.cells = self.zero().hide(Class::RETRIED);
            }
            let challenged = if evidence == evidence::NONE {
                Some(Outcome::ChallengedBySilence)
            } else if is_of_retried
                && standing.is_granted != 0
                && !grant::leaves(rules.grant, evidence, self.zero())
            {
                Some(Outcome::RefusedGrant)
            } else {
                None
            };
            (challenged, Tier::Retried)
        };
        if let Some(outcome) = challenged {
            let is_truncated = may_be_asked && !is_tcp && self.truncates(tuple, rules);
            let outcome = if is_truncated { Outcome::ChallengedByTruncation } else { outcome };
            return TierOrChallenge::Challenge(outcome, standing.wakes != 0);
        }
        let is_answered = standing.answer != 0;
        if standing.known == Standing::UNKNOWN || standing.is_above_limit != 0 && !is_answered {
            standing.tier = tier as u32;
        }
        TierOrChallenge::Tier(standing)
    }

    #[inline(always)]
    fn is_above_limit(
        &self,
        opening: &Opening,
        rules: &Rules<'_>,
        standing: Standing,
        now: Jiffies,
    ) -> bool {
        self.source(opening, rules, standing).is_some_and(|source| source.excess(now) != 0)
    }

    /// Whether the tuple answered a challenge and may open a flow: where that is remembered, else 0.
    #[inline(always)]
    fn find_answer(&self, tuple: &Tuple, now: Jiffies) -> u32 {
        let index = self.line_index(Memory::Answered, tuple.hash);
        let found = self
            .tables
            .memory_line(Memory::Answered, index)
            .and_then(|line| self.answer_in(line, tuple.hash, now));
        found.map_or(0, |answer| index * POSITIONS + answer.position)
    }

    #[inline(always)]
    fn answer_in<'l>(
        &self,
        line: &'l MemoryLine,
        hash: u64,
        now: Jiffies,
    ) -> Option<Remembered<'l>> {
        let max_age = self.environment.daemon.answered_life_coarse;
        memory::find(line, hash, self.coarse_moment(now), max_age, self.zero())
    }

    /// Forgets the answer of a tuple that was admitted: it is good for one flow.
    #[inline(always)]
    pub(super) fn forget_answer(&self, answer: u32) {
        if answer != 0
            && let Some(line) = self.tables.memory_line(Memory::Answered, answer / POSITIONS)
        {
            memory::forget(line, answer);
        }
    }

    /// Whether the source may be sent another challenge: the packet may be spoofed, so few go to one
    /// address, and no more in all than the links can take.
    #[inline(always)]
    fn may_be_asked(&self, tuple: &Tuple, grant: &Grant, now: Jiffies) -> bool {
        let scope = self.scope(tuple);
        let Environment { daemon, .. } = self.environment;
        let unit = Moment::at(now, daemon.memory_shift);
        let has_left = challenge::has_left(grant, self.environment, unit);
        let may_be_asked = has_left
            && self.memory_line(Memory::Challenged, scope).is_some_and(|line| {
                let now = Moment::at(now, 0);
                memory::take(line, scope, now, daemon.challenge_interval, self.zero())
            });
        if may_be_asked {
            let answers = &self.tables.cpu_state().answers;
            answers.set(challenge::take(grant, self.environment, unit, answers.get()));
        }
        may_be_asked
    }

    /// Challenges a SYN.
    #[inline(always)]
    fn challenge_by_ack(&self, tuple: &Tuple, rules: &Rules<'_>, now: Jiffies) -> Outcome {
        if rules.grant.challenged_at.load() != now.0 {
            rules.grant.challenged_at.store(now.0);
        }
        let dry_run = rules.policy.has(Policy::DRY_RUN);
        let answered = if tuple.family == 4 {
            self.challenge::<Ipv4>(tuple, dry_run, now)
        } else {
            self.challenge::<Ipv6>(tuple, dry_run, now)
        };
        answered.map_or(Outcome::RefusedChallenge, |()| Outcome::ChallengedByAck)
    }

    /// Overwrites the SYN with the challenge ACK, except in a dry run.
    #[inline(always)]
    fn challenge<A: Answering>(&self, tuple: &Tuple, dry_run: bool, now: Jiffies) -> Option<()> {
        let connection = self.connection::<A>(tuple)?;
        let slot = Slot::at(now, self.environment.daemon.cookie_shift);
        let (key, sequence) = (&self.environment.fixed.cookie_key, tuple.sequence);
        let cookie = challenge::choose(key, &connection, sequence, slot)?;
        let answer = Answer { connection, sequence, cookie };
        (dry_run || self.tables.answer(&answer)).then_some(())
    }

    /// Overwrites a DNS query with a truncated reply, except in a dry run.
    #[inline(always)]
    fn truncates(&self, tuple: &Tuple, rules: &Rules<'_>) -> bool {
        rules.policy.has(Policy::DRY_RUN)
            || if tuple.family == 4 {
                self.tables.truncate::<Ipv4>()
            } else {
                self.tables.truncate::<Ipv6>()
            }
    }

    /// Remembers a sender that comes first; the number of what speaks for its packet (see
    /// [`evidence`]).
    #[inline(always)]
    fn challenge_by_silence(&self, opening: &Opening, now: Jiffies) -> u32 {
        let Environment { fixed, daemon, .. } = self.environment;
        let Tuple { hash: port_hash, key, sequence, .. } = opening.tuple;
        // Most resolvers ask again from another port. Other senders keep theirs, and their sequence
        // number, which those who send in a source's name cannot guess.
        let (is_udp, is_tcp) =
            (opening.class == Class::Udp as u32, opening.class == Class::Tcp as u32);
        let wanted = if is_udp { key & 0xffff } else { key ^ if is_tcp { sequence } else { 0 } };
        let hash = hash::with_flow_key(&fixed.tuple_key, port_hash, key, wanted);
        let index = memory::line_index(hash, fixed.retry_line_mask);
        self.tables.retry_line(index).map_or(evidence::NONE, |line| {
            let moment = Moment::at(now, daemon.memory_shift);
            let evidence = retries::come(line, hash, port_hash, moment, daemon, self.zero());
            // Only another sender with the same fingerprint seems to have another port.
            if is_udp || evidence != evidence::OTHER_PORT { evidence } else { evidence::NONE }
        })
    }

    /// Whether a RST answers a challenge.
    #[inline(always)]
    pub(super) fn answers_challenge(&self, tuple: &Tuple, now: Jiffies) -> bool {
        // A cookie is good for its slot and the next.
        let challenged_at = self.tables.grant().map_or(0, |grant| grant.challenged_at.load());
        let age = now.since(Jiffies(challenged_at));
        if challenged_at == 0 || age >> (self.environment.daemon.cookie_shift & 31) > 1 {
            return false;
        }
        let hash = tuple.hash;
        let Some(line) = self.memory_line(Memory::Answered, hash) else { return false };
        let proves = if tuple.family == 4 {
            self.proves::<Ipv4>(tuple, now)
        } else {
            self.proves::<Ipv6>(tuple, now)
        };
        if !proves {
            return false;
        }
        let moment = self.coarse_moment(now);
        match self.answer_in(line, hash, now) {
            Some(answer) => answer.renew(moment),
            None => memory::remember(line, hash, moment, self.zero()),
        }
        true
    }

    #[inline(always)]
    fn proves<A: Answering>(&self, tuple: &Tuple, now: Jiffies) -> bool {
        let Some(connection) = self.connection::<A>(tuple) else { return false };
        let slot = Slot::at(now, self.environment.daemon.cookie_shift);
        challenge::proves(&self.environment.fixed.cookie_key, &connection, tuple.sequence, slot)
    }

    #[inline(always)]
    const fn scope(&self, tuple: &Tuple) -> u64 {
        hash::scope(&self.environment.fixed.source_key, tuple.family, tuple.scope)
    }

    #[inline(always)]
    fn memory_line(&self, memory: Memory, hash: u64) -> Option<&MemoryLine> {
        self.tables.memory_line(memory, self.line_index(memory, hash))
    }

    #[inline(always)]
    const fn line_index(&self, memory: Memory, hash: u64) -> u32 {
        let mask = match memory {
            Memory::Answered => self.environment.fixed.answered_line_mask,
            Memory::Challenged => self.environment.fixed.challenged_line_mask,
        };
        memory::line_index(hash, mask)
    }

    #[inline(always)]
    const fn coarse_moment(&self, now: Jiffies) -> Moment {
        Moment::at(now, self.environment.daemon.coarse_shift)
    }

    /// Reads the addresses again, so that packets which are not challenged need no room for them.
    #[inline(always)]
    fn connection<A: Answering>(&self, tuple: &Tuple) -> Option<Connection<A>> {
        let (source, destination) = self.tables.addresses()?;
        Some(Connection { source, destination, ports: tuple.key })
    }
}

/// Whether the packet may be a DNS query that is answered where it is challenged.
#[inline(always)]
const fn is_dns(opening: &Opening, rules: &Rules<'_>) -> bool {
    rules.policy.has(Policy::DNS)
        && opening.class == Class::Udp as u32
        && opening.tuple.key & 0xffff == challenge::DNS_PORT
}
