//! Bytes that nobody should send, made of bytes that somebody did: for whatever reads bytes from a network, a disk or a user.
//!
//! A target takes an input or not, and says a word about it. The words stand for the place in the code that was reached: an input that is answered in new
//! words is kept, and others are made of it. So inputs get past one check after the other without a compiler that counts branches. Where there is a
//! checksum, the target mends it before it reads: what lies behind is reached.
//!
//! A run has some thousands of inputs for each target, the same each time; or other ones for as many seconds as `FUZZ_SECONDS` says. `FUZZ_SEED` repeats one.

#![expect(clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "these are assertions of tests")]

use std::{
    collections::BTreeSet,
    fmt::{self, Write},
    time::{Duration, Instant},
};

use fastrand::Rng;

/// How many inputs a target is given by default: some tenths of a second.
const EXECUTIONS: u64 = 3000;

/// Where the inputs of a run come from that nobody gave a time: a test that passes, passes again.
const SEED: u64 = 1;

/// So many times as long a target is tried that has taken nothing yet.
const TRIED_LONGER: u64 = 20;

/// How many inputs are kept to make others of, besides the samples.
const KEPT: usize = 1024;

/// The longest input. Samples may be longer, and are only made shorter then.
const MAX_BYTES: usize = 64 << 10;

/// How many changes are made to an input at once, at the most.
const CHANGES: usize = 4;

/// How much of an input is shown when its target panics.
const SHOWN_BYTES: usize = 2048;

/// What became of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fuzzed {
    /// How many inputs the target was given, without the samples.
    pub executions: u64,
    /// How many of them it has taken.
    pub taken: u64,
    /// In how many different words it answered.
    pub answers: usize,
}

impl fmt::Display for Fuzzed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { executions, taken, answers } = self;
        write!(f, "{executions} inputs, {taken} taken, {answers} different answers")
    }
}

/// Gives a target the samples, and then inputs that are made of them. It takes an input, and may say what it did with it, or says why not. A panic is a
/// find, shown with its input.
///
/// # Panics
/// If the target does, or does not take a sample, or takes nothing that was made of them: then it reaches nothing.
pub fn fuzz(
    name: &str,
    samples: impl IntoIterator<Item = Vec<u8>>,
    target: impl FnMut(&[u8]) -> Result<String, String>,
) -> Fuzzed {
    fuzz_times(EXECUTIONS, name, samples, target)
}

/// As [`fuzz`], of so many inputs by default: for a target that takes long.
///
/// # Panics
/// As [`fuzz`].
pub fn fuzz_times(
    executions: u64,
    name: &str,
    samples: impl IntoIterator<Item = Vec<u8>>,
    mut target: impl FnMut(&[u8]) -> Result<String, String>,
) -> Fuzzed {
    let number = |name| std::env::var(name).ok().map(|text| text.parse::<u64>().expect("a number"));
    let seconds = number("FUZZ_SECONDS");
    let drawn = || seconds.map_or(SEED, |_| fastrand::u64(..));
    let seed = number("FUZZ_SEED").unwrap_or_else(drawn);
    let mut random = Rng::with_seed(seed);
    let mut pool: Vec<Vec<u8>> = samples.into_iter().collect();
    assert!(!pool.is_empty(), "{name}: there is no sample");
    for sample in &pool {
        let _shown = Shown { name, seed, input: sample };
        if let Err(refused) = target(sample) {
            panic!("{name}: a sample is refused: {refused}");
        }
    }
    let (samples, began) = (pool.len(), Instant::now());
    let mut fuzzed = Fuzzed { executions: 0, taken: 0, answers: 0 };
    let mut answers = BTreeSet::new();
    let goes_on = |fuzzed: &Fuzzed| match seconds {
        Some(seconds) => began.elapsed() < Duration::from_secs(seconds),
        // By chance none may have been taken yet.
        None => fuzzed.executions < executions * if fuzzed.taken == 0 { TRIED_LONGER } else { 1 },
    };
    while goes_on(&fuzzed) {
        // Words that repeat what they are about fill the pool with inputs that lead nowhere: half is made of the samples alone.
        let from = if random.bool() { &pool[..samples] } else { &pool };
        let input = changed(from, &mut random);
        let shown = Shown { name, seed, input: &input };
        let answer = target(&input);
        drop(shown);
        fuzzed.executions += 1;
        fuzzed.taken += u64::from(answer.is_ok() && !pool[..samples].contains(&input));
        // Numbers in the words are those of the input, not of the place.
        let without_numbers = |words: String| words.replace(|c: char| c.is_ascii_digit(), "");
        if answers.insert(answer.map(without_numbers).map_err(without_numbers)) {
            if pool.len() < samples + KEPT {
                pool.push(input);
            } else {
                let place = random.usize(samples..pool.len());
                pool[place] = input;
            }
        }
    }
    fuzzed.answers = answers.len();
    println!("{name}: {fuzzed}, seed {seed}, {:.1} s", began.elapsed().as_secs_f64());
    assert!(fuzzed.taken > 0, "{name}: nothing was taken that was made of the samples: {fuzzed}, seed {seed}");
    fuzzed
}

