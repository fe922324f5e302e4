#[cfg(not(rust_analyzer))]
pub use qstar::*;
#[cfg(rust_analyzer)]
include!("real/lib.rs");
