//! The notebooks' kernel: how it is set up, and how notebooks are run without a browser.
//!
//! Everything lives in ignored folders of the checkout (`.qstar` and `target`), so that a user's home is
//! left alone and removing the checkout removes it all. Three facts decide the layout:
//!
//! - evcxr compiles each cell as a library of its own. Linked against an *rlib*, every cell would get its own
//!   copy of every `static`, candle's tensor ids among them, and a model made in one cell could not be trained
//!   in the next. So the kernel loads `qstar` as a *dylib* ([`setup()`] builds it).
//! - evcxr learns the type of a `let` from rust-analyzer alone, and rust-analyzer cannot read a dylib. So cells
//!   use the library through a small facade (`notebooks/facade`) that is the dylib for the compiler and the
//!   sources for rust-analyzer.
//! - The kernel's reply says "ok" after a panic and after a `?` on an `Err`. So notebooks are run by our own
//!   [`execute.py`](../../../src/notebook/execute.py), which asks every cell to say that it reached its end.

mod child;
mod kernel;
mod project;
mod run;
mod setup;

pub use kernel::Kernel;
pub use project::Project;
pub use run::{Reproduction, execute, lab, reproduce};
pub use setup::setup;
