//! Collections and items: reading a resource is a query over its entity, with the same filters, scope and pages.
//!
//! `filter[FIELD]=VALUE`, `filter[FIELD][OP]=VALUE` with `eq ne gt ge lt le in like`, `filter[srql]=CONDITION`; `sort=a,-b`;
//! `page[size]`, `page[after]`; `fields[TYPE]=a,b`; `min_epoch`.

use std::fmt::Write;

use axum::Extension;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use radarflow_proto::fact::Role;
use radarflow_proto::rows::Table;
use radarflow_reconcile::resources::ResourceKind;
use serde_json::{Map, Value, json};

use super::document::{document, encoded, of_row};
use crate::actor::Actor;
use crate::engine::encode::json_rows;
use crate::http::problem::{not_found, problem, refuse};
use crate::http::{Api, Shared};
use crate::srql::groups;
use crate::tables::catalog::{self, Kind};

/// Resources of a page where nothing is said.
const PAGE: usize = 100;
/// Resources of a page at most.
const MAX_PAGE: usize = 1000;

/// What is asked of a collection.
#[derive(Default)]
struct Asked {
    conditions: Vec<String>,
    sort: Vec<String>,
    size: usize,
    after: Option<String>,
    fields: Option<Vec<String>>,
    min_epoch: Option<u64>,
}

/// A parameter is wrong.
fn wrong(parameter: &str, detail: &str) -> Response {
    problem(StatusCode::BAD_REQUEST, "bad_parameter", detail, json!({"parameter": parameter}))
}

/// A text of the query language that means just this text.
fn text(value: &str) -> String {
    format!("'{}'", value.replace('\\', "\\\\").replace('\'', "\\'"))
}

/// `filter[a][b]` as `filter`, `a`, `b`.
fn parts(name: &str) -> Vec<&str> {
    name.split(['[', ']']).filter(|part| !part.is_empty()).collect()
}

/// The field of an entity that a parameter names; the id is one, as `id` too.
#[allow(clippy::result_large_err)]
fn field(kind: &ResourceKind, name: &str, parameter: &str) -> Result<(&'static str, Kind), Response> {
    let entity = catalog::find(kind.name()).ok_or_else(|| not_found("there is no such entity"))?;
    let name = if name == "id" { kind.id } else { name };
    let hidden = ["tenant_id", "partition"];
    let found = entity.fields.iter().find(|field| field.name == name && !hidden.contains(&field.name));
    found.map(|field| (field.name, field.kind)).ok_or_else(|| {
        let known: Vec<_> = entity.fields.iter().map(|f| f.name).filter(|name| !hidden.contains(name)).collect();
        wrong(parameter, &format!("{} have no attribute {name}; they have {}", kind.name(), known.join(", ")))
    })
}

/// A condition of the query language.
#[allow(clippy::result_large_err)]
fn condition(kind: &ResourceKind, name: &str, op: &str, value: &str, parameter: &str) -> Result<String, Response> {
    let (field, holds) = field(kind, name, parameter)?;
    // Texts compare by value; numbers, instants and truths are written as they are, and hold nothing that could be read otherwise.
    let plain = |value: &str| {
        !value.is_empty()
            && value.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | ':' | '+' | '_'))
    };
    let written = |value: &str| match holds {
        Kind::Number | Kind::Time | Kind::Bool if plain(value) => Ok(value.to_owned()),
        Kind::Number | Kind::Time | Kind::Bool => Err(wrong(parameter, &format!("{field} is a {}", holds.name()))),
        _ => Ok(text(value)),
    };
    if value == "null" && matches!(op, "eq" | "ne") {
        return Ok(format!("{}{field}:null", if op == "ne" { "!" } else { "" }));
    }
    Ok(match op {
        "eq" => format!("{field}:{}", written(value)?),
        "ne" => format!("!{field}:{}", written(value)?),
        "gt" => format!("{field}:>{}", written(value)?),
        "ge" => format!("{field}:>={}", written(value)?),
        "lt" => format!("{field}:<{}", written(value)?),
        "le" => format!("{field}:<={}", written(value)?),
        "in" => {
            let values: Result<Vec<String>, Response> = value.split(',').map(written).collect();
            format!("{field}:({})", values?.join(","))
        }
        "like" => {
            // A backslash makes anything but a letter or digit ordinary: all but the asterisk.
            let ordinary = |c: char| !c.is_alphanumeric() && c != '*';
            let written: String =
                value.chars().flat_map(|c| ordinary(c).then_some('\\').into_iter().chain([c])).collect();
            if value.is_empty() {
                return Err(wrong(parameter, "a pattern has at least one character"));
            }
            format!("{field}:{written}")
        }
        _ => return Err(wrong(parameter, "operators are eq, ne, gt, ge, lt, le, in and like")),
    })
}

