//! Which devices answer, as those who know them by another name ask.

use std::collections::BTreeMap;

use arrow_array::cast::AsArray;
use arrow_array::{Array, StringArray};
use radarflow_proto::rows::Table;

use crate::tables::view::View;

impl View {
    /// Whether devices answer, where that is known, by the identifiers of a type and source instance that they hold.
    pub fn availability(&self, tenant: &str, identifier_type: &str, source_instance: &str) -> BTreeMap<String, bool> {
        let devices = self.columns(tenant, Table::Device, &["uid", "is_available"]);
        let mut answers: BTreeMap<&str, bool> = BTreeMap::new();
        for batch in &devices {
            let (uids, there): (&StringArray, _) = (batch.column(0).as_string(), batch.column(1).as_boolean());
            let known = uids.iter().zip(there).filter_map(|(uid, there)| Some((uid?, there?)));
            answers.extend(known);
        }
        let columns = ["identifier_type", "source_instance", "identifier_value", "device_uid"];
        let mut by_identifier = BTreeMap::new();
        for batch in self.columns(tenant, Table::DeviceIdentifier, &columns) {
            let text = |column: usize| -> &StringArray { batch.column(column).as_string() };
            for row in 0..batch.num_rows() {
                let of_source = text(0).value(row) == identifier_type && text(1).value(row) == source_instance;
                if of_source && text(3).is_valid(row) {
                    let answers = answers.get(text(3).value(row));
                    by_identifier.extend(answers.map(|answers| (text(2).value(row).to_owned(), *answers)));
                }
            }
        }
        by_identifier
    }
}
