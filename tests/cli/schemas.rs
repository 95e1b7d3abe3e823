//! The JSON Schemas: they are sound, they agree with what the code knows, and every document fits its own.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use linger::fields;
use linger::knowledge::killing::{CLOSE_WAIT, Fate, LISTENER, TIME_WAIT};
use linger::model::tcp_info::MEMBERS;
use linger::model::{Protocol, TcpState};
use serde_json::Value;

use crate::schema::{FILES, SCHEMAS, against, faults};
use crate::support::*;

const CAPTURES: [&str; 3] = [
    CAPTURE,
    "tests/data/v1-procfs.linger",
    "tests/data/ss-6.1.dump",
];

fn file(name: &str) -> &'static Value {
    &FILES[name]
}

fn words(value: &Value) -> BTreeSet<&str> {
    let words = value.as_array().into_iter().flatten();
    words.filter_map(Value::as_str).collect()
}

fn keys(value: &Value) -> BTreeSet<&str> {
    let object = value.as_object().into_iter().flatten();
    object.map(|(key, _)| key.as_str()).collect()
}

/// What is wrong with every line of `--output jsonl`.
fn lines(text: &str) -> Vec<String> {
    let line = |line: &str| match serde_json::from_str(line) {
        Ok(socket) => against("linger.sockets.1.json#/$defs/socket", &socket),
        Err(error) => vec![format!("{line}: {error}")],
    };
    text.lines().flat_map(line).collect()
}

/// Fits its schema, and has no key that the schema does not describe.
fn fits(line: &str, file: &str) {
    let said = run(&format!("{line} --json --from {file}"));
    let document = serde_json::from_str(&said.out).unwrap_or(Value::Null);
    assert_eq!(faults(&document), [""; 0], "{line} --from {file}: {said:?}");
}

#[test]
fn every_schema_of_the_code_has_a_file_and_every_file_a_line() {
    fn named(path: &Path, names: &mut BTreeSet<String>) {
        for entry in fs::read_dir(path).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                named(&path, names);
                continue;
            }
            let text = fs::read_to_string(&path).unwrap();
            for part in text.split("\"linger.").skip(1) {
                let name = part.split('"').next().unwrap_or_default();
                if name.ends_with("/1") {
                    names.insert(format!("linger.{name}"));
                }
            }
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = BTreeSet::new();
    named(&root.join("src"), &mut found);
    let known: BTreeSet<String> = SCHEMAS.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(found, known);
    for (name, file) in SCHEMAS {
        let expected = format!("{}.json", name.replace('/', "."));
        assert_eq!(*file, expected);
        assert_eq!(FILES[file]["properties"]["schema"]["const"], *name);
    }
    let files = fs::read_dir(root.join("contrib/schema")).unwrap();
    let files = files.map(|file| file.unwrap().file_name().into_string().unwrap());
    let known: BTreeSet<String> = FILES.keys().map(|name| (*name).to_owned()).collect();
    assert_eq!(files.collect::<BTreeSet<_>>(), known);
}

#[test]
fn every_key_has_a_description_and_every_schema_a_title() {
    fn bare(schema: &Value, path: &str, found: &mut Vec<String>) {
        match schema {
            Value::Object(object) => {
                for (key, inner) in object {
                    let place = format!("{path}/{key}");
                    if key == "properties" {
                        for (name, property) in inner.as_object().unwrap() {
                            let said = ["description", "$ref", "const"];
                            if !said.iter().any(|word| property.get(word).is_some()) {
                                found.push(format!("{place}/{name}"));
                            }
                        }
                    }
                    bare(inner, &place, found);
                }
            }
            Value::Array(items) => {
                for item in items {
                    bare(item, path, found);
                }
            }
            _ => {}
        }
    }
    for (name, schema) in FILES.iter() {
        assert!(
            schema["title"].is_string() && schema["description"].is_string(),
            "{name}"
        );
        assert_eq!(
            schema["$schema"],
            "https://json-schema.org/draft/2020-12/schema"
        );
        assert!(jsonschema::draft202012::meta::is_valid(schema), "{name}");
        let mut found = Vec::new();
        bare(schema, name, &mut found);
        assert_eq!(found, [""; 0]);
    }
}

