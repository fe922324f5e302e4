//! Judges: endpoints that fail in every way, selections, sheets for people, the command.

#[path = "judges/chat.rs"]
mod chat;
#[path = "judges/command.rs"]
mod command;
#[path = "judges/comparing.rs"]
mod comparing;
#[path = "judges/people.rs"]
mod people;
#[path = "judges/selecting.rs"]
mod selecting;
#[path = "judges/server.rs"]
mod server;
