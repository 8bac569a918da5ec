//! `AdminService`: schemas, tables, segments and the boundary.

use crate::engine::Engine;
use std::sync::Arc;
use strandline_proto::v1::admin_service_server::AdminService;
use strandline_proto::v1::{
    AuditReport, AuditRequest, BackupRequest, BackupResponse, BoundaryDescription,
    CreateTableRequest, CreateTableResponse, DeleteRowsRequest, DeleteRowsResponse,
    DropOfflineRequest, DropOfflineResponse, DropTableRequest, DropTableResponse,
    ForceCommitRequest, ForceCommitResponse, GetBoundaryRequest, GetTableRequest,
    ListSegmentsRequest, ListSegmentsResponse, ListTablesRequest, ListTablesResponse,
    PinBoundaryRequest, PutSchemaRequest, PutSchemaResponse, ReleaseBoundaryRequest, ReloadStatus,
    ReloadTableRequest, RevertPushRequest, RevertPushResponse, SetPausedRequest, SetPausedResponse,
    TableDescription, TimeInterval, UpdateTableRequest, UpdateTableResponse,
};
use strandline_proto::{Error, Result};
use tonic::{Request, Response, Status};

pub(super) struct Admin {
    pub(super) engine: Arc<Engine>,
}

type Answer<T> = Result<Response<T>, Status>;

#[tonic::async_trait]
impl AdminService for Admin {
    async fn list_tables(&self, _: Request<ListTablesRequest>) -> Answer<ListTablesResponse> {
        Ok(Response::new(ListTablesResponse {
            tables: self.engine.tables(),
        }))
    }

    async fn get_table(&self, request: Request<GetTableRequest>) -> Answer<TableDescription> {
        Ok(Response::new(
            self.engine.table(&request.into_inner().table)?,
        ))
    }

    async fn put_schema(&self, request: Request<PutSchemaRequest>) -> Answer<PutSchemaResponse> {
        let (name, warnings) = self
            .engine
            .put_schema(&request.into_inner().schema_json)
            .await?;
        Ok(Response::new(PutSchemaResponse { name, warnings }))
    }

    async fn create_table(
        &self,
        request: Request<CreateTableRequest>,
    ) -> Answer<CreateTableResponse> {
        let (table, warnings) = self
            .engine
            .create_table(&request.into_inner().config_json)
            .await?;
        Ok(Response::new(CreateTableResponse { table, warnings }))
    }

    async fn update_table(
        &self,
        request: Request<UpdateTableRequest>,
    ) -> Answer<UpdateTableResponse> {
        let (table, warnings) = self
            .engine
            .update_table(&request.into_inner().config_json)
            .await?;
        Ok(Response::new(UpdateTableResponse { table, warnings }))
    }

    async fn reload_table(&self, request: Request<ReloadTableRequest>) -> Answer<ReloadStatus> {
        Ok(Response::new(
            self.engine.reload(&request.into_inner().table).await?,
        ))
    }

    async fn drop_table(&self, request: Request<DropTableRequest>) -> Answer<DropTableResponse> {
        let segments_dropped = self.engine.drop_table(&request.into_inner().table).await?;
        Ok(Response::new(DropTableResponse { segments_dropped }))
    }

    async fn list_segments(
        &self,
        request: Request<ListSegmentsRequest>,
    ) -> Answer<ListSegmentsResponse> {
        let segments = self.engine.segments(&request.into_inner().table)?;
        Ok(Response::new(ListSegmentsResponse { segments }))
    }

    async fn get_boundary(
        &self,
        request: Request<GetBoundaryRequest>,
    ) -> Answer<BoundaryDescription> {
        Ok(Response::new(
            self.engine.boundary(&request.into_inner().table).await?,
        ))
    }

    async fn pin_boundary(
        &self,
        request: Request<PinBoundaryRequest>,
    ) -> Answer<BoundaryDescription> {
        let request = request.into_inner();
        Ok(Response::new(
            self.engine
                .pin_boundary(&request.table, request.boundary_ms)
                .await?,
        ))
    }

    async fn release_boundary(
        &self,
        request: Request<ReleaseBoundaryRequest>,
    ) -> Answer<BoundaryDescription> {
        Ok(Response::new(
            self.engine
                .release_boundary(&request.into_inner().table)
                .await?,
        ))
    }

    async fn force_commit(
        &self,
        request: Request<ForceCommitRequest>,
    ) -> Answer<ForceCommitResponse> {
        let (segments, rows) = self
            .engine
            .force_commit(&request.into_inner().table)
            .await?;
        Ok(Response::new(ForceCommitResponse { segments, rows }))
    }

    async fn set_paused(&self, request: Request<SetPausedRequest>) -> Answer<SetPausedResponse> {
        let SetPausedRequest { table, paused } = request.into_inner();
        self.engine.set_paused(&table, paused).await?;
        Ok(Response::new(SetPausedResponse {}))
    }

    async fn revert_push(&self, request: Request<RevertPushRequest>) -> Answer<RevertPushResponse> {
        let RevertPushRequest { table, push_id } = request.into_inner();
        let (rows_removed, rows_restored) = self.engine.revert_push(&table, &push_id).await?;
        Ok(Response::new(RevertPushResponse {
            rows_removed,
            rows_restored,
        }))
    }

    async fn drop_offline(
        &self,
        request: Request<DropOfflineRequest>,
    ) -> Answer<DropOfflineResponse> {
        let DropOfflineRequest { table, interval } = request.into_inner();
        let Some(TimeInterval { start_ms, end_ms }) = interval else {
            return Err(
                Error::invalid("interval is missing: which times are to be dropped?").into(),
            );
        };
        let rows_removed = self.engine.drop_offline(&table, start_ms, end_ms).await?;
        Ok(Response::new(DropOfflineResponse { rows_removed }))
    }

    async fn audit(&self, request: Request<AuditRequest>) -> Answer<AuditReport> {
        let report = self.engine.audit(&request.into_inner().table).await?;
        Ok(Response::new(report))
    }

    async fn backup(&self, request: Request<BackupRequest>) -> Answer<BackupResponse> {
        let (folder, manifest) = self.engine.backup(&request.into_inner().name).await?;
        Ok(Response::new(BackupResponse {
            folder: folder.display().to_string(),
            files: manifest.files.len() as u64,
            bytes: manifest.bytes(),
        }))
    }

    async fn delete_rows(&self, request: Request<DeleteRowsRequest>) -> Answer<DeleteRowsResponse> {
        let DeleteRowsRequest { table, predicate } = request.into_inner();
        let predicate = (!predicate.trim().is_empty()).then_some(predicate.as_str());
        let rows_deleted = self.engine.delete_rows(&table, predicate).await?;
        Ok(Response::new(DeleteRowsResponse { rows_deleted }))
    }
}
