//! The statements, made from what the tables are declared as.

use radarflow_proto::rows::Table;

/// Limits of a session. Settings that a server does not have are left out; they are not given at the connection's start,
/// because poolers refuse what they do not know there. $1 and $2: of a statement, of a lock.
pub(super) const SESSION: &str = "
    SELECT set_config(s.name, w.value, false)
    FROM (VALUES
        ('statement_timeout', $1),
        ('lock_timeout', $2),
        ('idle_in_transaction_session_timeout', $1),
        ('tcp_keepalives_idle', '10'),
        ('tcp_keepalives_interval', '5'),
        ('tcp_keepalives_count', '3'),
        ('tcp_user_timeout', '30000')
    ) AS w(name, value)
    JOIN pg_settings s ON s.name = w.name
    WHERE s.context = 'user'";

/// Whether the schema is there, and whether we may read what was applied: who writes need not be who migrates.
pub(super) const SCHEMA: &str = "
    SELECT to_regclass('radarflow.sink_progress') IS NOT NULL,
        coalesce(has_table_privilege(to_regclass('_sqlx_migrations'), 'SELECT'), false)";

/// The newest migration that was applied.
pub(super) const MIGRATED: &str = "SELECT coalesce(max(version), 0) FROM _sqlx_migrations WHERE success";

pub(super) const PROGRESS: &str =
    "SELECT generation, frontier FROM radarflow.sink_progress WHERE sink = 'postgres' FOR UPDATE";

/// $1 and $2: generation, frontier.
pub(super) const MOVE: &str = "
    INSERT INTO radarflow.sink_progress (sink, generation, frontier) VALUES ('postgres', $1, $2)
    ON CONFLICT (sink) DO UPDATE SET generation = excluded.generation, frontier = excluded.frontier, updated_at = now()";

fn columns(table: Table) -> Vec<String> {
    table.columns().iter().map(|c| format!("\"{}\"", c.name)).collect()
}

fn keys(table: Table) -> Vec<String> {
    table.key().iter().map(|k| format!("\"{k}\"")).collect()
}

fn values(table: Table) -> Vec<String> {
    let keys = keys(table);
    columns(table).into_iter().filter(|c| !keys.contains(c)).collect()
}

fn same_key(table: Table, left: &str, right: &str) -> String {
    let same: Vec<String> = keys(table).iter().map(|k| format!("{left}.{k} = {right}.{k}")).collect();
    same.join(" AND ")
}

fn all_of(columns: &[String], of: &str) -> String {
    columns.iter().map(|c| format!("{of}.{c}")).collect::<Vec<_>>().join(", ")
}

/// Names the temporary table of rows, or of keys that are gone.
pub(super) fn staged(table: Table, gone: bool) -> String {
    format!("{}_{}", if gone { "gone" } else { "new" }, table.postgres())
}

/// Makes the temporary table that COPY fills: for a transaction, or for the session.
pub(super) fn stage(table: Table, gone: bool, session: bool) -> String {
    let columns = if gone { keys(table) } else { columns(table) }.join(", ");
    let (staged, name) = (staged(table, gone), table.postgres());
    let end = if session { "PRESERVE ROWS" } else { "DROP" };
    format!("CREATE TEMP TABLE {staged} ON COMMIT {end} AS SELECT {columns} FROM radarflow.{name} WITH NO DATA")
}

/// Writes what is staged where it is not there or differs. An event differs from what bears its name only where that is of another
/// ledger's history.
pub(super) fn upsert(table: Table) -> String {
    let (name, staged, values) = (table.postgres(), staged(table, false), values(table));
    let (columns, keys) = (columns(table).join(", "), keys(table).join(", "));
    let (theirs, ours) = (all_of(&values, "t"), all_of(&values, "excluded"));
    let action = format!("UPDATE SET ({}) = ROW({ours}) WHERE ({theirs}) IS DISTINCT FROM ({ours})", values.join(", "));
    format!(
        "INSERT INTO radarflow.{name} AS t ({columns}) SELECT {columns} FROM {staged} ON CONFLICT ({keys}) DO {action}"
    )
}

/// Removes what is staged as gone.
pub(super) fn delete(table: Table) -> String {
    let (name, staged) = (table.postgres(), staged(table, true));
    format!("DELETE FROM radarflow.{name} t USING {staged} g WHERE {}", same_key(table, "t", "g"))
}

/// Removes what happened after an epoch.
pub(super) fn forget(table: Table, after: u64) -> String {
    format!("DELETE FROM radarflow.{} WHERE epoch > {after}", table.postgres())
}

/// Removes what is not staged.
pub(super) fn delete_others(table: Table) -> String {
    let (name, staged) = (table.postgres(), staged(table, false));
    format!(
        "DELETE FROM radarflow.{name} t WHERE NOT EXISTS (SELECT FROM {staged} n WHERE {})",
        same_key(table, "t", "n")
    )
}
