//! Finds the tier of a new flow, or challenges it, once a class is not calm or the strangers' grant
//! is spent. Also reads from RSTs whether a challenge was answered.

use super::{
    Guard, Memory, Tables,
    opening::{Opening, Tuple},
};
use crate::{
    admission::grant::{self, Allowance},
    bucket::Cells,
    challenge::{self, Answer, Answering, Connection, Slot},
    hash,
    layout::{Class, Grant, Limits, MemoryLine, Outcome, SourceCells, Stage, Tier},
    memory::{self, Moment},
    packet::{Ipv4, Ipv6},
    place::Place,
    sources::{self, Tiers},
    units::Jiffies,
};

pub(super) enum TierOrChallenge<'l> {
    /// The number of its tier, which is hidden from the verifier; a known source has its own cells.
    Tier(u32, Option<Known<'l>>),
    /// It is not admitted: it was challenged, or refused because it cannot be.
    Challenge(Outcome),
}

/// The cells of a known source.
pub(super) struct Known<'l>(&'l SourceCells);

impl Known<'_> {
    #[inline(always)]
    pub(super) fn cells(&self, class: u32) -> Cells<'_> {
        Cells::exact(&self.0.arrivals[Class::slot(class)])
    }

    /// Counts every flow: known sources are few, so their flows need no sampling.
    #[inline(always)]
    pub(super) fn note_offered(&self, class: u32) {
        self.0.offered[Class::slot(class)].add(1);
    }
}

