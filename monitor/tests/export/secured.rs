//! The web config: TLS, passwords, client certificates and their reload, with curl as client.

use std::{
    fs,
    net::SocketAddr,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
};

use finwatch::{
    export::{
        http::{self, App},
        server,
    },
    web::{Guarded, Web, guarded},
};
use rcgen::{BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
use tempfile::TempDir;
use tokio::task::JoinHandle;

use crate::support::{busy_pairs, exporter};

/// Some authority and what it has signed, as PEM.
pub(crate) struct Authority {
    pub(crate) certificate: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        // Clients tell an authority from what it has signed by their names.
        params.distinguished_name.push(DnType::CommonName, "authority");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key).expect("a certificate").pem();
        Self { certificate, issuer: Issuer::new(params, key) }
    }

    /// A certificate for 127.0.0.1 and its key.
    pub(crate) fn sign(&self, usage: ExtendedKeyUsagePurpose) -> (String, String) {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).expect("an address");
        params.distinguished_name.push(DnType::CommonName, "signed");
        params.extended_key_usages = vec![usage];
        (params.signed_by(&key, &self.issuer).expect("a certificate").pem(), key.serialize_pem())
    }
}

/// A directory with a web config and what it names; the owner's alone.
pub(crate) struct Files(TempDir);

impl Files {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().expect("a directory"))
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, text).expect("our own directory");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("our own file");
        path
    }

    /// The server's certificate and key, signed by the authority, whose own stands in `ca.pem`.
    pub(crate) fn server(&self, authority: &Authority) {
        let (certificate, key) = authority.sign(ExtendedKeyUsagePurpose::ServerAuth);
        self.write("server.pem", &certificate);
        self.write("server.key", &key);
        self.write("ca.pem", &authority.certificate);
    }

    fn client(&self, name: &str, authority: &Authority) {
        let (certificate, key) = authority.sign(ExtendedKeyUsagePurpose::ClientAuth);
        self.write(name, &format!("{certificate}{key}"));
    }
}

pub(crate) const TLS: &str = "tls_server_config:\n  cert_file: server.pem\n  key_file: server.key\n";

pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    web: Arc<Web>,
    task: JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Server {
    pub(crate) fn start(config: &Path) -> Self {
        let web = Arc::new(Web::load(Some(config)).expect("a valid web config"));
        let listener = server::bind(([127, 0, 0, 1], 0).into()).expect("a free port");
        let listener = tokio::net::TcpListener::from_std(listener).expect("within a runtime");
        let address = listener.local_addr().expect("an address");
        let app = Arc::new(App::starting("never"));
        app.ready(exporter(busy_pairs(3)));
        let routes = guarded(http::router(app), web.clone());
        let listener = Guarded::new(listener, web.clone());
        let task = tokio::spawn(server::serve(listener, routes, std::future::pending()));
        Self { address, web, task }
    }

    /// What curl says, which wants a flag's value as an argument of its own: the response's status, 0 where there was none, and its body.
    pub(crate) fn ask(&self, scheme: &str, path: &str, arguments: &[&str]) -> (u16, String) {
        let url = format!("{scheme}://{}{path}", self.address);
        let mut curl = Command::new("curl");
        curl.args(["--silent", "--max-time", "20", "--write-out", "\n%{http_code}"]);
        curl.args(arguments.iter().flat_map(|argument| argument.splitn(2, '='))).arg(url);
        let output = curl.output().expect("curl starts; `cargo xtask setup --for test` installs it");
        let text = String::from_utf8(output.stdout).expect("UTF-8");
        let (body, status) = text.rsplit_once('\n').expect("a status");
        (status.parse().expect("a number"), body.to_owned())
    }

    fn status(&self, path: &str, arguments: &[&str]) -> u16 {
        self.ask("https", path, arguments).0
    }
}

fn trusting(files: &Files) -> String {
    format!("--cacert={}", files.path("ca.pem").display())
}

