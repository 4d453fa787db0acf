//! What OpenAPI says of resources: paths and schemas, made from their declarations.

use std::collections::BTreeMap;

use radarflow_reconcile::resources::judge::MAX_OPERATIONS;
use radarflow_reconcile::resources::kind::{Default, MAX_ID};
use radarflow_reconcile::resources::{Field, Holds, KINDS, MadeBy, ResourceKind};
use serde_json::{Map, Value, json};

use super::PREFIX;
use super::document::MEDIA_TYPE;

/// The schema of a field.
fn schema(field: &Field, doc: &str) -> Value {
    let mut schema = match field.holds {
        Holds::Text(most) => json!({"type": "string", "maxLength": most}),
        Holds::OneOf(words) => json!({"type": "string", "enum": words}),
        Holds::Flag => json!({"type": "boolean"}),
        Holds::Number(least, most) => json!({"type": "integer", "minimum": least, "maximum": most}),
        Holds::Instant => json!({"type": "string", "format": "date-time"}),
        Holds::Texts(most, each) => {
            json!({"type": "array", "maxItems": most, "items": {"type": "string", "maxLength": each}})
        }
    };
    if !field.required
        && let Some(kind) = schema.get("type").cloned()
    {
        // What may be missing may be null: it is the default then.
        schema["type"] = json!([kind, "null"]);
        if let Some(words) = schema.get("enum").and_then(Value::as_array).cloned() {
            schema["enum"] = words.into_iter().chain([Value::Null]).collect();
        }
    }
    if !matches!(field.default, Default::Null) {
        schema["default"] = field.default.value();
    }
    schema["description"] = json!(field.secret.unwrap_or(doc));
    if field.server {
        schema["readOnly"] = json!(true);
    }
    if field.secret.is_some() {
        schema["writeOnly"] = json!(true);
    }
    schema
}

/// The schema of what an answer says of a column.
fn read_only(column: &radarflow_proto::rows::Column) -> Value {
    use arrow_schema::DataType;
    let kind = match column.data_type {
        DataType::Int64 => "integer",
        DataType::Boolean => "boolean",
        DataType::List(_) => "array",
        DataType::Map(..) => "object",
        _ => "string",
    };
    let mut schema = match column.nullable {
        true => json!({"type": [kind, "null"]}),
        false => json!({"type": kind}),
    };
    if kind == "array" {
        schema["items"] = json!({"type": "string"});
    }
    schema["description"] = json!(column.doc);
    schema["readOnly"] = json!(true);
    schema
}

/// The schemas of a kind: a resource as it is answered and as it is stated.
fn schemas(kind: &ResourceKind, out: &mut Map<String, Value>) {
    let columns = kind.table.columns();
    let doc = |name: &str| columns.iter().find(|column| column.name == name).map_or("", |column| column.doc);
    let mut attributes = Map::new();
    for column in columns.iter().filter(|c| !["tenant_id", "partition", "epoch", kind.id].contains(&c.name)) {
        let set = kind.field(column.name).map(|field| schema(field, column.doc));
        attributes.insert(column.name.to_owned(), set.unwrap_or_else(|| read_only(column)));
    }
    let shown = attributes;
    // What people say; whoever makes a token does not say its hash.
    let said = kind.fields.iter().filter(|field| !field.server && field.name != "sha256");
    let said: Map<String, Value> = said.map(|field| (field.name.to_owned(), schema(field, doc(field.name)))).collect();
    let required: Vec<&str> = kind.fields.iter().filter(|f| f.required && f.name != "sha256").map(|f| f.name).collect();
    let id = json!({"type": "string", "minLength": 1, "maxLength": MAX_ID, "description": doc(kind.id)});
    let typed = json!({"type": "string", "enum": [kind.name()]});
    out.insert(
        kind.singular.to_owned(),
        json!({
            "type": "object", "description": kind.table.doc(), "required": ["type", "id", "attributes"],
            "properties": {
                "type": typed, "id": id,
                "attributes": {"type": "object", "properties": shown},
                "links": {"type": "object"}, "meta": {"type": "object", "properties": {"epoch": {"type": "integer"}}},
            },
        }),
    );
    for (name, required) in [("new", required), ("change", Vec::new())] {
        let mut of = json!({"type": "object", "properties": said, "additionalProperties": false});
        if !required.is_empty() {
            of["required"] = json!(required);
        }
        let data = json!({
            "type": "object", "required": if name == "new" && !of["required"].is_null() { json!(["type", "attributes"]) } else { json!(["type"]) },
            "properties": {"type": typed, "id": id, "attributes": of}, "additionalProperties": false,
        });
        let document = json!({
            "type": "object", "required": ["data"],
            "properties": {"data": data, "meta": {"$ref": "#/components/schemas/why"}}, "additionalProperties": false,
        });
        out.insert(format!("{}_{name}", kind.singular), document);
    }
}

#[allow(clippy::needless_pass_by_value, reason = "it is made where it is handed over")]
fn content(schema: Value) -> Value {
    json!({MEDIA_TYPE: {"schema": schema}})
}

