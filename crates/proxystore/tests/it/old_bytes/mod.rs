//! What old versions wrote is read as it was meant.
//!
//! The files lie in `corpus/FORMAT/`, and `corpus/manifest.txt` says what each must decode to. Formats
//! change by adding, so the corpus only grows: files are neither changed nor removed. What is new in a
//! format gets a file by [`write`].

mod write;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use proxystore::codec::{self, Decode, Failure, read_array_meta};
use proxystore::connectors::file::FileConnector;
use proxystore::connectors::memory::MemoryConnector;
use proxystore::connectors::shm::ShmConnector;
use proxystore::connectors::{Access, Connector, ConnectorConfig, GetOptions, PutOptions, Value};
use proxystore::facts::Facts;
use proxystore::payload::{Parts, Received};
use proxystore::{Key, Reference, Seal, Store};
use rmp_serde::from_slice;

/// What opens the sealed objects of the corpus.
const SECRET: [u8; 32] = [7; 32];

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/corpus")
}

/// What each file decodes to, by its path below the folder.
fn manifest() -> BTreeMap<String, String> {
    let text = fs::read_to_string(folder().join("manifest.txt")).unwrap_or_default();
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let entry = |line: &str| {
        let (path, meaning) = line.split_once(" = ").expect("a path and what it decodes to");
        (path.to_owned(), meaning.to_owned())
    };
    lines.map(entry).collect()
}

/// What a file of the corpus decodes to, as the manifest writes it.
fn describe(path: &str, bytes: &[u8]) -> String {
    match path.split('/').next() {
        Some("payload") => described(&Received::parse(bytes.to_vec().into()).unwrap()),
        Some("object") => object(path, bytes),
        Some("reference") => reference(&Reference::decode(bytes).unwrap()),
        Some("text") => reference(&Reference::from_text(str::from_utf8(bytes).unwrap()).unwrap()),
        Some("meta") => meta(path, bytes),
        Some("file") => file(bytes),
        Some("shm") => shm(path, bytes),
        _ => panic!("no reader for {path}"),
    }
}

fn described(received: &Received) -> String {
    match received.codec() {
        codec::RAW => format!("bytes {}", hex(&Vec::<u8>::decode(received).unwrap())),
        codec::UTF8 => {
            let text = String::decode(received).unwrap();
            match text.len() {
                0..=100 => format!("text {text}"),
                len => format!("text of {len} bytes, of sum {}", sum(text.as_bytes())),
            }
        }
        codec::MESSAGE_PACK => {
            let value = codec::MessagePack::<Value>::decode(received).unwrap().0;
            format!("value {}", plain(&value))
        }
        codec::ARRAY => {
            let (dtype, shape, order) = read_array_meta(received.meta()).unwrap();
            let elements = hex(&received.part(0).unwrap());
            format!("array {dtype} {shape:?} {order:?} {elements}")
        }
        codec::FAILURE => {
            let failure = Failure::of(received).unwrap().unwrap();
            let cancelled = if failure.cancelled { "cancelled" } else { "failed" };
            format!("{cancelled} {}: {}", failure.type_name, failure.message)
        }
        codec::TABLE => {
            let meta = codec::TableMeta::read(received.meta()).unwrap();
            assert_eq!(received.part_count(), meta.columns.len() + 1);
            format!("table of {}, {} rows of {}", meta.kind, meta.rows, meta.columns.join(", "))
        }
        // Only Python reads these. In other languages they have to be refused with the reason.
        number => {
            let error = String::decode(received).unwrap_err().to_string();
            assert!(error.contains("only Python reads this"), "{error}");
            format!("{} in {} parts", codec::name(number), received.part_count())
        }
    }
}

fn object(path: &str, bytes: &[u8]) -> String {
    let channel = MemoryConnector::new(&proxystore::key::unique_id().unwrap()).unwrap();
    let key = channel.put(&Parts::from(bytes), &PutOptions::default()).unwrap();
    let seal = path.contains("sealed").then(|| Seal::new(SECRET, None));
    let store = Store::builder("corpus", std::sync::Arc::new(channel)).build();
    described(&store.get_payload(&key.sealed(seal), Access::ReadOnly).unwrap().unwrap())
}

fn reference(reference: &Reference) -> String {
    let Reference { store, key, facts, .. } = reference;
    let mut text =
        format!("store {} at {}, key {key} {}", store.name, store.connector.url, key.size());
    let (options, settings) = (&store.connector.options, &store.settings);
    for (what, table) in [("options", options), ("settings", settings)] {
        if !table.is_empty() {
            let _ = write!(text, ", {what} {}", plain(&Value::Map(table.clone())));
        }
    }
    if reference.evict {
        text += ", evict";
    }
    let bytes =
        |bytes: &[u8]| if bytes.len() > 100 { format!("of {}", bytes.len()) } else { hex(bytes) };
    let fields = [
        ("class", reference.class.clone()),
        ("extension", reference.extension.as_deref().map(bytes)),
        ("wait", reference.wait.map(|wait| format!("{:?} {:?}", wait.timeout, wait.lease))),
        ("inline", reference.inline.as_deref().map(hex)),
        ("secret", key.seal().map(|seal| hex(seal.secret()))),
        ("digest", key.seal().and_then(Seal::digest).map(|digest| hex(digest))),
        ("producer", reference.signature.as_ref().map(|signature| hex(&signature.producer))),
        ("signature", reference.signature.as_ref().map(|signature| hex(&signature.bytes))),
    ];
    for (name, value) in fields {
        if let Some(value) = value {
            let _ = write!(text, ", {name} {value}");
        }
    }
    if !facts.is_empty() {
        let _ = write!(text, ", {}", known(facts));
    }
    for (name, is_left_out) in
        [("secret", reference.left_out.secret), ("credentials", reference.left_out.credentials)]
    {
        if is_left_out {
            let _ = write!(text, ", without {name}");
        }
    }
    text
}

