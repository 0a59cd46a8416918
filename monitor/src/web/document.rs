//! The web config file: the keys that Prometheus' exporters share, those that are not supported left out.

use std::{collections::BTreeMap, path::Path, sync::Arc};

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use serde::Deserialize;

use super::{
    Rules, WebError,
    passwords::Passwords,
    tls::{self, TlsServerConfig},
};
use crate::{files, model::labels::harmless};

/// Headers that may be set, each with the values that are allowed; any where there are none.
const HEADERS: [(&str, &[&str]); 5] = [
    ("Content-Security-Policy", &[]),
    ("X-Frame-Options", &["deny", "sameorigin"]),
    ("X-Content-Type-Options", &["nosniff"]),
    ("X-XSS-Protection", &[]),
    ("Strict-Transport-Security", &[]),
];

/// The whole file.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Document {
    tls_server_config: Option<TlsServerConfig>,
    http_server_config: Option<HttpServerConfig>,
    basic_auth_users: Option<BTreeMap<String, String>>,
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct HttpServerConfig {
    #[serde(rename = "http2")]
    _http2: Option<bool>,
    headers: Option<BTreeMap<String, String>>,
}

/// Reads it, and the files it names.
pub(super) fn read(path: &Path) -> Result<Rules, WebError> {
    rules(path, &files::secret(path)?)
}

/// What the text of the file at `path` tells, and the files it names.
pub(super) fn rules(path: &Path, text: &str) -> Result<Rules, WebError> {
    let Document { tls_server_config, http_server_config, basic_auth_users } = parse(path, text)?;
    let unusable = |problem| WebError::Unusable { path: path.to_owned(), problem };
    let directory = path.parent().unwrap_or(Path::new("/"));
    let headers = http_server_config.and_then(|http| http.headers).unwrap_or_default();
    Ok(Rules {
        tls: tls_server_config.map(|tls| tls::configure(&tls, path, directory)).transpose()?,
        passwords: Arc::new(Passwords::new(basic_auth_users.unwrap_or_default()).map_err(unusable)?),
        headers: headers_of(&headers).map_err(unusable)?,
    })
}

fn parse(path: &Path, text: &str) -> Result<Document, WebError> {
    let document: Result<Option<Document>, _> = serde_saphyr::from_str(text);
    document.map(Option::unwrap_or_default).map_err(|error| WebError::Invalid {
        path: path.to_owned(),
        line: error.location().map_or(1, |location| location.line()),
        problem: problem(&error),
    })
}

/// One line, whatever stands in the file, and without its lines, in which there are secrets.
fn problem(error: &serde_saphyr::Error) -> String {
    let text = error.without_snippet().to_string();
    harmless(&text.lines().next().unwrap_or_default().replace("unknown field", "unknown key"))
}

fn headers_of(given: &BTreeMap<String, String>) -> Result<HeaderMap, String> {
    let mut headers = HeaderMap::new();
    for (name, value) in given.iter().filter(|(_, value)| !value.is_empty()) {
        let Some((_, values)) = HEADERS.iter().find(|(known, _)| known == name) else {
            let known = HEADERS.map(|(known, _)| known).join(", ");
            return Err(format!("the header {name:?} cannot be set; these can: {known}"));
        };
        if !values.is_empty() && !values.contains(&value.as_str()) {
            return Err(format!("{name} cannot be {value:?}, only {}", values.join(" or ")));
        }
        let name = HeaderName::try_from(name.as_str()).expect("the names are valid");
        let value = HeaderValue::try_from(value.as_str())
            .map_err(|_| format!("{name} has characters that a header cannot hold; leave them out"))?;
        headers.insert(name, value);
    }
    Ok(headers)
}