#[tokio::test(flavor = "multi_thread")]
async fn every_path_wants_a_password() {
    let files = Files::new();
    files.server(&Authority::new());
    let hash = bcrypt::hash("spring", 4).expect("a hash");
    let headers = "http_server_config:\n  headers:\n    X-Frame-Options: deny\n";
    let config = files.write("web.yml", &format!("{TLS}basic_auth_users:\n  alice: {hash}\n{headers}"));
    let server = Server::start(&config);
    let trust = trusting(&files);
    for path in ["/", "/metrics", "/healthz", "/readyz", "/nothing"] {
        let expected = if path == "/nothing" { 404 } else { 200 };
        assert_eq!(server.status(path, &[&trust]), 401, "{path}: nobody");
        assert_eq!(server.status(path, &[&trust, "--user", "alice:winter"]), 401, "{path}: wrong");
        assert_eq!(server.status(path, &[&trust, "--user", "bob:spring"]), 401, "{path}: unknown");
        assert_eq!(server.status(path, &[&trust, "--user", "alice:spring"]), expected, "{path}: right");
    }
    let (_, told) = server.ask("https", "/metrics", &[&trust, "--include"]);
    for header in ["www-authenticate: Basic\r\n", "x-frame-options: deny\r\n"] {
        assert!(told.to_lowercase().contains(&header.to_lowercase()), "{told}");
    }
    assert!(!told.contains("finwatch_"), "{told}");
    let (_, metrics) = server.ask("https", "/metrics", &[&trust, "--user", "alice:spring"]);
    assert!(metrics.contains("\nfinwatch_connections_opened_total{"), "{metrics}");
}

