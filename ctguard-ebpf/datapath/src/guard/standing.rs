//! Who asks for a new flow, once some class is not calm or the grant of strangers is spent: a known
//! source, a tuple that answered a challenge or came again, or a stranger to be challenged.

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
    sources,
    units::Jiffies,
};

/// What becomes of who asks.
pub(super) enum Standing<'l> {
    /// It asks to be admitted in the tier of this number, which the verifier does not know (see
    /// `verifier`); a known source has cells of its own.
    Of(u32, Option<Known<'l>>),
    /// It is not admitted.
    Ended(Outcome),
}

/// A source that is regular or proven.
pub(super) struct Known<'l>(&'l SourceCells);

impl Known<'_> {
    #[inline(always)]
    pub(super) fn cells(&self, class: u32) -> Cells<'_> {
        Cells::exact(&self.0.arrivals[Class::slot(class)])
    }

    /// Each flow is noted: so many as known sources offer need no sampling.
    #[inline(always)]
    pub(super) fn note_offered(&self, class: u32) {
        self.0.offered[Class::slot(class)].add(1);
    }
}

impl<T: Tables> Guard<'_, T> {
    /// The standing of who asks.
    ///
    /// A flood spends what a calm guard grants before the daemon has run: then already who is known
    /// has a grant of his own, and a SYN is answered in place of being refused.
    #[inline(always)]
    pub(super) fn standing(
        &self,
        opening: &Opening,
        (limits, grant): (&Limits, &Grant),
        dry_run: bool,
        now: Jiffies,
    ) -> Standing<'_> {
        if opening.tier == Tier::Allowed as u32 {
            return Standing::Of(opening.tier, None);
        }
        let tuple = &opening.tuple;
        let class = Class::from_number(opening.class);
        let is_challenged = limits.stage(class) == Stage::Challenge;
        let is_spent = !is_challenged && self.strangers_have_spent(grant, now);
        if limits.is_calm() && !is_spent {
            return Standing::Of(opening.tier, None);
        }
        let scope = hash::scope(&self.environment.fixed.source_key, tuple.family, tuple.scope);
        let place = Place::of(scope, self.environment.fixed.known_source_line_mask, self.zero());
        if let Some(found) = sources::find(&self.tables, place)
            && let Some(cells) = self.tables.source_cells(found.slot)
        {
            let tier = if found.tiers.is_regular() { Tier::Regulars } else { Tier::Proven };
            return Standing::Of(self.zero().hide(tier as u32), Some(Known(cells)));
        }
        let is_answered = is_spent && class == Class::Tcp && tuple.is_syn() && self.answers();
        if !is_challenged && !is_answered {
            return Standing::Of(opening.tier, None);
        }
        if !opening.has_tuple {
            return Standing::Ended(Outcome::RefusedChallenge);
        }
        // Packets that arrive right after an admission belong to the same flow.
        if opening.rests_on_admission() {
            return Standing::Of(self.zero().hide(Tier::Answered as u32), None);
        }
        match class {
            Class::Tcp if !tuple.is_syn() => Standing::Ended(Outcome::RefusedChallenge),
            Class::Tcp if self.answers() => self.challenge_by_ack(tuple, scope, dry_run, now),
            Class::Tcp | Class::Udp | Class::Other => self.challenge_by_silence(tuple, now),
        }
    }

    #[inline(always)]
    fn strangers_have_spent(&self, grant: &Grant, now: Jiffies) -> bool {
        let allowance = grant::peek(grant, Tier::Strangers as u32, self.environment, now);
        allowance == Allowance::Spent
    }

    /// Whether SYNs are answered on the packet's interface: not on one without a slot, of which
    /// nobody said so.
    #[inline(always)]
    fn answers(&self) -> bool {
        self.tables.interface().is_some_and(|interface| interface.answers_nothing == 0)
    }

    /// A SYN of a tuple that has answered opens its flow, once; another one is answered.
    #[inline(always)]
    fn challenge_by_ack(
        &self,
        tuple: &Tuple,
        scope: u64,
        dry_run: bool,
        now: Jiffies,
    ) -> Standing<'_> {
        let moment = self.moment(now);
        let refused = Standing::Ended(Outcome::RefusedChallenge);
        let Some(line) = self.memory_line(Memory::Answered, tuple.hash) else { return refused };
        if let Some(answered) = memory::find(line, tuple.hash, moment, self.zero())
            && answered.age <= self.environment.daemon.answered_life
        {
            answered.forget();
            memory::remember(line, memory::other(tuple.hash), moment, self.zero());
            return Standing::Of(self.zero().hide(Tier::Answered as u32), None);
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
            Some(()) => Standing::Ended(Outcome::ChallengedByAck),
            None => refused,
        }
    }

    /// Writes the answer in the SYN's place. In a dry run the SYN goes on as it is.
    #[inline(always)]
    fn challenge<A: Answering>(&self, tuple: &Tuple, dry_run: bool, now: Jiffies) -> Option<()> {
        let connection = self.connection::<A>(tuple)?;
        let slot = Slot::at(now, self.environment.daemon.cookie_shift);
        let (key, sequence) = (&self.environment.fixed.cookie_key, tuple.sequence);
        let cookie = challenge::choose(key, &connection, sequence, slot)?;
        let answer = Answer { connection, sequence, cookie };
        (dry_run || self.tables.answer(&answer)).then_some(())
    }

    /// A tuple that comes again after a while is admitted; one that never came is remembered.
    #[inline(always)]
    fn challenge_by_silence(&self, tuple: &Tuple, now: Jiffies) -> Standing<'_> {
        let challenged = Standing::Ended(Outcome::ChallengedBySilence);
        let moment = self.moment(now);
        let Some(line) = self.memory_line(Memory::Retries, tuple.hash) else { return challenged };
        match memory::find(line, tuple.hash, moment, self.zero()) {
            Some(first) if first.age < self.environment.daemon.retry_after => {}
            Some(first) if first.age <= self.environment.daemon.retry_before => {
                return Standing::Of(self.zero().hide(Tier::Retried as u32), None);
            }
            Some(forgotten) => forgotten.renew(moment),
            None => memory::remember(line, tuple.hash, moment, self.zero()),
        }
        challenged
    }

    /// Takes a RST for what it tells of a challenge; true if it answered one and goes no further.
    /// One that ends a handshake, before the flow is `completed`, comes from a host that never
    /// asked.
    #[inline(always)]
    pub(super) fn takes_reset(&self, tuple: &Tuple, completed: bool, now: Jiffies) -> bool {
        let (Some(limits), Some(grant)) = (self.tables.limits(), self.tables.grant()) else {
            return false;
        };
        if limits.is_calm() && !self.strangers_have_spent(grant, now) {
            return false;
        }
        let hash = tuple.hash;
        let Some(line) = self.memory_line(Memory::Answered, hash) else { return false };
        let moment = self.moment(now);
        // Before all else: who answered and found the grant spent is challenged, and answers, again.
        let proves = if tuple.family == 4 {
            self.proves::<Ipv4>(tuple, now)
        } else {
            self.proves::<Ipv6>(tuple, now)
        };
        if !proves {
            let used = memory::find(line, memory::other(hash), moment, self.zero());
            if used.is_some_and(|used| used.age <= self.environment.daemon.answered_life)
                && !completed
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

    /// The connection, its addresses read again: few packets come here, and the others need no room
    /// for them.
    #[inline(always)]
    fn connection<A: Answering>(&self, tuple: &Tuple) -> Option<Connection<A>> {
        let (source, destination) = self.tables.addresses()?;
        Some(Connection { source, destination, ports: tuple.key })
    }
}
