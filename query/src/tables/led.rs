//! Where the names that events bear lead today.
//!
//! An event is stored with the device that owned its address then. What that device is called may change: better
//! identifiers become known, devices become one. So the names of devices in events are read through the redirects there
//! are, and history is that of today's devices. The names of addresses are left as they are: who owns an address now
//! says nothing of who owned it then. What is stored is not changed.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::{Array, ArrayRef, StringArray};
use arrow_schema::{DataType, SchemaRef};
use datafusion::common::Result;
use datafusion::logical_expr::{
    ColumnarValue, Expr, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility, ident,
};
use datafusion::prelude::DataFrame;

use crate::tables::segment::Segment;

/// Columns of events that name devices.
pub(crate) const NAMES: [&str; 4] = ["device_uid", "src_device_uid", "dst_device_uid", "exporter_device_uid"];

/// Whether events of such columns name devices.
pub(crate) fn names_devices(schema: &SchemaRef) -> bool {
    NAMES.iter().any(|name| schema.index_of(name).is_ok())
}

/// Redirects, as a function of a uid.
#[derive(Debug)]
pub(crate) struct Led {
    redirects: Arc<Vec<Segment>>,
    signature: Signature,
}

impl PartialEq for Led {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.redirects, &other.redirects)
    }
}
impl Eq for Led {}
impl Hash for Led {
    fn hash<H: Hasher>(&self, state: &mut H) {
        Arc::as_ptr(&self.redirects).hash(state);
    }
}

impl Led {
    /// Some names, and those that lead to them.
    pub(crate) fn led_to(&self, mut names: BTreeSet<String>) -> BTreeSet<String> {
        let mut leading = Vec::new();
        let wanted: BTreeSet<&str> = names.iter().map(String::as_str).collect();
        for segment in self.redirects.iter() {
            let rows = segment.find("to_uid", &wanted).unwrap_or_else(|| segment.scan("to_uid", &wanted));
            for row in rows {
                let (batch, place) = segment.at(row);
                let from = batch.column_by_name("from_uid").and_then(|column| column.as_string_opt::<i32>());
                leading.extend(from.map(|from| from.value(place).to_owned()));
            }
        }
        names.extend(leading);
        names
    }

    /// Where each of some names leads, if it leads anywhere.
    fn lead(&self, uids: &StringArray) -> BTreeMap<String, String> {
        let wanted: BTreeSet<&str> = uids.iter().flatten().collect();
        let mut led = BTreeMap::new();
        for segment in self.redirects.iter() {
            for row in segment.find("from_uid", &wanted).unwrap_or_default() {
                let (batch, place) = segment.at(row);
                let text = |name: &str| {
                    let column: &StringArray = batch.column_by_name(name)?.as_string_opt()?;
                    column.is_valid(place).then(|| column.value(place).to_owned())
                };
                let of_address = text("identifier").is_none_or(|identifier| identifier.starts_with("ip:"));
                if let (Some(from), Some(to), false) = (text("from_uid"), text("to_uid"), of_address) {
                    led.insert(from, to);
                }
            }
        }
        led
    }
}

impl ScalarUDFImpl for Led {
    fn name(&self) -> &str {
        "led"
    }
    fn signature(&self) -> &Signature {
        &self.signature
    }
    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Utf8)
    }
    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let arrays = ColumnarValue::values_to_arrays(&args.args)?;
        let uids: &StringArray = arrays[0].as_string();
        let led = self.lead(uids);
        if led.is_empty() {
            return Ok(ColumnarValue::Array(arrays[0].clone()));
        }
        let today = |uid: Option<&str>| uid.map(|uid| led.get(uid).map_or_else(|| uid.to_owned(), Clone::clone));
        let out: StringArray = uids.iter().map(today).collect();
        Ok(ColumnarValue::Array(Arc::new(out) as ArrayRef))
    }
}

/// Events whose devices are called as they are today.
pub(crate) fn led(events: DataFrame, schema: &SchemaRef, redirects: Option<&Arc<Vec<Segment>>>) -> Result<DataFrame> {
    let Some(redirects) = redirects.filter(|r| names_devices(schema) && r.iter().any(|s| s.live > 0)) else {
        return Ok(events);
    };
    let signature = Signature::exact(vec![DataType::Utf8], Volatility::Immutable);
    let function = ScalarUDF::from(Led { redirects: redirects.clone(), signature });
    let column = |name: &str| -> Expr {
        match NAMES.contains(&name) {
            true => function.call(vec![ident(name)]).alias(name),
            false => ident(name),
        }
    };
    events.select(schema.fields().iter().map(|field| column(field.name())).collect::<Vec<_>>())
}
