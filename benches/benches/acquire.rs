//! How long it takes to acquire a slot and to give it back, beside a semaphore, deadpool and bb8.

use std::time::{Duration, Instant};

use criterion::{Criterion, criterion_group, criterion_main};
use h2pool_benches::acquire::{self, Case, Who};

/// Those who are compared where somebody waits.
const QUEUES: [Who; 2] = [Who::Semaphore, Who::H2pool];
const POOLS: [Who; 6] = [
    Who::Nothing,
    Who::Semaphore,
    Who::DeadpoolUnmanaged,
    Who::Deadpool,
    Who::Bb8,
    Who::H2pool,
];

/// Measures one turn; of several tasks, the time that passes by their number.
fn measure(criterion: &mut Criterion, name: String, tasks: u32, make: impl Fn() -> Box<dyn Case>) {
    let mut case = None;
    criterion.bench_function(&name, |bencher| {
        let case = case.get_or_insert_with(&make);
        bencher.iter_custom(|times| {
            let began = Instant::now();
            case.run(times);
            began.elapsed() / tasks
        });
    });
}

fn alone(criterion: &mut Criterion) {
    for who in POOLS
        .into_iter()
        .chain([Who::H2poolCurrentThread, Who::H2poolReady])
    {
        measure(criterion, format!("alone/{who:?}"), 1, || acquire::alone(who));
    }
}

fn tasks(criterion: &mut Criterion) {
    for tasks in [2, 8, 64] {
        for who in POOLS {
            let make = || acquire::tasks(who, tasks as usize);
            measure(criterion, format!("tasks/{tasks}/{who:?}"), tasks, make);
        }
    }
}

fn sessions(criterion: &mut Criterion) {
    for count in [1, 4, 32, 256] {
        measure(criterion, format!("sessions/{count}"), 1, || {
            acquire::sessions(count)
        });
    }
}

fn waiters(criterion: &mut Criterion) {
    for count in [1, 100, 10_000, 100_000] {
        for who in QUEUES {
            let make = || acquire::waiters(who, count);
            measure(criterion, format!("waiters/{count}/{who:?}"), 1, make);
        }
    }
}

fn cancel(criterion: &mut Criterion) {
    for count in [1, 100, 10_000, 100_000] {
        for who in QUEUES {
            let make = || acquire::cancel(who, count);
            measure(criterion, format!("cancel/{count}/{who:?}"), 1, make);
        }
    }
}

fn origins(criterion: &mut Criterion) {
    for count in [1, 1_000, 100_000] {
        measure(criterion, format!("origins/{count}"), 1, || {
            acquire::origins(count)
        });
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1));
    targets = alone, tasks, sessions, waiters, cancel, origins
}
criterion_main!(benches);
