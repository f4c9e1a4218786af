//! What the cases do.

pub(crate) mod bulk;
pub(crate) mod churn;