impl Asked {
    #[allow(clippy::result_large_err)]
    fn read(kind: &ResourceKind, parameters: &[(String, String)]) -> Result<Self, Response> {
        let mut asked = Asked { size: PAGE, ..Asked::default() };
        for (name, value) in parameters {
            match parts(name)[..] {
                ["filter", "srql"] => {
                    groups::check(value).map_err(|error| {
                        let error = groups::placed(error, value);
                        let (line, column) = error.position(value);
                        let more = json!({"parameter": name, "line": line, "column": column});
                        problem(StatusCode::BAD_REQUEST, error.code, &error.to_string(), more)
                    })?;
                    asked.conditions.push(format!("({value})"));
                }
                ["filter", field] => asked.conditions.push(condition(kind, field, "eq", value, name)?),
                ["filter", field, op] => asked.conditions.push(condition(kind, field, op, value, name)?),
                ["sort"] => {
                    for key in value.split(',') {
                        let (key, order) = key.strip_prefix('-').map_or((key, "asc"), |key| (key, "desc"));
                        asked.sort.push(format!("{}:{order}", field(kind, key, name)?.0));
                    }
                }
                ["page", "size"] => {
                    asked.size = value
                        .parse()
                        .ok()
                        .filter(|size| (1..=MAX_PAGE).contains(size))
                        .ok_or_else(|| wrong(name, &format!("a page has 1 to {MAX_PAGE} resources")))?;
                }
                ["page", "after"] => asked.after = Some(value.clone()),
                ["fields", of] if of == kind.name() => {
                    let names = value.split(',').filter(|field| !field.is_empty());
                    asked.fields =
                        Some(names.map(|of| Ok(field(kind, of, name)?.0.to_owned())).collect::<Result<_, Response>>()?);
                }
                ["fields", _] => {}
                ["min_epoch"] => {
                    let epoch = value.parse().map_err(|_| wrong(name, "an epoch is a whole number"))?;
                    asked.min_epoch = Some(epoch);
                }
                ["include"] => return Err(wrong(name, "nothing can be included: no relationships are declared")),
                _ => return Err(wrong(name, "parameters are filter, sort, page, fields and min_epoch")),
            }
        }
        Ok(asked)
    }

    fn query(&self, kind: &ResourceKind) -> String {
        let mut query = format!("in:{}", kind.name());
        for condition in &self.conditions {
            let _ = write!(query, " {condition}");
        }
        let by_id = [format!("{}:asc", kind.id)];
        let sort = if self.sort.is_empty() { &by_id[..] } else { &self.sort };
        let _ = write!(query, " sort:{}", sort.join(","));
        query
    }
}

impl Api {
    /// Who asks, if they may do something to a kind.
    #[allow(clippy::result_large_err)]
    pub(super) fn may(&self, headers: &HeaderMap, kind: &ResourceKind, verb: &str) -> Result<Actor, Response> {
        let actor = self.actor(headers)?;
        match kind.permission(verb) {
            Some(permission) if actor.has(&permission) => Ok(actor),
            _ => {
                let detail = format!("your role does not allow to {verb} {}", kind.name());
                Err(problem(StatusCode::FORBIDDEN, "forbidden", &detail, json!({})))
            }
        }
    }
}

/// Who asks, as they may read: what is a person's own, they may read whatever their role.
#[allow(clippy::result_large_err)]
fn reader(api: &Api, headers: &HeaderMap, kind: &ResourceKind, id: Option<&str>) -> Result<Actor, Response> {
    let actor = api.actor(headers)?;
    let own = kind.table == Table::User && id.is_some_and(|id| actor.user() == Some(id));
    match kind.permission("read") {
        Some(permission) if actor.has(&permission) => Ok(actor),
        _ if own => Ok(Actor { partitions: Vec::new(), permissions: Role::Admin.into(), ..actor }),
        _ => api.may(headers, kind, "read"),
    }
}

/// Rows of a query, and where the next page begins.
async fn rows(
    api: &Api,
    actor: &Actor,
    query: &str,
    after: Option<&str>,
    size: usize,
) -> Result<(Vec<Map<String, Value>>, Option<String>, u64), Response> {
    let answer = api.engine.query(actor, query, after, Some(size)).await.map_err(|e| refuse(&e, query))?;
    let rows = json_rows(&answer.batches).map_err(|e| refuse(&e, query))?;
    Ok((serde_json::from_slice(&rows).unwrap_or_default(), answer.next_cursor, answer.meta.epoch))
}

