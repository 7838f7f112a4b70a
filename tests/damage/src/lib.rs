//! Damages valid input, for tests of what reads it: messages of the kernel, files, answers of servers.
//!
//! [`survives!`](crate::survives) makes a test of a reader. In `cargo test` the inputs are random;
//! `BOLERO_RANDOM_ITERATIONS` says how many, and `BOLERO_RANDOM_SEED`, which a failure names, repeats
//! one. `cargo bolero test` has libFuzzer choose them by what they reach.

use bolero::TypeGenerator;

#[doc(hidden)]
pub use bolero;

/// Inputs of a test, unless `BOLERO_RANDOM_ITERATIONS` says otherwise.
pub const INPUTS: usize = 100_000;

/// What becomes of one of several valid inputs.
#[derive(Clone, Debug, TypeGenerator)]
pub struct Damaged {
    which: u8,
    #[generator(bolero::produce::<Vec<Damage>>().with().len(0..=8usize))]
    damages: Vec<Damage>,
}

/// Places beyond the end are counted on from the start.
#[derive(Clone, Copy, Debug, TypeGenerator)]
enum Damage {
    Overwrite { at: u16, byte: u8 },
    Raise { at: u16, by: u8 },
    Insert { at: u16, byte: u8 },
    Remove { at: u16, length: u8 },
    Repeat { at: u16, length: u8 },
    Cut { at: u16 },
}

impl Damaged {
    /// Which of so many inputs it is.
    #[must_use]
    pub fn which(&self, inputs: usize) -> usize {
        usize::from(self.which) % inputs.max(1)
    }

    /// One of `valid`, damaged.
    #[must_use]
    pub fn of(&self, valid: &[&[u8]]) -> Vec<u8> {
        let undamaged = valid.get(self.which(valid.len()));
        let mut bytes = undamaged.map(|bytes| bytes.to_vec()).unwrap_or_default();
        for damage in &self.damages {
            damage.does_to(&mut bytes);
        }
        bytes
    }
}

impl Damage {
    fn does_to(self, bytes: &mut Vec<u8>) {
        let length = bytes.len();
        let place = |at: u16| usize::from(at) % (length + 1);
        let range = |at: u16, most: u8| place(at)..length.min(place(at) + usize::from(most));
        match self {
            Self::Overwrite { at, byte } => {
                if let Some(there) = bytes.get_mut(place(at)) {
                    *there = byte;
                }
            }
            Self::Raise { at, by } => {
                if let Some(there) = bytes.get_mut(place(at)) {
                    *there = there.wrapping_add(by);
                }
            }
            Self::Insert { at, byte } => bytes.insert(place(at), byte),
            Self::Remove { at, length } => drop(bytes.drain(range(at, length))),
            Self::Repeat { at, length } => {
                let repeated = bytes[range(at, length)].to_vec();
                bytes.splice(place(at)..place(at), repeated);
            }
            Self::Cut { at } => bytes.truncate(place(at)),
        }
    }
}

/// Fails when `$read` panics over one of the valid inputs, or over one that is damaged.
#[macro_export]
macro_rules! survives {
    ($valid:expr, $read:expr) => {{
        let valid: &[&[u8]] = $valid;
        for valid in valid {
            $read(valid);
        }
        $crate::for_each_damage!($crate::INPUTS, |damaged| $read(&damaged.of(valid)));
    }};
}

/// Fails when `$try` panics over a [`Damaged`], of which it is given so many.
#[macro_export]
macro_rules! for_each_damage {
    ($inputs:expr, $try:expr) => {
        $crate::bolero::check!()
            .with_iterations($inputs)
            .with_type::<$crate::Damaged>()
            .for_each($try)
    };
}

#[cfg(test)]
mod tests {
    use std::{cell::RefCell, collections::BTreeSet};

    #[test]
    fn inputs_are_the_valid_one_and_many_that_are_shorter_longer_and_other() {
        let seen = RefCell::new(BTreeSet::new());
        let read = |bytes: &[u8]| _ = seen.borrow_mut().insert(bytes.to_vec());
        let checked = std::panic::AssertUnwindSafe(read);
        survives!(&[b"0123456789"], |bytes: &[u8]| checked(bytes));
        let seen = seen.into_inner();
        let of = |is: &dyn Fn(usize) -> bool| seen.iter().filter(|it| is(it.len())).count();
        assert!(seen.contains(&b"0123456789"[..]));
        assert!(seen.len() > 1_000, "{}", seen.len());
        assert!(of(&|length| length < 10) > 100 && of(&|length| length > 10) > 100);
        assert!(of(&|length| length == 10) > 100);
    }

    #[test]
    #[should_panic(expected = "test failed")]
    fn a_reader_that_panics_fails() {
        survives!(&[b"0123456789"], |bytes: &[u8]| {
            assert!(bytes.len() < 12, "a reader's fault");
        });
    }
}
