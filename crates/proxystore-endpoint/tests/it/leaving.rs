//! Clients and peers that go in the middle of something, or never come to its end: they keep nobody.

use std::time::Duration;

use proxystore::ErrorKind;
use proxystore::wire::{Answer, Request, encode_request};
use proxystore_endpoint::body::Body;
use proxystore_endpoint::frames::send_request;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{sleep, timeout};

use crate::running::{PATIENCE, Running};
use crate::sites::{bytes, pair};

const HOUR: u64 = 3_600_000;

async fn usage(running: &Running) -> serde_json::Value {
    running.client().await.status().await
}

/// Looks until so many wait, and so many are connected besides who looks.
async fn until(running: &Running, waiting: u64, clients: u64) {
    let looking = async {
        loop {
            let status = usage(running).await;
            if status["storage"]["waiting"] == waiting && status["clients"] == clients + 1 {
                return;
            }
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(PATIENCE, looking).await.expect("it hangs");
}

#[tokio::test]
async fn who_has_gone_waits_no_more() {
    let running = Running::start("[peers]\nenabled = false\n").await;
    let request = Request::Wait(running.name("never"), HOUR);
    // Also one that asks more than is done for it at once.
    for (asked, waiting) in [(3, 3), (500, 32)] {
        let mut client = running.client().await;
        for number in 0..asked {
            let sending =
                send_request(&mut client.write, number, &request, Body::empty(), PATIENCE);
            sending.await.unwrap();
        }
        until(&running, waiting, 1).await;
        drop(client);
        until(&running, 0, 0).await;
    }
    running.stop.cancel();
    running.ended().await;
}

#[tokio::test]
async fn an_answer_is_not_kept_back_by_many_who_wait() {
    let running = Running::start("[peers]\nenabled = false\n").await;
    let mut client = running.client().await;
    let mut requests = Vec::new();
    encode_request(&mut requests, 0, &Request::Ping(running.id), 0, false).unwrap();
    for number in 1..50 {
        let waits = Request::Wait(running.name("never"), HOUR);
        encode_request(&mut requests, number, &waits, 0, false).unwrap();
    }
    client.write.write_all(&requests).await.unwrap(); // all at once
    assert!(matches!(client.answer().await, Answer::Pong(_)));
    drop(client);
    running.stop.cancel();
    running.ended().await;
}

#[tokio::test]
async fn a_body_that_belongs_to_nothing_keeps_nobody() {
    let running = Running::start("[peers]\nenabled = false\n").await;
    let mut client = running.client().await;
    let (waits, len) = (Request::Wait(running.name("never"), HOUR), 4_000_000);
    let sending = send_request(&mut client.write, 1, &waits, bytes(len).into(), PATIENCE);
    timeout(PATIENCE, sending).await.expect("it is not taken").unwrap();
    let Answer::Failed(fault) = client.answer().await else { panic!("it was answered") };
    assert_eq!(fault.kind(), ErrorKind::Corrupt);
    assert!(matches!(client.ask(&Request::Status, Body::empty()).await, Answer::Object { .. }));
    running.stop.cancel();
    running.ended().await;
}

#[tokio::test]
async fn who_takes_nothing_keeps_nobody_from_what_is_in_memory() {
    let running = Running::start("[peers]\nenabled = false\n[clients]\npatience = 1000\n").await;
    let mut client = running.client().await;
    let name = running.name("large");
    let put = Request::Put { name: name.clone(), ttl: None, shared: None };
    assert_eq!(client.ask(&put, bytes(2_000_000).into()).await, Answer::Done);
    let get = Request::Get { name, range: None, shared: false };
    let mut idle = Vec::new();
    for _ in 0..150 {
        let mut client = running.client().await;
        send_request(&mut client.write, 1, &get, Body::empty(), PATIENCE).await.unwrap();
        idle.push(client);
    }
    send_request(&mut client.write, 1, &get, Body::empty(), PATIENCE).await.unwrap();
    let mut answer = vec![0; 2_000_000];
    let reading = client.into_stream();
    timeout(PATIENCE, { reading }.read_exact(&mut answer)).await.expect("it waits").unwrap();
    drop(idle);
    running.stop.cancel();
    running.ended().await;
}

#[tokio::test]
async fn who_takes_little_at_a_time_does_not_keep_it_from_stopping() {
    let running = Running::start("[peers]\nenabled = false\n[clients]\npatience = 2\n").await;
    let mut client = running.client().await;
    let name = running.name("large");
    let put = Request::Put { name: name.clone(), ttl: None, shared: None };
    assert_eq!(client.ask(&put, bytes(50_000_000).into()).await, Answer::Done);
    let get = Request::Get { name, range: None, shared: false };
    send_request(&mut client.write, 1, &get, Body::empty(), PATIENCE).await.unwrap();
    let mut read = client.into_stream();
    let dripping = tokio::spawn(async move {
        // Never silent for long, never done.
        while read.read(&mut [0; 4096]).await.is_ok_and(|len| len > 0) {
            sleep(Duration::from_millis(20)).await;
        }
    });
    sleep(Duration::from_millis(100)).await;
    running.stop.cancel();
    running.ended().await;
    timeout(PATIENCE, dripping).await.expect("it was not let go").unwrap();
}

#[tokio::test]
async fn a_peer_that_stops_is_not_the_endpoint_itself() {
    let (far, near) = pair().await;
    far.service.storage.close().await.unwrap();
    let error = near.failure(Request::Evict(far.name("a", 1))).await;
    // Of kind Closed it would be taken for the end of the endpoint that was asked.
    assert_eq!(error.kind(), ErrorKind::Io);
    let text = error.to_string();
    assert!(text.contains("the peer is stopping") && text.contains(&far.id.to_string()), "{text}");
    assert_eq!(near.service.counters.failures.get(), 1);
    near.stop().await;
    far.stop().await;
}