#[test]
fn the_schemas_have_the_words_of_the_code() {
    let common = &file("linger.common.1.json")["$defs"];
    let states: BTreeSet<&str> = TcpState::SHOWN
        .iter()
        .filter_map(|state| state.slug())
        .collect();
    assert_eq!(words(&common["state_name"]["enum"]), states);
    assert_eq!(words(&common["state"]["anyOf"][0]["enum"]), states);
    let counted = &common["states"]["properties"]["tcp"];
    assert_eq!(words(&counted["required"]), states);
    let sockets = &file("linger.sockets.1.json")["$defs"];
    let members: BTreeSet<&str> = MEMBERS.iter().map(|member| member.key).collect();
    assert_eq!(keys(&sockets["tcp_info"]["properties"]), members);
    let grouped = keys(&file("linger.groups.1.json")["$defs"]["group"]["properties"]);
    let columns = MEMBERS
        .iter()
        .map(|member| member.key)
        .filter(|key| *key != "state");
    for key in columns {
        assert!(grouped.contains(key), "{key}");
    }
    let timers: BTreeSet<&str> = (0..6)
        .filter_map(|number| linger::model::Timer::from_kernel(number).name())
        .collect();
    let timer = &sockets["socket"]["properties"]["timer"]["anyOf"][1]["properties"];
    assert_eq!(words(&timer["name"]["enum"]), timers);
    let protocols: BTreeSet<&str> = Protocol::ALL.iter().map(|one| one.name()).collect();
    let socket = &sockets["socket"]["properties"];
    assert_eq!(words(&socket["protocol"]["enum"]), protocols);
    let target = &file("linger.kill.1.json")["$defs"]["target"]["properties"];
    let fates = [
        Fate::WouldDestroy,
        Fate::Destroyed,
        Fate::Vanished(String::new()),
        Fate::Refused(&LISTENER),
        Fate::Failed(String::new()),
    ];
    let results: BTreeSet<&str> = fates.iter().map(Fate::name).collect();
    assert_eq!(words(&target["result"]["enum"]), results);
    let options = [&LISTENER, &CLOSE_WAIT, &TIME_WAIT];
    let options: BTreeSet<&str> = options.iter().filter_map(|why| why.option).collect();
    assert_eq!(words(&target["option"]["enum"]), options);
    let severities = ["critical", "info", "warning"];
    assert_eq!(
        words(&common["severity"]["enum"]),
        BTreeSet::from(severities)
    );
}

#[test]
fn rows_fit_with_every_option_that_changes_their_keys() {
    let options = ["-p", "-i", "-m", "-e", "-o"];
    for capture in CAPTURES {
        for chosen in 0..1u32 << options.len() {
            let with = options.iter().enumerate();
            let with = with.filter(|(at, _)| chosen >> at & 1 == 1);
            let with: Vec<&str> = with.map(|(_, option)| *option).collect();
            fits(&format!("list -a {}", with.join(" ")), capture);
        }
        let all: Vec<&str> = fields::all().map(|field| field.id).collect();
        fits(&format!("list -a -c {}", all.join(",")), capture);
        fits(&format!("list -a --group-by {}", all.join(",")), capture);
        fits("list -a --group-by state,peer,process --top 1", capture);
        fits("list -a --sort -recv-q --top 2", capture);
        fits("list -tux --pair", capture);
        fits("list --pair -iem", capture);
        for line in ["list -apiem", "list -a -c user", "list state closing"] {
            let said = run(&format!("{line} --output jsonl --from {capture}"));
            assert_eq!(lines(&said.out), [""; 0], "{line} {capture}");
        }
        let said = run(&format!(
            "list -a --group-by state,process --output jsonl --from {capture}"
        ));
        assert!(!said.out.is_empty());
        for line in said.out.lines() {
            let group = serde_json::from_str(line).unwrap();
            let reference = "linger.groups.1.json#/$defs/group";
            assert_eq!(against(reference, &group), [""; 0], "{line}");
        }
    }
    let said = run(&format!("list -apiem --json --proc-root {PROC}"));
    assert_eq!(faults(&serde_json::from_str(&said.out).unwrap()), [""; 0]);
}

#[test]
fn findings_fit_found_muted_and_unknown() {
    let fires = "--threshold close-wait-leak.age=0.1 --threshold close-wait-leak.min=1";
    for capture in CAPTURES {
        for line in [
            "status",
            "status --no-owners",
            "diagnose",
            "8080",
            "127.0.0.1",
        ] {
            fits(line, capture);
            fits(&format!("{line} {fires}"), capture);
        }
        fits("diagnose --expect-listener 9", capture);
    }
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("linger.toml");
    let text =
        "[[mute]]\nfinding = \"close-wait-leak\"\nexpires = 2027-01-31\nreason = \"known\"\n";
    fs::write(&path, text).unwrap();
    let line = format!("diagnose {fires} --config {}", path.display());
    let muted = json(&from(&format!("{line} --json")));
    assert_eq!(muted["muted"].as_array().map(Vec::len), Some(1), "{muted}");
    fits(&line, CAPTURE);
    fits(&format!("pid:4242 {fires}"), CAPTURE);
    fits(&format!("example {fires}"), CAPTURE);
}

