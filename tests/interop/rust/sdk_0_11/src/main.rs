//! crates.io `spacetimedb-sdk` 0.11.1: Identity and Address, BSATN in Brotli over v1.bin.

mod bindings;
mod driver;
mod garden;
mod heroes;

fn main() {
    match std::env::args().nth(1).as_deref() {
        Some("heroes") => driver::run(&heroes::Bindings),
        Some("garden") => driver::run(&garden::Bindings),
        other => panic!("heroes or garden, not {other:?}"),
    }
}
