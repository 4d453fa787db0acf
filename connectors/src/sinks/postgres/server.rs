//! Sessions of a Postgres server.

use std::time::Duration;

use arrow::array::RecordBatch;
use async_trait::async_trait;
use radarflow_proto::rows::{Nature, Table, copy_key};
use sqlx::postgres::PgConnectOptions;
use sqlx::{AssertSqlSafe, Executor, PgConnection};

use super::database::{Database, Item, Patience, Progress, Session};
use super::{PostgresError, sql};

/// Bytes of COPY text sent at once.
const COPY_BYTES: usize = 4 << 20;

/// A server, by its address.
pub(super) struct Server(pub(super) PgConnectOptions);

#[async_trait]
impl Database for Server {
    async fn connect(&self, patience: Patience) -> Result<Box<dyn Session>, PostgresError> {
        let mut connection = connect(&self.0, patience).await?;
        super::schema(&mut connection).await?;
        Ok(Box::new(Connected(connection)))
    }
}

/// A connection on which statements and locks have their limits, and which the server gives up when we are gone.
pub(super) async fn connect(options: &PgConnectOptions, patience: Patience) -> Result<PgConnection, sqlx::Error> {
    use sqlx::Connection;
    let mut connection = PgConnection::connect_with(options).await?;
    sqlx::query(sql::SESSION)
        .bind(format!("{}ms", patience.statement.as_millis()))
        .bind(format!("{}ms", patience.lock.as_millis()))
        .execute(&mut connection)
        .await?;
    Ok(connection)
}

struct Connected(PgConnection);

impl Connected {
    async fn run(&mut self, statement: String) -> Result<(), PostgresError> {
        self.0.execute(AssertSqlSafe(statement)).await?;
        Ok(())
    }

    /// Copies into what is staged of a table, in pieces.
    async fn copy(&mut self, table: Table, gone: bool, items: &[Item<'_>]) -> Result<(), PostgresError> {
        let mut copy = self.0.copy_in_raw(&format!("COPY {} FROM STDIN", sql::staged(table, gone))).await?;
        let mut piece = String::new();
        for item in items {
            match item {
                Item::Key(key) => copy_key(key, &mut piece),
                Item::Row(row) => row.copy(&mut piece),
                Item::Batch(batch) => {
                    for row in 0..batch.num_rows() {
                        table.copy_row(batch, row, &mut piece);
                        if piece.len() >= COPY_BYTES {
                            copy.send(std::mem::take(&mut piece).into_bytes()).await?;
                        }
                    }
                }
            }
            if piece.len() >= COPY_BYTES {
                copy.send(std::mem::take(&mut piece).into_bytes()).await?;
            }
        }
        if !piece.is_empty() {
            copy.send(piece.into_bytes()).await?;
        }
        copy.finish().await?;
        Ok(())
    }
}

#[async_trait]
impl Session for Connected {
    async fn begin(&mut self, limit: Duration) -> Result<(), PostgresError> {
        let ms = limit.as_millis();
        let limits =
            format!("SET LOCAL statement_timeout = {ms}; SET LOCAL idle_in_transaction_session_timeout = {ms}");
        self.run(format!("BEGIN; {limits}")).await
    }

    async fn progress(&mut self) -> Result<Progress, PostgresError> {
        Ok(sqlx::query_as(sql::PROGRESS).fetch_optional(&mut self.0).await?)
    }

    async fn write(&mut self, table: Table, gone: &[Item<'_>], there: &[Item<'_>]) -> Result<(), PostgresError> {
        if !gone.is_empty() {
            self.run(sql::stage(table, true, false)).await?;
            self.copy(table, true, gone).await?;
            self.run(sql::delete(table)).await?;
        }
        if !there.is_empty() {
            self.run(sql::stage(table, false, false)).await?;
            self.copy(table, false, there).await?;
            self.run(sql::upsert(table)).await?;
        }
        Ok(())
    }

    async fn stage(&mut self, table: Table, limit: Duration, rows: &[RecordBatch]) -> Result<(), PostgresError> {
        self.run(format!("SET statement_timeout = {}", limit.as_millis())).await?;
        self.run(sql::stage(table, false, true)).await?;
        let items: Vec<Item<'_>> = rows.iter().map(Item::Batch).collect();
        self.copy(table, false, &items).await?;
        // Nobody else looks at a temporary table, so that the plan would be made for one of any size.
        self.run(format!("ANALYZE {}", sql::staged(table, false))).await
    }

    async fn exchange(&mut self, table: Table) -> Result<(), PostgresError> {
        if table.nature() == Nature::State {
            self.run(sql::delete_others(table)).await?;
        }
        self.run(sql::upsert(table)).await
    }

    async fn forget(&mut self, table: Table, after: u64) -> Result<(), PostgresError> {
        self.run(sql::forget(table, after)).await
    }

    async fn move_to(&mut self, generation: i64, frontier: u64) -> Result<(), PostgresError> {
        sqlx::query(sql::MOVE).bind(generation).bind(frontier as i64).execute(&mut self.0).await?;
        Ok(())
    }

    async fn commit(&mut self) -> Result<(), PostgresError> {
        self.run("COMMIT".to_owned()).await
    }

    async fn rollback(&mut self) -> Result<(), PostgresError> {
        self.run("ROLLBACK".to_owned()).await
    }
}
