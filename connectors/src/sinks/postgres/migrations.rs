//! The migrations, compiled in: forward-only, in the order of their numbers. (`sqlx::migrate!` would list them by itself, and
//! have sqlx, its driver and TLS compiled a second time to run at compile time.)

use sqlx::SqlStr;
use sqlx::migrate::{Migration, MigrationType, Migrator};

/// Each file's name and text.
macro_rules! files {
    ($($name:literal),* $(,)?) => {
        &[$(($name, include_str!(concat!("../../../../migrations/", $name, ".sql")))),*]
    };
}

const FILES: &[(&str, &str)] = files![
    "0001_init",
    "0002_links_and_merges",
    "0003_lifecycle",
    "0004_enrichment",
    "0005_device_groups",
    "0006_imported_uids",
    "0007_topology_links",
    "0008_people",
    "0009_sign_in",
    "0010_jobs",
    "0011_notification",
    "0012_rules",
    "0013_clear_pairs",
    "0014_commands",
    "0015_telemetry",
    "0016_otel",
    "0017_on_call_integrations_parsing",
    "0018_edge_packages",
    "0019_silent_sources",
];

/// What brings a schema up to date.
pub(super) fn migrator() -> Migrator {
    let migration = |(name, sql): &(&'static str, &'static str)| {
        let (number, words) = name.split_once('_').unwrap_or((name, ""));
        let number = number.parse().unwrap_or_default();
        Migration::new(number, words.replace('_', " ").into(), MigrationType::Simple, SqlStr::from_static(sql), false)
    };
    Migrator::with_migrations(FILES.iter().map(migration).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_of_the_folder_is_listed() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../migrations");
        let files = std::fs::read_dir(folder).unwrap().map(|file| file.unwrap().file_name().into_string().unwrap());
        let mut files: Vec<String> = files.filter_map(|file| file.strip_suffix(".sql").map(str::to_owned)).collect();
        files.sort();
        assert_eq!(FILES.iter().map(|(name, _)| *name).collect::<Vec<_>>(), files);
        let numbers: Vec<i64> = migrator().iter().map(|migration| migration.version).collect();
        assert_eq!(numbers, (1..=files.len() as i64).collect::<Vec<_>>());
    }
}
