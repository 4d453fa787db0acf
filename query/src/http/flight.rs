//! Arrow Flight SQL, at the address of the HTTP API: the same entities, the same tokens and the same scope, for tools that
//! speak ADBC or JDBC. A statement is SQL, or SRQL where it begins with a term, as `in:flows` or `time:today`.
//!
//! A client shows its token as `authorization: Bearer …`, or as the password of a handshake, whatever the user's name.
//! Nothing is kept between calls: a ticket and a prepared statement are the text of their statement, with the values that are
//! bound to its parameters, and whoever brings it gets what their own token may see. Rows stop coming when it is revoked or
//! over.

use std::pin::Pin;
use std::sync::Arc;

use arrow_array::RecordBatch;
use arrow_flight::decode::FlightRecordBatchStream;
use arrow_flight::encode::FlightDataEncoderBuilder;
use arrow_flight::error::FlightError;
use arrow_flight::flight_service_server::FlightServiceServer;
use arrow_flight::sql::metadata::{SqlInfoData, SqlInfoDataBuilder};
use arrow_flight::sql::server::{FlightSqlService, PeekableFlightDataStream};
use arrow_flight::sql::{
    ActionClosePreparedStatementRequest, ActionCreatePreparedStatementRequest, ActionCreatePreparedStatementResult,
    CommandGetCatalogs, CommandGetDbSchemas, CommandGetSqlInfo, CommandGetTableTypes, CommandGetTables,
    CommandPreparedStatementQuery, CommandStatementQuery, DoPutPreparedStatementResult, ProstMessageExt, SqlInfo,
    TicketStatementQuery,
};
use arrow_flight::{
    Action, FlightDescriptor, FlightEndpoint, FlightInfo, HandshakeRequest, HandshakeResponse, IpcMessage, SchemaAsIpc,
    Ticket,
};
use arrow_schema::{ArrowError, Schema, SchemaRef};
use axum::Router;
use axum::http::header::AUTHORIZATION;
use base64::Engine as _;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use futures::{Stream, StreamExt, TryStreamExt, stream};
use prost::Message;
use radarflow_reconcile::access::Action as May;
use tonic::metadata::MetadataMap;
use tonic::{Request, Response, Status, Streaming};

use crate::actor::Actor;
use crate::engine::export::Export;
use crate::engine::parameters::{self, Bound};
use crate::engine::sql::{CATALOG, SCHEMA};
use crate::error::QueryError;
use crate::http::Shared;
use crate::tables::catalog::ENTITIES;

/// Clients of some languages pad, others do not.
const BASIC: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);
/// Batches in which the values of parameters come at most.
const MAX_BATCHES: usize = 4;
/// What kind of table an entity is.
const VIEW: &str = "VIEW";

/// The service's calls.
pub(crate) fn router(api: Shared) -> Router {
    let about = about().expect("what is said of the server fits its shape");
    let service = FlightServiceServer::new(Flight { api, about: Arc::new(about) });
    Router::new().route_service("/arrow.flight.protocol.FlightService/{call}", service)
}

fn about() -> Result<SqlInfoData, FlightError> {
    let mut about = SqlInfoDataBuilder::new();
    about.append(SqlInfo::FlightSqlServerName, "Radarflow");
    about.append(SqlInfo::FlightSqlServerVersion, env!("CARGO_PKG_VERSION"));
    about.append(SqlInfo::FlightSqlServerArrowVersion, "1.3");
    about.append(SqlInfo::FlightSqlServerReadOnly, true);
    about.append(SqlInfo::FlightSqlServerTransaction, 0i32);
    about.append(SqlInfo::FlightSqlServerCancel, false);
    about.append(SqlInfo::SqlIdentifierQuoteChar, "\"");
    about.append(SqlInfo::SqlDdlCatalog, false);
    about.append(SqlInfo::SqlDdlSchema, false);
    about.append(SqlInfo::SqlDdlTable, false);
    about.build()
}

struct Flight {
    api: Shared,
    about: Arc<SqlInfoData>,
}

