//! Views: what they read, and that they read no more.

use std::path::Path;
use std::sync::Arc;
use std::thread;

use proxystore::codec::{Array, Failure, MessagePack};
use proxystore::connectors::file::FileConnector;
use proxystore::connectors::memory::MemoryConnector;
use proxystore::connectors::open;
use proxystore::connectors::shm::ShmConnector;
use proxystore::patterns::Future;
use proxystore::store::StoreFactory;
use proxystore::testkit::{Counting, Counts};
use proxystore::view::{LoadOptions, Selection};
use proxystore::{
    Buffer, Connector, ConnectorConfig, Error, ErrorKind, Key, Proxy, Store, View, key,
};

/// A store whose traffic is counted.
fn counted<C: Connector>(name: &str, connector: C) -> (Store, impl Fn() -> Counts + use<C>) {
    let connector = Counting::new(connector);
    let counts = connector.counter();
    (Store::builder(name, Arc::new(connector)).build(), counts)
}

fn shm() -> ShmConnector {
    let name = format!("views-{}", key::unique_id().unwrap());
    ShmConnector::open(&ConnectorConfig::new(format!("shm://{name}"))).unwrap()
}

fn file(folder: &Path) -> FileConnector {
    FileConnector::open(&ConnectorConfig::new(format!("file://{}", folder.display()))).unwrap()
}

/// 1000 rows of 100, each element its own number.
fn numbered() -> Array<u32> {
    Array::from_vec(&[1000, 100], (0..100_000).collect()).unwrap()
}

/// What every channel must do, if it reads ranges or not.
fn check_array(store: &Store) {
    let view = store.view(&store.put(&numbered()).unwrap()).unwrap();
    assert_eq!(view.shape(), [1000, 100]);
    assert_eq!(view.dtype(), Some("<u4"));
    assert_eq!(view.nbytes(), 400_000);
    let array = view.array::<u32>().unwrap();
    assert_eq!(array.row(7).unwrap()[..3], [700, 701, 702]);
    assert_eq!(array.rows(998..2000).unwrap().shape(), [2, 100]);
    let corner = array.slice(&[Selection::from(-2..1000), Selection::ALL.step(-99)]).unwrap();
    assert_eq!((corner.shape(), &corner[..]), (&[2, 2][..], &[99_899, 99_800, 99_999, 99_900][..]));
    let picked = [Selection::Positions(vec![5, 999, 5]), Selection::from(3)];
    assert_eq!(array.slice(&picked).unwrap()[..], [503, 99_903, 503]);
    assert_eq!(array.slice(&[]).unwrap()[..], numbered()[..]);
    assert_eq!(array.slice(&[Selection::from(5..5)]).unwrap().shape(), [0, 100]);
    assert_eq!(view.load::<Array<u32>>().unwrap()[..], numbered()[..]);
}

#[test]
fn every_channel_gives_the_same_selections() {
    let folder = tempfile::tempdir().unwrap();
    let multi = format!("multi:a=file://{}/a;b=memory://views-multi", folder.path().display());
    for url in ["memory://views", &multi, &format!("file://{}", folder.path().display())] {
        let store = Store::builder(url, open(&ConnectorConfig::new(url)).unwrap()).build();
        check_array(&store);
    }
    let store = Store::builder("views-shm", Arc::new(shm())).build();
    check_array(&store);
    store.close(true).unwrap();
}

#[cfg(all(feature = "seal", feature = "compress"))]
#[test]
fn protected_objects_give_the_same_selections() {
    use proxystore::payload::Compression;
    use proxystore::store::SealMode;
    let connector = || Arc::new(MemoryConnector::new("views-protected").unwrap());
    let builder = || Store::builder("views-protected", connector()).checksums(true);
    check_array(&builder().build());
    check_array(&builder().compression(Some(Compression::Zstd)).build());
    check_array(&builder().seal(Some(SealMode::Sealed)).build());
}

#[cfg(feature = "arrow")]
#[test]
fn a_column_of_a_table_is_read_alone() {
    use arrow_array::{Array as _, Int64Array, RecordBatch, StringArray};
    let (store, counts) = counted("views-table", MemoryConnector::new("views-table").unwrap());
    let (x, label) = (Int64Array::from_iter_values(0..50_000), vec!["a label"; 50_000]);
    let label: Arc<dyn arrow_array::Array> = Arc::new(StringArray::from(label));
    let batch = RecordBatch::try_from_iter([("x", Arc::new(x.clone()) as _), ("label", label)]);
    let view = store.view(&store.put(&batch.unwrap()).unwrap()).unwrap();
    let before = counts().bytes_got;
    let column = view.column("x").unwrap();
    assert_eq!(column.len(), 50_000);
    assert_eq!(column.into_array().unwrap().to_data(), x.to_data());
    let got = counts().bytes_got - before;
    assert!((400_000..410_000).contains(&got), "{got} bytes for one column");
    let error = refused(view.column("y"), ErrorKind::Config);
    assert!(error.contains("x, label"), "{error}");
    refused(store.view(&store.put("text").unwrap()).unwrap().column("x"), ErrorKind::Incompatible);
}

