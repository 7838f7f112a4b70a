//! Something that each class of new flows has.

use ctguard_layout::{CLASSES, Class};
use serde::{Serialize, Serializer};

/// One for each class; a JSON object with the classes' names as keys.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ByClass<T>(pub(super) [T; CLASSES]);

impl<T> ByClass<T> {
    pub(crate) fn new(of: impl FnMut(Class) -> T) -> Self {
        Self(Class::ALL.map(of))
    }

    pub(crate) fn of(&self, class: Class) -> &T {
        &self.0[class as usize]
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&'static str, &T)> {
        Class::ALL.map(Class::name).into_iter().zip(&self.0)
    }
}

impl<T: Serialize> Serialize for ByClass<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.iter())
    }
}
