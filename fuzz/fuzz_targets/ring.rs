#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| proxystore::testkit::fuzz::run("ring", data));