#[allow(clippy::needless_pass_by_value, reason = "it is handed to map_err")]
fn status(error: QueryError, statement: &str) -> Status {
    let said = error.to_string();
    match error {
        QueryError::Language(e) if e.end > 0 => {
            let (line, column) = e.position(statement);
            Status::invalid_argument(format!("line {line}, column {column}: {said}"))
        }
        QueryError::Language(_) | QueryError::Cursor(_) => Status::invalid_argument(said),
        QueryError::Forbidden(_) => Status::permission_denied(said),
        QueryError::Expired | QueryError::Forgotten(_) => Status::not_found(said),
        QueryError::TimedOut => Status::deadline_exceeded(said),
        QueryError::Ended => Status::unauthenticated(said),
        QueryError::Busy | QueryError::TooLarge(_) => Status::resource_exhausted(said),
        QueryError::Failed(detail) => {
            tracing::error!(detail, "a query failed");
            Status::internal(said)
        }
    }
}

#[allow(clippy::needless_pass_by_value, reason = "it is handed to map_err")]
fn arrow(error: ArrowError) -> Status {
    Status::internal(error.to_string())
}

/// Whether a statement is SRQL: it begins with a term, `key:value`, negated, in brackets, or quoted text. No SQL does.
fn is_srql(text: &str) -> bool {
    let text = text.trim_start().trim_start_matches(|c: char| c == '(' || c.is_whitespace());
    let word = text.find(|c: char| !(c.is_alphanumeric() || matches!(c, '_' | '-' | '.'))).unwrap_or(text.len());
    let begins = text[word..].chars().next();
    match text.get(..word).unwrap_or_default() {
        "" => matches!(begins, Some('!' | '"' | '\'' | '`')),
        word if word.eq_ignore_ascii_case("not") => true,
        _ => begins == Some(':'),
    }
}

/// The statement of a handle, with what is bound to it.
fn bound(handle: &[u8]) -> Result<Bound, Status> {
    Bound::read(handle).ok_or_else(|| Status::invalid_argument("this is no statement of this server"))
}

type Data = Pin<Box<dyn Stream<Item = Result<arrow_flight::FlightData, Status>> + Send>>;

fn data(schema: SchemaRef, batches: impl Stream<Item = Result<RecordBatch, FlightError>> + Send + 'static) -> Data {
    let encoded = FlightDataEncoderBuilder::new().with_schema(schema).build(batches);
    Box::pin(encoded.map(|part| part.map_err(Status::from)))
}

fn one(batch: RecordBatch) -> Response<Data> {
    Response::new(data(batch.schema(), stream::iter([Ok(batch)])))
}

/// What a command will give, and the ticket for it.
fn info(
    descriptor: FlightDescriptor,
    command: &impl ProstMessageExt,
    schema: &arrow_schema::Schema,
) -> Result<Response<FlightInfo>, Status> {
    let ticket = Ticket::new(command.as_any().encode_to_vec());
    let info = FlightInfo::new().try_with_schema(schema).map_err(arrow)?;
    Ok(Response::new(info.with_endpoint(FlightEndpoint::new().with_ticket(ticket)).with_descriptor(descriptor)))
}

impl Flight {
    fn known(&self, token: &str) -> Result<Actor, Status> {
        let actor = self.api.principals.actor(token.trim(), self.api.now_ms());
        let actor = actor.ok_or_else(|| Status::unauthenticated("the token is unknown, revoked or expired"))?;
        if actor.may(May::Query) {
            return Ok(actor);
        }
        Err(Status::permission_denied("the token's role does not allow this"))
    }

    fn actor(&self, metadata: &MetadataMap) -> Result<Actor, Status> {
        let said = metadata.get(AUTHORIZATION.as_str()).and_then(|v| v.to_str().ok());
        let token = said.and_then(|said| said.strip_prefix("Bearer "));
        self.known(token.ok_or_else(|| Status::unauthenticated("send authorization: Bearer rf_…"))?)
    }

    /// The columns that a statement gives, and what its parameters are to hold.
    async fn schema(&self, actor: &Actor, statement: &str) -> Result<(SchemaRef, Schema), Status> {
        let engine = &self.api.engine;
        let schema = if is_srql(statement) {
            engine.srql_schema(actor, statement).await.map(|schema| (schema, Schema::empty()))
        } else {
            engine.sql_schema(actor, statement).await
        };
        schema.map_err(|e| status(e, statement))
    }

    async fn rows(&self, actor: &Actor, bound: Bound) -> Result<Response<Data>, Status> {
        let engine = &self.api.engine;
        let statement = &bound.statement;
        let export = if is_srql(statement) {
            engine.export(actor, statement, None, None).await
        } else {
            engine.export_bound(actor, &bound).await
        };
        let export: Export = export.map_err(|e| status(e, statement))?;
        let schema = export.schema.clone();
        let batches = stream::unfold(export, |mut export| async {
            let batch = export.next().await?;
            Some((batch.map_err(|e| FlightError::from(status(e, ""))), export))
        });
        Ok(Response::new(data(schema, batches)))
    }
}

