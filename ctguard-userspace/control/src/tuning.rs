//! Every number that tunes the controller, with its unit.
//!
//! Parts are ratios from 0 to 1; divisors divide a count.

use std::{ops::RangeInclusive, time::Duration};

use ctguard_layout::TIERS;

/// The tuning in force.
pub const TUNING: Tuning = Tuning {
    reserve_horizon: Duration::from_mins(1),
    reserve_window: Duration::from_secs(5),
    reserve_window_least: Duration::from_secs(1),
    reserve_memory: Duration::from_mins(1),
    reserve_step: Duration::from_millis(100),
    reserve_divisor: 10,
    offered_memory: Duration::from_secs(3),
    offered_least: 0.001,
    scan_interval: Duration::from_millis(100),
    first_scan: Duration::from_millis(20),
    pressure_horizon: Duration::from_secs(10),
    pressure_horizon_when_full: Duration::from_mins(1),
    nearly_full: 0.9,
    nearly_full_until: 0.85,
    calm_after: Duration::from_secs(5),
    unchallenged_after: Duration::from_secs(10),
    sufficient_floors: 2.0,
    presumed_for: Duration::from_millis(300),
    unseen_most: 0.5,
    surveyed_within: Duration::from_millis(300),
    clearly_too_much: 4.0,
    calm_divisor: 32,
    calm_least: 64,
    calm_divisor_of_known: 32,
    until_known: 1.0 / 64.0,
    unlimited: 1 << 40,
    pulse_memory: Duration::from_millis(250),
    need_memory: Duration::from_secs(2),
    slack: 1.25,
    saved: 1.0,
    saved_with_shares: 10.0,
    smallest_stock: 16,
    margin: 0.02,
    kept_for: 30.0,
    kept_most: 0.25,
    allowed_part: 0.25,
    spare_lasts: 120.0,
    stock_lasts: 15.0,
    flight_time: Duration::from_millis(10),
    settling_time: Duration::from_mins(1),
    growth_memory: Duration::from_secs(15),
    longest_earning: Duration::from_millis(200),
    fewest_saved: 4.0,
    budget_highest: 1e8,
    class_part: 0.1,
    ready_for_answers: 0.15,
    demand_margin: 1.25,
    gain_down: 0.95,
    gain_up: 1.02,
    gain_range: 0.5..=1.5,
    full_divisor: 64,
    replaced_by_tier: 8,
    reclaimed_to: 0.6,
    reclaimed_in: 1.0,
    reclaimed_most: 100_000.0,
    reclaimed_within: Duration::from_secs(3),
    pass_interval: Duration::from_millis(200),
    most_in_a_pass: 20_000,
    generation_lifetime: Duration::from_mins(1),
    generation_shortest: Duration::from_secs(5),
    generation_growth: 1.5,
    dump_retry: Duration::from_secs(1),
    dump_retry_longest: Duration::from_mins(1),
    regular_half_life: Duration::from_hours(72),
    regular_threshold: 2.2,
    regular_forgotten: 0.1,
    regular_highest: 72.0,
    unproven_hour: 0.5,
    regulars_in_network: 8,
    regulars_few: 1024,
    regulars_unproven: 2048,
    usual_half_time: Duration::from_hours(1),
    learning_interval: Duration::from_secs(15),
    standing_memory: Duration::from_mins(10),
    earlier_after: Duration::from_secs(10),
    least_part: 4,
    usual_most_divisor: 4,
    marks_last: Duration::from_secs(10),
    entry_lifetime_seconds: 120,
    fallback_highest: 10_000_000,
    fallback_in_calm: [0.75, 0.25, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0],
    fallback_under_pressure: [0.03, 0.17, 0.3, 0.16, 0.08, 0.02, 0.23, 0.01],
};

/// See [`TUNING`].
#[derive(Debug)]
pub struct Tuning {
    // Room kept for flows that others open.
    /// Room is kept for what others open in this time: half the life of an unanswered SYN, after
    /// which entries of a flood leave by themselves.
    pub reserve_horizon: Duration,
    /// Window over which growth by others is measured.
    pub reserve_window: Duration,
    /// A shorter window gives no rate.
    pub reserve_window_least: Duration,
    /// Time constant with which growth that has ended is forgotten: entries of a flood leave in
    /// bursts, which hide what others open meanwhile.
    pub reserve_memory: Duration,
    /// Resolution of the window.
    pub reserve_step: Duration,
    /// The room kept is at most the maximum divided by this.
    pub reserve_divisor: u64,

