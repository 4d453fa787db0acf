//! Reading the tables of a ServiceRadar that is replaced, once.

use futures::TryStreamExt;
use serde_json::Value;
use sqlx::{Connection, PgConnection, Row};
use thiserror::Error;

/// Why they cannot be read.
#[derive(Debug, Error)]
pub enum ServiceRadarError {
    /// The database.
    #[error("{table}: {source}")]
    Database {
        /// What was read.
        table: String,
        /// Why not.
        source: sqlx::Error,
    },
    /// The table that there must be.
    #[error("there is no table {0} on the search path; name its schema: ?options=-csearch_path%3Dplatform")]
    Missing(String),
}

/// Reads the rows of tables as JSON; the last one must be there.
///
/// # Errors
/// [`ServiceRadarError`] where the database does not answer, or has no such table.
pub async fn read(url: &str, tables: &[&str], mut row: impl FnMut(&str, &Value)) -> Result<(), ServiceRadarError> {
    let failed = |table: &str| {
        let table = table.to_owned();
        move |source| ServiceRadarError::Database { table, source }
    };
    let mut db = PgConnection::connect(url).await.map_err(failed("connecting"))?;
    for table in tables {
        let there = sqlx::query_scalar::<_, bool>("SELECT to_regclass($1) IS NOT NULL").bind(*table);
        if !there.fetch_one(&mut db).await.map_err(failed(table))? {
            if Some(table) == tables.last() {
                return Err(ServiceRadarError::Missing((*table).to_owned()));
            }
            continue;
        }
        let sql = format!("SELECT to_jsonb(t)::text FROM {table} t");
        let mut rows = sqlx::query(sqlx::AssertSqlSafe(sql)).fetch(&mut db);
        while let Some(found) = rows.try_next().await.map_err(failed(table))? {
            let text: String = found.try_get(0).map_err(failed(table))?;
            if let Ok(value) = serde_json::from_str(&text) {
                row(table, &value);
            }
        }
    }
    Ok(())
}
