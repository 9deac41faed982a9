//! Whether who calls belongs to the cluster: members answer members, and tell a former one that it was removed.
//!
//! # Invariants
//! - Nobody is told that it was removed but by a committed entry after one, committed too, by which it was a member. Node ids are never used twice, so
//!   that no later entry takes it back; and whoever lags behind knows no such entry.
//! - A member whose own log names it is let in by each member: by those that know it, and by those that may lag behind it. Without that, one that
//!   was away could never learn of a leader that came meanwhile.

use bytes::BufMut;

use crate::codec::{DecodeError, Decoded, Reader, optional_index, put_optional_index};

/// What a caller says of its own place in the cluster.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(crate) struct MembershipClaim {
    /// An entry, known to be committed, by which it was a member.
    pub(crate) member_since: Option<u64>,
    /// The last entry with members in its log, if that names it. It may not be committed.
    pub(crate) named_at: Option<u64>,
}

impl MembershipClaim {
    pub(super) fn encode(self, out: &mut Vec<u8>) {
        put_optional_index(out, self.member_since);
        put_optional_index(out, self.named_at);
    }

    pub(super) fn decode(reader: &mut Reader) -> Decoded<Self> {
        Ok(Self { member_since: optional_index(reader)?, named_at: optional_index(reader)? })
    }
}

/// What the called node knows of the caller.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Known {
    /// The last entry with members that it has applied, and whether that names the caller. `None`: it has applied none.
    pub(crate) applied: Option<(u64, bool)>,
    /// The last members in its log, committed or not, have the caller among them.
    pub(crate) in_log: bool,
}

/// What becomes of a caller that has proved the token.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Belonging {
    /// It is let in.
    Admitted,
    /// It is no member as far as the called node knows. It may become one, or be known as one, later.
    Unknown,
    /// It was a member, and is none by this committed entry.
    Removed { at: u64 },
}

impl Belonging {
    /// What follows from what both know.
    pub(crate) fn of(claim: MembershipClaim, known: Known) -> Self {
        // Who has applied no members yet founds a cluster, or is being taken in by one that it does not know.
        let Some((applied_at, names)) = known.applied else { return Self::Admitted };
        if names || known.in_log {
            return Self::Admitted;
        }
        match claim {
            MembershipClaim { member_since: Some(since), .. } if since < applied_at => Self::Removed { at: applied_at },
            MembershipClaim { named_at: Some(named_at), .. } if named_at > applied_at => Self::Admitted,
            _ => Self::Unknown,
        }
    }

    /// Nine bytes, which the proof of the token covers too.
    pub(super) fn bytes(self) -> [u8; 9] {
        let (kind, index) = match self {
            Self::Admitted => (0, 0),
            Self::Unknown => (1, 0),
            Self::Removed { at } => (2, at),
        };
        let mut bytes = [0; 9];
        let mut out = bytes.as_mut_slice();
        out.put_u8(kind);
        out.put_u64_le(index);
        bytes
    }

    pub(super) fn decode(reader: &mut Reader) -> Decoded<Self> {
        match (reader.u8()?, reader.u64()?) {
            (0, 0) => Ok(Self::Admitted),
            (1, 0) => Ok(Self::Unknown),
            (2, at) => Ok(Self::Removed { at }),
            _ => Err(DecodeError("an unknown answer to whether a node belongs to the cluster")),
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    /// A log of entries with members. `None`: this entry is without the caller.
    fn named(log: &[bool], upto: usize) -> Option<u64> {
        let last = upto.checked_sub(1)?;
        log.get(last).copied().filter(|named| *named).map(|_| last as u64)
    }

    /// All logs of up to six entries, in which the caller comes once and goes once; of each, all that two nodes may have committed and not committed.
    #[test]
    fn by_whatever_part_of_a_log_a_node_judges_members_are_let_in_and_only_removed_ones_are_told_so() {
        let (mut told, mut let_in) = (0, 0);
        for length in 1..=6_usize {
            for (comes, goes) in (0..length).flat_map(|comes| (comes + 1..=length).map(move |goes| (comes, goes))) {
                let log: Vec<bool> = (0..length).map(|at| (comes..goes).contains(&at)).collect();
                let prefixes = || (0..=length).flat_map(|applied| (applied..=length).map(move |has| (applied, has)));
                for ((called_applied, called_has), (caller_applied, caller_has)) in
                    prefixes().flat_map(|called| prefixes().map(move |caller| (called, caller)))
                {
                    let member_since = (comes < caller_applied).then_some(comes as u64);
                    let claim = MembershipClaim { member_since, named_at: named(&log, caller_has) };
                    let applied = called_applied.checked_sub(1).map(|last| (last as u64, log[last]));
                    let known = Known { applied, in_log: named(&log, called_has).is_some() };
                    let belonging = Belonging::of(claim, known);
                    let what = format!("{log:?} {claim:?} {known:?}");
                    let is_gone = called_applied > goes;
                    match belonging {
                        Belonging::Removed { at } => {
                            told += 1;
                            assert!(is_gone && at >= goes as u64, "{what}");
                        }
                        // What knows that it was a member is told, whatever else it believes.
                        _ => assert!(!is_gone || member_since.is_none(), "{what}"),
                    }
                    if named(&log, caller_has).is_some() && !is_gone {
                        let_in += 1;
                        assert_eq!(belonging, Belonging::Admitted, "{what}");
                    }
                }
            }
        }
        assert!(told > 100 && let_in > 100, "{told} {let_in}");
    }

    #[test]
    fn the_token_alone_lets_nobody_in() {
        let known = Known { applied: Some((3, false)), in_log: false };
        assert_eq!(Belonging::of(MembershipClaim::default(), known), Belonging::Unknown);
        // Named by an entry that this node has passed, and never by a committed one: it was never a member.
        assert_eq!(Belonging::of(MembershipClaim { member_since: None, named_at: Some(3) }, known), Belonging::Unknown);
    }

    #[test]
    fn claims_and_answers_are_read_as_they_were_written() {
        for claim in [MembershipClaim::default(), MembershipClaim { member_since: Some(0), named_at: Some(u64::MAX) }] {
            let mut out = Vec::new();
            claim.encode(&mut out);
            assert_eq!(MembershipClaim::decode(&mut Reader::new(Bytes::from(out))), Ok(claim));
        }
        for belonging in [Belonging::Admitted, Belonging::Unknown, Belonging::Removed { at: 7 }] {
            let bytes = Bytes::copy_from_slice(&belonging.bytes());
            assert_eq!(Belonging::decode(&mut Reader::new(bytes)), Ok(belonging));
        }
    }
}