    // Offered loads.
    /// Time constant of offered loads: flows of one source come seconds apart.
    pub offered_memory: Duration,
    /// New flows per second; lower demands are ignored.
    pub offered_least: f64,
    /// Time between two scans of the offered loads.
    pub scan_interval: Duration,
    /// Time from leaving calm to the first scan.
    pub first_scan: Duration,

    // Stages.
    /// The guard leaves calm when the table would reach its target within this time.
    pub pressure_horizon: Duration,
    /// The same for a table that is nearly at its target.
    pub pressure_horizon_when_full: Duration,
    /// Part of the target from which on a table is nearly at it …
    pub nearly_full: f64,
    /// … and down to which it remains so.
    pub nearly_full_until: f64,
    /// Demand must be low for this time before the guard is calm again.
    pub calm_after: Duration,
    /// Shares must suffice for all strangers of a class for this time before challenges end.
    pub unchallenged_after: Duration,
    /// Challenges of a class end when the share of strangers would be this many floors.
    pub sufficient_floors: f64,
    /// SYNs that are challenged before demands are known stay challenged for this time, unless the
    /// flood is of another class: one scan sees only a sample of the sources.
    pub presumed_for: Duration,
    /// Shares are trusted when at most this part of strangers' flows comes from sources not seen
    /// yet …
    pub unseen_most: f64,
    /// … or this time after calm has ended, when nothing better is known.
    pub surveyed_within: Duration,
    /// While the strangers' grant lasts, a class is challenged only if it asks for this many times
    /// its part: demands are a sample, in which a few quiet sources look like many.
    pub clearly_too_much: f64,

    // Grants.
    /// A calm guard grants the headroom divided by this at a time …
    pub calm_divisor: u64,
    /// … and at least this many flows.
    pub calm_least: u64,
    /// The same for each tier that takes from its own grant once that of strangers is spent.
    pub calm_divisor_of_known: u64,
    /// Part of the headroom that strangers get until shares are trusted.
    pub until_known: f64,
    /// New flows in one tick to a table without a maximum: far more than any network brings.
    pub unlimited: u64,
    /// Time constant of admissions, to notice a flood.
    pub pulse_memory: Duration,
    /// Time constant of admissions, to know what a tier needs.
    pub need_memory: Duration,
    /// Paced tiers may admit this many times their part of the budget: shares limit them first.
    pub slack: f64,
    /// Seconds of its rate that a paced tier may save while nothing else limits it …
    pub saved: f64,
    /// … and while shares do, as much as sources may save of them.
    pub saved_with_shares: f64,
    /// Flows that a tier without distinguishable sources may always take from the headroom at once.
    pub smallest_stock: u64,
    /// Paced tiers aim at a fill that is this part of the maximum below where they must stop. A tier
    /// that hits its stop causes a wave one entry lifetime later.
    pub margin: f64,
    /// Seconds for which room is kept from lower tiers for regulars and proven sources …
    pub kept_for: f64,
    /// … at most this part of the target.
    pub kept_most: f64,
    /// Allowed sources get what the others leave; if they ask for more, at most this part of the
    /// rest.
    pub allowed_part: f64,
    /// Seconds over which the space above the target that belongs to allowed sources is spread: the
    /// longest life of an unreplied entry.
    pub spare_lasts: f64,
    /// Sources of a tier that is not paced are limited only if its stock would not last this many
    /// seconds.
    pub stock_lasts: f64,
    /// Netfilter confirms a packet, or drops it, within this time after its admission.
    pub flight_time: Duration,

