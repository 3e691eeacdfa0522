//! What is common to all that is served: its form, and who is answered.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HOST, HeaderName, REFERRER_POLICY,
    X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get};

pub(crate) const HTML: &str = "text/html; charset=utf-8";
pub(crate) const CSS: &str = "text/css; charset=utf-8";
pub(crate) const SCRIPT: &str = "text/javascript; charset=utf-8";
pub(super) const SVG: &str = "image/svg+xml";
pub(crate) const METRICS: &str = "text/plain; version=0.0.4; charset=utf-8";
pub(crate) const TEXT: &str = "text/plain; charset=utf-8";

/// Of every answer: nothing of others is loaded, nothing is kept, nobody frames the page.
const HEADERS: [(HeaderName, &str); 5] = [
    (
        CONTENT_SECURITY_POLICY,
        "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
    (X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (REFERRER_POLICY, "no-referrer"),
    (CACHE_CONTROL, "no-store"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
];

/// Something that is always the same.
pub(crate) fn file<S>(kind: &'static str, text: &'static str) -> MethodRouter<S>
where
    S: Clone + Send + Sync + 'static,
{
    get(async move || typed(kind, text))
}

/// An answer of a kind.
pub(crate) fn typed(kind: &'static str, text: impl IntoResponse) -> Response {
    ([(CONTENT_TYPE, kind)], text).into_response()
}

/// Answers only who asks by an address, `localhost` or one of these names of the host.
pub(super) fn guarded(router: Router, names: Arc<[String]>) -> Router {
    router.layer(middleware::from_fn_with_state(names, guard))
}

/// Refuses who asks by a name that is not of this host, as pages do whose name was made to point here.
async fn guard(State(names): State<Arc<[String]>>, request: Request, next: Next) -> Response {
    let mut response = if is_ours(request.headers(), &names) {
        next.run(request).await
    } else {
        let text = "this host is not called that; ask by an address of it\n";
        (StatusCode::MISDIRECTED_REQUEST, typed(TEXT, text)).into_response()
    };
    for (name, value) in HEADERS {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

fn is_ours(headers: &HeaderMap, names: &[String]) -> bool {
    let mut hosts = headers.get_all(HOST).iter();
    let (Some(host), None) = (hosts.next(), hosts.next()) else { return false };
    let Some(host) = host.to_str().ok().and_then(without_port) else { return false };
    host.eq_ignore_ascii_case("localhost")
        || host.parse::<Ipv4Addr>().is_ok()
        || bracketed(host).is_some_and(|address| address.parse::<Ipv6Addr>().is_ok())
        || names.iter().any(|name| host.eq_ignore_ascii_case(name))
}

fn bracketed(host: &str) -> Option<&str> {
    host.strip_prefix('[')?.strip_suffix(']')
}

/// `HOST` of `HOST` or `HOST:PORT`; `None` where it is neither.
fn without_port(text: &str) -> Option<&str> {
    let name_ends = text.rfind(']').unwrap_or(0);
    match text[name_ends..].find(':') {
        None => Some(text),
        Some(colon) => {
            let (host, port) = text.split_at(name_ends + colon);
            port[1..].parse::<u16>().is_ok().then_some(host)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(host: &str) -> bool {
        let mut headers = HeaderMap::new();
        headers.insert(HOST, host.parse().expect("a header"));
        is_ours(&headers, &["node7.example".into()])
    }

    #[test]
    fn who_asks_by_a_name_of_this_host_is_answered() {
        for host in
            ["localhost", "LOCALHOST:80", "127.0.0.1:8080", "[::1]", "[::1]:9", "Node7.example:1"]
        {
            assert!(asked(host), "{host}");
        }
    }

    #[test]
    fn who_asks_by_another_name_is_not() {
        for host in [
            "",
            "evil.example",
            "evil.example:80",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "localhost:80:80",
            "localhost:port",
            "::1",
            "[::1",
            "[evil.example]",
            "user@localhost",
        ] {
            assert!(!asked(host), "{host}");
        }
        assert!(!is_ours(&HeaderMap::new(), &[]));
    }

    #[test]
    fn who_asks_by_two_names_is_not() {
        let mut headers = HeaderMap::new();
        headers.append(HOST, "localhost".parse().expect("a header"));
        headers.append(HOST, "evil.example".parse().expect("a header"));
        assert!(!is_ours(&headers, &[]));
    }
}
