//! How many instructions it takes to acquire a slot and to give it back, beside a semaphore, deadpool and bb8: under
//! callgrind, which counts those of the thread that calls. Divide by [`TURNS`].

use gungraun::{library_benchmark, library_benchmark_group, main};
use h2pool_benches::acquire::{self, Case, Who};

/// Enough that what surrounds them does not show.
const TURNS: u64 = 1000;

type Boxed = Box<dyn Case>;

fn run(mut case: Boxed) -> Boxed {
    case.run(TURNS);
    case
}

#[library_benchmark(setup = acquire::alone)]
#[bench::nothing(Who::Nothing)]
#[bench::semaphore(Who::Semaphore)]
#[bench::deadpool_unmanaged(Who::DeadpoolUnmanaged)]
#[bench::deadpool(Who::Deadpool)]
#[bench::bb8(Who::Bb8)]
#[bench::h2pool(Who::H2pool)]
#[bench::h2pool_current_thread(Who::H2poolCurrentThread)]
#[bench::h2pool_ready(Who::H2poolReady)]
fn alone(case: Boxed) -> Boxed {
    run(case)
}

#[library_benchmark(setup = acquire::sessions)]
#[bench::h2pool_1(1)]
#[bench::h2pool_4(4)]
#[bench::h2pool_32(32)]
#[bench::h2pool_256(256)]
fn sessions(case: Boxed) -> Boxed {
    run(case)
}

#[library_benchmark(setup = acquire::waiters)]
#[bench::semaphore_1(Who::Semaphore, 1)]
#[bench::semaphore_100000(Who::Semaphore, 100_000)]
#[bench::h2pool_1(Who::H2pool, 1)]
#[bench::h2pool_100(Who::H2pool, 100)]
#[bench::h2pool_10000(Who::H2pool, 10_000)]
#[bench::h2pool_100000(Who::H2pool, 100_000)]
fn waiters(case: Boxed) -> Boxed {
    run(case)
}

#[library_benchmark(setup = acquire::cancel)]
#[bench::semaphore_1(Who::Semaphore, 1)]
#[bench::semaphore_100000(Who::Semaphore, 100_000)]
#[bench::h2pool_1(Who::H2pool, 1)]
#[bench::h2pool_100(Who::H2pool, 100)]
#[bench::h2pool_10000(Who::H2pool, 10_000)]
#[bench::h2pool_100000(Who::H2pool, 100_000)]
fn cancel(case: Boxed) -> Boxed {
    run(case)
}

#[library_benchmark(setup = acquire::origins)]
#[bench::h2pool_1(1)]
#[bench::h2pool_1000(1_000)]
#[bench::h2pool_100000(100_000)]
fn origins(case: Boxed) -> Boxed {
    run(case)
}

library_benchmark_group!(
    name = acquiring,
    benchmarks = [alone, sessions, waiters, cancel, origins]
);
main!(library_benchmark_groups = acquiring);