/// Shows the input when its target panics.
struct Shown<'a> {
    name: &'a str,
    seed: u64,
    input: &'a [u8],
}

impl Drop for Shown<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let mut hex = String::new();
            for byte in self.input.iter().take(SHOWN_BYTES) {
                let _ = write!(hex, "{byte:02x}");
            }
            eprintln!("{}: seed {}, an input of {} bytes: {hex}", self.name, self.seed, self.input.len());
        }
    }
}

/// One of the inputs, changed in some places.
///
/// # Panics
/// If there is none.
pub fn changed(pool: &[Vec<u8>], random: &mut Rng) -> Vec<u8> {
    let any = |random: &mut Rng| &pool[random.usize(..pool.len())];
    let mut input = any(random).clone();
    for _ in 0..random.usize(1..=CHANGES) {
        change(&mut input, any(random), random);
    }
    input.truncate(MAX_BYTES.max(pool[0].len()));
    input
}

/// Changes an input in one place.
fn change(input: &mut Vec<u8>, other: &[u8], random: &mut Rng) {
    let place = random.usize(..=input.len());
    let part = |bytes: &[u8], random: &mut Rng| {
        let start = random.usize(..=bytes.len());
        start..start + random.usize(..=(bytes.len() - start).min(64))
    };
    match random.u8(..11) {
        0 => input.truncate(place),
        1 => drop(input.drain(part(input, random))),
        2 => {
            let copied = input[part(input, random)].to_vec();
            drop(input.splice(place..place, copied));
        }
        3 => {
            let length = random.usize(1..=16);
            let bytes: Vec<u8> = std::iter::repeat_with(|| random.u8(..)).take(length).collect();
            drop(input.splice(place..place, bytes));
        }
        4 => drop(input.splice(place.., other[random.usize(..=other.len())..].iter().copied())),
        5 => drop(input.splice(place..place, other[part(other, random)].iter().copied())),
        6 => {
            let number = interesting(input.len(), random).to_le_bytes();
            overwrite(input, place, &number[..1 << random.u8(..4)]);
        }
        7 => overwrite(input, place, &[random.u8(..)]),
        8 => overwrite(input, place, &other[part(other, random)]),
        kind => {
            if let Some(byte) = input.get_mut(place) {
                *byte = match kind {
                    9 => *byte ^ (1 << random.u8(..8)),
                    _ => byte.wrapping_add(if random.bool() { 1 } else { u8::MAX }),
                };
            }
        }
    }
}

/// Numbers at which something ends.
fn interesting(length: usize, random: &mut Rng) -> u64 {
    let length = length as u64;
    let numbers = [
        0,
        1,
        2,
        127,
        128,
        255,
        256,
        0x7fff_ffff,
        0x8000_0000,
        0xffff_ffff,
        u64::MAX,
        i64::MAX.cast_unsigned(),
        length,
    ];
    let number = numbers[random.usize(..numbers.len())];
    number.wrapping_add(random.u64(..3)).wrapping_sub(1)
}

fn overwrite(input: &mut [u8], place: usize, bytes: &[u8]) {
    for (old, new) in input[place..].iter_mut().zip(bytes) {
        *old = *new;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Four bytes, each of which has to be large, and is asked for in words of its own. All four at once are not hit by chance.
    #[test]
    fn what_lies_behind_one_check_after_the_other_is_found() {
        let mut is_found = false;
        let fuzzed = fuzz("checks", [b"0000".to_vec()], |input| {
            let large = input.iter().take_while(|byte| **byte >= 0x80).count();
            is_found |= large == 4;
            if (1..4).contains(&large) { Err(format!("after {}", "*".repeat(large))) } else { Ok(String::new()) }
        });
        assert!(is_found, "{fuzzed}");
    }

    #[test]
    #[should_panic(expected = "a sample is refused: no")]
    fn a_sample_that_is_refused_is_an_error() {
        fuzz("no", [vec![]], |_| Err("no".to_owned()));
    }

    #[test]
    #[should_panic(expected = "nothing was taken")]
    fn a_target_that_takes_nothing_new_is_an_error() {
        fuzz("sample alone", [b"sample".to_vec()], |input| match input {
            b"sample" => Ok(String::new()),
            _ => Err("no".into()),
        });
    }
}
