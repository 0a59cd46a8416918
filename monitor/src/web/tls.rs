//! From `tls_server_config` to what rustls needs.

use std::{path::Path, sync::Arc};

use serde::Deserialize;
use tokio_rustls::rustls::{
    CipherSuite, NamedGroup, RootCertStore, ServerConfig, SupportedCipherSuite, SupportedProtocolVersion,
    crypto::{CryptoProvider, ring},
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    server::{WebPkiClientVerifier, danger::ClientCertVerifier},
    version::{TLS12, TLS13},
};

use super::WebError;
use crate::files::{self, FileError};

/// The keys that Prometheus' exporters know, and that rustls can follow.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct TlsServerConfig {
    cert: Option<String>,
    key: Option<String>,
    client_ca: Option<String>,
    cert_file: Option<String>,
    key_file: Option<String>,
    client_auth_type: ClientAuth,
    client_ca_file: Option<String>,
    min_version: Option<Version>,
    max_version: Option<Version>,
    cipher_suites: Option<Vec<String>>,
    prefer_server_cipher_suites: Option<bool>,
    curve_preferences: Option<Vec<Curve>>,
}

/// What is asked of a client's certificate. Go's other kinds check nothing; whoever names them is told so.
#[derive(Clone, Copy, Default, PartialEq, Eq, Deserialize)]
enum ClientAuth {
    #[default]
    #[serde(alias = "")]
    NoClientCert,
    VerifyClientCertIfGiven,
    RequireAndVerifyClientCert,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
enum Version {
    Tls12,
    Tls13,
}

#[derive(Clone, Copy, Deserialize)]
enum Curve {
    X25519,
    CurveP256,
    CurveP384,
}

impl Curve {
    const fn group(self) -> NamedGroup {
        match self {
            Self::X25519 => NamedGroup::X25519,
            Self::CurveP256 => NamedGroup::secp256r1,
            Self::CurveP384 => NamedGroup::secp384r1,
        }
    }
}

/// Where a piece comes from, for messages.
struct Piece {
    text: String,
    key: &'static str,
}

/// The server's side of TLS. `path` is the file with these keys; relative names are looked up in `directory`.
pub(super) fn configure(
    tls: &TlsServerConfig,
    path: &Path,
    directory: &Path,
) -> Result<Arc<ServerConfig>, WebError> {
    let unusable = |problem| WebError::Unusable { path: path.to_owned(), problem };
    let read = |inline: &Option<String>, file: &Option<String>, keys, reader| {
        piece(inline.as_deref(), file.as_deref(), keys, directory, reader).map_err(|error| match error {
            PieceError::File(error) => WebError::File(error),
            PieceError::Both(problem) => unusable(problem),
        })
    };
    let certificates = read(&tls.cert, &tls.cert_file, ["cert", "cert_file"], files::trusted)?;
    let key = read(&tls.key, &tls.key_file, ["key", "key_file"], files::secret)?;
    let authorities =
        read(&tls.client_ca, &tls.client_ca_file, ["client_ca", "client_ca_file"], files::trusted)?;
    build(tls, certificates, key, authorities).map_err(unusable)
}

enum PieceError {
    File(FileError),
    Both(String),
}

fn piece(
    inline: Option<&str>,
    file: Option<&str>,
    [key, file_key]: [&'static str; 2],
    directory: &Path,
    reader: fn(&Path) -> Result<String, FileError>,
) -> Result<Option<Piece>, PieceError> {
    let given = |text: &&str| !text.is_empty();
    match (inline.filter(given), file.filter(given)) {
        (Some(_), Some(_)) => {
            Err(PieceError::Both(format!("{key} and {file_key} are both given; leave one out")))
        }
        (Some(inline), None) => Ok(Some(Piece { text: inline.to_owned(), key })),
        (None, Some(file)) => {
            let text = reader(&directory.join(file)).map_err(PieceError::File)?;
            Ok(Some(Piece { text, key: file_key }))
        }
        (None, None) => Ok(None),
    }
}

fn build(
    tls: &TlsServerConfig,
    certificates: Option<Piece>,
    key: Option<Piece>,
    authorities: Option<Piece>,
) -> Result<Arc<ServerConfig>, String> {
    let certificates =
        certificates.ok_or("tls_server_config needs cert_file (or cert): the server's certificate")?;
    let key =
        key.ok_or("tls_server_config needs key_file (or key): the private key of the server's certificate")?;
    let private = PrivateKeyDer::from_pem_slice(key.text.as_bytes())
        .map_err(|_| format!("{} holds no private key in PEM form", key.key))?;
    let provider = Arc::new(provider(tls)?);
    let verifier = verifier(tls.client_auth_type, authorities, &provider)?;
    let builder = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&versions(tls)?)
        .map_err(|error| format!("cipher_suites and the TLS versions do not go together: {error}"))?;
    let builder = match verifier {
        Some(verifier) => builder.with_client_cert_verifier(verifier),
        None => builder.with_no_client_auth(),
    };
    let mut config = builder
        .with_single_cert(certificates_in(&certificates)?, private)
        .map_err(|error| format!("{} and {} do not go together: {error}", certificates.key, key.key))?;
    config.ignore_client_order = tls.prefer_server_cipher_suites.unwrap_or(true);
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

fn certificates_in(piece: &Piece) -> Result<Vec<CertificateDer<'static>>, String> {
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(piece.text.as_bytes()).collect();
    match certificates {
        Ok(certificates) if !certificates.is_empty() => Ok(certificates),
        Ok(_) | Err(_) => Err(format!("{} holds no certificate in PEM form", piece.key)),
    }
}

fn verifier(
    kind: ClientAuth,
    authorities: Option<Piece>,
    provider: &Arc<CryptoProvider>,
) -> Result<Option<Arc<dyn ClientCertVerifier>>, String> {
    let authorities = match (kind, authorities) {
        (ClientAuth::NoClientCert, None) => return Ok(None),
        (ClientAuth::NoClientCert, Some(_)) => {
            return Err(
                "client_ca_file is given, but no client is asked for a certificate; set client_auth_type: \
                        RequireAndVerifyClientCert"
                    .into(),
            );
        }
        (_, None) => {
            return Err(
                "client_auth_type asks for certificates that nobody could have; set client_ca_file".into()
            );
        }
        (_, Some(authorities)) => authorities,
    };
    let mut roots = RootCertStore::empty();
    for certificate in certificates_in(&authorities)? {
        let invalid = |error| format!("{} holds a certificate that cannot be used: {error}", authorities.key);
        roots.add(certificate).map_err(invalid)?;
    }
    let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone());
    let builder = match kind {
        ClientAuth::VerifyClientCertIfGiven => builder.allow_unauthenticated(),
        ClientAuth::NoClientCert | ClientAuth::RequireAndVerifyClientCert => builder,
    };
    builder.build().map(Some).map_err(|error| format!("{} cannot be used: {error}", authorities.key))
}

