//! Something that each class of new flows has.

use ctguard_layout::Class;
use serde::Serialize;

/// One for each class, under its name.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct ByClass<T> {
    pub(super) tcp: T,
    pub(super) udp: T,
    pub(super) other: T,
}

impl<T> ByClass<T> {
    pub(super) fn new(of: impl Fn(Class) -> T) -> Self {
        Self { tcp: of(Class::Tcp), udp: of(Class::Udp), other: of(Class::Other) }
    }
}