impl<T: Tables> Guard<'_, T> {
    /// The order of preference: allow list, known source, a tuple that answered or came again,
    /// stranger.
    ///
    /// A flood can spend a calm guard's grant before the daemon runs. Until it does, known sources
    /// take from their own grants, and a SYN is challenged instead of refused.
    #[inline(always)]
    pub(super) fn tier_or_challenge(
        &self,
        opening: &Opening,
        (limits, grant): (&Limits, &Grant),
        dry_run: bool,
        now: Jiffies,
    ) -> TierOrChallenge<'_> {
        if opening.tier == Tier::Allowed as u32 {
            return TierOrChallenge::Tier(opening.tier, None);
        }
        let tuple = &opening.tuple;
        let class = Class::from_number(opening.class);
        let is_challenged = limits.stage(class) == Stage::Challenge;
        let is_spent = !is_challenged && self.strangers_have_spent(grant, now);
        if limits.is_calm() && !is_spent {
            return TierOrChallenge::Tier(opening.tier, None);
        }
        let scope = hash::scope(&self.environment.fixed.source_key, tuple.family, tuple.scope);
        let place = Place::of(scope, self.environment.fixed.known_source_line_mask, self.zero());
        let mut is_suspect = false;
        if let Some(found) = sources::find(&self.tables, place)
            && let Some(cells) = self.tables.source_cells(found.slot)
        {
            is_suspect = found.tiers.has(Tiers::CHALLENGED);
            let tier = found.tiers.tier();
            if !is_suspect || matches!(tier, Tier::AbovePart) {
                return TierOrChallenge::Tier(self.zero().hide(tier as u32), Some(Known(cells)));
            }
        }
        let instead_of_refusal =
            is_spent && class == Class::Tcp && tuple.is_syn() && self.can_answer();
        if !is_challenged && !is_suspect && !instead_of_refusal {
            return TierOrChallenge::Tier(opening.tier, None);
        }
        if !opening.has_tuple {
            return TierOrChallenge::Challenge(Outcome::RefusedChallenge);
        }
        // Packets that arrive right after an admission belong to the same flow.
        if opening.follows_admission() {
            return TierOrChallenge::Tier(self.zero().hide(Tier::Answered as u32), None);
        }
        match class {
            Class::Tcp if !tuple.is_syn() => TierOrChallenge::Challenge(Outcome::RefusedChallenge),
            Class::Tcp if self.can_answer() => self.challenge_by_ack(tuple, scope, dry_run, now),
            Class::Tcp | Class::Udp | Class::Other => self.challenge_by_silence(tuple, now),
        }
    }

    #[inline(always)]
    fn strangers_have_spent(&self, grant: &Grant, now: Jiffies) -> bool {
        let allowance = grant::peek(grant, Tier::Strangers as u32, self.environment, now);
        allowance == Allowance::Spent
    }

    /// Whether SYNs are answered on the packet's interface; never on one without a slot.
    #[inline(always)]
    fn can_answer(&self) -> bool {
        self.tables.interface().is_some_and(|interface| interface.answers_nothing == 0)
    }

    /// Lets a SYN whose tuple answered a challenge open one flow, and challenges any other.
    #[inline(always)]
    fn challenge_by_ack(
        &self,
        tuple: &Tuple,
        scope: u64,
        dry_run: bool,
        now: Jiffies,
    ) -> TierOrChallenge<'_> {
        let moment = self.moment(now);
        let refused = TierOrChallenge::Challenge(Outcome::RefusedChallenge);
        let Some(line) = self.memory_line(Memory::Answered, tuple.hash) else { return refused };
        if let Some(answered) = memory::find(line, tuple.hash, moment, self.zero())
            && answered.age <= self.environment.daemon.answered_life
        {
            answered.forget();
            memory::remember(line, memory::other(tuple.hash), moment, self.zero());
            return TierOrChallenge::Tier(self.zero().hide(Tier::Answered as u32), None);
        }
        if let Some(line) = self.memory_line(Memory::Resets, scope)
            && let Some(reset) = memory::find(line, scope, self.coarse_moment(now), self.zero())
            && reset.age <= self.environment.daemon.reset_life_coarse
        {
            return refused;
        }
        let answered = if tuple.family == 4 {
            self.challenge::<Ipv4>(tuple, dry_run, now)
        } else {
            self.challenge::<Ipv6>(tuple, dry_run, now)
        };
        match answered {
            Some(()) => TierOrChallenge::Challenge(Outcome::ChallengedByAck),
            None => refused,
        }
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

    /// Admits a tuple that comes again after a while, and remembers one that comes first.
    #[inline(always)]
    fn challenge_by_silence(&self, tuple: &Tuple, now: Jiffies) -> TierOrChallenge<'_> {
        let challenged = TierOrChallenge::Challenge(Outcome::ChallengedBySilence);
        let moment = self.moment(now);
        let Some(line) = self.memory_line(Memory::Retries, tuple.hash) else { return challenged };
        match memory::find(line, tuple.hash, moment, self.zero()) {
            Some(first) if first.age < self.environment.daemon.retry_after => {}
            Some(first) if first.age <= self.environment.daemon.retry_before => {
                return TierOrChallenge::Tier(self.zero().hide(Tier::Retried as u32), None);
            }
            Some(forgotten) => forgotten.renew(moment),
            None => memory::remember(line, tuple.hash, moment, self.zero()),
        }
        challenged
    }

    /// Whether a RST answers a challenge.
    ///
    /// If it ends a handshake instead, before the flow `is_connected`, its host never sent the SYN:
    /// for a while the source's SYNs are refused without a challenge ACK.
    #[inline(always)]
    pub(super) fn answers_challenge(
        &self,
        tuple: &Tuple,
        is_connected: bool,
        now: Jiffies,
    ) -> bool {
        let (Some(limits), Some(grant)) = (self.tables.limits(), self.tables.grant()) else {
            return false;
        };
        if limits.is_calm() && !self.strangers_have_spent(grant, now) {
            return false;
        }
        let hash = tuple.hash;
        let Some(line) = self.memory_line(Memory::Answered, hash) else { return false };
        let moment = self.moment(now);
        // First of all: a client whose SYN was refused after its answer is challenged again, and
        // answers again.
        let proves = if tuple.family == 4 {
            self.proves::<Ipv4>(tuple, now)
        } else {
            self.proves::<Ipv6>(tuple, now)
        };
        if !proves {
            let used = memory::find(line, memory::other(hash), moment, self.zero());
            if used.is_some_and(|used| used.age <= self.environment.daemon.answered_life)
                && !is_connected
            {
                let scope =
                    hash::scope(&self.environment.fixed.source_key, tuple.family, tuple.scope);
                if let Some(line) = self.memory_line(Memory::Resets, scope) {
                    memory::remember(line, scope, self.coarse_moment(now), self.zero());
                }
            }
            return false;
        }
        match memory::find(line, hash, moment, self.zero()) {
            Some(answered) => answered.renew(moment),
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
    fn memory_line(&self, memory: Memory, hash: u64) -> Option<&MemoryLine> {
        let mask = match memory {
            Memory::Retries => self.environment.fixed.retry_line_mask,
            Memory::Answered => self.environment.fixed.answered_line_mask,
            Memory::Resets => self.environment.fixed.reset_line_mask,
        };
        self.tables.memory_line(memory, memory::line_index(hash, mask))
    }

    #[inline(always)]
    const fn moment(&self, now: Jiffies) -> Moment {
        Moment::at(now, self.environment.daemon.memory_shift)
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