#[tokio::test(flavor = "multi_thread")]
async fn passwords_need_no_tls() {
    let files = Files::new();
    let hash = bcrypt::hash("spring", 4).expect("a hash");
    let server = Server::start(&files.write("web.yml", &format!("basic_auth_users:\n  alice: {hash}\n")));
    assert_eq!(server.ask("http", "/healthz", &[]).0, 401);
    assert_eq!(server.ask("http", "/healthz", &["--user", "alice:spring"]), (200, "ok\n".into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_show_a_certificate_of_the_right_authority() {
    let (files, authority) = (Files::new(), Authority::new());
    files.server(&authority);
    files.client("right.pem", &authority);
    files.client("wrong.pem", &Authority::new());
    let (trust, right, wrong) = (trusting(&files), files.path("right.pem"), files.path("wrong.pem"));
    let (right, wrong) = (format!("--cert={}", right.display()), format!("--cert={}", wrong.display()));
    for (kind, nobody) in [("RequireAndVerifyClientCert", 0), ("VerifyClientCertIfGiven", 200)] {
        let clients = format!("  client_auth_type: {kind}\n  client_ca_file: ca.pem\n");
        let server = Server::start(&files.write("web.yml", &format!("{TLS}{clients}")));
        assert_eq!(server.status("/healthz", &[&trust]), nobody, "{kind}: nobody");
        assert_eq!(server.status("/healthz", &[&trust, &wrong]), 0, "{kind}: of another authority");
        assert_eq!(server.status("/healthz", &[&trust, &right]), 200, "{kind}: right");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotated_certificate_is_used_after_a_reload_and_a_broken_one_never() {
    let (files, first, second) = (Files::new(), Authority::new(), Authority::new());
    files.server(&first);
    let config = files.write("web.yml", TLS);
    let server = Server::start(&config);
    let trust = |authority: &Authority, name: &str| {
        format!("--cacert={}", files.write(name, &authority.certificate).display())
    };
    let (of_first, of_second) = (trust(&first, "first.pem"), trust(&second, "second.pem"));
    let trusted = || (server.status("/healthz", &[&of_first]), server.status("/healthz", &[&of_second]));
    assert_eq!(trusted(), (200, 0));
    files.server(&second);
    assert_eq!(trusted(), (200, 0), "nobody has asked for a reload");
    server.web.reload().expect("a valid web config");
    assert_eq!(trusted(), (0, 200));
    files.write("server.key", &first.sign(ExtendedKeyUsagePurpose::ServerAuth).1);
    let error = server.web.reload().expect_err("a key of another certificate").to_string();
    assert!(error.contains("cert_file and key_file do not go together"), "{error}");
    files.write("web.yml", "tls_server_config: [");
    server.web.reload().expect_err("no YAML");
    assert_eq!(trusted(), (0, 200), "what was stays");
    files.write("web.yml", "");
    server.web.reload().expect("an empty file asks for nothing");
    assert_eq!(server.ask("http", "/healthz", &[]).0, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn plain_http_is_told_to_use_tls() {
    let files = Files::new();
    files.server(&Authority::new());
    let server = Server::start(&files.write("web.yml", TLS));
    let (status, body) = server.ask("http", "/metrics", &[]);
    assert_eq!((status, body.trim()), (400, "this port speaks HTTPS; use https://"));
}

#[tokio::test(flavor = "multi_thread")]
async fn versions_and_suites_are_those_that_are_allowed() {
    let files = Files::new();
    files.server(&Authority::new());
    let trust = trusting(&files);
    let suite =
        "  cipher_suites: [TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256]\n  curve_preferences: [CurveP256]\n";
    for (allowed, old, new) in
        [("  max_version: TLS12\n", 200, 0), ("  min_version: TLS13\n", 0, 200), (suite, 200, 200)]
    {
        let server = Server::start(&files.write("web.yml", &format!("{TLS}{allowed}")));
        assert_eq!(server.status("/healthz", &[&trust, "--tls-max", "1.2"]), old, "{allowed}");
        assert_eq!(server.status("/healthz", &[&trust, "--tlsv1.3"]), new, "{allowed}");
        let other = ["--tls-max", "1.2", "--ciphers", "ECDHE-ECDSA-AES256-GCM-SHA384", &trust];
        let expected = if allowed == suite { 0 } else { old };
        assert_eq!(server.status("/healthz", &other), expected, "{allowed}");
    }
}

#[test]
fn mistakes_are_told_in_one_sentence_without_secrets() {
    let files = Files::new();
    files.server(&Authority::new());
    let hash = bcrypt::hash("spring", 4).expect("a hash");
    let users = format!("basic_auth_users:\n  alice: {hash}\n");
    let refused = |text: &str, about: &[&str]| {
        let config = files.write("web.yml", text);
        let Err(error) = Web::load(Some(&config)) else { panic!("it was taken:\n{text}") };
        let error = error.to_string();
        assert!(!error.contains('\n') && !error.contains(&hash), "{error}");
        for word in about {
            assert!(error.contains(word), "it names {word}: {error}");
        }
    };
    refused(&format!("{users}basic_auth_user: {{}}\n"), &["line 3", "unknown key", "basic_auth_user"]);
    refused(&format!("{users}  alice: {hash}\n"), &["line 3", "alice"]);
    refused(&format!("{users}- {hash}\n"), &["web.yml, line"]);
    refused(&format!("{users}tls_server_config: {hash}\n"), &["line 3"]);
    refused("tls_server_config: {}\n", &["cert_file"]);
    refused(&format!("{TLS}  key: x\n"), &["key and key_file are both given"]);
    refused(
        &format!("{TLS}  client_auth_type: RequireAnyClientCert\n"),
        &["line 4", "RequireAndVerifyClientCert"],
    );
    refused(&format!("{TLS}  client_auth_type: RequireAndVerifyClientCert\n"), &["client_ca_file"]);
    refused(&format!("{TLS}  client_ca_file: ca.pem\n"), &["client_auth_type"]);
    refused(&format!("{TLS}  min_version: TLS10\n"), &["line 4", "TLS12"]);
    refused(
        &format!("{TLS}  min_version: TLS13\n  max_version: TLS12\n"),
        &["min_version is above max_version"],
    );
    refused(&format!("{TLS}  cipher_suites: [RC4]\n"), &["RC4", "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384"]);
    refused(&format!("{TLS}  client_allowed_sans: [x]\n"), &["line 4", "client_allowed_sans"]);
    refused("http_server_config:\n  headers: {Server: x}\n", &["Server", "X-Frame-Options"]);
    refused("http_server_config:\n  headers: {X-Frame-Options: allow}\n", &["deny or sameorigin"]);
    refused("basic_auth_users:\n  alice: spring\n", &["alice", "htpasswd"]);
    refused(
        "tls_server_config: {cert_file: missing.pem, key_file: server.key}\n",
        &["missing.pem", "No such file"],
    );
    refused(
        "tls_server_config: {cert_file: server.key, key_file: server.key}\n",
        &["cert_file holds no certificate"],
    );
    refused(
        "tls_server_config: {cert_file: server.pem, key_file: server.pem}\n",
        &["key_file holds no private key"],
    );
}

#[test]
fn files_that_others_may_use_are_refused() {
    let files = Files::new();
    files.server(&Authority::new());
    let config = files.write("web.yml", TLS);
    Web::load(Some(&config)).expect("a valid web config");
    for (name, mode) in [("web.yml", 0o644), ("server.key", 0o604), ("server.pem", 0o666)] {
        let open =
            |mode| fs::set_permissions(files.path(name), fs::Permissions::from_mode(mode)).expect("our own");
        open(mode);
        let Err(error) = Web::load(Some(&config)) else { panic!("{name} was taken") };
        let error = error.to_string();
        assert!(error.contains(name) && error.contains("chmod o") && error.lines().count() == 1, "{error}");
        open(0o600);
    }
}
