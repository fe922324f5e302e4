//! What rust-analyzer must know of anyhow. Never run: a signature that is wrong here shows as a compile error in a cell.

use std::fmt::Display;

pub struct Error(());

pub type Result<T, E = Error> = std::result::Result<T, E>;

impl<E: std::error::Error + Send + Sync + 'static> From<E> for Error {
    fn from(_: E) -> Self {
        loop {}
    }
}

pub trait Context<T, E>: Sized {
    fn context<C: Display + Send + Sync + 'static>(self, _: C) -> Result<T, Error> {
        loop {}
    }
    fn with_context<C: Display + Send + Sync + 'static, F: FnOnce() -> C>(self, _: F) -> Result<T, Error> {
        loop {}
    }
}

impl<T, E> Context<T, E> for std::result::Result<T, E> {}
impl<T> Context<T, std::convert::Infallible> for Option<T> {}

#[macro_export]
macro_rules! anyhow {
    ($($t:tt)*) => {
        $crate::Error::from(std::fmt::Error)
    };
}

#[macro_export]
macro_rules! bail {
    ($($t:tt)*) => {
        return Err($crate::anyhow!($($t)*))
    };
}

#[macro_export]
macro_rules! ensure {
    ($($t:tt)*) => {};
}
