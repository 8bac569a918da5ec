//! A client that knows the .proto alone.

use crate::answer::Answer;
use arrow::ipc::reader::StreamReader;
use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;
use std::time::Duration;
use strandline_proto::v1::admin_service_client::AdminServiceClient;
use strandline_proto::v1::ingest_service_client::IngestServiceClient;
use strandline_proto::v1::query_response::Part;
use strandline_proto::v1::query_service_client::QueryServiceClient;
use strandline_proto::v1::{
    AppendRequest, AppendResponse, CreateTableRequest, LoadOptions, LoadResult, Message,
    PutSchemaRequest, QueryRequest, QueryStatistics, ResultFormat, UploadHeader, UploadRequest,
    upload_request,
};
use tonic::transport::Channel;

/// Bytes of the largest answer part.
const MESSAGE_BYTES_MAX: usize = 256 << 20;

/// Bytes of a file that are sent at once.
const CHUNK_BYTES: usize = 1 << 20;

/// A connection to a server.
#[derive(Clone, Debug)]
pub struct Client {
    /// The query service.
    pub query: QueryServiceClient<Channel>,
    /// The ingest service.
    pub ingest: IngestServiceClient<Channel>,
    /// The admin service.
    pub admin: AdminServiceClient<Channel>,
}

impl Client {
    /// Connects to `http://host:port`.
    pub async fn connect(url: &str) -> Result<Self, tonic::transport::Error> {
        let channel = Channel::from_shared(url.to_owned())
            .expect("a server prints its URL")
            .connect_timeout(Duration::from_secs(5))
            .timeout(Duration::from_secs(900))
            .connect()
            .await?;
        Ok(Self {
            query: QueryServiceClient::new(channel.clone())
                .max_decoding_message_size(MESSAGE_BYTES_MAX),
            ingest: IngestServiceClient::new(channel.clone()),
            admin: AdminServiceClient::new(channel),
        })
    }

    /// The answer to a statement with its statistics, or the status's message.
    pub async fn ask(&mut self, sql: &str) -> Result<(Answer, QueryStatistics), String> {
        let request = QueryRequest {
            sql: sql.to_owned(),
            parameters: Vec::new(),
            options: BTreeMap::new().into_iter().collect(),
            format: ResultFormat::ArrowIpc.into(),
            timeout_ms: 0,
        };
        let status = |s: tonic::Status| format!("{:?}: {}", s.code(), s.message());
        let mut stream = self
            .query
            .query(request)
            .await
            .map_err(status)?
            .into_inner();
        let mut bytes = Vec::new();
        let mut statistics = None;
        while let Some(response) = stream.message().await.map_err(status)? {
            match response.part {
                Some(Part::ArrowIpc(part)) => bytes.extend_from_slice(&part),
                Some(Part::Statistics(s)) => statistics = Some(s),
                _ => {}
            }
        }
        let statistics = statistics.ok_or("the answer ended without statistics")?;
        let reader = StreamReader::try_new(bytes.as_slice(), None).map_err(|e| e.to_string())?;
        let schema = reader.schema();
        let batches = reader
            .collect::<Result<Vec<_>, _>>()
            .map_err(|e| e.to_string())?;
        Ok((Answer::of(&schema, &batches)?, statistics))
    }

    /// Stores a schema and creates a half of a table.
    pub async fn create(&mut self, schema: &str, config: &str) -> Result<(), tonic::Status> {
        let schema_json = schema.to_owned();
        self.admin
            .put_schema(PutSchemaRequest { schema_json })
            .await?;
        let config_json = config.to_owned();
        self.admin
            .create_table(CreateTableRequest { config_json })
            .await?;
        Ok(())
    }

    /// Uploads a file into an offline table.
    pub async fn upload(
        &mut self,
        table: &str,
        path: &Path,
        options: LoadOptions,
    ) -> Result<LoadResult, tonic::Status> {
        let name = path
            .file_name()
            .map_or(String::new(), |n| n.to_string_lossy().into_owned());
        let file = std::fs::File::open(path)?;
        self.upload_as(table, &name, file, options).await
    }

    /// Uploads bytes under a file name into an offline table.
    pub async fn upload_as(
        &mut self,
        table: &str,
        file_name: &str,
        mut content: impl Read + Send + 'static,
        options: LoadOptions,
    ) -> Result<LoadResult, tonic::Status> {
        let header = UploadHeader {
            table: table.to_owned(),
            file_name: file_name.to_owned(),
            options: Some(options),
        };
        let chunks = std::iter::from_fn(move || {
            let mut chunk = vec![0; CHUNK_BYTES];
            let read = content.read(&mut chunk).expect("the content can be read");
            chunk.truncate(read);
            (read > 0).then(|| upload_request::Part::Chunk(chunk.into()))
        });
        let requests = std::iter::once(upload_request::Part::Header(header))
            .chain(chunks)
            .map(|part| UploadRequest { part: Some(part) });
        let stream = futures::stream::iter(requests);
        Ok(self.ingest.upload(stream).await?.into_inner())
    }

    /// Appends messages to a partition of a topic, as `producer` from `first_sequence` on.
    pub async fn append(
        &mut self,
        topic: &str,
        partition: u32,
        payloads: &[Vec<u8>],
        producer: &str,
        first_sequence: u64,
    ) -> Result<AppendResponse, tonic::Status> {
        let messages = payloads
            .iter()
            .map(|payload| Message {
                payload: payload.clone().into(),
                ..Message::default()
            })
            .collect();
        let request = AppendRequest {
            topic: topic.to_owned(),
            partition: Some(partition),
            messages,
            producer_id: producer.to_owned(),
            first_sequence,
        };
        Ok(self.ingest.append(request).await?.into_inner())
    }
}
