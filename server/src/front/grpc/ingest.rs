//! `IngestService`: appends to the embedded log, loads, uploads and pushed segment files.
//!
//! A load that has begun runs to its end also when its client goes away: it is all or nothing, and
//! repeating it with the same push id gives the first answer.

use crate::engine::Engine;
use crate::front::ingest;
use crate::front::staging::Staging;
use futures::stream::{BoxStream, StreamExt as _};
use std::sync::Arc;
use strandline_proto::v1::ingest_service_server::IngestService;
use strandline_proto::v1::{
    AppendRequest, AppendResponse, LoadOptions, LoadProgress, LoadRequest, LoadResult, PushRequest,
    UploadRequest, load_progress, push_request, upload_request,
};
use strandline_proto::{Error, Result};
use tokio::sync::mpsc;
use tonic::{Request, Response, Status, Streaming};

/// Progress messages that wait for a slow client; more are left out.
const PROGRESS_WAITING_MAX: usize = 16;

pub(super) struct Ingest {
    pub(super) engine: Arc<Engine>,
    pub(super) staging: Staging,
}

fn no_header() -> Error {
    Error::invalid("the first message of the stream must be the header")
}

#[tonic::async_trait]
impl IngestService for Ingest {
    type LoadStream = BoxStream<'static, Result<LoadProgress, Status>>;

    async fn append(
        &self,
        request: Request<AppendRequest>,
    ) -> Result<Response<AppendResponse>, Status> {
        Ok(Response::new(
            ingest::append(&self.engine, request.into_inner()).await?,
        ))
    }

    async fn load(
        &self,
        request: Request<LoadRequest>,
    ) -> Result<Response<Self::LoadStream>, Status> {
        let request = request.into_inner();
        let engine = Arc::clone(&self.engine);
        let (sender, receiver) = mpsc::channel(PROGRESS_WAITING_MAX);
        let counts = sender.clone();
        tokio::spawn(async move {
            let table = request.table.clone();
            let loaded = engine.load(request, move |count| {
                let _ = counts.try_send(Ok(LoadProgress {
                    step: Some(load_progress::Step::Progress(count)),
                }));
            });
            let last = ingest::counted(&table, loaded.await)
                .map(|result| LoadProgress {
                    step: Some(load_progress::Step::Result(result)),
                })
                .map_err(Status::from);
            let _ = sender.send(last).await;
        });
        Ok(Response::new(
            tokio_stream::wrappers::ReceiverStream::new(receiver).boxed(),
        ))
    }

    async fn upload(
        &self,
        request: Request<Streaming<UploadRequest>>,
    ) -> Result<Response<LoadResult>, Status> {
        let mut messages = request.into_inner();
        let Some(upload_request::Part::Header(header)) =
            messages.message().await?.and_then(|message| message.part)
        else {
            return Err(no_header().into());
        };
        let mut stage = self.staging.begin().await?;
        stage.file(&header.file_name).await?;
        while let Some(message) = messages.message().await? {
            match message.part {
                Some(upload_request::Part::Chunk(bytes)) => stage.write(&bytes).await?,
                Some(upload_request::Part::NextFile(name)) => stage.file(&name).await?,
                Some(upload_request::Part::Header(_)) => {
                    return Err(Error::invalid("a second header in one upload").into());
                }
                None => {}
            }
        }
        let files = stage.finish().await?;
        let engine = Arc::clone(&self.engine);
        let result = to_the_end(async move {
            let options = header.options.unwrap_or_default();
            let loaded = engine
                .load_local(&header.table, files, options, |_| {})
                .await;
            drop(stage);
            ingest::counted(&header.table, loaded)
        });
        Ok(Response::new(result.await?))
    }

    async fn push(
        &self,
        request: Request<Streaming<PushRequest>>,
    ) -> Result<Response<LoadResult>, Status> {
        let mut messages = request.into_inner();
        let Some(push_request::Part::Header(header)) =
            messages.message().await?.and_then(|message| message.part)
        else {
            return Err(no_header().into());
        };
        let mut stage = self.staging.begin().await?;
        while let Some(message) = messages.message().await? {
            match message.part {
                Some(push_request::Part::File(name)) => stage.file(&name).await?,
                Some(push_request::Part::Chunk(bytes)) => stage.write(&bytes).await?,
                Some(push_request::Part::Header(_)) => {
                    return Err(Error::invalid("a second header in one push").into());
                }
                None => {}
            }
        }
        let files = stage.finish().await?;
        let engine = Arc::clone(&self.engine);
        let result = to_the_end(async move {
            let options: LoadOptions = header.options.unwrap_or_default();
            let pushed = engine.push_segments(&header.table, files, options).await;
            drop(stage);
            ingest::counted(&header.table, pushed)
        });
        Ok(Response::new(result.await?))
    }
}

/// Runs `work` to its end, also when the caller stops waiting.
async fn to_the_end<T: Send + 'static>(
    work: impl Future<Output = Result<T>> + Send + 'static,
) -> Result<T> {
    tokio::spawn(work)
        .await
        .unwrap_or_else(|error| Err(Error::internal(format!("the load ended early: {error}"))))
}
