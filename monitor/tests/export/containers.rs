//! Names of pods and containers, from servers that speak the APIs of Kubernetes and Docker.

use std::{
    collections::{BTreeSet, HashMap},
    path::PathBuf,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use axum::{
    Json, Router,
    extract::{Path, Query, State},
    http::{HeaderMap, StatusCode},
    response::{IntoResponse as _, Response},
    routing::get,
};
use finwatch::{
    containers::{Containers, Docker, Kubernetes, KubernetesOptions, Resolver, Source},
    export::server,
    web::{Guarded, Web},
};
use serde_json::json;
use tokio::{
    net::{TcpListener, UnixListener},
    task::JoinSet,
    time::{sleep, timeout},
};

use crate::secured::{Authority, Files, TLS};

const UID: &str = "1b2c3d4e-0000-1111-2222-333344445555";
const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
const PATIENCE: Duration = Duration::from_secs(30);

/// An API server with one node, whose pods it lists for whoever has the token.
#[derive(Default)]
struct Cluster {
    token: Mutex<String>,
    container: Mutex<String>,
    lists: AtomicU64,
    away: AtomicBool,
    refused: AtomicU64,
}

async fn pods(
    State(cluster): State<Arc<Cluster>>,
    Query(query): Query<HashMap<String, String>>,
    headers: HeaderMap,
) -> Response {
    cluster.lists.fetch_add(1, Ordering::SeqCst);
    if cluster.away.load(Ordering::SeqCst) {
        cluster.refused.fetch_add(1, Ordering::SeqCst);
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    }
    let bearer = format!("Bearer {}", cluster.token.lock().expect("no panic"));
    if headers.get("authorization").is_none_or(|token| token != bearer.as_str()) {
        cluster.refused.fetch_add(1, Ordering::SeqCst);
        let status = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "Unauthorized", "code": 401});
        return (StatusCode::UNAUTHORIZED, Json(status)).into_response();
    }
    let pod = json!({
        "metadata": {"name": "web-7d9f", "namespace": "shop", "uid": UID, "labels": {"app": "web"}},
        "spec": {"nodeName": "node-1", "containers": [{"name": "app", "image": "web:1"}]},
        "status": {"phase": "Running", "containerStatuses": [{
            "name": "app", "ready": true, "restartCount": 0, "image": "web:1", "imageID": "sha256:1",
            "containerID": *cluster.container.lock().expect("no panic"),
        }]},
    });
    // Another node's pods are none of ours.
    let ours = query.get("fieldSelector").is_some_and(|selector| selector == "spec.nodeName=node-1");
    let items = if ours { vec![pod] } else { Vec::new() };
    Json(json!({"kind": "PodList", "apiVersion": "v1", "metadata": {"resourceVersion": "1452"}, "items": items})).into_response()
}

fn routes(cluster: &Arc<Cluster>) -> Router {
    Router::new().route("/api/v1/pods", get(pods)).with_state(cluster.clone())
}

fn cluster() -> Arc<Cluster> {
    let cluster = Cluster::default();
    "first".clone_into(&mut cluster.token.lock().expect("no panic"));
    *cluster.container.lock().expect("no panic") = format!("containerd://{ID}");
    Arc::new(cluster)
}

fn kubernetes(api: String, files: &Files, node: &str) -> Kubernetes {
    Kubernetes::new(&KubernetesOptions {
        api: Some(api),
        token: Some(files.path("token")),
        authority: Some(files.path("ca.pem")),
        node: Some(node.to_owned()),
    })
    .expect("a server")
}

/// A container engine that never comes.
fn no_engine(files: &Files) -> Docker {
    Docker::at(files.path("none.sock"))
}

fn need(containers: &Containers, workloads: &[&str]) {
    containers.need(&workloads.iter().map(|workload| Arc::from(*workload)).collect::<BTreeSet<_>>());
}

fn shown(containers: &Containers, workload: &str) -> String {
    containers.name(workload.into()).to_string()
}