fn reference(name: &str) -> Value {
    json!({"$ref": format!("#/components/schemas/{name}")})
}

/// An operation of OpenAPI.
#[allow(clippy::needless_pass_by_value, reason = "they are made where they are handed over")]
fn operation(id: &str, summary: &str, parameters: &[Value], body: Option<&str>, answers: Value) -> Value {
    let mut operation = json!({
        "operationId": id, "tags": ["resources"], "summary": summary, "parameters": parameters, "responses": answers,
    });
    if let Some(body) = body {
        operation["requestBody"] =
            json!({"required": !body.ends_with("_document"), "content": content(reference(body))});
    }
    operation
}

/// Adds resources to the description of the API.
pub(in crate::http) fn add(document: &mut Value) {
    let mut all = Map::new();
    let why = json!({
        "type": "object", "additionalProperties": false,
        "properties": {"reason": {"type": "string", "maxLength": 1000, "description": "Why, for the audit."}},
    });
    all.insert("why".into(), why);
    let why_document = json!({
        "type": "object", "additionalProperties": false, "properties": {"meta": reference("why")},
    });
    all.insert("why_document".into(), why_document);
    let error = json!({
        "type": "object", "required": ["errors"],
        "properties": {"errors": {"type": "array", "items": {"type": "object", "properties": {
            "status": {"type": "string"}, "code": {"type": "string"}, "title": {"type": "string"},
            "detail": {"type": "string"}, "source": {"type": "object"}, "meta": {"type": "object"},
        }}}},
    });
    all.insert("errors".into(), error);
    let header = |name: &str, doc: &str| json!({"name": name, "in": "header", "description": doc, "schema": {"type": "string", "minLength": 1, "maxLength": 255}});
    let key = header("Idempotency-Key", "Names the request: sent again it is answered again, for 24 hours.");
    let owner = header("Radarflow-Owner", "The set of files that the resource belongs to.");
    let mut if_match = header("If-Match", "The ETag that was read: 412 where somebody else was first.");
    if_match["schema"] = json!({"type": "string", "pattern": "^\"[0-9]{1,19}\"$"});
    let id = json!({"name": "id", "in": "path", "required": true, "schema": {"type": "string", "minLength": 1}});
    let mut paths: BTreeMap<String, Value> = BTreeMap::new();
    for kind in KINDS {
        schemas(kind, &mut all);
        let (name, one) = (kind.name(), kind.singular);
        let errors =
            json!({"description": "It was not done: what is wrong with it.", "content": content(reference("errors"))});
        let later = json!({"description": "It cannot be done now.", "content": content(reference("errors"))});
        let answer = |status: &str, description: &str, schema: Value| {
            let mut answers = json!({"4XX": errors, "5XX": later});
            answers[status] = json!({"description": description, "content": content(schema)});
            answers
        };
        let whole = json!({"type": "object", "required": ["data"], "properties": {"data": reference(one), "meta": {"type": "object"}}});
        let many = json!({"type": "object", "required": ["data"], "properties": {
            "data": {"type": "array", "items": reference(one)}, "links": {"type": "object"}, "meta": {"type": "object"}}});
        let parameter = |name: &str, doc: &str, schema: Value| json!({"name": name, "in": "query", "description": doc, "schema": schema});
        let listed = [
            parameter("filter[srql]", "A condition of the query language.", json!({"type": "string"})),
            parameter("sort", "Attributes, each after a minus for descending.", json!({"type": "string"})),
            parameter(
                "page[size]",
                "Resources of a page.",
                json!({"type": "integer", "minimum": 1, "maximum": 1000, "default": 100}),
            ),
            parameter("page[after]", "Where the page before ended: follow `links.next`.", json!({"type": "string"})),
            parameter(&format!("fields[{name}]"), "The attributes that are wanted.", json!({"type": "string"})),
            parameter("min_epoch", "Waits until this epoch is visible.", json!({"type": "integer", "minimum": 0})),
        ];
        let made = kind.made_by == MadeBy::People;
        let mut collection = json!({
            "get": operation(&format!("list_{name}"), &format!("Lists {name}."), &listed, None, answer("200", "A page.", many)),
        });
        if made {
            let body = format!("{one}_new");
            let answers = answer("201", "It is what was said.", whole.clone());
            let parameters = [key.clone(), owner.clone()];
            collection["post"] =
                operation(&format!("create_{one}"), &format!("Makes a {one}."), &parameters, Some(&body), answers);
        }
        paths.insert(format!("{PREFIX}/{name}"), collection);
        let gone = json!({"type": "object", "properties": {"meta": {"type": "object"}}});
        let written = [id.clone(), if_match.clone(), key.clone(), owner.clone()];
        let mut item = json!({
            "get": operation(&format!("get_{one}"), &format!("Tells a {one}."), std::slice::from_ref(&id), None, answer("200", "The resource.", whole.clone())),
            "delete": operation(&format!("delete_{one}"), &format!("Ends a {one}."), &written, Some("why_document"), answer("200", "It is gone.", gone)),
        });
        if made {
            let body = format!("{one}_change");
            let answers = answer("200", "It is what was said.", whole.clone());
            item["patch"] =
                operation(&format!("update_{one}"), &format!("Changes a {one}."), &written, Some(&body), answers);
        }
        paths.insert(format!("{PREFIX}/{name}/{{id}}"), item);
        for action in kind.actions {
            let answers = answer("200", "It is done.", whole.clone());
            let path = format!("{PREFIX}/{name}/{{id}}/actions/{}", action.name);
            let id = format!("{}_{one}", action.name);
            let body = match action.fields {
                [] => "why_document".to_owned(),
                fields => {
                    let said: Map<String, Value> =
                        fields.iter().map(|field| (field.name.to_owned(), schema(field, ""))).collect();
                    let attributes = json!({"type": "object", "properties": said, "additionalProperties": false});
                    let data = json!({"type": "object", "additionalProperties": false, "properties": {
                        "type": {"type": "string", "enum": [name]}, "attributes": attributes}});
                    let body = format!("{id}_document");
                    all.insert(
                        body.clone(),
                        json!({"type": "object", "additionalProperties": false,
                        "properties": {"data": data, "meta": reference("why")}}),
                    );
                    body
                }
            };
            let post = operation(&id, action.doc, &written, Some(&body), answers);
            paths.insert(path, json!({"post": post}));
        }
    }
    let errors =
        json!({"description": "It was not done: what is wrong with it.", "content": content(reference("errors"))});
    let later = json!({"description": "It cannot be done now.", "content": content(reference("errors"))});
    let names: Vec<&str> = KINDS.iter().map(|kind| kind.name()).collect();
    let of = json!({"type": "object", "required": ["type", "id"], "additionalProperties": false, "properties": {
        "type": {"type": "string", "enum": names}, "id": {"type": "string", "minLength": 1, "maxLength": MAX_ID}}});
    let data = json!({"type": "object", "required": ["type"], "additionalProperties": false, "properties": {
        "type": {"type": "string", "enum": names}, "id": {"type": "string", "minLength": 1, "maxLength": MAX_ID},
        "attributes": {"type": "object"}}});
    let one = json!({"type": "object", "required": ["op"], "additionalProperties": false, "properties": {
        "op": {"type": "string", "enum": ["add", "update", "remove"]}, "ref": of, "data": data,
        "meta": {"type": "object", "additionalProperties": false, "properties": {"if_match": {"type": "integer", "minimum": 0,
            "description": "The epoch at which the resource was last changed; 0 where there must be none."}}}}});
    let operations = json!({"type": "object", "required": ["atomic:operations"], "additionalProperties": false, "properties": {
        "atomic:operations": {"type": "array", "minItems": 1, "maxItems": MAX_OPERATIONS, "items": one}, "meta": reference("why")}});
    all.insert("operations".into(), operations);
    let results = json!({"type": "object", "required": ["atomic:results"], "properties": {
        "atomic:results": {"type": "array", "items": {"type": "object"}}, "meta": {"type": "object"}}});
    let answers =
        json!({"200": {"description": "All is done.", "content": content(results)}, "4XX": errors, "5XX": later});
    let summary = "Does several operations, all or none (https://jsonapi.org/ext/atomic/).";
    let post = operation("operations", summary, &[key, owner], Some("operations"), answers);
    paths.insert(format!("{PREFIX}/operations"), json!({"post": post}));
    let credentials = json!({"type": "object", "required": ["user", "password"], "additionalProperties": false, "properties": {
        "tenant": {"type": "string", "default": "default"}, "user": {"type": "string"},
        "password": {"type": "string", "format": "password"}}});
    all.insert("credentials".into(), credentials);
    let problem = |description: &str| json!({"description": description, "content": {"application/problem+json": {"schema": reference("Problem")}}});
    let (refused, later) = (problem("It was not done: what is wrong with it."), problem("It cannot be done now."));
    let told = json!({"type": "object", "properties": {"data": {"type": "object"}, "meta": {"type": "object"}}});
    let answers = |status: &str, description: &str| {
        let mut answers = json!({"4XX": refused, "5XX": later});
        answers[status] = json!({"description": description, "content": {"application/json": {"schema": told}}});
        answers
    };
    let body = json!({"required": true, "content": {"application/json": {"schema": reference("credentials")}}});
    let sign_in = json!({"post": {"operationId": "sign_in", "tags": ["resources"], "security": [],
        "summary": "Signs somebody in; `meta.token` is what the session is borne by.", "requestBody": body,
        "responses": answers("201", "The session.")}});
    let sign_out = json!({"post": {"operationId": "sign_out", "tags": ["resources"], "summary": "Ends the session that asks.",
        "responses": answers("200", "It is over.")}});
    paths.insert(format!("{PREFIX}/sign-in"), sign_in);
    paths.insert(format!("{PREFIX}/sign-out"), sign_out);
    if let Some(known) = document["paths"].as_object_mut() {
        known.extend(paths);
    }
    if let Some(known) = document["components"]["schemas"].as_object_mut() {
        known.extend(all);
    }
}
