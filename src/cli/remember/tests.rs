//! Runs that remember each other.

use super::*;
use crate::analyze::Settings;
use crate::cli::observe::{Plan, Watch};
use crate::collect::Source;
use crate::model::Severity;

const PATIENCE: Duration = Duration::from_secs(4);

fn memory(directory: &std::path::Path) -> Memory {
    let args = Args {
        state_dir: Some(directory.to_owned()),
        no_history: false,
    };
    Memory::open(&args, &Common::default(), PATIENCE)
}

#[test]
fn what_stays_the_same_while_it_lasts() {
    let process = |pid, comm: Option<&str>, uid| {
        subject_key(&Subject::Process {
            pid,
            comm: comm.map(str::to_owned),
            uid,
            unit: None,
            container: None,
        })
    };
    assert_eq!(process(Some(7), Some("nginx"), None), "process nginx");
    assert_eq!(process(None, None, Some(33)), "uid 33");
    let destination = Subject::Destination {
        address: "2001:db8::1".parse().unwrap(),
        port: 443,
        source_address: Some("::1".parse().unwrap()),
    };
    assert_eq!(subject_key(&destination), "destination [2001:db8::1]:443");
    assert_eq!(subject_key(&Subject::Host), "host");
}

#[test]
fn captures_all_namespaces_and_who_wants_none_have_no_history() {
    let directory = tempfile::tempdir().unwrap();
    let state_dir = Some(directory.path().join("state"));
    let args = Args {
        state_dir: state_dir.clone(),
        no_history: false,
    };
    let from = Common {
        from: Some("x.linger".into()),
        ..Common::default()
    };
    let all = Common {
        netns: Some("all".into()),
        ..Common::default()
    };
    let never = Args {
        no_history: true,
        ..args.clone()
    };
    for mut memory in [
        Memory::open(&args, &from, PATIENCE),
        Memory::open(&args, &all, PATIENCE),
        Memory::open(&never, &Common::default(), PATIENCE),
    ] {
        assert!(!memory.is_kept() && memory.messages().is_empty());
    }
    assert!(!state_dir.as_ref().is_some_and(|path| path.exists()));
    assert!(Memory::open(&args, &Common::default(), PATIENCE).is_kept());
}

#[test]
fn a_state_directory_that_cannot_be_is_a_message_and_no_failure() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let mut memory = memory(&file.path().join("below"));
    assert!(!memory.is_kept());
    let messages = memory.messages();
    assert!(
        messages[0].contains("nothing is remembered"),
        "{messages:?}"
    );
    assert!(
        memory
            .recall(&Snapshot::default(), &Settings::default())
            .earlier()
            .is_empty()
    );
}

#[test]
fn a_listener_that_was_there_in_the_run_before_is_missed() {
    missed_by(&Settings::default());
}

#[test]
fn runs_that_ask_a_few_detectors_remember_each_other_too() {
    let mut settings = Settings::default();
    settings.only(&["listener-vanished".to_owned()]).unwrap();
    assert_ne!(view(&settings), 0);
    missed_by(&settings);
}

fn missed_by(settings: &Settings) {
    let directory = tempfile::tempdir().unwrap();
    let plan = Plan {
        samples: 1,
        interval: Duration::ZERO,
        pulse: false,
        owners: false,
        recorded: None,
    };
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let run = || {
        let mut memory = memory(directory.path());
        let mut source: Box<dyn Source> = source::open(&Common {
            proc_root: "/proc".into(),
            ..Common::default()
        })
        .unwrap();
        let mut watch = Watch::new(plan, settings).remembering(&mut memory);
        watch.look(source.as_mut(), true).unwrap();
        let seen = watch.finish().unwrap();
        let age = memory.age();
        let changes = memory.keep(
            Producer::Check,
            (&seen).into(),
            Kept {
                look: true,
                view: view(settings),
                ..Kept::default()
            },
        );
        assert_eq!(memory.messages(), Vec::<String>::new());
        (seen.analysis, age, changes.unwrap())
    };
    let key = format!("listener 127.0.0.1:{port}");
    let (_, age, _) = run();
    assert_eq!(age, None, "the first run");
    drop(listener);
    let (analysis, age, changes) = run();
    assert!(age.is_some());
    let missed = |finding: &&Finding| subject_key(&finding.subject) == key;
    let finding = analysis.findings.iter().find(missed).unwrap();
    // The kernel has given the port away for a short time.
    assert_eq!(
        (finding.id, finding.severity),
        ("listener-vanished", Severity::Info)
    );
    let change = changes.iter().find(|change| change.subject == key).unwrap();
    assert_eq!((change.from, change.to), (None, Some(Severity::Info)));
    let (_, _, changes) = run();
    assert!(
        !changes.iter().any(|change| change.subject == key),
        "no news"
    );
}

#[test]
fn what_others_have_kept_is_read_where_nothing_can_be_written() {
    let directory = tempfile::tempdir().unwrap();
    let seen = Observation {
        snapshot: Snapshot {
            taken: Timestamp::now(),
            host: Host {
                boot_id: Some("a".to_owned()),
                netns: Some(7),
                ..Host::default()
            },
            ..Snapshot::default()
        },
        tally: Tally::default(),
        analysis: Analysis::default(),
        parts: Vec::new(),
    };
    let values = [
        ("tcp.total".to_owned(), 7.0),
        ("tcp.listen".to_owned(), 7.0),
    ];
    let kept = Kept {
        values: &values,
        ..Kept::default()
    };
    let changes = memory(directory.path()).keep(Producer::Check, (&seen).into(), kept);
    assert_eq!(changes, Some(Vec::new()));
    let readable = Store::open_to_read(directory.path()).unwrap().unwrap();
    let mut memory = Memory {
        store: Some(readable),
        read_only: true,
        ..Memory::default()
    };
    let later = Snapshot {
        taken: Timestamp::now() + Duration::from_secs(300),
        ..seen.snapshot
    };
    assert_eq!(
        memory.recall(&later, &Settings::default()).counts().count(),
        1
    );
    let seen = Observation {
        snapshot: later,
        tally: Tally::default(),
        analysis: Analysis::default(),
        parts: Vec::new(),
    };
    assert_eq!(memory.keep(Producer::Check, (&seen).into(), kept), None);
    assert_eq!(memory.messages(), [""; 0], "it was said when it was opened");
}
