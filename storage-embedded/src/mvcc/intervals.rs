//! Sets of keys that are made of ranges.

use std::{collections::BTreeMap, ops::Bound};

use bytes::{BufMut, Bytes, BytesMut};

use super::KeyRange;

/// The keys of some ranges: to ask for a key takes a search, however many ranges there are.
#[derive(Clone, Debug, Default)]
pub struct Intervals(
    /// By their first keys, the first key behind each; `None`: it has no end. They neither overlap nor touch.
    BTreeMap<Bytes, Option<Bytes>>,
);

impl Intervals {
    /// Takes in the keys of a range.
    pub fn insert(&mut self, range: KeyRange) {
        let (mut first, mut end) = match range {
            KeyRange::One(key) => {
                let end = behind(&key);
                (key, Some(end))
            }
            KeyRange::From(first) => (first, None),
            KeyRange::Between(first, end) if first < end => (first, Some(end)),
            KeyRange::Between(..) => return,
        };
        if let Some((before, its_end)) = self.up_to(&first)
            && its_end.as_ref().is_none_or(|its_end| *its_end >= first)
        {
            first = before.clone();
        }
        // Each is taken out once, so all insertions together take no longer than as many searches.
        while let Some((next, its_end)) = self.0.range(first.clone()..).next()
            && end.as_ref().is_none_or(|end| next <= end)
        {
            end = end.and_then(|end| its_end.clone().map(|its_end| end.max(its_end)));
            let next = next.clone();
            self.0.remove(&next);
        }
        self.0.insert(first, end);
    }

    /// Whether a key is in one of the ranges.
    pub fn contains(&self, key: &[u8]) -> bool {
        self.up_to(key).is_some_and(|(_, end)| end.as_ref().is_none_or(|end| key < end.as_ref()))
    }

    /// Whether all keys of a range are in the set. Of a range without keys, its first counts.
    pub fn covers(&self, range: &KeyRange) -> bool {
        match range {
            KeyRange::One(key) => self.contains(key),
            KeyRange::From(first) => self.up_to(first).is_some_and(|(_, end)| end.is_none()),
            KeyRange::Between(first, last) => {
                self.up_to(first).is_some_and(|(_, end)| end.as_ref().is_none_or(|end| first < end && last <= end))
            }
        }
    }

    /// Takes in all of the others. The larger of the two is added to, so that sets of sets take no longer than their members.
    pub fn extend(&mut self, mut others: Self) {
        if self.0.len() < others.0.len() {
            std::mem::swap(self, &mut others);
        }
        for (first, end) in others.0 {
            self.insert(match end {
                Some(end) => KeyRange::Between(first, end),
                None => KeyRange::From(first),
            });
        }
    }

    /// The last range that begins at a key or before.
    fn up_to(&self, key: &[u8]) -> Option<(&Bytes, &Option<Bytes>)> {
        self.0.range::<[u8], _>((Bound::Unbounded, Bound::Included(key))).next_back()
    }
}

/// The next key behind one.
fn behind(key: &[u8]) -> Bytes {
    let mut behind = BytesMut::with_capacity(key.len() + 1);
    behind.put_slice(key);
    behind.put_u8(0);
    behind.freeze()
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    fn ranges() -> impl Strategy<Value = Vec<KeyRange>> {
        let key = || vec(0_u8..3, 1..3).prop_map(Bytes::from);
        vec(
            prop_oneof![
                4 => key().prop_map(KeyRange::One),
                4 => (key(), key()).prop_map(|(first, end)| KeyRange::Between(first, end)),
                1 => key().prop_map(KeyRange::From),
            ],
            0..6,
        )
    }

    proptest! {
        #[test]
        fn a_key_is_in_the_set_if_it_is_in_one_of_the_ranges(some in ranges(), others in ranges(), asked in ranges()) {
            let set = |ranges: &[KeyRange]| {
                let mut set = Intervals::default();
                ranges.iter().for_each(|range| set.insert(range.clone()));
                set
            };
            let mut all = set(&some);
            all.extend(set(&others));
            for key in (0..3_u8).flat_map(|a| std::iter::once(vec![a]).chain((0..3).map(move |b| vec![a, b]))) {
                let expected = some.iter().chain(&others).any(|range| range.contains(&key));
                prop_assert_eq!(all.contains(&key), expected, "{:?} in {:?}", key, all);
            }
            for range in &asked {
                let mut with = all.clone();
                with.insert(range.clone());
                // What is covered adds nothing, and whatever adds nothing and has keys is covered.
                let has_keys = !matches!(range, KeyRange::Between(first, end) if first >= end);
                prop_assert_eq!(all.covers(range) && has_keys, with.0 == all.0 && has_keys, "{:?} in {:?}", range, all);
            }
            let (firsts, ends): (Vec<_>, Vec<_>) = all.0.iter().unzip();
            for (end, next) in ends.iter().zip(firsts.iter().skip(1)) {
                prop_assert!(end.as_ref().is_some_and(|end| end < *next), "they overlap or touch: {:?}", all);
            }
        }
    }
}
