/// A logarithmic axis between two places on the page.
#[derive(Clone, Copy, Debug)]
pub(super) struct LogAxis {
    low: f64,
    high: f64,
    from: f64,
    to: f64,
}

/// An axis has this many labels at the most, so that they do not meet on a phone.
const MOST_LABELS: usize = 7;

impl LogAxis {
    /// An axis that holds all these values; those that are not above 0 have no place on it.
    pub(super) fn holding(values: impl Iterator<Item = f64>, from: f64, to: f64) -> Self {
        let (mut low, mut high) = (f64::INFINITY, 0.0_f64);
        for value in values.filter(|value| *value > 0.0 && value.is_finite()) {
            (low, high) = (low.min(value), high.max(value));
        }
        if low > high {
            (low, high) = (1.0, 10.0);
        }
        // Some room, and never no room at all.
        Self { low: low / 1.3, high: high * 1.3, from, to }
    }

    /// The place of a value.
    pub(super) fn place(self, value: f64) -> f64 {
        let share = (value.clamp(self.low, self.high) / self.low).ln() / (self.high / self.low).ln();
        self.from + share * (self.to - self.from)
    }

    /// Round values with their places: powers of ten, with 2 and 5 between them where there is room.
    pub(super) fn ticks(self) -> Vec<(f64, f64)> {
        let of = |steps: &[f64]| {
            let mut ticks = Vec::new();
            let mut power = 10_f64.powf(self.low.log10().floor());
            while power <= self.high {
                let values = steps.iter().map(|step| step * power);
                ticks.extend(values.filter(|value| (self.low..=self.high).contains(value)));
                power *= 10.0;
            }
            ticks
        };
        let candidates = [of(&[1.0, 2.0, 5.0]), of(&[1.0, 3.0]), of(&[1.0])];
        let fitting = candidates.into_iter().find(|ticks| ticks.len() <= MOST_LABELS);
        fitting.unwrap_or_default().into_iter().map(|value| (value, self.place(value))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_stand_between_the_ends() {
        let axis = LogAxis::holding([800.0, 50_000.0].into_iter(), 200.0, 0.0);
        let ticks = axis.ticks();
        assert!((2..=MOST_LABELS).contains(&ticks.len()), "{ticks:?}");
        assert!(ticks.iter().all(|(_, place)| (0.0..=200.0).contains(place)), "{ticks:?}");
        assert!(ticks.is_sorted_by(|a, b| a.0 < b.0 && a.1 > b.1), "{ticks:?}");
        // Whatever there is not, there is an axis.
        for values in [vec![], vec![0.0], vec![5.0], vec![f64::NAN]] {
            assert!(LogAxis::holding(values.into_iter(), 0.0, 100.0).place(5.0).is_finite());
        }
    }
}
