//! Rates of sources: cells that count by GCRA, in lines that a keyed hash picks.

pub mod gcra;
mod line;

pub use line::{Cells, line_index};
