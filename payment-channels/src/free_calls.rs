//! Free calls: who has how many, counted so that a retry is not counted twice.
//!
//! Pure. Invariant: no more calls are given back than were counted. Version 1 of the record is read still, and written
//! where version 2 says no more.

use alloy_primitives::keccak256;
use bytes::Bytes;
use storage_core::{
    OperationId,
    channel::Address,
    record::{DecodeError, Schema},
};

use crate::{Error, Operation, RecentOperations, Result};

/// Whose free calls are counted together: one user, as one signer knows him, of one service, in one group of one organization.
///
/// One trusted signer, such as a marketplace, may vouch for all its users: then the user's id tells them apart. An address alone is a user too.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct FreeCallUser {
    /// Who signs for the call. 20 bytes, however it was written.
    pub address: Address,
    /// How the signer tells his users apart; empty: he is the user.
    pub user_id: String,
    /// The organization.
    pub organization: String,
    /// The service.
    pub service: String,
    /// The group of replicas, as organizations write it: 32 bytes in base64.
    pub group_id: String,
}

impl From<Address> for FreeCallUser {
    fn from(address: Address) -> Self {
        let (user_id, organization, service, group_id) = Default::default();
        Self { address, user_id, organization, service, group_id }
    }
}

impl FreeCallUser {
    /// What the user is called in keys: the address, and, of one who is more than that, a hash of the rest. Texts have any length, and keys
    /// have not.
    pub(crate) fn key(&self) -> String {
        let address = self.address;
        if *self == Self::from(address) {
            return address.to_string();
        }
        // Each text has its length before it, so that no two users are the same bytes.
        let texts = [&self.user_id, &self.organization, &self.service, &self.group_id];
        let rest = Schema { tag: *b"USER", version: 1 }.writer();
        let rest = texts.into_iter().fold(rest, |rest, text| rest.var_bytes(text.as_bytes())).finish();
        format!("{address}/{:x}", keccak256(rest))
    }
}

/// How many free calls a user has had.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct FreeCallCount {
    /// Calls that were counted, and calls that were given back.
    pub(crate) operations: RecentOperations,
    given_back: u64,
}

impl FreeCallCount {
    /// The tag and the version of the encoding.
    ///
    /// Version 2, after the six bytes of every [record](storage_core::record): number of operations 8, number of remembered ones 1, the id of each
    /// of these, the earliest first, 16, and how many of all operations have given back a call, 8. Numbers are big-endian. Version 1, which is
    /// read still, ends before the last field: then none has. A count of which none was given back is written so.
    pub const SCHEMA: Schema = Schema { tag: *b"FREE", version: 2 };

    /// What another program has counted.
    pub(crate) fn imported(made: u64, seed: u128) -> Self {
        Self { operations: RecentOperations::imported(made, seed), given_back: 0 }
    }

    /// How many calls were made, without those that were given back.
    #[expect(clippy::expect_used, reason = "`after_giving_back` and `decode` let no more in")]
    pub fn used(&self) -> u64 {
        let counted = self.operations.total().checked_sub(self.given_back);
        counted.and_then(|counted| counted.checked_sub(self.given_back)).expect("only what was counted is given back")
    }

    /// The count after one more call.
    ///
    /// # Errors
    /// [`Error::FreeCallsExhausted`] if `limit` calls were made.
    pub fn after(&self, operation: &Operation, limit: u64) -> Result<Self> {
        if self.used() >= limit {
            return Err(Error::FreeCallsExhausted { limit });
        }
        Ok(Self { operations: self.operations.and(operation.id), given_back: self.given_back })
    }

    /// The count after the call of this operation was given back.
    ///
    /// # Errors
    /// [`Error::Unsettled`] if it is not among the operations that are remembered.
    pub fn after_giving_back(&self, counted: OperationId) -> Result<Self> {
        if !self.operations.remembers(counted) {
            return Err(Error::Unsettled);
        }
        let after = Self { operations: self.operations.and(given_back(counted)), given_back: self.given_back + 1 };
        assert!(after.is_covered(), "only what was counted is given back");
        Ok(after)
    }

    fn is_covered(&self) -> bool {
        self.given_back <= self.operations.total() / 2
    }

    /// The count in bytes: one count has one encoding.
    pub fn encode(&self) -> Bytes {
        if self.given_back == 0 {
            return self.operations.encode(Schema { version: 1, ..Self::SCHEMA }.writer()).finish();
        }
        self.operations.encode(Self::SCHEMA.writer()).u64(self.given_back).finish()
    }

    /// The count that these bytes are.
    ///
    /// # Errors
    /// [`DecodeError`] says what is wrong with them.
    pub fn decode(record: &[u8]) -> Result<Self, DecodeError> {
        let mut record = Self::SCHEMA.reader(record)?;
        let operations = RecentOperations::decode(&mut record)?;
        let given_back = if record.version() == 1 { 0 } else { record.u64()? };
        let is_canonical = record.version() == 1 || given_back > 0;
        record.finish()?;
        let count = Self { operations, given_back };
        if count.is_covered() && is_canonical {
            Ok(count)
        } else {
            Err(DecodeError::NonCanonical { field: "given back" })
        }
    }
}

/// The operation that gives back what this one has counted: another id, and for each the same.
pub(crate) fn given_back(counted: OperationId) -> OperationId {
    OperationId(!counted.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[should_panic(expected = "only what was counted is given back")]
    fn a_call_is_not_given_back_that_was_given_back() {
        let counted = FreeCallCount::default().after(&Operation::new(OperationId(1)), 1).unwrap();
        drop(FreeCallCount { given_back: 1, ..counted }.after_giving_back(OperationId(1)));
    }
}
