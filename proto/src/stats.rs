//! What a query touched, counted where it happens and added up on the way back.

use std::sync::atomic::{AtomicU64, Ordering};

macro_rules! stats {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {
        /// Counters of one query's leaf work; shared by all its scans.
        #[derive(Debug, Default)]
        pub struct LeafStats { $($(#[$doc])* pub $name: AtomicU64,)* }

        /// The values of [`LeafStats`] at one moment.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct LeafCounts { $($(#[$doc])* pub $name: u64,)* }

        impl LeafStats {
            /// The counters' present values.
            pub fn counts(&self) -> LeafCounts {
                LeafCounts { $($name: self.$name.load(Ordering::Relaxed),)* }
            }

            /// Sets all counters to zero, for a query that is run again.
            pub fn reset(&self) {
                $(self.$name.store(0, Ordering::Relaxed);)*
            }

            /// Adds another leaf's counts to these.
            pub fn add(&self, counts: &LeafCounts) {
                $(self.$name.fetch_add(counts.$name, Ordering::Relaxed);)*
            }
        }
    };
}

stats! {
    /// Segments (immutable and consuming) whose rows were asked for.
    segments_queried,
    /// Segments left out by metadata: coverage, time, min/max, bloom.
    segments_pruned,
    /// Consuming segments among the queried.
    consuming_queried,
    /// Segments answered by a star-tree.
    star_tree_segments,
    /// Documents that passed filters and coverage; of a star-tree its records.
    docs_matched,
    /// Documents compared one by one because no index answered a predicate.
    docs_scanned,
    /// Documents of all segments in the query's view, pruned ones included.
    docs_total,
    /// Realtime rows inside coverage.
    hidden_realtime_rows,
    /// Offline rows outside coverage.
    hidden_offline_rows,
}
