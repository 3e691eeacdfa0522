//! Sites that join by invitation.

use std::io::Write;
use std::process::{Output, Stdio};

use crate::home::{Home, PROXYSTORE, Relay, told};

/// Runs a command that reads a line of standard input.
fn told_a_line(home: &Home, args: &[&str], line: &str) -> Output {
    let mut command = home.command(PROXYSTORE, args);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    writeln!(child.stdin.take().unwrap(), "{line}").unwrap();
    child.wait_with_output().unwrap()
}

fn only_line(text: &str) -> &str {
    assert_eq!(text.lines().count(), 1, "{text}");
    text.trim()
}

#[test]
fn two_sites_join_by_invitation() {
    let (at_relay, a, b) = (Home::new(), Home::new(), Home::new());
    let relay = Relay::start(&at_relay);
    let [url, fingerprint] = relay.1.as_slice() else { panic!("{:?}", relay.1) };
    let port = url.rsplit(':').next().unwrap();
    let invitation = at_relay.succeeds(&[
        "relay",
        "--name",
        "127.0.0.1",
        "--port",
        port,
        "--udp-port",
        "0",
        "--invite",
    ]);
    let invitation = only_line(&invitation);
    let configure = ["endpoint", "configure", "site-a", "--disk", "0"];
    let join = ["--join", invitation, "--new-group-secret"];
    let (id, words) = told(&a.run(&[&configure[..], &join[..]].concat()), 0);
    assert!(words.contains("proxystore endpoint invite site-a"), "{words}");
    let shown = a.succeeds(&["endpoint", "show", "site-a"]);
    assert!(shown.contains(&format!("https://127.0.0.1:{port}")), "{shown}");
    assert!(shown.contains(fingerprint) && shown.contains("udp_port = 0"), "{shown}");

    let (to_a, words) = told(&a.run(&["endpoint", "invite", "site-a"]), 0);
    assert!(words.contains(&format!("ping NAME {}", id.trim())), "{words}");
    let to_a = only_line(&to_a);
    assert_ne!(to_a, invitation, "it adds the secret of the group");
    let configure = ["endpoint", "configure", "site-b", "--disk", "0", "--join"];
    let two_groups = ["endpoint", "configure", "site-b", "--join", to_a, "--new-group-secret"];
    assert!(b.fails(&two_groups).contains("to another group"));
    told(&told_a_line(&b, &configure, &format!("  {to_a} ")), 0);

    a.succeeds(&["endpoint", "start", "site-a"]);
    let (id_b, _) = told(&b.run(&["endpoint", "show", "site-b", "--id"]), 0);
    b.succeeds(&["endpoint", "start", "site-b"]);
    let [id, id_b] = [id.trim(), id_b.trim()];
    // They know nothing of each other but the group and the relay.
    b.succeeds(&["endpoint", "ping", "site-b", id]);
    a.succeeds(&["endpoint", "ping", "site-a", id_b]);
    let key = b.succeeds(&["endpoint", "test", "site-b", "--remote", id, "put", "joined"]);
    assert_eq!(a.succeeds(&["endpoint", "test", "site-a", "get", key.trim()]), "joined\n");
}

#[test]
fn who_belongs_to_no_group_invites_nobody() {
    let home = Home::new();
    let invitation = home.succeeds(&["relay", "--name", "127.0.0.1", "--invite"]);
    let configure = ["endpoint", "configure", "site-a", "--join", only_line(&invitation)];
    let (_, words) = told(&home.run(&configure), 0);
    assert!(words.contains("endpoint trust"), "{words}");
    let error = home.fails(&["endpoint", "invite", "site-a"]);
    assert!(error.contains("belongs to no group"), "{error}");
    assert!(error.contains("remedy") && error.contains("endpoint reload site-a"), "{error}");

    // What the remedy says, done.
    home.succeeds(&["endpoint", "start", "site-a"]);
    let file = home.file("site-a/config.toml");
    let config = home.read("site-a/config.toml");
    let empty = "group_secret = \"\"";
    assert!(config.contains(empty), "{config}");
    std::fs::write(file, config.replace(empty, "group_secret = \"0123456789abcdef\"")).unwrap();
    home.succeeds(&["endpoint", "reload", "site-a"]);
    home.succeeds(&["endpoint", "invite", "site-a"]);
}

#[test]
fn what_is_no_invitation_configures_nothing() {
    let home = Home::new();
    let whole = home.succeeds(&["relay", "--name", "127.0.0.1", "--invite"]);
    let whole = only_line(&whole);
    let damaged = [
        &whole[..whole.len() - 5], // not all of it was copied
        &whole[5..],
        &whole.replace('i', "!"),
        "https://relay.example.org:8443",
        "",
    ];
    for text in damaged {
        let error = home.fails(&["endpoint", "configure", "site-a", "--join", text]);
        assert!(error.contains("read an invitation"), "{text}: {error}");
        assert!(error.contains("copy the whole line"), "{text}: {error}");
        let args = ["endpoint", "configure", "site-a", "--join", "-"];
        let (_, again) = told(&told_a_line(&home, &args, text), 1);
        assert_eq!(again, error);
    }
    assert!(!home.file("site-a").exists());
    let both = ["--join", whole, "--relay", "https://relay.example.org:8443"];
    told(&home.run(&[&["endpoint", "configure", "site-a"][..], &both].concat()), 2);
}
