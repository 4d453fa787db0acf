//! The words of the language, each with what it means. Parsing, completion and `radarflow docs srql` read these.

/// The word for membership in a group of devices.
pub const GROUP: &str = "group";
/// Greatest limit of a page.
pub const MAX_LIMIT: usize = 10_000;

/// Queries that show the language, with what they ask.
pub const EXAMPLES: &[(&str, &str)] = &[
    (
        "in:devices hostname:%cam% !discovery_sources:(armis) sort:last_seen:desc limit:50",
        "cameras that Armis does not know",
    ),
    (
        "in:flows time:last_1h stats:\"sum(bytes_total) as bytes by src_endpoint_ip:24, app\" having:\"bytes>1e6\" limit:20",
        "talkers by network",
    ),
    (
        "in:logs (severity:(error,fatal) OR body:/link.*down/i) device.vendor_name:Cisco window:5m stats:\"count() as n by device_uid\"",
        "errors of Cisco devices in slices of five minutes",
    ),
    ("in:devices uid:(in:alerts status:pending fields:device_uid) group:core", "core devices with an alert"),
    ("in:devices at:now-1d is_available:false", "what was down a day ago"),
];

/// Forms of a term: how it is written, what it means.
pub const FORMS: &[(&str, &str)] = &[
    ("f:v, f:~v", "equals; equals regardless of case"),
    ("f:a*b?, f:%ab%", "wildcard, regardless of case: `*` and `%` any run, `?` one character"),
    ("f:(a,b*,>5), f:[a,b]", "any of, on lists any element; in square brackets on lists all of them"),
    ("f:>5, f:5..10, f:..10", "comparison, closed range; of numbers, times, addresses and values in maps"),
    ("f:/re/i, f:~/re/", "regular expression, without white space (write `\\s`); with `i` or `~` regardless of case"),
    ("f:10.0.0.0/8, f:10.0.0.1-10.0.0.9", "network, address range"),
    ("f:null, f:*, f:\"\"", "missing, present, missing or empty"),
    ("f:@g, f:>@g", "the value of another field of the row"),
    ("m.k:v, m:k, m:(k:v k2:v2)", "a value in a map, a key of it, several of them"),
    ("device.F:v, src_device.F:v", "a field of the device that the row is of; on flows `device` is any of the three"),
    ("f:(in:… fields:g), !f:(in:…)", "one of the values another query gives; none of them"),
    ("observable.ip:v, observable:ip value:v", "any field of that type: ip, mac, hostname, port, device"),
    ("group:g, device.group:(a,b*)", "a member of a group of devices"),
    ("\"some text\"", "any text field contains it"),
    ("a b, a AND b, a OR b, NOT a, !a, (…)", "both, either, not; NOT before AND before OR"),
    ("`limit`:5, a\\*b, 'a*b'", "a field called like a clause; a character that means itself"),
];

/// Clauses: the name, what it says.
pub const CLAUSES: &[(&str, &str)] = &[
    ("in", "the entity, or several: in:(flows,logs)"),
    ("time", "the span: last_24h, today, 2024-06-01, [a,b], a..b, >=now-1h; of current state, what was seen in it"),
    ("timeframe", "the same as time:"),
    ("at", "current state as it was then, which is also \"now\": now-1d, 2024-06-01T10:00"),
    ("tz", "the time zone of dates and slices: Europe/Berlin"),
    ("include_deleted", "true: deleted devices too"),
    ("latest", "true: of each key the newest row"),
    ("explain", "true: the plan instead of the rows"),
    ("stream", "true: a live query, at /api/query/stream"),
    ("mode", "stream or snapshot"),
    ("sort", "f:asc,g:desc; missing values last"),
    ("order", "the same as sort:"),
    ("limit", "rows or groups of a page, 100 by default"),
    ("cursor", "where the next page begins"),
    ("fields", "columns to show"),
    ("select", "the same as fields:"),
    ("stats", "\"count() as n, sum(f) by key, g:24, time(5m)\""),
    ("groupby", "keys of the groups, as key, g:24, each(list), time(5m); alone it counts"),
    ("window", "groups in slices of time: 5m"),
    ("time_bucket", "the same as window:"),
    ("top", "the largest groups over the whole span"),
    ("by", "what top: goes by: an aggregate, or max(a), avg(a), last(a) over its slices of time"),
    ("other", "true: the rest as one row"),
    ("reverse", "true: beside each aggregate of stats: or bucket: that of the opposite direction; of flows"),
    ("compare", "beside each aggregate of stats: or bucket: that of the span so long before: 1d"),
    ("having", "a condition on groups: \"n>5 and not (key=x)\""),
    ("bucket", "a series over time: 5m, auto"),
    ("downsample", "the same as bucket:; alone bucket:auto"),
    ("agg", "what a series shows: count, sum, avg, min, max, last, p95, …; avg of a field, else count"),
    ("series", "what makes a series"),
    ("value_field", "what is aggregated in a series"),
    ("value-field", "the same as value_field:"),
    ("field", "the same as value_field:"),
    ("fill", "0, null or previous, where a series has nothing"),
    (
        "rollup_stats",
        "the numbers of a dashboard: devices inventory_summary, logs severity, flows traffic, alerts states",
    ),
    ("units", "sums a second: bps, Bps, pps"),
];

/// Functions: the name, what it gives.
pub const FUNCTIONS: &[(&str, &str)] = &[
    ("count", "rows, or rows where the field is present"),
    ("count_distinct", "different values"),
    ("sum", "their sum"),
    ("avg", "their mean"),
    ("min", "the least"),
    ("max", "the greatest"),
    ("stddev", "their standard deviation"),
    ("median", "the middle one, exactly"),
    (
        "percentile",
        "percentile(f, 0.95), between the two nearest values; exact of up to 10,000 values, a rank error of 0.1 % at most of more; also p95(f), p99.9(f)",
    ),
    ("first", "the value of the oldest row"),
    ("last", "the value of the newest row"),
    ("rate", "their sum a second"),
    ("group_uniq_array", "the different values, sorted"),
    ("count_if", "rows that a filter keeps: count_if(app:dns)"),
    ("sum_if", "of the rows that a filter keeps: sum_if(bytes_total, app:dns)"),
    ("avg_if", "of the rows that a filter keeps"),
    ("min_if", "of the rows that a filter keeps"),
    ("max_if", "of the rows that a filter keeps"),
];

/// The clause of that name.
pub fn clause(name: &str) -> Option<&'static str> {
    CLAUSES.iter().map(|(clause, _)| *clause).find(|clause| *clause == name)
}

/// Whether a text begins with a key and its colon.
pub fn keyed(text: &str, key: &str) -> bool {
    text.get(..key.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(key)) && text[key.len()..].starts_with(':')
}

/// Whether there is a function of that name.
pub fn is_function(name: &str) -> bool {
    FUNCTIONS.iter().any(|(function, _)| *function == name)
}
