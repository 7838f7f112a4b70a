//! Every number that tunes the controller, with its unit.
//!
//! Parts are ratios from 0 to 1; divisors divide a count.

use std::{ops::RangeInclusive, time::Duration};

use ctguard_layout::TIERS;

/// The tuning in force.
pub const TUNING: Tuning = Tuning {
    reserve_horizon: Duration::from_secs(10),
    reserve_window: Duration::from_secs(5),
    reserve_window_least: Duration::from_secs(1),
    reserve_memory: Duration::from_mins(1),
    reserve_step: Duration::from_millis(100),
    reserve_divisor: 10,
    others_most_divisor: 4,
    offered_memory: Duration::from_secs(3),
    offered_least: 0.001,
    refusals_memory: Duration::from_secs(10),
    scan_interval: Duration::from_millis(100),
    first_scan: Duration::from_millis(20),
    pressure_horizon: Duration::from_secs(10),
    calm_after: Duration::from_secs(5),
    calm_below: 0.8,
    unchallenged_after: Duration::from_secs(10),
    unasked_after: Duration::from_secs(1),
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
    saved: 2.0,
    smallest_stock: 16,
    flight_time: Duration::from_millis(10),
    longest_earning: Duration::from_millis(200),
    fewest_saved: 4.0,
    class_part: 0.1,
    ready_for_answers: 0.15,
    demand_margin: 1.25,
    kept_for: 20.0,
    kept_most_ppm: 30_000,
    gain_down: 0.85,
    gain_up: 1.05,
    gain_range: 1e-3..=1.1,
    gain_of_floods: 0.5,
    challenged_divisor: 64,
    fewest_challenged: 16,
    excess_begins: 4.0,
    excess_ends: 2.0,
    excess_none: 0.5,
    horizon: Duration::from_secs(5),
    horizon_longest: Duration::from_secs(15),
    reserve_ppm: 50_000,
    reserve_in_need_ppm: 35_000,
    replaced_by_strangers_divisor: 64,
    parts_reserve_ppm: 150_000,
    above_firm_divisor: 6,
    stops_of_little_room_ppm: 60_000,
    beyond_target_ppm: 20_000,
    least_headroom_ppm: 2_500,
    starved_for: Duration::from_millis(500),
    replaced_divisor: 16,
    most_deleted: 256,
    most_deleted_above_target: 1024,
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
    earlier_after: Duration::from_secs(4),
    least_part: 4,
    usual_most_divisor: 4,
    marks_last: Duration::from_secs(10),
    entry_lifetime_seconds: 120,
    fallback_highest: 10_000_000,
    fallback_in_calm: [0.4, 0.1, 0.15, 0.1, 0.07, 0.03, 0.15, 0.0],
    fallback_under_pressure: [0.03, 0.17, 0.3, 0.16, 0.08, 0.02, 0.23, 0.01],
};

/// See [`TUNING`].
#[derive(Debug)]
pub struct Tuning {
    // Room kept for flows that others open.
    /// Room is kept for what others open in this time, within which some more can be reclaimed.
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
    /// … and at most the room that there is or can be made, divided by this.
    pub others_most_divisor: u64,

    // Offered loads.
    /// Time constant of offered loads: flows of one source come seconds apart.
    pub offered_memory: Duration,
    /// New flows per second; lower demands are ignored.
    pub offered_least: f64,
    /// Time constant of what `status` says of sources above their limits.
    pub refusals_memory: Duration,
    /// Time between two scans of the offered loads.
    pub scan_interval: Duration,
    /// Time from leaving calm to the first scan.
    pub first_scan: Duration,

