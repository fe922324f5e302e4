//! Speculative sampling keeps q: by enumeration, and on models.

#[path = "speculative/enumeration.rs"]
mod enumeration;
#[path = "speculative/models.rs"]
mod models;
