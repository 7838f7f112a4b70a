//! Whether an interface can be guarded, and how well.

mod card;
mod channels;
mod examination;
mod machine;
mod native;
mod program;
mod spread;
mod tags;

pub use examination::Asked;
pub(super) use examination::Examination;
pub(crate) use examination::outlook;
