//! A panic is an invariant that does not hold. The node ends with its words: what it holds may be half changed, and must not be served.

use std::any::Any;

/// What a panic says.
pub(crate) fn words(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("a panic without words").to_owned()
}
