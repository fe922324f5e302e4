//! Speculative sampling keeps q: by enumeration, on models, and in training.

#[path = "speculative/enumeration.rs"]
mod enumeration;
#[path = "speculative/models.rs"]
mod models;
#[path = "speculative/oracle.rs"]
mod oracle;
#[path = "speculative/prefixes.rs"]
mod prefixes;
#[path = "speculative/training.rs"]
mod training;
