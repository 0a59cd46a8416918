//! What the socket answers: JSON over HTTP/1.1, the types of `model`.

use std::{
    sync::{Arc, OnceLock},
    time::{Duration, SystemTime},
};

use axum::{
    Json, Router,
    body::Body,
    extract::{Query, Request, State},
    http::{HeaderName, HeaderValue, StatusCode},
    middleware::{Next, from_fn},
    response::{IntoResponse, Response},
    routing::get,
};
use futures_util::{StreamExt as _, stream};
use serde::{Deserialize, Serialize};
use tokio::{sync::broadcast::error::RecvError, time::timeout};

use super::observer::Observer;
use crate::{
    model::incident::{IncidentCause, IncidentFilter, IncidentRecord},
    recorder::Recorder,
};

/// Every answer says which version gave it.
pub const VERSION_HEADER: &str = "finwatch-version";
/// This program's version. The daemon and who asks it must have the same.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
/// The longest time that can be asked about, in seconds: a month.
pub const MAX_SINCE: u64 = 30 * 24 * 3600;

/// A follower that is told nothing for so long gets an empty line: only who is written to shows that it is gone, where it
/// has sent more than its question.
const HEARTBEAT: Duration = Duration::from_secs(5);

/// What the routes answer from; nothing before [`Api::ready`].
#[derive(Default)]
pub struct Api {
    sources: OnceLock<(Arc<Observer>, Arc<Recorder>)>,
}

impl Api {
    /// Ready from now on; a second call changes nothing.
    pub fn ready(&self, observer: Arc<Observer>, recorder: Arc<Recorder>) {
        self.sources.get_or_init(|| (observer, recorder));
    }
}

/// What `/observation` is asked.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Since {
    /// How far back, in seconds.
    pub since: u64,
}

/// What `/incidents` and `/incidents/follow` are asked.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Which {
    /// Only those of the last so many seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<u64>,
    /// Only pairs with this text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pair: Option<String>,
    /// Only these causes, separated by commas; empty for all.
    #[serde(default, with = "comma_separated", skip_serializing_if = "Vec::is_empty")]
    pub causes: Vec<IncidentCause>,
}

impl Which {
    /// As the query of a URL.
    ///
    /// # Errors
    /// Never: plain data can be written.
    pub fn query(&self) -> Result<String, serde_urlencoded::ser::Error> {
        serde_urlencoded::to_string(self)
    }
}

impl From<Which> for IncidentFilter {
    fn from(which: Which) -> Self {
        let since = which.since.map(|since| Duration::from_secs(since.min(MAX_SINCE)));
        Self {
            since: since.and_then(|since| SystemTime::now().checked_sub(since)),
            pair: which.pair,
            causes: which.causes,
        }
    }
}

/// One line of what `/incidents/follow` answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Followed {
    /// It happened.
    Incident(Box<IncidentRecord>),
    /// So many happened that were not read in time.
    Lost(u64),
}

/// All routes.
pub fn router(api: Arc<Api>) -> Router {
    Router::new()
        .route("/observation", get(observation))
        .route("/sums", get(sums))
        .route("/incidents", get(incidents))
        .route("/incidents/follow", get(follow))
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
    let Some((observer, _)) = api.sources.get().cloned() else { return not_ready() };
    let since = Duration::from_secs(asked.since.min(MAX_SINCE));
    // It reads files and may wait for a walk.
    match tokio::task::spawn_blocking(move || observer.observe(since)).await {
        Ok(observation) => Json(observation).into_response(),
        Err(_panicked) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

async fn sums(State(api): State<Arc<Api>>) -> Response {
    let Some((observer, _)) = api.sources.get().cloned() else { return not_ready() };
    // Where a slot is about to change its pair, it waits for that.
    match tokio::task::spawn_blocking(move || observer.sums()).await {
        Ok(sums) => Json(sums).into_response(),
        Err(_panicked) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

async fn incidents(State(api): State<Arc<Api>>, Query(which): Query<Which>) -> Response {
    let Some((_, recorder)) = api.sources.get() else { return not_ready() };
    let kept = recorder.latest(&which.into());
    Json(kept.iter().map(|record| &**record).collect::<Vec<_>>()).into_response()
}

/// What is kept, then what comes: a line of JSON each.
async fn follow(State(api): State<Arc<Api>>, Query(which): Query<Which>) -> Response {
    let Some((_, recorder)) = api.sources.get() else { return not_ready() };
    let filter = IncidentFilter::from(which);
    // Following begins before what is kept is read, so that nothing falls between; what is in both comes once.
    let coming = recorder.follow();
    let kept = recorder.latest(&filter);
    let newest = kept.last().map_or(0, |record| record.id);
    let kept =
        stream::iter(kept.into_iter().map(|record| line(&Followed::Incident(Box::new((*record).clone())))));
    let coming = stream::unfold((coming, filter), move |(mut coming, filter)| async move {
        loop {
            match timeout(HEARTBEAT, coming.recv()).await {
                Ok(Ok(record)) if record.id > newest && filter.takes(&record) => {
                    let record = line(&Followed::Incident(Box::new((*record).clone())));
                    return Some((record, (coming, filter)));
                }
                Ok(Ok(_)) => {}
                Ok(Err(RecvError::Lagged(lost))) => {
                    return Some((line(&Followed::Lost(lost)), (coming, filter)));
                }
                Ok(Err(RecvError::Closed)) => return None,
                Err(_elapsed) => return Some((Ok("\n".to_owned()), (coming, filter))),
            }
        }
    });
    Body::from_stream(kept.chain(coming)).into_response()
}

fn line(followed: &Followed) -> Result<String, serde_json::Error> {
    serde_json::to_string(followed).map(|line| line + "\n")
}

fn not_ready() -> Response {
    let reason =
        "the daemon is still taking in the connections that were there before; ask again in a second\n";
    (StatusCode::SERVICE_UNAVAILABLE, reason).into_response()
}

/// A list as one value of a query.
mod comma_separated {
    use clap::ValueEnum as _;
    use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};

    use crate::model::incident::IncidentCause;

    pub(super) fn serialize<S: Serializer>(
        causes: &[IncidentCause],
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        let values = causes.iter().filter_map(IncidentCause::to_possible_value);
        let names: Vec<String> = values.map(|value| value.get_name().to_owned()).collect();
        serializer.serialize_str(&names.join(","))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Vec<IncidentCause>, D::Error> {
        let text = String::deserialize(deserializer)?;
        let names = text.split(',').filter(|name| !name.is_empty());
        names.map(|name| IncidentCause::from_str(name, false).map_err(D::Error::custom)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_survives_being_a_query() {
        let which = Which {
            since: Some(90),
            pair: Some("nginx -> [::1]:80 & more".into()),
            causes: vec![IncidentCause::RequestNoFin, IncidentCause::ResetIdle],
        };
        let read: Which =
            serde_urlencoded::from_str(&which.query().expect("plain data")).expect("a question");
        assert_eq!((read.since, read.pair, read.causes), (which.since, which.pair, which.causes));
        assert_eq!(Which::default().query().expect("plain data"), "");
    }
}