#[test]
fn explanations_fit_in_all_their_forms() {
    for capture in CAPTURES {
        fits("explain", capture);
        fits("explain --socket state established", capture);
        fits("explain --socket not state listen", capture);
        fits("explain --socket state closing", capture);
    }
    for state in STATES {
        fits(&format!("explain {state}"), CAPTURE);
    }
    for topic in TOPICS {
        fits(&format!("explain {topic}"), CAPTURE);
    }
    for detector in linger::analyze::detectors::ALL {
        fits(&format!("explain {}", detector.id), CAPTURE);
    }
}

#[test]
fn documents_that_break_off_fit_too() {
    let whole = fs::read(CAPTURE).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("bad.linger");
    let mut bytes = whole;
    bytes[1_500] ^= 0x40;
    fs::write(&path, &bytes).unwrap();
    fits("list -a", &path.display().to_string());
    let dump = fs::read("tests/data/ss-6.1.dump").unwrap();
    fs::write(&path, &dump[..dump.len() - 30]).unwrap();
    for line in ["list -apiem", "status", "diagnose"] {
        fits(line, &path.display().to_string());
    }
}

#[test]
fn a_key_or_a_word_that_no_schema_has_is_a_fault() {
    let sound = json(&from("list -apiem --json"));
    assert_eq!(faults(&sound), [""; 0]);
    type Damage = fn(&mut Value);
    let damages: [(Damage, &str); 7] = [
        (|d| d["extra"] = 1.into(), "/extra: no schema describes"),
        (
            |d| d["sockets"][0]["rtt"] = 1.into(),
            "/sockets/0/rtt: no schema",
        ),
        (
            |d| d["sockets"][3]["tcp_info"]["new_us"] = 1.into(),
            "new_us",
        ),
        (
            |d| d["sockets"][0]["state"] = "estab".into(),
            "/sockets/0/state",
        ),
        (
            |d| d["sockets"][0]["local_port"] = "80".into(),
            "local_port",
        ),
        (
            |d| drop(d.as_object_mut().unwrap().remove("complete")),
            "complete",
        ),
        (|d| d["schema"] = "linger.other/1".into(), "linger.other/1"),
    ];
    for (damage, what) in damages {
        let mut document = sound.clone();
        damage(&mut document);
        let found = faults(&document).join("\n");
        assert!(found.contains(what), "{what}: {found}");
    }
    let mut story = json(&from("explain close-wait --json"));
    story["ladder"] = Value::Array(Vec::new());
    assert!(
        faults(&story).join("").contains("/ladder"),
        "a key of another form"
    );
}

#[test]
fn what_contradicts_itself_is_a_fault() {
    // Edited: what a capture shows as a preview would, and as --netns all does.
    let mut kill = json(&from("list -p --json state close-wait"));
    kill["schema"] = "linger.kill/1".into();
    kill["dry_run"] = true.into();
    kill["filter"] = "state close-wait".into();
    kill["capture"] = Value::Null;
    kill["sockets"][0]["result"] = "refused".into();
    kill["sockets"][0]["reason"] = CLOSE_WAIT.why.into();
    let sockets = kill["sockets"].as_array_mut().unwrap();
    sockets.truncate(1);
    kill["counts"] = serde_json::json!({
        "matched": 1, "would_destroy": 0, "destroyed": 0, "vanished": 0, "refused": 1, "failed": 0,
    });
    let mut everywhere = json(&from("status --json"));
    everywhere["netns"] = Value::Null;
    everywhere["namespaces"] = serde_json::json!([{"label": "blue", "name": "blue", "inode": 7, "own": false, "complete": true}]);
    type Damage = fn(&mut Value);
    let damages: [(&Value, Damage, &str); 6] = [
        (
            &kill,
            |d| d["capture"] = "/tmp/kill.linger".into(),
            "/capture",
        ),
        (
            &kill,
            |d| d["counts"]["destroyed"] = 1.into(),
            "/counts/destroyed",
        ),
        (
            &kill,
            |d| {
                d["dry_run"] = false.into();
                d["counts"]["would_destroy"] = 1.into();
            },
            "/counts/would_destroy",
        ),
        (
            &kill,
            |d| drop(d["sockets"][0].as_object_mut().unwrap().remove("reason")),
            "reason",
        ),
        (&everywhere, |d| d["netns"] = 7.into(), "/netns"),
        (
            &everywhere,
            |d| d["namespaces"][0]["net"] = 7.into(),
            "/namespaces/0/net: no schema",
        ),
    ];
    for (sound, damage, what) in damages {
        assert_eq!(faults(sound), [""; 0]);
        let mut document = sound.clone();
        damage(&mut document);
        let found = faults(&document).join("\n");
        assert!(found.contains(what), "{what}: {found}");
    }
}
