//! `QueryService`: one statement, its answer as a stream. The stream ends with the statistics; without
//! them an answer is not complete.

use crate::engine::Engine;
use crate::front::answer::{Answer, Ask, result_schema};
use crate::front::values::{parameters, typed_rows};
use arrow::array::RecordBatch;
use arrow::ipc::writer::StreamWriter;
use futures::stream::{BoxStream, StreamExt as _};
use std::sync::Arc;
use std::time::Duration;
use strandline_proto::v1::query_response::Part;
use strandline_proto::v1::query_service_server::QueryService;
use strandline_proto::v1::{QueryRequest, QueryResponse, ResultFormat};
use strandline_proto::{Error, Result};
use tonic::{Request, Response, Status};

/// Rows of one page of typed rows.
const PAGE_ROWS_MAX: usize = 1024;

pub(super) struct Queries {
    pub(super) engine: Arc<Engine>,
}

#[tonic::async_trait]
impl QueryService for Queries {
    type QueryStream = BoxStream<'static, Result<QueryResponse, Status>>;

    async fn query(
        &self,
        request: Request<QueryRequest>,
    ) -> Result<Response<Self::QueryStream>, Status> {
        let request = request.into_inner();
        let format = ResultFormat::try_from(request.format).map_err(|_| {
            Error::invalid(format!(
                "no result format {}; see ResultFormat",
                request.format
            ))
        })?;
        let ask = Ask {
            sql: request.sql,
            parameters: parameters(request.parameters)?,
            options: request.options.into_iter().collect(),
            timeout: (request.timeout_ms > 0)
                .then(|| Duration::from_millis(request.timeout_ms.into())),
            front: "grpc",
        };
        // The client's going away drops this future or the stream below, and with it the query.
        let answer = Answer::start(&self.engine, ask).await?;
        let encoder = Encoder::new(format, &answer)?;
        let parts = Parts {
            answer,
            encoder,
            step: Step::Schema,
        };
        let stream = futures::stream::unfold(parts, |mut parts| async move {
            let part = parts.next().await?;
            let response = part
                .map(|part| QueryResponse { part: Some(part) })
                .map_err(Status::from);
            Some((response, parts))
        });
        Ok(Response::new(stream.boxed()))
    }
}

/// What is sent next.
enum Step {
    Schema,
    Rows,
    Statistics,
    Nothing,
}

struct Parts {
    answer: Answer,
    encoder: Encoder,
    step: Step,
}

impl Parts {
    async fn next(&mut self) -> Option<Result<Part>> {
        loop {
            match self.step {
                Step::Schema => {
                    self.step = Step::Rows;
                    return Some(Ok(Part::Schema(result_schema(self.answer.schema()))));
                }
                Step::Rows => {
                    if let Some(part) = self.encoder.pending() {
                        return Some(Ok(part));
                    }
                    let encoded = match self.answer.next().await {
                        Some(batch) => batch.and_then(|batch| self.encoder.push(&batch)),
                        None => {
                            self.step = Step::Statistics;
                            self.encoder.finish()
                        }
                    };
                    if let Err(error) = encoded {
                        self.step = Step::Nothing;
                        return Some(Err(error));
                    }
                }
                Step::Statistics => {
                    if let Some(part) = self.encoder.pending() {
                        return Some(Ok(part));
                    }
                    self.step = Step::Nothing;
                    return Some(Ok(Part::Statistics(self.answer.statistics())));
                }
                Step::Nothing => return None,
            }
        }
    }
}

/// Turns batches into parts of the asked format; what it holds is taken by [`Encoder::pending`].
enum Encoder {
    Arrow(Box<StreamWriter<Vec<u8>>>),
    Rows(std::collections::VecDeque<RecordBatch>),
}

impl Encoder {
    fn new(format: ResultFormat, answer: &Answer) -> Result<Self> {
        Ok(match format {
            ResultFormat::ArrowIpc => Self::Arrow(Box::new(
                StreamWriter::try_new(Vec::new(), answer.schema()).map_err(not_encoded)?,
            )),
            ResultFormat::Rows => Self::Rows(std::collections::VecDeque::new()),
        })
    }

    fn pending(&mut self) -> Option<Part> {
        match self {
            Self::Arrow(writer) => {
                let bytes = std::mem::take(writer.get_mut());
                (!bytes.is_empty()).then(|| Part::ArrowIpc(bytes.into()))
            }
            Self::Rows(pages) => pages.pop_front().map(|page| Part::Rows(typed_rows(&page))),
        }
    }

    fn push(&mut self, batch: &RecordBatch) -> Result<()> {
        match self {
            Self::Arrow(writer) => writer.write(batch).map_err(not_encoded),
            Self::Rows(pages) => {
                let rows = batch.num_rows();
                pages.extend(
                    (0..rows)
                        .step_by(PAGE_ROWS_MAX)
                        .map(|from| batch.slice(from, PAGE_ROWS_MAX.min(rows - from))),
                );
                Ok(())
            }
        }
    }

    fn finish(&mut self) -> Result<()> {
        match self {
            Self::Arrow(writer) => writer.finish().map_err(not_encoded),
            Self::Rows(_) => Ok(()),
        }
    }
}

fn not_encoded(error: arrow::error::ArrowError) -> Error {
    Error::internal(format!(
        "the answer can't be written as Arrow IPC: {error}; ask for rows instead"
    ))
}
