//! Servers whose memory is full.

use super::*;

fn limit(server: &Redis, bytes: u32) {
    let mut command = cmd("CONFIG");
    command.arg("SET").arg("maxmemory").arg(bytes).exec(&mut server.connect()).unwrap();
}

#[test]
fn a_full_server_is_an_error_of_its_kind() {
    needs_redis!();
    let server = Redis::start(Kind::default());
    for kind in ["list", "stream"] {
        let publisher = broker(kind, &server).publisher().unwrap();
        publisher.publish("t", b"first", soon()).unwrap();
        publisher.flush(soon()).unwrap();
        limit(&server, 1);
        let late = publisher.publish("t", b"second", soon());
        let error = late.and_then(|()| publisher.flush(soon())).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Full, "{error}");
        publisher.publish("t", b"third", soon()).unwrap();
        // It surfaces in what is published later, too.
        let end = Instant::now() + PATIENCE;
        let error = loop {
            assert!(Instant::now() < end, "the error surfaces");
            if let Err(error) = publisher.publish("t", b"fourth", soon()) {
                break error;
            }
        };
        assert_eq!(error.kind(), ErrorKind::Full, "{error}");
        let _ = publisher.flush(soon());
        limit(&server, 0);
        publisher.publish("t", b"fifth", soon()).unwrap();
        publisher.flush(soon()).unwrap();
        let length = if kind == "list" { "LLEN" } else { "XLEN" };
        let length: u32 = cmd(length).arg("t").query(&mut server.connect()).unwrap();
        assert_eq!(length, 2, "the first and the fifth");
        cmd("DEL").arg("t").exec(&mut server.connect()).unwrap();
    }
}

#[test]
fn a_full_server_is_drained() {
    needs_redis!();
    let server = Redis::start(Kind::default());
    let broker = broker("stream", &server);
    let publisher = broker.publisher().unwrap();
    let options = options(PATIENCE, 1);
    let subscriber = broker.subscriber(&["t"], &options).unwrap();
    for number in 0..10_u8 {
        publisher.publish("t", &[number], soon()).unwrap();
    }
    publisher.flush(soon()).unwrap();
    limit(&server, 1);
    let first = receive(&*subscriber);
    subscriber.acknowledge(&[first.tag]).unwrap();
    // It has to connect again, and another joins.
    let mut kill = cmd("CLIENT");
    kill.arg("KILL").arg("TYPE").arg("normal").arg("SKIPME").arg("yes");
    kill.exec(&mut server.connect()).unwrap();
    let other = broker.subscriber(&["t"], &options).unwrap();
    for number in 1..10_u8 {
        let subscriber = if number % 2 == 0 { &subscriber } else { &other };
        let delivery = receive(&**subscriber);
        assert_eq!(delivery.message, [number]);
        subscriber.acknowledge(&[delivery.tag]).unwrap();
    }
    let error = broker.subscriber(&["another"], &options).map(drop).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Full, "{error}");
}

#[test]
fn what_was_fetched_is_put_back_in_a_full_list() {
    const COUNT: u16 = 400;
    needs_redis!();
    let server = Redis::start(Kind::default());
    let broker = broker("list", &server);
    let publisher = broker.publisher().unwrap();
    for number in 0..COUNT {
        publisher.publish("t", &number.to_le_bytes(), soon()).unwrap();
    }
    publisher.flush(soon()).unwrap();
    let subscriber = broker.subscriber(&["t"], &options(PATIENCE, 300)).unwrap();
    assert_eq!(receive(&*subscriber).message, 0_u16.to_le_bytes());
    limit(&server, 1);
    let closed = subscriber.close();
    limit(&server, 0);
    let length: u16 = cmd("LLEN").arg("t").query(&mut server.connect()).unwrap();
    let Err(error) = closed else {
        let subscriber = broker.subscriber(&["t"], &options(PATIENCE, 1)).unwrap();
        for number in 1..COUNT {
            assert_eq!(receive(&*subscriber).message, number.to_le_bytes());
        }
        return;
    };
    // Before Redis 7, all that can be done is to say so.
    let lost = COUNT - 1 - length;
    assert_eq!(error.kind(), ErrorKind::Full, "{error}");
    assert!(error.to_string().contains(&lost.to_string()), "{error}");
}