fn versions(tls: &TlsServerConfig) -> Result<Vec<&'static SupportedProtocolVersion>, String> {
    let lowest = tls.min_version.unwrap_or(Version::Tls12);
    let highest = tls.max_version.unwrap_or(Version::Tls13);
    if lowest > highest {
        return Err("min_version is above max_version; swap them".into());
    }
    let all = [(Version::Tls13, &TLS13), (Version::Tls12, &TLS12)];
    Ok(all
        .into_iter()
        .filter(|(version, _)| (lowest..=highest).contains(version))
        .map(|(_, one)| one)
        .collect())
}

/// What there is, narrowed to what is asked for. As with Go, the suites of TLS 1.3 cannot be chosen.
fn provider(tls: &TlsServerConfig) -> Result<CryptoProvider, String> {
    let mut provider = ring::default_provider();
    if let Some(names) = tls.cipher_suites.as_ref().filter(|names| !names.is_empty()) {
        let (known, mut suites): (Vec<SupportedCipherSuite>, Vec<_>) =
            provider.cipher_suites.iter().partition(|suite| matches!(suite, SupportedCipherSuite::Tls12(_)));
        for name in names {
            let suite = known.iter().find(|suite| go_name(suite.suite()) == *name).ok_or_else(|| {
                let known: Vec<_> = known.iter().map(|suite| go_name(suite.suite())).collect();
                format!("the cipher suite {name:?} is not supported; these are: {}", known.join(", "))
            })?;
            suites.push(*suite);
        }
        provider.cipher_suites = suites;
    }
    if let Some(curves) = tls.curve_preferences.as_ref().filter(|curves| !curves.is_empty()) {
        let find = |curve: &Curve| provider.kx_groups.iter().find(|group| group.name() == curve.group());
        provider.kx_groups = curves.iter().filter_map(find).copied().collect();
    }
    Ok(provider)
}

/// A suite's name is the same in Go, but for TLS 1.3.
fn go_name(suite: CipherSuite) -> String {
    suite.as_str().unwrap_or_default().to_owned()
}
