//! Lists in which one record that cannot be read hides no other.

use futures::{StreamExt as _, stream::BoxStream};
use payment_channels::{Error, Ledger, Operator};

use super::{Found, advice};
use crate::exit::{Failure, Outcome};

/// What could be listed, by whose it is, and what could not.
pub(super) struct Listing<T> {
    pub(super) items: Vec<(Option<Ledger>, T)>,
    unreadable: Vec<Error>,
}

impl<T> Listing<T> {
    /// What each operator lists, to the end.
    pub(super) async fn of<'a>(
        found: &Found<'a>,
        list: impl Fn(&Operator<'a, dyn ::storage::Store>) -> BoxStream<'a, Result<T, Error>>,
    ) -> Result<Self, Failure> {
        let mut listing = Self { items: Vec::new(), unreadable: Vec::new() };
        for operator in &found.operators {
            let mut items = list(operator);
            while let Some(item) = items.next().await {
                match item {
                    Ok(item) => listing.items.push((operator.ledger(), item)),
                    Err(error) if error.is_of_a_record() => listing.unreadable.push(error),
                    Err(error) => return Err(error.into()),
                }
            }
        }
        Ok(listing)
    }

    /// Names what could not be read on standard error: the rest is printed by now.
    pub(super) fn tell_unreadable(self) -> Outcome {
        tell_unreadable(&self.unreadable)
    }
}

/// Names records that could not be read on standard error, and ends with the code for that if there are any.
pub(super) fn tell_unreadable(unreadable: &[Error]) -> Outcome {
    for error in unreadable {
        let advice = advice(error).map_or_else(String::new, |advice| format!(": {advice}"));
        eprintln!("warning: {error}{advice}");
    }
    match unreadable.len() {
        0 => Ok(()),
        1 => Err(Failure::Partial(anyhow::anyhow!("one record could not be read; all others are told"))),
        count => Err(Failure::Partial(anyhow::anyhow!("{count} records could not be read; all others are told"))),
    }
}
