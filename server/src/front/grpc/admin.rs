//! `AdminService`: schemas, tables, segments and the boundary.

use crate::engine::Engine;
use std::sync::Arc;
use strandline_proto::Result;
use strandline_proto::v1::admin_service_server::AdminService;
use strandline_proto::v1::{
    BoundaryDescription, CreateTableRequest, CreateTableResponse, DropTableRequest,
    DropTableResponse, ForceCommitRequest, ForceCommitResponse, GetBoundaryRequest,
    GetTableRequest, ListSegmentsRequest, ListSegmentsResponse, ListTablesRequest,
    ListTablesResponse, PinBoundaryRequest, PutSchemaRequest, PutSchemaResponse,
    ReleaseBoundaryRequest, ReloadStatus, ReloadTableRequest, TableDescription, UpdateTableRequest,
    UpdateTableResponse,
};
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
}
