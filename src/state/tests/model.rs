//! Random operations against the state, beside the reference model (`sim/`): P1–P7, P9, P11–P14, P16–P21, P29, P36, P44.

use proptest::collection::vec;
use proptest::prelude::*;

use super::super::Limits;
use super::super::sim::{self, Op};

/// Limits, what happens, and how it ends: well or badly.
fn lives() -> impl Strategy<Value = (Limits, Vec<Op>, bool)> {
    let ops = vec(any::<[u8; 3]>().prop_map(Op::decode), 0..200);
    (any::<[u8; 4]>().prop_map(sim::limits), ops, any::<bool>())
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 1500,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn whatever_happens_the_promises_hold((limits, ops, well) in lives()) {
        sim::play(limits, ops, well);
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 100,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn whatever_happened_life_goes_on((limits, ops, _) in lives()) {
        // P10, P11, P14, P16, P17
        sim::play_on(limits, ops);
    }
}

#[test]
fn bytes_of_any_length_are_a_life() {
    // What the fuzzer feeds; whole operations only.
    for length in 0..64 {
        let bytes: Vec<u8> = (0..length).map(|n: u8| n.wrapping_mul(37)).collect();
        sim::run(&bytes);
    }
}
