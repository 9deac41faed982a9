//! Links between servers that lose everything in silence: halves, one alone, a ring, or one direction of one link.

use async_trait::async_trait;

use super::{Fault, NemesisError, Strike, Victims};

/// Links between servers that lose everything in silence. Clients reach all servers all the time.
#[derive(Debug)]
pub(super) struct Partition;

#[async_trait]
impl Fault for Partition {
    fn name(&self) -> &'static str {
        "partition"
    }

    async fn strike(&mut self, victims: &mut Victims, rng: &mut fastrand::Rng) -> Result<Strike, NemesisError> {
        let mut all: Vec<usize> = victims.members_now.iter().copied().collect();
        let (target, cuts) = match rng.u32(..4) {
            0 => {
                rng.shuffle(&mut all);
                let (one, other) = all.split_at(all.len() / 2);
                (format!("{} | {}", names(one), names(other)), between(one, other))
            }
            1 => {
                let (place, name) = victims.choose(rng).await;
                let others: Vec<usize> = all.iter().copied().filter(|other| *other != place).collect();
                (format!("{name} | {}", names(&others)), between(&[place], &others))
            }
            2 => ring(&mut all, rng),
            _ => {
                let (place, name) = victims.choose(rng).await;
                all.retain(|other| *other != place);
                let to = rng.choice(all).unwrap_or(place);
                (format!("{name} -> n{to}"), vec![(place, to)])
            }
        };
        let Some(network) = victims.network.clone() else { return Ok(Strike { target, bit: false }) };
        for (from, to) in &cuts {
            network.cut(*from, *to)?;
        }
        // One link stands for all: they are cut in the same way.
        let Some((from, to)) = cuts.first().copied() else { return Ok(Strike { target, bit: false }) };
        let bit = tokio::task::spawn_blocking(move || !network.reaches(from, to, UNUSED_PORT)).await.unwrap_or(false);
        Ok(Strike { target, bit })
    }

    async fn mend(&mut self, victims: &mut Victims) -> Result<(), NemesisError> {
        victims.network.as_ref().map_or(Ok(()), |network| network.heal().map_err(NemesisError::from))
    }
}

/// The port for discarding (RFC 863), which nobody serves: what reaches it is refused at once.
const UNUSED_PORT: u16 = 9;

/// Each reaches its two neighbours only; of three, who all are neighbours, two do not reach each other.
fn ring(all: &mut [usize], rng: &mut fastrand::Rng) -> (String, Vec<(usize, usize)>) {
    rng.shuffle(all);
    let count = all.len();
    if let (3, [one, between, other]) = (count, &*all) {
        return (format!("n{one} - n{between} - n{other}"), vec![(*one, *other), (*other, *one)]);
    }
    let apart = |a: usize, b: usize| {
        let distance = a.abs_diff(b);
        distance.min(count - distance) > 1
    };
    let places = all.iter().enumerate();
    let pairs = places.clone().flat_map(|(a, from)| places.clone().map(move |(b, to)| (a, b, *from, *to)));
    let cuts = pairs.filter(|(a, b, ..)| apart(*a, *b)).map(|(.., from, to)| (from, to)).collect();
    (format!("ring {}", names(all)), cuts)
}

fn between(one: &[usize], other: &[usize]) -> Vec<(usize, usize)> {
    let pairs = one.iter().flat_map(|a| other.iter().map(move |b| (*a, *b)));
    pairs.flat_map(|(a, b)| [(a, b), (b, a)]).collect()
}

fn names(places: &[usize]) -> String {
    places.iter().map(|place| format!("n{place}")).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn in_a_ring_each_reaches_two() {
        for count in [4, 5, 7] {
            let mut all: Vec<usize> = (0..count).collect();
            let (_, cuts) = ring(&mut all, &mut fastrand::Rng::with_seed(7));
            for place in 0..count {
                assert_eq!(cuts.iter().filter(|(from, _)| *from == place).count(), count - 3, "{cuts:?}");
            }
        }
        let (_, cuts) = ring(&mut [0, 1, 2], &mut fastrand::Rng::with_seed(7));
        assert_eq!(cuts.len(), 2, "one link, both ways");
    }
}