    // Budget and shares.
    /// Time from the present fill to the target at the present pace: half the life of what a flood
    /// leaves, so that its entries begin to leave while there is room.
    pub settling_time: Duration,
    /// Time constant of the growth by others.
    pub growth_memory: Duration,
    /// A tick that comes later earns no more: what a pause saved is no burst.
    pub longest_earning: Duration,
    /// Flows that may always be saved.
    pub fewest_saved: f64,
    /// New flows a second; no network brings more.
    pub budget_highest: f64,
    /// Part of the budget that a class keeps while it asks for it.
    pub class_part: f64,
    /// Part of the budget that is ready for sources that answer a challenge, before they do.
    pub ready_for_answers: f64,
    /// Demand of a tier is taken to be this many times what was seen, until it is known better.
    pub demand_margin: f64,
    /// Factor of a tier's shares in each scan after its grant was spent …
    pub gain_down: f64,
    /// … and while less passes than may.
    pub gain_up: f64,
    /// Bounds of the product of these factors.
    pub gain_range: RangeInclusive<f64>,

    // Reclaim.
    /// A table is full when less than the maximum divided by this is free.
    pub full_divisor: u64,
    /// In a full table each tier may replace at most what all may, divided by this.
    pub replaced_by_tier: u64,
    /// Part of the target down to which a table that passed it is reclaimed …
    pub reclaimed_to: f64,
    /// … in this many seconds …
    pub reclaimed_in: f64,
    /// … deleting at most this many entries a second.
    pub reclaimed_most: f64,
    /// For this time after the table has passed its target, stages and shares are chosen for the
    /// room after the reclaim. If the table is still above its target then, its entries cannot be
    /// reclaimed.
    pub reclaimed_within: Duration,
    /// Least time between the starts of two passes.
    pub pass_interval: Duration,
    /// Deletions in one pass, which take some 0.2 s.
    pub most_in_a_pass: u64,

    // Known-flows filter.
    /// Life of a generation; dead flows cost a lookup for up to twice this time.
    pub generation_lifetime: Duration,
    /// Its least life.
    pub generation_shortest: Duration,
    /// Growth since the last turn below which another gains little.
    pub generation_growth: f64,
    /// A dump that failed is tried again after this time …
    pub dump_retry: Duration,
    /// … which doubles up to this.
    pub dump_retry_longest: Duration,

    // Regulars.
    /// After this time a score is worth half.
    pub regular_half_life: Duration,
    /// Score of a regular: each hour in which it was seen gives 1 at most, so it takes three.
    pub regular_threshold: f32,
    /// A lower score is forgotten: a source seen in three hours is a regular for 30 hours, one seen
    /// in every hour for two weeks.
    pub regular_forgotten: f32,
    /// Highest score: three days of every hour.
    pub regular_highest: f32,
    /// What an hour is worth in which a source was answered but completed no handshake: its packets
    /// may have been spoofed.
    pub unproven_hour: f32,
    /// Most regulars of one /24 or /48 …
    pub regulars_in_network: u32,
    /// … unless there are not more than these in all.
    pub regulars_few: usize,
    /// Most regulars that never completed a handshake: a patient sender of spoofed UDP makes as many
    /// as there may be.
    pub regulars_unproven: usize,
    /// What a regular usually holds rises halfway to what it holds in this time. It falls as its
    /// score does.
    pub usual_half_time: Duration,
    /// Time between two lessons: half the life of a UDP flow.
    pub learning_interval: Duration,

    // Standing.
    /// A source stays proven for this time after its last proving entry was seen.
    pub standing_memory: Duration,
    /// Sources proven for this time when the guard leaves calm are *earlier*; a flood that is noticed
    /// has lasted less, unless it is slow.
    pub earlier_after: Duration,
    /// Who holds no more entries is never above its part: a page opens several connections.
    pub least_part: u32,
    /// What one source usually holds counts up to the room divided by this.
    pub usual_most_divisor: u64,
    /// What an interrupted look found replaces what is older than this.
    pub marks_last: Duration,

    // Fallback rate.
    /// Seconds in which a full table empties when nobody refreshes its entries (conntrack's
    /// timeouts of `SYN_SENT` and `TIME_WAIT`).
    pub entry_lifetime_seconds: u64,
    /// New flows a second to a table without a maximum.
    pub fallback_highest: u64,
    /// Parts by tier in calm, when most sources count as strangers …
    pub fallback_in_calm: [f64; TIERS],
    /// … and otherwise, when most is for known sources.
    pub fallback_under_pressure: [f64; TIERS],
}
