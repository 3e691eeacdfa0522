//! Writes what is new in a format: a file that is there already stays as it is.
//!
//! `cargo test -p proxystore --all-features --test it new_files -- --ignored`

use std::sync::Arc;
use std::time::Duration;

use proxystore::codec::{Array, Encode, Failure, MessagePack, Order, array_meta};
use proxystore::payload::{Compression, Payload};
use proxystore::reference::{LeftOut, Signature, Wait};
use proxystore::store::StoreBuilder;
use proxystore::{Buffer, StoreConfig};

use super::*;

fn written(payload: Payload<'_>) -> Vec<u8> {
    payload.frame().unwrap().parts().to_buffer().to_vec()
}

fn of(object: &(impl Encode + ?Sized)) -> Vec<u8> {
    written(object.encode().unwrap())
}

fn values() -> BTreeMap<String, Value> {
    BTreeMap::from([
        ("flag".to_owned(), Value::Bool(true)),
        ("number".to_owned(), Value::Int(-300)),
        ("float".to_owned(), Value::Float(0.5)),
        ("text".to_owned(), Value::Text("ä".to_owned())),
        ("bytes".to_owned(), Value::Bytes(vec![0, 255])),
        ("list".to_owned(), Value::List(vec![Value::Int(1), Value::Text("a".to_owned())])),
        ("map".to_owned(), Value::Map(BTreeMap::from([("b".to_owned(), Value::Int(2))]))),
    ])
}

/// What a store with these settings puts into its channel.
fn stored(
    settings: impl Fn(StoreBuilder) -> StoreBuilder,
    seal: Option<Seal>,
    object: &str,
) -> Vec<u8> {
    let channel = Arc::new(MemoryConnector::new(&proxystore::key::unique_id().unwrap()).unwrap());
    let handle: Arc<dyn Connector> = Arc::<MemoryConnector>::clone(&channel);
    let store = settings(Store::builder("corpus", handle)).build();
    let key = seal.map(|seal| store.new_key().unwrap().sealed(Some(seal)));
    let key = store.put_with(object, &PutOptions { key, ..PutOptions::default() }).unwrap();
    channel.get(&key, &GetOptions::default()).unwrap().unwrap().to_vec()
}

fn facts() -> Facts {
    Facts {
        len: Some(2),
        shape: Some(vec![2, 3]),
        dtype: Some("<f8".into()),
        nbytes: Some(48),
        created: Some(1_790_000_000_000),
        origin: Some("node7".into()),
    }
}

fn references() -> Vec<(&'static str, Reference)> {
    let new =
        |url: &str, key| Reference::new(StoreConfig::new("demo", ConnectorConfig::new(url)), key);
    let plain = new("shm://demo", Key::new("0123456789abcdef0123456789abcdef", 3, 1000));
    let sealed = Key::new("run.7", 1, 5).sealed(Some(Seal::new(SECRET, None)));
    let pinned = Key::new("run.7", 1, 5).sealed(Some(Seal::new(SECRET, Some([8; 32]))));
    let mut tables = new("redis://host:6379/0", Key::new("run.7", 1, 5));
    let store = Arc::make_mut(&mut tables.store);
    (store.connector.options, store.settings) = (values(), values());
    let wait = |timeout, lease| {
        Some(Wait { timeout, lease }).map(|wait| Reference { wait: Some(wait), ..plain.clone() })
    };
    let signature = Some(Signature { producer: [1; 32], bytes: [2; 64] });
    vec![
        ("short", new("demo", Key::latest("k"))),
        (
            "evict",
            Reference { evict: true, class: Some("numpy:ndarray".to_owned()), ..plain.clone() },
        ),
        ("wait", wait(None, None).unwrap()),
        ("lease", wait(Some(Duration::from_millis(300)), Some(Duration::from_secs(10))).unwrap()),
        ("inline", Reference { inline: Some(of("hello").into()), ..plain.clone() }),
        ("extension", Reference { extension: Some(vec![1, 2, 3]), ..plain.clone() }),
        ("facts", Reference { facts: facts(), ..plain.clone() }),
        ("sealed", Reference { key: sealed, ..plain.clone() }),
        ("pinned", Reference { key: pinned, signature, ..plain.clone() }),
        (
            "left-out",
            Reference { left_out: LeftOut { secret: true, credentials: true }, ..plain.clone() },
        ),
        ("tables", tables),
        ("multi", new("multi:a%20b=shm://demo;c=file:///d", Key::new("a%20b:run.7", 1, 5))),
        ("plain", plain),
    ]
}

