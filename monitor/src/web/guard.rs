//! Asks everybody who he is, on every path, and adds the headers that were asked for.

use std::sync::Arc;

use axum::{
    Router,
    extract::{Request, State},
    http::{HeaderValue, StatusCode, header},
    middleware::{Next, from_fn_with_state},
    response::{IntoResponse as _, Response},
};

use super::Web;

/// The routes, for those whom the rules admit.
pub fn guarded(router: Router, web: Arc<Web>) -> Router {
    router.layer(from_fn_with_state(web, guard))
}

async fn guard(State(web): State<Arc<Web>>, request: Request, next: Next) -> Response {
    let rules = web.rules();
    let admitted = rules.passwords.is_empty()
        || rules.passwords.clone().admit(request.headers().get(header::AUTHORIZATION)).await;
    let mut response = if admitted { next.run(request).await } else { unknown() };
    for (name, value) in &rules.headers {
        response.headers_mut().insert(name.clone(), value.clone());
    }
    response
}

fn unknown() -> Response {
    let challenge = [(header::WWW_AUTHENTICATE, HeaderValue::from_static("Basic"))];
    (StatusCode::UNAUTHORIZED, challenge, "a name and a password are needed\n").into_response()
}