    // Stages.
    /// The guard leaves calm when the room that there is or can be made would be taken in this time.
    pub pressure_horizon: Duration,
    /// Demand must be low for this time before the guard is calm again.
    pub calm_after: Duration,
    /// It is low while it and what others open are less than this part of what ends calm: what others
    /// open varies.
    pub calm_below: f64,
    /// Shares must suffice for all strangers of a class for this time before challenges end.
    pub unchallenged_after: Duration,
    /// This time is enough if strangers of the class ask for next to nothing.
    pub unasked_after: Duration,
    /// Challenges of a class end when the share of strangers would be this many floors.
    pub sufficient_floors: f64,
    /// Strangers of a class are not challenged if they would fill less than the maximum divided by
    /// this in the time over which the room is spread.
    pub challenged_divisor: u64,
    /// Nor are they, except over TCP, if fewer sources than this are seen: a flood shows hundreds, and a
    /// few can be held to a share.
    pub fewest_challenged: usize,
    /// TCP is challenged if strangers ask for this many times the rate for which there is room.
    pub excess_begins: f64,
    /// A challenge goes on while they ask for more than this many times it …
    pub excess_ends: f64,
    /// … and ends in any case, and sooner, when they ask for less than this.
    pub excess_none: f64,
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
    /// Seconds for which room is kept from lower tiers for known sources …
    pub kept_for: f64,
    /// … at most this part of the maximum, in parts per million.
    pub kept_most_ppm: u32,
    /// Seconds of its rate that a paced tier may save.
    pub saved: f64,
    /// Flows that a tier without distinguishable sources may always take from the headroom at once.
    pub smallest_stock: u64,
    /// Netfilter confirms a packet, or drops it, within this time after its admission.
    pub flight_time: Duration,

    // Budget and shares.
    /// The room that there is or can be made is spread over the time in which the daemon looks at the
    /// table twice, at least this …
    pub horizon: Duration,
    /// … and at most this.
    pub horizon_longest: Duration,
    /// A tick that comes later earns no more: what a pause saved is no burst.
    pub longest_earning: Duration,
    /// Flows that may always be saved.
    pub fewest_saved: f64,
    /// Part of the budget that a class keeps while it asks for it.
    pub class_part: f64,
    /// Part of the budget that is ready for sources that answer a challenge, before they do.
    pub ready_for_answers: f64,
    /// Demand of a tier is taken to be this many times what was seen, until it is known better.
    pub demand_margin: f64,
    /// Factor of a tier's shares in each scan after its grant was spent: then there are more sources
    /// than can be told apart …
    pub gain_down: f64,
    /// … and while less passes than may.
    pub gain_up: f64,
    /// A lower product means so many sources that shares cannot limit them, only a challenge.
    pub gain_of_floods: f64,
    /// Bounds of the product of these factors.
    pub gain_range: RangeInclusive<f64>,

    // Reclaim.
    /// Entries are deleted until so much of the maximum is free below the target, in parts per
    /// million: a little more than where the last tier stops …
    pub reserve_ppm: u32,
    /// … or this, where only entries are left that the kernel itself would replace.
    pub reserve_in_need_ppm: u32,
    /// Strangers make use of such entries for the maximum divided by this at most.
    pub replaced_by_strangers_divisor: u64,
    /// Less headroom than this is none, in parts per million of the maximum.
    pub least_headroom_ppm: u32,
    /// Above entries that cannot be deleted there is room for the target divided by this, be it
    /// beyond the target.
    pub above_firm_divisor: u64,
    /// Where that is little, a tier stops below its end by no more than this fraction of it: what it
    /// leaves to others, in parts per million of the maximum, divided by this.
    pub stops_of_little_room_ppm: u64,
    /// Entries that came after calm, and cannot be deleted, bring the table beyond its target by at
    /// most this, in parts per million of the maximum.
    pub beyond_target_ppm: u32,
    /// Sources are held to their parts so early that so much of the maximum remains below the target
    /// for those within theirs, in parts per million.
    pub parts_reserve_ppm: u32,
    /// If there is no room for anybody, and none can be made, for this time, then flows are let
    /// through up to the maximum, as if there were no guard.
    pub starved_for: Duration,
    /// At the maximum the kernel may replace so many entries from one tick to the next: the maximum
    /// divided by this.
    pub replaced_divisor: u64,
    /// Deletions in one tick …
    pub most_deleted: u64,
    /// … and in one tick above the target.
    pub most_deleted_above_target: u64,

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
