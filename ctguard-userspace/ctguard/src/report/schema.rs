//! The version of the documents here.

/// 2: `new_flow_detection` of the status has a reason too.
pub(super) const SCHEMA_VERSION: u32 = 2;
