//! What the socket answers: JSON over HTTP/1.1, the types of `model`.

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use axum::{
    Json, Router,
    extract::{Query, Request, State},
    http::{HeaderName, HeaderValue, StatusCode},
    middleware::{Next, from_fn},
    response::{IntoResponse, Response},
    routing::get,
};
use serde::{Deserialize, Serialize};

use super::observer::Observer;

/// Every answer says which version gave it.
pub const VERSION_HEADER: &str = "finwatch-version";
/// This program's version. The daemon and who asks it must have the same.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
/// The longest time that can be asked about, in seconds: a month.
pub const MAX_SINCE: u64 = 30 * 24 * 3600;

/// What the routes answer from; nothing before [`Api::ready`].
#[derive(Default)]
pub struct Api {
    observer: OnceLock<Arc<Observer>>,
}

impl Api {
    /// Ready from now on; a second call changes nothing.
    pub fn ready(&self, observer: Arc<Observer>) {
        self.observer.get_or_init(|| observer);
    }
}

/// What `/observation` is asked.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Since {
    /// How far back, in seconds.
    pub since: u64,
}

/// All routes.
pub fn router(api: Arc<Api>) -> Router {
    Router::new()
        .route("/observation", get(observation))
        .route("/tallies", get(tallies))
        .fallback(async || (StatusCode::NOT_FOUND, "there is no such question\n"))
        .layer(from_fn(say_version))
        .with_state(api)
}

async fn say_version(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    response.headers_mut().insert(HeaderName::from_static(VERSION_HEADER), HeaderValue::from_static(VERSION));
    response
}

async fn observation(State(api): State<Arc<Api>>, Query(asked): Query<Since>) -> Response {
    let Some(observer) = api.observer.get().cloned() else { return not_ready() };
    let since = Duration::from_secs(asked.since.min(MAX_SINCE));
    // It reads files and may wait for a walk.
    match tokio::task::spawn_blocking(move || observer.observe(since)).await {
        Ok(observation) => Json(observation).into_response(),
        Err(_panicked) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

async fn tallies(State(api): State<Arc<Api>>) -> Response {
    let Some(observer) = api.observer.get().cloned() else { return not_ready() };
    // Where a slot is about to change its pair, it waits for that.
    match tokio::task::spawn_blocking(move || observer.tallies()).await {
        Ok(tallies) => Json(tallies).into_response(),
        Err(_panicked) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

fn not_ready() -> Response {
    let reason =
        "the daemon is still taking in the connections that were there before; ask again in a second\n";
    (StatusCode::SERVICE_UNAVAILABLE, reason).into_response()
}
