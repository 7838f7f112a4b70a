//! The screen of `ctguard top`. `reading` is what is read of the guard, `sources` how fast each source
//! asks, `state` what follows from two readings, `view` what keys changed, `draw` the screen; `keys`
//! and `screen` are the terminal. Only `screen` does anything.

mod draw;
mod keys;
mod reading;
mod screen;
mod sources;
mod state;
mod view;

#[cfg(test)]
mod tests;

pub(crate) use draw::draw;
pub(crate) use keys::Keyboard;
pub(crate) use reading::{Asked, Counts, Facts, Standing};
pub(crate) use screen::{Screen, look};
pub(crate) use state::State;
pub(crate) use view::{Change, DENIED_FOR, Effect, FASTEST, SLOWEST, View};
