//! Endpoints that meet: as peers who admit each other, at a relay.

use crate::home::{Home, Relay, signal, told, wait};

#[test]
fn peers_are_trusted_and_comments_stay() {
    let home = Home::with("site-a");
    home.succeeds(&["endpoint", "configure", "site-b", "--no-peers"]);
    let id = home.succeeds(&["endpoint", "show", "site-b", "--id"]);
    let id = id.trim();
    home.succeeds(&["endpoint", "trust", "site-a", id, "--as", "b", "--address", "127.0.0.1:4000"]);
    let list = home.succeeds(&["endpoint", "trust", "site-a", "--list"]);
    assert!(
        list.contains(id) && list.contains("127.0.0.1:4000") && list.contains("full"),
        "{list}"
    );
    home.succeeds(&["endpoint", "trust", "site-a", "b", "--read-only"]);
    let list = home.succeeds(&["endpoint", "trust", "site-a", "--list"]);
    assert!(list.contains("read") && list.contains("127.0.0.1:4000"), "{list}");
    assert_eq!(list.matches(id).count(), 1);
    let file = home.read("site-a/config.toml");
    assert!(file.contains("# Who may connect here, and where."), "{file}");
    told(&home.run(&["endpoint", "trust", "site-a", "b", "--address", "127.0.0.1"]), 2);
    home.succeeds(&["endpoint", "trust", "site-a", "b", "--remove"]);
    assert!(!home.succeeds(&["endpoint", "trust", "site-a", "--list"]).contains(id));
    assert!(home.fails(&["endpoint", "trust", "site-a", id, "--remove"]).contains("not admitted"));
    assert!(home.fails(&["endpoint", "trust", "site-a", "site-a"]).contains("itself"));
    assert!(home.fails(&["endpoint", "trust", "site-a", "nobody"]).contains("nobody"));
}

#[test]
fn sites_meet_at_a_relay() {
    let home = Home::new();
    let mut relay = Relay::start(&home);
    assert_eq!(home.succeeds(&["relay", "--token"]), "of-the-test\n");
    let [url, fingerprint] = relay.1.as_slice() else { panic!("{:?}", relay.1) };
    let url = format!("https://127.0.0.1:{}", url.rsplit(':').next().unwrap());
    for site in ["site-a", "site-b"] {
        home.succeeds(&[
            "endpoint",
            "configure",
            site,
            "--disk",
            "0",
            "--relay",
            &url,
            "--relay-token",
            "of-the-test",
            "--relay-fingerprint",
            fingerprint,
            "--relay-udp-port",
            "0",
        ]);
    }
    home.succeeds(&["endpoint", "trust", "site-a", "site-b", "--as", "b"]);
    assert!(home.succeeds(&["doctor", "site-a"]).contains("admitted after"));
    for site in ["site-a", "site-b"] {
        home.succeeds(&["endpoint", "start", site]);
    }
    assert!(home.fails(&["endpoint", "ping", "site-a", "b"]).contains("does not admit us"));
    let (_, words) = told(&home.run(&["endpoint", "trust", "site-b", "site-a", "--as", "a"]), 0);
    assert!(words.contains("at once"), "{words}");
    let pong = home.succeeds(&["endpoint", "ping", "site-a", "b"]);
    assert!(pong.contains("direct") || pong.contains("relayed"), "{pong}");
    let (found, _) = told(&home.run(&["doctor", "site-a", "--peer", "b"]), 0);
    assert!(found.contains("b answers") && found.contains("[site-a]"), "{found}");
    let key = home.succeeds(&["endpoint", "test", "site-a", "--remote", "b", "put", "far"]);
    assert_eq!(home.succeeds(&["endpoint", "test", "site-b", "get", key.trim()]), "far\n");

    home.succeeds(&["endpoint", "trust", "site-b", "a", "--remove"]);
    assert!(home.fails(&["endpoint", "ping", "site-a", "b"]).contains("does not admit us"));

    signal(relay.0.id(), rustix::process::Signal::TERM);
    assert_eq!(wait(&mut relay.0), 0);
    let (found, _) = told(&home.run(&["doctor", "site-a"]), 1);
    assert!(found.contains("PROBLEM"), "{found}");
}
