//! What an endpoint answers.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};

use super::guard::{CSS, HTML, METRICS, SCRIPT, SVG, TEXT, file, typed};
use super::metrics;
use crate::service::Service;

/// How every page looks, that of the relay too.
pub(crate) const BASE_CSS: &str = include_str!("page/base.css");

/// What there is to see of an endpoint.
pub fn site(service: Arc<Service>) -> Router {
    Router::new()
        .route("/", file(HTML, include_str!("page/page.html")))
        .route("/base.css", file(CSS, BASE_CSS))
        .route("/page.css", file(CSS, include_str!("page/page.css")))
        .route("/page.js", file(SCRIPT, include_str!("page/page.js")))
        .route("/icon.svg", file(SVG, include_str!("page/icon.svg")))
        .route("/status.json", get(status))
        .route("/metrics", get(metrics))
        .route("/health", get(health))
        .with_state(service)
}

async fn status(State(service): State<Arc<Service>>) -> Response {
    Json(service.status()).into_response()
}

async fn metrics(State(service): State<Arc<Service>>) -> Response {
    typed(METRICS, metrics::text(&service.status(), &service.counters.latencies))
}

async fn health(State(service): State<Arc<Service>>) -> Response {
    if service.stop.is_cancelled() {
        (StatusCode::SERVICE_UNAVAILABLE, typed(TEXT, "stopping\n")).into_response()
    } else {
        typed(TEXT, "ok\n")
    }
}
