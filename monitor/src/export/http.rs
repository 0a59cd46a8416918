//! The routes: `/metrics`, `/healthz`, `/readyz` and a landing page.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use axum::{
    Router,
    extract::State,
    http::{StatusCode, header},
    response::{Html, IntoResponse, Response},
    routing::get,
};
use prometheus::TEXT_FORMAT;
use tower_http::{CompressionLevel, compression::CompressionLayer};

use super::{exposition::Exporter, landing, places::Places, render};

/// Scrapes written at once; the others wait.
const MAX_RENDERS: usize = 4;

/// What the routes answer from. There is nothing to show until [`App::ready`] is called.
pub struct App {
    exporter: OnceLock<Arc<Exporter>>,
    waits_for: Mutex<String>,
    renders: Arc<Places>,
}

impl App {
    /// Not ready yet, for this reason: "hooks are being attached".
    pub fn starting(reason: impl Into<String>) -> Self {
        Self {
            exporter: OnceLock::new(),
            waits_for: Mutex::new(reason.into()),
            renders: Arc::new(Places::new(MAX_RENDERS)),
        }
    }

    /// Still not ready, now for this reason.
    pub fn waits_for(&self, reason: impl Into<String>) {
        *self.waits_for.lock().unwrap_or_else(PoisonError::into_inner) = reason.into();
    }

    /// Ready from now on; a second call changes nothing.
    pub fn ready(&self, exporter: Exporter) {
        self.exporter.get_or_init(|| Arc::new(exporter));
    }

    fn exporter(&self) -> Result<Arc<Exporter>, NotReady> {
        let reason = || self.waits_for.lock().unwrap_or_else(PoisonError::into_inner).clone();
        self.exporter.get().cloned().ok_or_else(|| NotReady { reason: reason() })
    }
}

/// Why there is nothing to show yet.
struct NotReady {
    reason: String,
}

impl IntoResponse for NotReady {
    fn into_response(self) -> Response {
        (StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {}\n", self.reason)).into_response()
    }
}

/// All routes. Responses are compressed (gzip, zstd) where the client asks for it.
pub fn router(app: Arc<App>) -> Router {
    Router::new()
        .route("/", get(landing))
        .route("/metrics", get(metrics))
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(readyz))
        .fallback(async || (StatusCode::NOT_FOUND, "nothing here; try /metrics, /healthz, /readyz or /\n"))
        .layer(CompressionLayer::new().quality(CompressionLevel::Fastest))
        .with_state(app)
}

async fn metrics(State(app): State<Arc<App>>) -> Result<Response, NotReady> {
    let exporter = app.exporter()?;
    let place = Arc::clone(&app.renders).take().await;
    Ok(([(header::CONTENT_TYPE, TEXT_FORMAT)], render::start(exporter, place)).into_response())
}

async fn readyz(State(app): State<Arc<App>>) -> Result<&'static str, NotReady> {
    app.exporter().map(|_| "ready\n")
}

async fn landing(State(app): State<Arc<App>>) -> Response {
    // The agent's state comes from the kernel and may take a while.
    let page = tokio::task::spawn_blocking(move || match app.exporter() {
        Ok(exporter) => landing::page(&exporter.agent(), exporter.pairs()),
        Err(NotReady { reason }) => landing::waiting_page(&reason),
    });
    match page.await {
        Ok(page) => Html(page).into_response(),
        Err(_panicked) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}
