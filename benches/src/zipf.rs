//! Keys as they are asked for: the `n`th most wanted in proportion to `1 / n^s`.

use rand::Rng;

/// The most keys that are told apart.
pub const KEYS_MAX: usize = 100_000;

/// Zipf's distribution over ranks from 0, as the sums of its weights.
#[derive(Clone, Debug)]
pub struct Zipf {
    sums: Vec<f64>,
}

impl Zipf {
    /// Over `keys` ranks, at least one and at most [`KEYS_MAX`]; at an exponent of 0 all are as likely.
    pub fn new(keys: usize, exponent: f64) -> Self {
        let mut sum = 0.0;
        let sums = (1..=keys.clamp(1, KEYS_MAX))
            .map(|rank| {
                sum += (rank as f64).powf(-exponent);
                sum
            })
            .collect();
        Self { sums }
    }

    /// How many ranks.
    pub fn keys(&self) -> usize {
        self.sums.len()
    }

    /// A rank, counted from 0.
    pub fn draw(&self, random: &mut impl Rng) -> usize {
        let total = self.sums.last().copied().unwrap_or(1.0);
        let at = random.random_range(0.0..total);
        self.sums
            .partition_point(|&sum| sum <= at)
            .min(self.sums.len() - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    fn counts(zipf: &Zipf, draws: usize) -> Vec<usize> {
        let mut random = StdRng::seed_from_u64(5);
        let mut counts = vec![0; zipf.keys()];
        for _ in 0..draws {
            counts[zipf.draw(&mut random)] += 1;
        }
        counts
    }

    #[test]
    fn ranks_come_in_proportion_to_their_weights() {
        let counts = counts(&Zipf::new(1_000, 1.0), 200_000);
        let harmonic: f64 = (1..=1_000).map(|n| 1.0 / f64::from(n)).sum();
        for rank in [1, 2, 10] {
            let wanted = 200_000.0 / harmonic / f64::from(rank);
            let got = counts[rank as usize - 1] as f64;
            assert!(
                (got / wanted - 1.0).abs() < 0.1,
                "rank {rank}: {got}, not {wanted}"
            );
        }
    }

    #[test]
    fn an_exponent_of_zero_is_no_preference() {
        let counts = counts(&Zipf::new(4, 0.0), 40_000);
        assert!(
            counts.iter().all(|&n| (9_500..10_500).contains(&n)),
            "{counts:?}"
        );
    }

    #[test]
    fn there_is_at_least_one_key_and_no_more_than_the_most() {
        assert_eq!(counts(&Zipf::new(0, 1.0), 10), [10]);
        assert_eq!(Zipf::new(KEYS_MAX + 1, 1.0).keys(), KEYS_MAX);
    }
}
