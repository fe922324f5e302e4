//! Tasks of real texts, on the records of the hub's cache (`HF_HOME`); skipped with a printed reason without it. Chat
//! templates, on fixtures.

#[path = "text_tasks/cache.rs"]
mod cache;
#[path = "text_tasks/chat.rs"]
mod chat;
#[path = "text_tasks/chat_task.rs"]
mod chat_task;
#[path = "text_tasks/data.rs"]
mod data;
#[path = "text_tasks/dialogue.rs"]
mod dialogue;
#[path = "text_tasks/rewards.rs"]
mod rewards;
#[path = "text_tasks/task.rs"]
mod task;