/// One megabyte of a gigabyte, from the middle.
fn check_traffic(store: &Store, key: &Key, counts: impl Fn() -> Counts, mebibytes: u64) {
    let before = counts().bytes_got;
    let view = store.view(key).unwrap();
    assert_eq!(view.shape(), [mebibytes, 1 << 17]);
    let row = view.array::<f64>().unwrap().row(mebibytes / 2).unwrap();
    assert_eq!(row.shape(), [1 << 17]);
    let got = counts().bytes_got - before;
    assert!((1 << 20..(1 << 20) + 100_000).contains(&got), "{got} bytes for one megabyte");
}

#[test]
fn a_megabyte_of_a_gigabyte_moves_a_megabyte() {
    let folder = tempfile::tempdir().unwrap();
    let (store, counts) = counted("views-file", file(folder.path()));
    let key = store.put(&store.empty::<f64>(&[1024, 1 << 17]).unwrap()).unwrap();
    check_traffic(&store, &key, counts, 1024);

    let (store, counts) = counted("views-large-shm", shm());
    let key = store.put(&store.empty::<f64>(&[1024, 1 << 17]).unwrap()).unwrap();
    check_traffic(&store, &key, counts, 1024);
    store.close(true).unwrap();
}

#[cfg(feature = "redis")]
#[test]
fn a_megabyte_of_many_in_redis_moves_a_megabyte() {
    use crate::servers::{Kind, Redis, needs_redis};
    needs_redis!();
    let server = Redis::start(Kind::default());
    let connector = open(&server.config()).unwrap();
    let (store, counts) = counted("views-redis", connector);
    check_array(&store);
    let key = store.put(&store.empty::<f64>(&[256, 1 << 17]).unwrap()).unwrap();
    check_traffic(&store, &key, counts, 256);
}

#[test]
fn bytes_are_read_by_ranges_and_text_as_a_whole() {
    let (store, counts) = counted("views-bytes", MemoryConnector::new("views-bytes").unwrap());
    let view = store.view(&store.put(&vec![7_u8; 1_000_000]).unwrap()).unwrap();
    assert_eq!((view.shape(), view.dtype()), (&[1_000_000][..], None));
    let before = counts().bytes_got;
    assert_eq!(&view.bytes(500_000..500_003).unwrap()[..], [7, 7, 7]);
    assert_eq!(counts().bytes_got - before, 3);
    assert_eq!(view.bytes(999_999..1_000_001).unwrap_err().kind(), ErrorKind::Config);
    assert_eq!(view.bytes(0..0).unwrap().len(), 0);

    let text = store.view(&store.put("grüße").unwrap()).unwrap();
    assert_eq!((text.shape(), text.nbytes()), (&[][..], 7));
    assert_eq!(text.load::<String>().unwrap(), "grüße");
}

fn refused(outcome: Result<impl Sized, Error>, kind: ErrorKind) -> String {
    let Err(error) = outcome else { panic!("it is not refused") };
    assert_eq!(error.kind(), kind, "{error}");
    error.to_string()
}

#[test]
fn other_objects_say_what_to_do() {
    let store = Store::open("memory://views-other").unwrap();
    let view = store.view(&store.put(&MessagePack((1, "two"))).unwrap()).unwrap();
    let error = refused(view.bytes(0..1), ErrorKind::Incompatible);
    assert!(error.contains("MessagePack") && error.contains("View::load"), "{error}");
    refused(view.array::<f64>(), ErrorKind::Incompatible);
    assert_eq!(view.load::<MessagePack<(u8, String)>>().unwrap().0.1, "two");

    let view = store.view(&store.put(&numbered()).unwrap()).unwrap();
    let error = refused(view.array::<f64>(), ErrorKind::Decode);
    assert!(error.contains("<u4") && error.contains("<f8"), "{error}");
    let array = view.array::<u32>().unwrap();
    refused(array.row(1000), ErrorKind::Config);
    refused(array.row(u64::MAX), ErrorKind::Config);
    refused(array.slice(&[const { Selection::ALL }; 3]), ErrorKind::Config);
    refused(array.slice(&[Selection::ALL.step(0)]), ErrorKind::Config);
}

#[test]
fn an_absent_object_is_the_error_of_resolving() {
    let store = Store::open("memory://views-absent").unwrap();
    let proxy: Proxy<String> = store.proxy("x".to_owned()).unwrap();
    let reference = proxy.reference().unwrap();
    store.evict(&reference.key).unwrap();
    let resolved = Proxy::<String>::from_reference(reference).resolve().unwrap_err();
    let viewed = proxy.view().unwrap_err();
    assert_eq!((viewed.kind(), viewed.to_string()), (resolved.kind(), resolved.to_string()));

    let view = store.view(&store.put(&numbered()).unwrap()).unwrap();
    store.close(true).unwrap();
    refused(view.array::<u32>().unwrap().row(0), ErrorKind::Closed);
}