#[tonic::async_trait]
impl FlightSqlService for Flight {
    type FlightService = Flight;

    async fn do_handshake(
        &self,
        request: Request<Streaming<HandshakeRequest>>,
    ) -> Result<Response<Pin<Box<dyn Stream<Item = Result<HandshakeResponse, Status>> + Send>>>, Status> {
        let said = request.metadata().get(AUTHORIZATION.as_str()).and_then(|v| v.to_str().ok()).unwrap_or_default();
        let password = said
            .strip_prefix("Basic ")
            .and_then(|basic| BASIC.decode(basic.trim()).ok())
            .and_then(|bytes| String::from_utf8(bytes).ok())
            .and_then(|pair| Some(pair.split_once(':')?.1.to_owned()))
            .ok_or_else(|| Status::unauthenticated("the password is a token: rf_…"))?;
        self.known(&password)?;
        let answer = HandshakeResponse { protocol_version: 0, payload: password.clone().into() };
        let mut response: Response<Pin<Box<dyn Stream<Item = _> + Send>>> =
            Response::new(Box::pin(stream::iter([Ok(answer)])));
        let bearer = format!("Bearer {password}").parse().map_err(|_| Status::unauthenticated("no token"))?;
        response.metadata_mut().insert(AUTHORIZATION.as_str(), bearer);
        Ok(response)
    }

    async fn get_flight_info_statement(
        &self,
        query: CommandStatementQuery,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        let actor = self.actor(request.metadata())?;
        let (schema, _) = self.schema(&actor, &query.query).await?;
        let ticket = TicketStatementQuery { statement_handle: query.query.into() };
        info(request.into_inner(), &ticket, &schema)
    }

    async fn do_get_statement(
        &self,
        ticket: TicketStatementQuery,
        request: Request<Ticket>,
    ) -> Result<Response<Data>, Status> {
        let actor = self.actor(request.metadata())?;
        self.rows(&actor, bound(&ticket.statement_handle)?).await
    }

    async fn do_action_create_prepared_statement(
        &self,
        query: ActionCreatePreparedStatementRequest,
        request: Request<Action>,
    ) -> Result<ActionCreatePreparedStatementResult, Status> {
        let actor = self.actor(request.metadata())?;
        let (schema, wanted) = self.schema(&actor, &query.query).await?;
        let said = |schema: &Schema| -> Result<_, Status> {
            let IpcMessage(bytes) = SchemaAsIpc::new(schema, &Default::default()).try_into().map_err(arrow)?;
            Ok(bytes)
        };
        let parameter_schema = if wanted.fields().is_empty() { Default::default() } else { said(&wanted)? };
        let (dataset_schema, prepared_statement_handle) = (said(&schema)?, query.query.into());
        Ok(ActionCreatePreparedStatementResult { prepared_statement_handle, dataset_schema, parameter_schema })
    }

    async fn do_put_prepared_statement_query(
        &self,
        query: CommandPreparedStatementQuery,
        request: Request<PeekableFlightDataStream>,
    ) -> Result<DoPutPreparedStatementResult, Status> {
        self.actor(request.metadata())?;
        let Bound { statement, .. } = bound(&query.prepared_statement_handle)?;
        let rows = FlightRecordBatchStream::new_from_flight_data(request.into_inner().map_err(FlightError::from));
        // One row is wanted; whoever sends more is heard no longer than it takes to see that.
        let rows: Vec<RecordBatch> = rows.take(MAX_BATCHES).try_collect().await.map_err(Status::from)?;
        let values = parameters::values(&rows).map_err(Status::invalid_argument)?;
        if !values.is_empty() && is_srql(&statement) {
            return Err(Status::invalid_argument("SRQL has no parameters; a statement of SQL has"));
        }
        let handle = Bound { statement, values }.handle();
        Ok(DoPutPreparedStatementResult { prepared_statement_handle: Some(handle.into()) })
    }

    async fn do_action_close_prepared_statement(
        &self,
        _: ActionClosePreparedStatementRequest,
        request: Request<Action>,
    ) -> Result<(), Status> {
        self.actor(request.metadata()).map(drop)
    }