/// Every file that the version at hand would write.
fn files() -> Vec<(String, Vec<u8>)> {
    let fortran = Payload::new(codec::ARRAY, array_meta("<i2", &[2, 2], Order::F).unwrap())
        .with_part(&[1_u8, 0, 2, 0, 3, 0, 4, 0][..]);
    let array = Array::from_vec(&[2, 3], vec![0.0, 1.0, -2.5, 3.0, 4.0, 5.0]).unwrap();
    let failure =
        Failure { exception: Some(vec![1, 2, 3]), ..Failure::new("ValueError", "too small") };
    let long = "columns of numbers, ".repeat(15_000); // two chunks
    let seal = || Some(Seal::new(SECRET, None));
    let zstd = |builder: StoreBuilder| builder.compression(Some(Compression::Zstd));
    let mut files: Vec<(String, Vec<u8>)> = [
        ("payload/v1-raw.bin", of(&b"hello"[..])),
        ("payload/v1-empty.bin", of(&b""[..])),
        ("payload/v1-text.bin", of("grüße")),
        ("payload/v1-message-pack.bin", of(&MessagePack(Value::Map(values())))),
        ("payload/v1-array-f8.bin", of(&array)),
        ("payload/v1-array-fortran.bin", written(fortran)),
        ("payload/v1-array-empty.bin", of(&Array::<u8>::from_vec(&[0, 3], vec![]).unwrap())),
        ("payload/v1-failure.bin", of(&failure)),
        ("payload/v1-cancelled.bin", of(&Failure::cancelled())),
        ("object/v1-plain.bin", of("hello")),
        ("object/v1-checksums.bin", stored(|builder| builder.checksums(true), None, "hello")),
        ("object/v1-zstd.bin", stored(zstd, None, &long)),
        ("object/v1-lz4.bin", stored(|b| b.compression(Some(Compression::Lz4)), None, &long)),
        ("object/v1-sealed.bin", stored(|builder| builder, seal(), "hello")),
        ("object/v1-sealed-zstd.bin", stored(zstd, seal(), &long)),
        ("meta/v1-array.bin", array_meta("<f8", &[2, 3], Order::C).unwrap()),
        ("meta/v1-facts.bin", rmp_serde::to_vec(&facts()).unwrap()),
        ("meta/v1-settings.bin", rmp_serde::to_vec(&values()).unwrap()),
    ]
    .map(|(path, bytes)| (path.to_owned(), bytes))
    .into();
    for (name, reference) in references() {
        files.push((format!("reference/v1-{name}.bin"), reference.encode().unwrap()));
        let text = reference.to_secret_text().unwrap();
        files.push((format!("text/v1-{name}.txt"), text.into_bytes()));
    }
    files.push(in_a_file());
    files.extend(in_shared_memory());
    files
}

fn in_a_file() -> (String, Vec<u8>) {
    let directory = tempfile::tempdir().unwrap();
    let connector = FileConnector::new(directory.path()).unwrap();
    let key = connector.put(&Parts::from(&of("in a file")[..]), &PutOptions::default()).unwrap();
    ("file/v1-object.bin".to_owned(), fs::read(directory.path().join(key.id())).unwrap())
}

/// A small object, which is a file of its own or a segment, as the connector has it.
fn in_shared_memory() -> Option<(String, Vec<u8>)> {
    if fs::read_dir(folder().join("shm")).is_ok_and(|mut files| files.next().is_some()) {
        return None; // its name is another one every time
    }
    let root = tempfile::tempdir_in("/dev/shm").unwrap();
    let connector = open_session(root.path());
    let payload = Buffer::from(of("in shared memory"));
    let key = connector.put(&Parts::from(&payload[..]), &PutOptions::default()).unwrap();
    let id = key.id();
    let name = if id.starts_with("s-") { id.rsplit_once('-').unwrap().0 } else { id };
    let bytes = fs::read(session_folder(root.path()).join(name)).unwrap();
    Some((format!("shm/v1-{id}.bin"), bytes))
}

#[test]
#[ignore = "writes into the checkout"]
fn new_files_are_written() {
    let mut manifest = fs::read_to_string(folder().join("manifest.txt")).unwrap();
    for (path, bytes) in files() {
        let target = folder().join(&path);
        if !target.exists() {
            fs::create_dir_all(target.parent().unwrap()).unwrap();
            fs::write(&target, &bytes).unwrap();
            let _ = writeln!(manifest, "{path} = {}", describe(&path, &bytes));
        }
    }
    fs::write(folder().join("manifest.txt"), manifest).unwrap();
}
