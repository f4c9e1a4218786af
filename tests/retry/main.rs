//! The retry layer over mock services, on tokio's paused clock. Every contract number R1–R15 is named where it is proven.

mod basics;
mod bodies;
mod budgets;
mod delays;
mod hedging;
mod limits;
mod mock;
mod pool;
mod properties;
mod services;
mod tower_policy;