    async fn get_flight_info_prepared_statement(
        &self,
        query: CommandPreparedStatementQuery,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        let actor = self.actor(request.metadata())?;
        let (schema, _) = self.schema(&actor, &bound(&query.prepared_statement_handle)?.statement).await?;
        info(request.into_inner(), &query, &schema)
    }

    async fn do_get_prepared_statement(
        &self,
        query: CommandPreparedStatementQuery,
        request: Request<Ticket>,
    ) -> Result<Response<Data>, Status> {
        let actor = self.actor(request.metadata())?;
        self.rows(&actor, bound(&query.prepared_statement_handle)?).await
    }

    async fn get_flight_info_catalogs(
        &self,
        query: CommandGetCatalogs,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        self.actor(request.metadata())?;
        info(request.into_inner(), &query, &query.into_builder().schema())
    }

    async fn do_get_catalogs(
        &self,
        query: CommandGetCatalogs,
        request: Request<Ticket>,
    ) -> Result<Response<Data>, Status> {
        self.actor(request.metadata())?;
        let mut catalogs = query.into_builder();
        catalogs.append(CATALOG);
        Ok(one(catalogs.build().map_err(Status::from)?))
    }

    async fn get_flight_info_schemas(
        &self,
        query: CommandGetDbSchemas,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        self.actor(request.metadata())?;
        info(request.into_inner(), &query, &query.clone().into_builder().schema())
    }

    async fn do_get_schemas(
        &self,
        query: CommandGetDbSchemas,
        request: Request<Ticket>,
    ) -> Result<Response<Data>, Status> {
        self.actor(request.metadata())?;
        let mut schemas = query.into_builder();
        schemas.append(CATALOG, SCHEMA);
        Ok(one(schemas.build().map_err(Status::from)?))
    }

    async fn get_flight_info_tables(
        &self,
        query: CommandGetTables,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        self.actor(request.metadata())?;
        info(request.into_inner(), &query, &query.clone().into_builder().schema())
    }

    async fn do_get_tables(&self, query: CommandGetTables, request: Request<Ticket>) -> Result<Response<Data>, Status> {
        self.actor(request.metadata())?;
        let mut tables = query.into_builder();
        for entity in ENTITIES.iter() {
            tables.append(CATALOG, SCHEMA, entity.name, VIEW, &entity.table.schema()).map_err(Status::from)?;
        }
        Ok(one(tables.build().map_err(Status::from)?))
    }

    async fn get_flight_info_table_types(
        &self,
        query: CommandGetTableTypes,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        self.actor(request.metadata())?;
        info(request.into_inner(), &query, &query.into_builder().schema())
    }

    async fn do_get_table_types(
        &self,
        query: CommandGetTableTypes,
        request: Request<Ticket>,
    ) -> Result<Response<Data>, Status> {
        self.actor(request.metadata())?;
        let mut types = query.into_builder();
        types.append(VIEW);
        Ok(one(types.build().map_err(Status::from)?))
    }

    async fn get_flight_info_sql_info(
        &self,
        query: CommandGetSqlInfo,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        self.actor(request.metadata())?;
        info(request.into_inner(), &query, &query.clone().into_builder(&self.about).schema())
    }

    async fn do_get_sql_info(
        &self,
        query: CommandGetSqlInfo,
        request: Request<Ticket>,
    ) -> Result<Response<Data>, Status> {
        self.actor(request.metadata())?;
        Ok(one(query.into_builder(&self.about).build().map_err(Status::from)?))
    }

    async fn register_sql_info(&self, _: i32, _: &SqlInfo) {}
}

#[cfg(test)]
mod tests {
    use super::is_srql;

    #[test]
    fn a_statement_is_srql_where_it_begins_with_a_term() {
        for srql in [
            "in:devices",
            " time:today in:flows",
            "\nIN:flows",
            "(app:dns OR app:ssh) in:flows",
            "!app:dns in:flows",
            "\"link down\" in:logs",
            "`limit`:5 in:flows",
            "metadata.rack:r1 in:devices",
            "not app:dns in:flows",
        ] {
            assert!(is_srql(srql), "{srql}");
        }
        for sql in [
            "SELECT 1",
            "select a::text from t",
            "(SELECT 1)",
            "WITH a AS (SELECT 1) SELECT 2",
            "-- in:x\nSELECT 1",
            "",
            "VALUES (1)",
        ] {
            assert!(!is_srql(sql), "{sql}");
        }
    }
}
