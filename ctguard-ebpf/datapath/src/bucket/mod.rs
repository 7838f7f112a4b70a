//! Rate limits: GCRA cells in lines that a keyed hash selects.

pub mod gcra;
mod line;

pub(crate) use line::Cells;
pub use line::line_index;
