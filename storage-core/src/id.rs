//! Ids that no other process has: names of writes, owners of locks and reservations.
//!
//! Two that are equal would make one write of two, so that there is no fallback for the system's random numbers.

use std::fmt;

/// Names one write, so that a store that deduplicates applies it once however often it is sent.
///
/// Make a new one for each intended write (128 random bits, say) and keep it over retries of that write.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct OperationId(pub u128);

impl OperationId {
    /// A new name: see [`unique_id`].
    #[must_use]
    pub fn random() -> Self {
        Self(unique_id())
    }
}

/// 128 random bits of the operating system: an id that no other process has, on whatever machine.
///
/// Names of writes, owners of locks and reservations must be such ids: two that are equal make one write of two.
///
/// # Panics
/// If the system has no random numbers.
#[must_use]
pub fn unique_id() -> u128 {
    // A simulation repeats.
    #[cfg(simulated)]
    return fastrand::u128(..);
    #[cfg(not(simulated))]
    from_the_system()
}

#[cfg(not(simulated))]
#[expect(clippy::expect_used, reason = "any other source could give an id twice, which makes one write of two")]
fn from_the_system() -> u128 {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).expect("the system gives random numbers once it is up");
    u128::from_le_bytes(bytes)
}

impl fmt::Debug for OperationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "OperationId({:032x})", self.0)
    }
}
