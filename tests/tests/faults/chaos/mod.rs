//! One disturbance after another, in a random order, while a flood goes on: restarts, devices that come and
//! go, files and pins that somebody changes. `CTGUARD_SEED` repeats an order, `CTGUARD_CHAOS_STEPS` makes it
//! longer.

mod disturb;
mod ground;
mod left;
mod watch;

use std::{collections::BTreeMap, time::Instant};

use anyhow::{Context as _, Result};
use ctguard_tests::{
    random::{self, Random},
    require,
};

use disturb::{Kind, disturb};
use ground::Ground;

/// Fails when after a disturbance, or several, an established exchange is not answered any more, the guard
/// is not in control again, the table was fuller than promised, or something is left in the end.
#[test]
fn chaos_in_a_flood_breaks_no_promise() -> Result<()> {
    let test = "chaos_in_a_flood_breaks_no_promise";
    if !require::root(test) || !require::release_binary(test) || !require::two_cpus(test) {
        return Ok(());
    }
    let seed = random::seed()?;
    let steps = match std::env::var("CTGUARD_CHAOS_STEPS") {
        Ok(steps) => steps.parse().context("CTGUARD_CHAOS_STEPS is a number")?,
        // Each kind once.
        Err(_) => Kind::ALL.len(),
    };
    println!("CTGUARD_SEED={seed} CTGUARD_CHAOS_STEPS={steps}");
    let mut random = Random::new(seed);
    let mut ground = Ground::build()?;
    let mut told: BTreeMap<Kind, (u32, f64)> = BTreeMap::new();
    for (step, kind) in order(&mut random, steps).into_iter().enumerate() {
        let began = Instant::now();
        let fill = disturb(&mut ground, kind, &mut random)
            .and_then(|()| ground.settle())
            .and_then(|()| ground.fill.ensure_kept())
            .with_context(|| {
                format!("step {step}, {kind:?}, said last:\n{}", ground.last_words())
            })?;
        let seconds = began.elapsed().as_secs_f64();
        println!("{step:4} {kind:?}: {seconds:.1} s, fill {fill:.1} % at most");
        let of_kind = told.entry(kind).or_default();
        *of_kind = (of_kind.0 + 1, of_kind.1.max(seconds));
    }
    for (kind, (times, longest)) in told {
        println!("{kind:?}: {times} times, {longest:.1} s at most");
    }
    ground.leave()
}

/// All kinds equally often, in any order.
fn order(random: &mut Random, steps: usize) -> Vec<Kind> {
    let mut order = Vec::new();
    while order.len() < steps {
        let mut kinds = Kind::ALL.to_vec();
        while !kinds.is_empty() {
            order.push(kinds.swap_remove(random.index(kinds.len())));
        }
    }
    order.truncate(steps);
    order
}
