//! The JSON Schemas of `contrib/schema`, for every test that reads a document: it has to fit its schema, and the schema
//! has to describe each of its keys.
//!
//! A new document is a file there and a line in [`SCHEMAS`]; a new key is a line in its file.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use jsonschema::Validator;
use serde_json::Value;

/// Each document by its `schema`, with the file that describes it.
pub const SCHEMAS: &[(&str, &str)] = &[
    ("linger.sockets/1", "linger.sockets.1.json"),
    ("linger.groups/1", "linger.groups.1.json"),
    ("linger.pairs/1", "linger.pairs.1.json"),
    ("linger.status/1", "linger.status.1.json"),
    ("linger.subject/1", "linger.subject.1.json"),
    ("linger.findings/1", "linger.findings.1.json"),
    ("linger.check/1", "linger.check.1.json"),
    ("linger.explain/1", "linger.explain.1.json"),
    ("linger.record/1", "linger.record.1.json"),
    ("linger.kill/1", "linger.kill.1.json"),
    ("linger.diff/1", "linger.diff.1.json"),
    ("linger.closings/1", "linger.closings.1.json"),
];

/// What the others refer to.
const COMMON: &str = "linger.common.1.json";

/// Every file, parsed; `null` where that fails, which fits nothing.
pub static FILES: LazyLock<BTreeMap<&str, Value>> = LazyLock::new(|| {
    let names = SCHEMAS.iter().map(|(_, file)| *file).chain([COMMON]);
    let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/contrib/schema");
    let read = |name| {
        let text = std::fs::read_to_string(format!("{directory}/{name}")).unwrap_or_default();
        (name, serde_json::from_str(&text).unwrap_or_default())
    };
    names.map(read).collect()
});

/// What is wrong with a document, or with its schema for not describing it; empty if all is well.
pub fn faults(document: &Value) -> Vec<String> {
    let Some(schema) = document.get("schema").and_then(Value::as_str) else {
        return vec!["it names no schema".to_owned()];
    };
    match SCHEMAS.iter().find(|(name, _)| *name == schema) {
        Some((_, file)) => against(file, document),
        None => vec![format!("no file of contrib/schema describes {schema}")],
    }
}

/// What is wrong with a value that `reference`, a file or a place in one, describes.
pub fn against(reference: &str, value: &Value) -> Vec<String> {
    let validator = match validator(reference) {
        Ok(validator) => validator,
        Err(error) => return vec![format!("{reference}: {error}")],
    };
    let errors = validator.iter_errors(value).map(|error| {
        // What does not fit may be a whole document.
        let said = error.to_string();
        let start = said.char_indices().rev().nth(300).map_or(0, |(at, _)| at);
        let end = said.get(start..).unwrap_or_default();
        format!("{}: {end}", error.instance_path())
    });
    let mut faults: Vec<String> = errors.collect();
    if faults.is_empty() {
        let schemas: Vec<Place> = resolve("", reference).into_iter().collect();
        undescribed(&schemas, value, "", &mut faults);
    }
    faults
}

/// The validator of `reference`, made once.
fn validator(reference: &str) -> Result<Arc<Validator>, String> {
    static MADE: Mutex<BTreeMap<String, Arc<Validator>>> = Mutex::new(BTreeMap::new());
    let mut made = MADE.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(validator) = made.get(reference) {
        return Ok(Arc::clone(validator));
    }
    // In one document, each file by its name, so that nothing is looked up anywhere.
    let named = FILES.iter().map(|(name, file)| {
        let mut file = file.clone();
        if let Some(schema) = file.as_object_mut() {
            schema.insert("$id".to_owned(), format!("test:///{name}").into());
        }
        ((*name).to_owned(), file)
    });
    let defs: serde_json::Map<String, Value> = named.collect();
    let whole = serde_json::json!({ "$id": "test:///all", "$ref": reference, "$defs": defs });
    let validator = jsonschema::draft202012::options()
        .build(&whole)
        .map_err(|error| error.to_string())?;
    let validator = Arc::new(validator);
    made.insert(reference.to_owned(), Arc::clone(&validator));
    Ok(validator)
}

/// A schema, and the file that it is in.
type Place = (&'static str, &'static Value);

/// The schema at `reference`, as seen from `file`. Where there is none, the validator has said so.
fn resolve(file: &str, reference: &str) -> Option<Place> {
    let (named, pointer) = reference.split_once('#').unwrap_or((reference, ""));
    let file = if named.is_empty() { file } else { named };
    let (file, whole) = FILES.get_key_value(file)?;
    Some((*file, whole.pointer(pointer)?))
}

/// Adds the keys of `value` that none of `schemas` describes.
fn undescribed(schemas: &[Place], value: &Value, path: &str, faults: &mut Vec<String>) {
    let mut all = Vec::new();
    for schema in schemas {
        gather(*schema, value, &mut all);
    }
    match value {
        Value::Object(object) => {
            for (key, inner) in object {
                let place = format!("{path}/{key}");
                let describes = |(file, schema): &Place| {
                    let property = schema.get("properties").and_then(|all| all.get(key));
                    Some((
                        *file,
                        property.or_else(|| schema.get("additionalProperties"))?,
                    ))
                };
                let described: Vec<Place> = all.iter().filter_map(describes).collect();
                if described.is_empty() {
                    faults.push(format!("{place}: no schema describes this key"));
                }
                undescribed(&described, inner, &place, faults);
            }
        }
        Value::Array(items) => {
            let item = |(file, schema): &Place| Some((*file, schema.get("items")?));
            let described: Vec<Place> = all.iter().filter_map(item).collect();
            for (at, item) in items.iter().enumerate() {
                undescribed(&described, item, &format!("{path}/{at}"), faults);
            }
        }
        _ => {}
    }
}

/// The schema and those that it is made of; of several forms those whose constants fit the value.
fn gather((file, schema): Place, value: &Value, all: &mut Vec<Place>) {
    all.push((file, schema));
    let reference = schema.get("$ref").and_then(Value::as_str);
    if let Some(place) = reference.and_then(|reference| resolve(file, reference)) {
        gather(place, value, all);
    }
    for key in ["allOf", "anyOf", "oneOf"] {
        let forms = schema.get(key).and_then(Value::as_array);
        for form in forms.into_iter().flatten() {
            let properties = form.get("properties").and_then(Value::as_object);
            let fits = properties.into_iter().flatten().all(|(key, property)| {
                let constant = property.get("const");
                constant.is_none_or(|constant| value.get(key) == Some(constant))
            });
            if fits {
                gather((file, form), value, all);
            }
        }
    }
}
