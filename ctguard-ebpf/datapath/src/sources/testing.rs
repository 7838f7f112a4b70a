//! A set of known sources in this process's memory, for tests.

extern crate std;
use std::vec::Vec;

use super::{ALL_LINES, SLOTS, SourceSet};
use crate::layout::{SourceCells, SourceLine};

#[expect(missing_docs, reason = "its parts are those of `SourceSet`")]
pub struct Set {
    pub lines: Vec<SourceLine>,
    pub cells: Vec<SourceCells>,
}

impl Default for Set {
    fn default() -> Self {
        Self {
            lines: (0..ALL_LINES).map(|_| SourceLine::default()).collect(),
            cells: (0..SLOTS).map(|_| SourceCells::default()).collect(),
        }
    }
}

impl SourceSet for Set {
    fn source_line(&self, index: u32) -> Option<&SourceLine> {
        self.lines.get(index as usize)
    }

    fn source_cells(&self, index: u32) -> Option<&SourceCells> {
        self.cells.get(index as usize)
    }
}
