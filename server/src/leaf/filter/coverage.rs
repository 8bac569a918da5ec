//! Coverage in one segment: which of its documents are the ones that answer for their time.

use super::access::access_in;
use super::node::{Node, Scratch};
use super::operand::{Test, within};
use crate::leaf::segment::{SegmentView, column_type};
use std::sync::Arc;
use strandline_index::DocBits;
use strandline_proto::Result;
use strandline_proto::ids::Half;
use strandline_proto::leaf::CoverageFilter;
use strandline_proto::schema::Schema;

/// The documents of a segment that coverage lets answer.
#[derive(Debug)]
pub(in crate::leaf) enum Cut {
    /// All of them.
    All,
    /// None.
    Nothing,
    /// Those inside the covered intervals.
    Inside(Node),
    /// Those outside, and those without a time.
    Outside(Node),
}

/// Coverage made ready for all segments of a query.
#[derive(Debug)]
pub(in crate::leaf) struct PlannedCoverage {
    column: String,
    offline: Arc<Test>,
    hiding: Arc<Test>,
}

impl PlannedCoverage {
    /// The coverage of a table with this schema.
    pub(in crate::leaf) fn new(coverage: &CoverageFilter, schema: &Schema) -> Result<Self> {
        let (data_type, _) = column_type(schema, &coverage.column)?;
        let inside = |intervals| {
            let test = within(data_type, intervals)
                .map_err(|e| e.at(format_args!("time column {:?}", coverage.column)))?;
            Ok(Arc::new(test))
        };
        Ok(Self {
            column: coverage.column.clone(),
            offline: inside(&coverage.offline)?,
            hiding: inside(&coverage.hiding)?,
        })
    }
}

impl Cut {
    /// The cut of `segment`.
    pub(in crate::leaf) fn new(
        segment: &SegmentView,
        coverage: Option<&PlannedCoverage>,
    ) -> Result<Self> {
        let Some(coverage) = coverage else {
            return Ok(Self::All);
        };
        let column = segment.column(&coverage.column)?;
        // A time that is null is in no interval: nodes never keep nulls.
        let intervals = match segment.half {
            Half::Offline => &coverage.offline,
            Half::Realtime => &coverage.hiding,
        };
        let inside = access_in(segment, column, intervals, false)?.node;
        Ok(match (segment.half, inside) {
            (Half::Offline, Node::All) | (Half::Realtime, Node::Nothing) => Self::All,
            (Half::Offline, Node::Nothing) | (Half::Realtime, Node::All) => Self::Nothing,
            (Half::Offline, inside) => Self::Inside(inside),
            (Half::Realtime, inside) => Self::Outside(inside),
        })
    }

    /// Removes the documents of `chunk` that may not answer from `left`.
    pub(in crate::leaf) fn narrow(
        &self,
        chunk: u32,
        left: &mut DocBits,
        scratch: &mut Scratch,
    ) -> Result<()> {
        match self {
            Self::All => {}
            Self::Nothing => left.clear(),
            Self::Inside(node) => {
                let scanned = scratch.docs_scanned;
                node.narrow(chunk, left, scratch)?;
                scratch.docs_scanned = scanned;
            }
            Self::Outside(node) => {
                let scanned = scratch.docs_scanned;
                let mut inside = scratch.take_bits();
                inside.words_mut().copy_from_slice(left.words());
                node.narrow(chunk, &mut inside, scratch)?;
                left.and_not(&inside);
                scratch.give_bits(inside);
                scratch.docs_scanned = scanned;
            }
        }
        Ok(())
    }
}