fn known(facts: &Facts) -> String {
    let Facts { len, shape, dtype, nbytes, created, origin } = facts;
    format!("facts {len:?} {shape:?} {dtype:?} {nbytes:?} {created:?} {origin:?}")
}

fn meta(path: &str, bytes: &[u8]) -> String {
    let kind = path.rsplit('-').next().unwrap_or_default();
    match kind {
        "array.bin" => format!("{:?}", read_array_meta(bytes).unwrap()),
        "facts.bin" => known(&from_slice(bytes).unwrap()),
        "settings.bin" => plain(&Value::Map(from_slice(bytes).unwrap())),
        _ => panic!("no reader for {path}"),
    }
}

/// The object in a file of the file connector, put into a directory of its own.
fn file(bytes: &[u8]) -> String {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("object"), bytes).unwrap();
    let connector = FileConnector::new(directory.path()).unwrap();
    described(&got(&connector, &Key::latest("object")))
}

/// The object in a file of the shared-memory connector, whose name says its key.
fn shm(path: &str, bytes: &[u8]) -> String {
    let root = tempfile::tempdir_in("/dev/shm").unwrap();
    let connector = open_session(root.path());
    let id = path.rsplit_once("v1-").unwrap().1.strip_suffix(".bin").unwrap();
    let name = if id.starts_with("s-") { id.rsplit_once('-').unwrap().0 } else { id };
    fs::write(session_folder(root.path()).join(name), bytes).unwrap();
    described(&got(&connector, &Key::latest(id)))
}

fn open_session(root: &Path) -> ShmConnector {
    ShmConnector::open(&ConnectorConfig::new(format!("shm://old?root={}", root.display()))).unwrap()
}

fn session_folder(root: &Path) -> PathBuf {
    root.join(format!("proxystore-{}", rustix::process::geteuid().as_raw())).join("old")
}

fn got(connector: &dyn Connector, key: &Key) -> Received {
    let bytes = connector.get(key, &GetOptions::default()).unwrap().expect("it is there");
    Received::parse(bytes).unwrap()
}

fn hex(bytes: &[u8]) -> String {
    data_encoding::HEXLOWER.encode(bytes)
}

fn sum(bytes: &[u8]) -> u64 {
    bytes.iter().map(|byte| u64::from(*byte)).sum()
}

/// A value in the notation of JSON, with bytes as `x"..."`.
fn plain(value: &Value) -> String {
    let list = |items: Vec<String>| items.join(", ");
    match value {
        Value::Bool(value) => value.to_string(),
        Value::Int(value) => value.to_string(),
        Value::Float(value) => format!("{value:?}"),
        Value::Text(value) => format!("{value:?}"),
        Value::Bytes(value) => format!("x\"{}\"", hex(value)),
        Value::List(values) => format!("[{}]", list(values.iter().map(plain).collect())),
        Value::Map(values) => {
            let entry = |(name, value): (&String, &Value)| format!("{name:?}: {}", plain(value));
            format!("{{{}}}", list(values.iter().map(entry).collect()))
        }
    }
}

#[test]
fn every_file_is_read_as_it_was_meant() {
    let manifest = manifest();
    assert!(manifest.len() > 20, "the manifest is cut short");
    for (path, meaning) in manifest {
        if path.starts_with("pickle/") || path.starts_with("redis/") {
            continue; // read by the tests of the Python package, and those of the layout
        }
        let bytes = fs::read(folder().join(&path)).expect(&path);
        // Of a pickle only Python knows more than how many parts it has.
        let known = describe(&path, &bytes);
        let is_pickle = meaning.starts_with("Python pickle");
        let meaning = if is_pickle { meaning.split(": ").next().unwrap() } else { &meaning };
        assert_eq!(known, meaning, "{path}");
    }
}

#[test]
fn every_file_is_in_the_manifest() {
    let manifest = manifest();
    for format in fs::read_dir(folder()).unwrap().map(|entry| entry.unwrap().path()) {
        for file in fs::read_dir(&format).into_iter().flatten() {
            let path = file.unwrap().path();
            let path = path.strip_prefix(folder()).unwrap().to_str().unwrap();
            assert!(manifest.contains_key(path), "{path} is not in the manifest");
        }
    }
}
