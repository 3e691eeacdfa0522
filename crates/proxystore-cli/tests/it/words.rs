//! What the commands say of themselves, by which names, and to whom.

use std::path::Path;

use crate::home::{ENDPOINT, Home, PROXYSTORE, told, wait};

#[test]
fn every_command_explains_itself() {
    let home = Home::new();
    let help = home.succeeds(&["endpoint", "--help"]);
    let verbs = help.lines().skip_while(|line| !line.starts_with("Commands:")).skip(1);
    let verbs: Vec<&str> = verbs
        .take_while(|line| !line.trim().is_empty())
        .filter_map(|line| line.split_whitespace().next())
        .filter(|verb| *verb != "help")
        .collect();
    assert!(verbs.len() > 10, "{verbs:?}");
    for verb in verbs {
        let help = home.succeeds(&["endpoint", verb, "--help"]);
        assert!(help.contains("Examples:"), "{verb}: {help}");
    }
    for shell in ["bash", "zsh", "fish"] {
        assert!(home.succeeds(&["completions", shell]).contains("configure"));
    }
    for command in ["relay", "doctor", "completions", "man"] {
        let help = home.succeeds(&[command, "--help"]);
        assert!(help.contains("Examples:"), "{command}: {help}");
    }
    assert!(home.succeeds(&["man"]).contains(".TH proxystore"));
    let pages = home.file("man");
    home.succeeds(&["man", "--dir", pages.to_str().unwrap()]);
    assert!(home.read("man/proxystore-endpoint-configure.1").contains("group"));
}

#[test]
fn the_verbs_of_the_python_original() {
    let home = Home::new();
    let run = |args: &[&str]| home.command(ENDPOINT, args).output().unwrap();
    let configure =
        ["configure", "old", "--host", "127.0.0.1", "--relay-auth", "--no-relay-server"];
    let (_, note) = told(&run(&configure), 0);
    assert!(note.contains("--relay-auth has no effect"), "{note}");
    told(&run(&["--log-level", "WARNING", "start", "old"]), 0);
    assert!(told(&run(&["list"]), 0).0.contains("running"));
    let key = told(&run(&["test", "old", "put", "data"]), 0).0;
    assert_eq!(told(&run(&["test", "old", "get", key.trim()]), 0).0, "data\n");
    told(&run(&["stop", "old"]), 0);
    told(&run(&["remove", "old"]), 0);
    assert!(told(&run(&["version"]), 0).0.starts_with("ProxyStore v"));
    told(&run(&["help"]), 0);
    told(&run(&["stop"]), 2);
}

#[test]
fn a_reader_that_went_away_is_no_error() {
    let home = Home::new();
    let (read, write) = std::io::pipe().unwrap();
    drop(read);
    let mut child = home.command(PROXYSTORE, &["man"]).stdout(write).spawn().unwrap();
    assert_eq!(wait(&mut child), 0);
}

#[test]
fn the_name_of_the_program_says_what_it_does() {
    let home = Home::new();
    for name in ["proxystore-endpoint", "proxystore-relay"] {
        let link = home.file(name);
        std::os::unix::fs::symlink(PROXYSTORE, &link).unwrap();
        let linked = home.command(link.to_str().unwrap(), &["--help"]).output().unwrap();
        let own = Path::new(PROXYSTORE).with_file_name(name);
        let own = home.command(own.to_str().unwrap(), &["--help"]).output().unwrap();
        assert!(told(&own, 0).0.contains(&format!("Usage: {name} ")));
        assert_eq!(told(&linked, 0), told(&own, 0));
    }
}
