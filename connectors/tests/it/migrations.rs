//! The migrations make exactly the columns that the rows are declared with.

use radarflow_proto::rows::Table;

#[test]
fn every_declared_column_is_there_with_its_type() {
    let mut files: Vec<_> = std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/../migrations"))
        .unwrap()
        .map(|file| file.unwrap().path())
        .collect();
    files.sort();
    let sql: String = files.iter().map(|file| std::fs::read_to_string(file).unwrap()).collect();
    for table in Table::ALL.iter().filter(|t| !t.postgres().is_empty()) {
        let head = format!("CREATE TABLE radarflow.{} (\n", table.postgres());
        let start = sql.find(&head).unwrap_or_else(|| panic!("{head}")) + head.len();
        let body = &sql[start..start + sql[start..].find("\n);").expect("the table ends")];
        let mut found: Vec<&str> = body.lines().map(|l| l.trim().trim_end_matches(',')).collect();
        let alter = format!("ALTER TABLE radarflow.{}\n", table.postgres());
        for later in sql.split(&alter).skip(1) {
            let added = later.split(';').next().unwrap_or_default().lines();
            found.extend(added.filter_map(|l| l.trim().trim_end_matches(',').strip_prefix("ADD COLUMN ")));
        }
        let mut expected: Vec<String> = table
            .columns()
            .iter()
            .map(|c| format!("\"{}\" {}{}", c.name, c.postgres, if c.nullable { "" } else { " NOT NULL" }))
            .collect();
        let keys: Vec<String> = table.key().iter().map(|k| format!("\"{k}\"")).collect();
        expected.push(format!("PRIMARY KEY ({})", keys.join(", ")));
        // What rows there are already get a default.
        found.iter_mut().for_each(|column| *column = column.split(" DEFAULT ").next().unwrap_or_default());
        found.sort_unstable();
        expected.sort_unstable();
        assert_eq!(found, expected, "{}", table.postgres());
        assert!(sql.contains(&format!("ALTER TABLE radarflow.{} ENABLE ROW LEVEL SECURITY;", table.postgres())));
    }
}
