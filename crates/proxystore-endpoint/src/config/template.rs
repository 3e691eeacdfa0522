//! The `config.toml` of a new endpoint: every option with its default, and what it is for.

/// The text for an endpoint of this name, which has to be without quotes and backslashes.
///
/// ```
/// use proxystore_endpoint::config::{Config, template};
/// let config: Config = toml::from_str(&template("site-a")).unwrap();
/// assert_eq!(config, Config { name: "site-a".into(), ..Config::default() });
/// ```
pub fn template(name: &str) -> String {
    TEXT.replace("NAME", name)
}

const TEXT: &str = r#"# An endpoint of ProxyStore. What was not asked for has its default; lines may be left out.
# Sizes are numbers of bytes, or texts such as "64 MiB" and "1.5 GB". Times are seconds.
# Changes count after `proxystore endpoint restart NAME`; who is a peer, also after `proxystore endpoint reload NAME`.

# The endpoint's name on this site.
name = "NAME"

# Who may connect here, and where. Clients on this host always may, over a Unix socket.
[clients]
# Where clients on other hosts connect: an address, "ip" (this host's), "fqdn" (its name), or "" for nowhere.
host = ""
# The port there; 0 for any.
port = 0
# How many may be connected at once.
connections = 4096
# Seconds a client may take to greet, to send the rest of what it began, or to take what it asked for.
patience = 30

# How much is kept, and where.
[storage]
# How much memory objects may take, shared memory included.
memory = "1 GiB"
# How much disk objects may take that memory has no room for; 0 for none.
disk = "10 GiB"
# Where on disk; "" for `objects` in the endpoint's directory.
dir = ""
# Whether objects are written to disk before they are acknowledged, and are there after a restart.
persist = false
# Whether each is also forced to the device, to be there after a power failure.
sync = false
# The longest object; 0 for any that fits.
max_object = 0
# From how many bytes on clients of this host put and get through shared memory; 0 for never.
shared_from = "128 KiB"

# Other endpoints.
[peers]
# Whether there are any; an endpoint without is a store of its site.
enabled = true
# At which UDP port they reach this one; 0 for any.
port = 0
# Whether peers are talked to directly where that works; if not, everything goes through the relay.
direct = true
# Whoever knows this secret is admitted, with full access; "" for nobody.
group_secret = ""
# How many parts of a large object are fetched at once.
streams = 4
# How much of the memory may hold copies of peers' objects; 0 for none.
cache = 0
# "cubic", "bbr" (for long paths that lose packets) or "newreno".
congestion = "cubic"

# Those who are admitted by name: `proxystore endpoint trust NAME ID` adds them.
# [[peers.allow]]
# id = "..."                        # its public key: `proxystore endpoint show NAME --id` there
# name = "site-b"                   # what it is called here
# relay = "https://relay:8443"      # the relay by which it is reached; this endpoint's own where left out
# addresses = ["192.0.2.7:4000"]    # where it may be reached without a relay
# access = "full"                   # or "read": it may get and wait, and nothing else

# Where peers meet.
[relay]
# "https://HOST:PORT"; "" for none, and then peers must be reachable by address.
url = ""
# What the relay asks for, if it does.
token = ""
# SHA-256 of the relay's certificate, which is then believed whoever signed it.
fingerprint = ""
# File with the certificate authority of the relay; "" for those that browsers know.
ca_file = ""
# UDP port at which the relay tells addresses; 0 for none, and then no NAT is passed directly.
udp_port = 7842

# Metrics, health and a page that shows what goes on.
[web]
# Where, as "ADDRESS:PORT"; "" for nowhere. Keep it local: there is no password.
address = "127.0.0.1:0"

# What is told of what happens, in `log.txt`.
[log]
# "error", "warn", "info", "debug" or "trace", or directives such as "info,iroh=debug".
level = "info"
# Whether each line is a JSON object.
json = false
"#;