#[test]
fn proxies_are_viewed_without_resolving_them() {
    let store = Store::open("memory://views-proxies").unwrap();
    let stored = store.proxy(numbered()).unwrap().reference().unwrap();
    let proxy = Proxy::<Array<u32>>::from_reference(stored);
    assert_eq!(proxy.view().unwrap().array::<u32>().unwrap().row(1).unwrap()[0], 100);
    assert!(!proxy.is_resolved());

    let connector = MemoryConnector::new("views-inline").unwrap();
    let store = Store::builder("views-inline", Arc::new(connector)).inline_bytes(1000).build();
    let proxy = store.proxy(vec![1_u16, 2, 3]).unwrap();
    let view = StoreFactory::of(&store, proxy.reference().unwrap()).view().unwrap();
    assert_eq!(view.array::<u16>().unwrap().rows(1..3).unwrap()[..], [2, 3]);
    assert_eq!(view.load::<Vec<u16>>().unwrap(), [1, 2, 3]);
}

#[test]
fn the_view_of_a_future_waits_and_raises_its_failure() {
    let store = Store::open("memory://views-futures").unwrap();
    let future: Future<Vec<f64>> = store.future().unwrap();
    let proxy = future.proxy();
    let consumer = thread::spawn(move || proxy.view().map(|view| view.shape().to_vec()));
    future.set_result(&vec![0.5; 10]).unwrap();
    assert_eq!(consumer.join().unwrap().unwrap(), [10]);

    let failed: Future<Vec<f64>> = store.future().unwrap();
    let reference = failed.proxy().reference().unwrap();
    store.settle(&reference, &Failure::new("Oops", "no disk")).unwrap();
    let error = refused(failed.proxy().view(), ErrorKind::Failed);
    assert!(error.contains("no disk"), "{error}");
}

fn load(view: &View, options: LoadOptions<'_>) -> Result<Array<u32>, Error> {
    view.load_with(options)
}

#[test]
fn loading_in_parallel_tells_how_far_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let (store, counts) = counted("views-load", file(folder.path()));
    let view = store.view(&store.put(&numbered()).unwrap()).unwrap();
    for threads in [1, 4] {
        let mut told = Vec::new();
        let mut progress = |done, total| {
            told.push((done, total));
            true
        };
        let before = counts();
        let options = LoadOptions { threads, part_bytes: 30_000, progress: Some(&mut progress) };
        assert_eq!(load(&view, options).unwrap()[..], numbered()[..]);
        assert_eq!(counts().bytes_got - before.bytes_got, 400_000);
        assert_eq!(counts().gets - before.gets, 14);
        assert_eq!(told.last(), Some(&(400_000, 400_000)));
        assert!(told.is_sorted() && told.len() >= 14, "{told:?}");
    }
    for threads in [1, 4] {
        let mut never = |_, _| false;
        let options = LoadOptions { threads, part_bytes: 1000, progress: Some(&mut never) };
        refused(load(&view, options), ErrorKind::Cancelled);
    }
    store.close(true).unwrap();
    for threads in [1, 4] {
        refused(load(&view, LoadOptions { threads, ..LoadOptions::default() }), ErrorKind::Closed);
    }
}

#[test]
fn a_loaded_object_is_private() {
    let store = Store::open("memory://views-private").unwrap();
    let key = store.put(&vec![1_u8, 2, 3]).unwrap();
    let view = store.view(&key).unwrap();
    let loaded = view.load_payload(proxystore::Access::Private, LoadOptions::default()).unwrap();
    let mut bytes = loaded.into_bytes();
    bytes.as_mut().unwrap().fill(9);
    assert_eq!(store.get::<Buffer>(&key).unwrap().unwrap()[..], [1, 2, 3]);
}

#[test]
fn what_views_read_is_in_the_metrics() {
    let connector = Arc::new(MemoryConnector::new("views-metrics").unwrap());
    let store = Store::builder("views-metrics", connector).metrics(true).build();
    let key = store.put(&numbered()).unwrap();
    let view = store.view(&key).unwrap();
    let gets = || store.metrics().unwrap().totals().find(|total| total.name == "get").unwrap();
    let before = gets();
    assert_eq!(view.array::<u32>().unwrap().rows(10..20).unwrap().len(), 1000);
    assert_eq!((gets().count - before.count, gets().bytes - before.bytes), (1, 4000));
    store.evict(&key).unwrap();
    assert_eq!(view.array::<u32>().unwrap().row(0).unwrap_err().kind(), ErrorKind::NotFound);
    let missing = store.metrics().unwrap().totals().find(|total| total.name == "missing").unwrap();
    assert_eq!(missing.count, 1);
}
