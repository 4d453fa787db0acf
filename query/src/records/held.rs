//! Which runs of a source are held, as the alerts tell that are open: the brake on merges (`run-held`) and the brake on
//! complete listings (`brake-held`).

use std::collections::BTreeSet;

use radarflow_proto::rows::Alert;
use serde::Serialize;
use utoipa::ToSchema;

use crate::tables::view::View;

/// The rule of what identity holds: later runs do not change what it touches.
pub(crate) const IDENTITY: &str = "run-held";
/// The rule of listings that lack too much: the next complete listing takes its place.
const LISTING: &str = "brake-held";

/// A run that waits until somebody releases or rejects it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) struct HeldRun {
    /// Its source: `netbox/main`, `integration/servicenow.main`.
    pub(crate) source: String,
    /// Its name.
    pub(crate) run: String,
    /// The rule that holds it.
    #[schema(example = "run-held")]
    pub(crate) rule: String,
    /// What it would do.
    pub(crate) why: String,
}

/// The runs of a source that are held; of all sources where none is named.
pub(crate) fn held(view: &View, tenant: &str, source: Option<&str>) -> Vec<HeldRun> {
    let alerts = view.rows_where_any::<Alert>(tenant, "rule", &BTreeSet::from([IDENTITY, LISTING]));
    let open = alerts.into_iter().filter(|alert| alert.status != "resolved");
    let open = open.filter(|alert| source.is_none_or(|source| alert.source_id == source));
    let mut held: Vec<HeldRun> = open
        .map(|alert| HeldRun {
            run: alert.labels.0.get("run").cloned().unwrap_or_default(),
            source: alert.source_id,
            rule: alert.rule,
            why: alert.title,
        })
        .collect();
    held.sort_by(|a, b| (&a.source, &a.run).cmp(&(&b.source, &b.run)));
    held
}