async fn until(what: &str, done: impl Fn() -> bool) {
    let waiting = async {
        while !done() {
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(PATIENCE, waiting).await.unwrap_or_else(|_| panic!("not within {PATIENCE:?}: {what}"));
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_of_this_node_are_named_over_tls() {
    let (files, cluster, mut tasks) = (Files::new(), cluster(), JoinSet::new());
    files.server(&Authority::new());
    files.write("token", "first\n");
    let web = Arc::new(Web::load(Some(&files.write("web.yml", TLS))).expect("a web config"));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let api = format!("https://{}", listener.local_addr().expect("an address"));
    tasks.spawn(server::serve(Guarded::new(listener, web), routes(&cluster), std::future::pending()));
    let containers = Arc::new(Containers::default());
    tasks.spawn(
        Resolver::new(containers.clone(), no_engine(&files), Some(kubernetes(api, &files, "node-1"))).run(),
    );

    let (container, pod) = (format!("pod/{UID}/{}", &ID[..12]), format!("pod/{UID}"));
    let id = "container/aaaaaaaaaaaa";
    assert_eq!(shown(&containers, &container), container, "an id as long as nothing is known");
    need(&containers, &[&container, &pod, id, "nginx.service"]);
    until("both are named", || shown(&containers, &container) == "shop/web-7d9f/app").await;
    assert_eq!(shown(&containers, &pod), "shop/web-7d9f");
    assert_eq!(shown(&containers, id), id, "not a pod's");
    assert_eq!((cluster.lists.load(Ordering::SeqCst), containers.errors(Source::Kubernetes)), (1, 0));

    // The container is replaced, and the token as well.
    let (second, again) = ("b".repeat(64), format!("pod/{UID}/bbbbbbbbbbbb"));
    *cluster.container.lock().expect("no panic") = format!("containerd://{second}");
    "second".clone_into(&mut cluster.token.lock().expect("no panic"));
    files.write("token", "second");
    need(&containers, &[&container, &again]);
    until("the new one is named", || shown(&containers, &again) == "shop/web-7d9f/app").await;
    assert_eq!(shown(&containers, &container), "shop/web-7d9f/app", "a name stays as long as its workload");
    assert_eq!(containers.errors(Source::Kubernetes), 0);
    need(&containers, &[&again]);
    assert_eq!(shown(&containers, &container), container, "nobody needs it any more");
}

#[tokio::test(flavor = "multi_thread")]
async fn ids_are_shown_while_the_server_is_away_or_refuses() {
    let (files, cluster, mut tasks) = (Files::new(), cluster(), JoinSet::new());
    files.write("token", "wrong");
    cluster.away.store(true, Ordering::SeqCst);
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let api = format!("http://{}", listener.local_addr().expect("an address"));
    tasks.spawn(server::serve(listener, routes(&cluster), std::future::pending()));
    let containers = Arc::new(Containers::default());
    let workload = format!("pod/{UID}/{}", &ID[..12]);
    need(&containers, &[&workload]);
    let asked = kubernetes(api, &files, "node-1");
    tasks.spawn(Resolver::new(containers.clone(), no_engine(&files), Some(asked)).run());
    let refused = || cluster.refused.load(Ordering::SeqCst);
    until("it is away", || refused() > 0).await;
    let while_away = refused();
    cluster.away.store(false, Ordering::SeqCst);
    until("the token is refused", || refused() > while_away).await;
    assert_eq!(shown(&containers, &workload), workload);
    files.write("token", "first");
    until("the name comes", || shown(&containers, &workload) == "shop/web-7d9f/app").await;
    assert_eq!(containers.errors(Source::Kubernetes), refused());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_of_another_authority_is_told_nothing() {
    let (files, cluster, mut tasks) = (Files::new(), cluster(), JoinSet::new());
    files.server(&Authority::new());
    files.write("token", "first");
    let web = Arc::new(Web::load(Some(&files.write("web.yml", TLS))).expect("a web config"));
    files.write("ca.pem", &Authority::new().certificate);
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let api = format!("https://{}", listener.local_addr().expect("an address"));
    tasks.spawn(server::serve(Guarded::new(listener, web), routes(&cluster), std::future::pending()));
    let containers = Arc::new(Containers::default());
    need(&containers, &[&format!("pod/{UID}")]);
    tasks.spawn(
        Resolver::new(containers.clone(), no_engine(&files), Some(kubernetes(api, &files, "node-1"))).run(),
    );
    until("it is not trusted", || containers.errors(Source::Kubernetes) > 0).await;
    assert_eq!(cluster.lists.load(Ordering::SeqCst), 0);
}

async fn container(State(asked): State<Arc<AtomicU64>>, Path(id): Path<String>) -> Response {
    if !ID.starts_with(&id) {
        let message = json!({"message": format!("No such container: {id}")});
        return (StatusCode::NOT_FOUND, Json(message)).into_response();
    }
    asked.fetch_add(1, Ordering::SeqCst);
    Json(json!({"Id": ID, "Name": "/shop-web-1", "Config": {"Labels": {}}, "State": {"Status": "running"}}))
        .into_response()
}

#[tokio::test(flavor = "multi_thread")]
async fn containers_are_named_by_their_engine() {
    let (files, asked, mut tasks) = (Files::new(), Arc::new(AtomicU64::new(0)), JoinSet::new());
    let socket: PathBuf = files.path("docker.sock");
    let routes = Router::new().route("/containers/{id}/json", get(container)).with_state(asked.clone());
    let containers = Arc::new(Containers::default());
    tasks.spawn(Resolver::new(containers.clone(), Docker::at(socket.clone()), None).run());
    let (known, gone) = (format!("container/{}", &ID[..12]), "container/ffffffffffff");
    need(&containers, &[&known, gone, "pod/0123456789abcdef0123456789abcdef"]);
    // The engine comes later.
    sleep(Duration::from_millis(1500)).await;
    assert_eq!(shown(&containers, &known), known);
    let listener = UnixListener::bind(&socket).expect("our own directory");
    tasks.spawn(server::serve(listener, routes, std::future::pending()));
    until("it is named", || shown(&containers, &known) == "container/shop-web-1").await;
    assert_eq!(shown(&containers, gone), gone);
    assert_eq!((asked.load(Ordering::SeqCst), containers.errors(Source::Docker)), (1, 0), "known is known");
}

#[test]
fn what_kubernetes_needs_is_told() {
    let told = |api: Option<&str>, node: Option<&str>| {
        let options = KubernetesOptions {
            api: api.map(ToOwned::to_owned),
            node: node.map(ToOwned::to_owned),
            ..KubernetesOptions::default()
        };
        Kubernetes::new(&options).map(drop).map_err(|error| error.to_string())
    };
    assert!(told(Some("https://10.0.0.1:6443"), None).expect_err("no node").contains("--node-name"));
    assert!(told(None, Some("node-1")).expect_err("no server").contains("--kubernetes-api"));
    for bad in ["10.0.0.1:6443", "ftp://10.0.0.1", "nonsense nonsense"] {
        assert!(told(Some(bad), Some("node-1")).expect_err("no address").contains(bad));
    }
    assert_eq!(told(Some("https://[fd00::1]:6443"), Some("node-1")), Ok(()));
}
