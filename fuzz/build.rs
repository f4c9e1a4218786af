//! The core is built with its simulation.

fn main() {
    println!("cargo::rustc-cfg=h2pool_sim");
    println!("cargo::rerun-if-changed=build.rs");
}