/// A page of a collection.
pub(super) async fn collection(
    State(api): State<Shared>,
    Extension(kind): Extension<&'static ResourceKind>,
    uri: Uri,
    Query(parameters): Query<Vec<(String, String)>>,
    headers: HeaderMap,
) -> Result<Response, Response> {
    let actor = reader(&api, &headers, kind, None)?;
    let asked = Asked::read(kind, &parameters)?;
    if let Some(epoch) = asked.min_epoch {
        api.visible(epoch).await?;
    }
    let query = asked.query(kind);
    let (rows, next, epoch) = rows(&api, &actor, &query, asked.after.as_deref(), asked.size).await?;
    let data: Vec<Value> = rows.into_iter().map(|row| sparse(of_row(kind, row), asked.fields.as_deref())).collect();
    let mut links = json!({"self": uri.path_and_query().map_or("", |p| p.as_str())});
    if let Some(next) = next {
        let kept = parameters.iter().filter(|(name, _)| name != "page[after]");
        let mut query: Vec<String> =
            kept.map(|(name, value)| format!("{}={}", encoded(name), encoded(value))).collect();
        query.push(format!("{}={}", encoded("page[after]"), encoded(&next)));
        links["next"] = json!(format!("{}?{}", uri.path(), query.join("&")));
    }
    Ok(document(StatusCode::OK, &json!({"data": data, "links": links, "meta": {"epoch": epoch}})))
}

/// One resource. `ETag` is the epoch it was last changed at.
pub(super) async fn item(
    State(api): State<Shared>,
    Extension(kind): Extension<&'static ResourceKind>,
    Path(id): Path<String>,
    Query(parameters): Query<Vec<(String, String)>>,
    headers: HeaderMap,
) -> Result<Response, Response> {
    let actor = reader(&api, &headers, kind, Some(&id))?;
    let asked = Asked::read(kind, &parameters)?;
    if let Some(epoch) = asked.min_epoch {
        api.visible(epoch).await?;
    }
    let query = format!("in:{} {}:{}", kind.name(), kind.id, text(&id));
    let (rows, _, epoch) = rows(&api, &actor, &query, None, MAX_PAGE).await?;
    let is = |row: &Map<String, Value>| row.get(kind.id).and_then(Value::as_str) == Some(&id);
    let Some(row) = rows.into_iter().find(is) else {
        return Err(not_found(&format!("there is no {} {id}", kind.singular)));
    };
    let data = of_row(kind, row);
    let etag = format!("\"{}\"", data["meta"]["epoch"]);
    let known = headers.get(header::IF_NONE_MATCH).and_then(|v| v.to_str().ok());
    if known.is_some_and(|known| known.split(',').any(|tag| tag.trim() == etag)) {
        return Ok((StatusCode::NOT_MODIFIED, [(header::ETAG, etag)]).into_response());
    }
    let body = json!({"data": sparse(data, asked.fields.as_deref()), "meta": {"epoch": epoch}});
    let mut response = document(StatusCode::OK, &body);
    if let Ok(etag) = etag.parse() {
        response.headers_mut().insert(header::ETAG, etag);
    }
    Ok(response)
}

/// A resource with the attributes that are wanted.
fn sparse(mut resource: Value, fields: Option<&[String]>) -> Value {
    if let (Some(fields), Some(attributes)) = (fields, resource["attributes"].as_object_mut()) {
        attributes.retain(|name, _| fields.contains(name));
    }
    resource
}

#[cfg(test)]
mod tests {
    use radarflow_reconcile::resources::named;

    use super::*;
    use crate::srql::parse::parse;

    #[test]
    fn parameters_are_queries() {
        let kind = named("users").unwrap();
        let query = |parameters: &[(&str, &str)]| {
            let parameters: Vec<_> = parameters.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
            let asked = Asked::read(kind, &parameters).map_err(|refused| refused.status().as_u16())?;
            let query = asked.query(kind);
            parse(&query).unwrap_or_else(|error| panic!("{query}: {error}"));
            Ok::<_, u16>(query)
        };
        assert_eq!(query(&[]).unwrap(), "in:users sort:name:asc");
        let all = [
            ("filter[role]", "ad'min\\"),
            ("filter[disabled][ne]", "true"),
            ("filter[created_at][ge]", "2026-01-01T00:00:00Z"),
            ("filter[name][in]", "ann,b b"),
            ("filter[email]", "null"),
            ("filter[srql]", "role:admin OR name:x*"),
            ("sort", "-created_at,id"),
        ];
        assert_eq!(
            query(&all).unwrap(),
            r"in:users role:'ad\'min\\' !disabled:true created_at:>=2026-01-01T00:00:00Z name:('ann','b b') email:null (role:admin OR name:x*) sort:created_at:desc,name:asc"
        );
        for (name, value) in [
            ("filter[tenant_id]", "t"),
            ("filter[no_such]", "x"),
            ("filter[disabled]", "true OR in:devices"),
            ("filter[name][like_this]", "x"),
            ("sort", "secret"),
            ("page[size]", "0"),
            ("page[size]", "1001"),
            ("min_epoch", "x"),
            ("fields[users]", "password"),
            ("include", "role"),
            ("limit", "1"),
            ("filter[srql]", "role:admin limit:1"),
            ("filter[srql]", "role:x) stats:\"count()\" (role:y"),
        ] {
            assert_eq!(query(&[(name, value)]), Err(400), "{name}={value}");
        }
    }
}
