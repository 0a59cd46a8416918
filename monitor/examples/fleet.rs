//! Simulated hosts, each as the agent would show it: `fleet HOSTS PAIRS` serves them at `/0/metrics`, `/1/metrics` and so on,
//! and prints the address first. `cargo xtask bench` lets a Prometheus read them.

#[expect(dead_code, reason = "hosts have the usual pairs")]
#[path = "../tests/support/mix.rs"]
mod mix;
#[expect(dead_code, reason = "each program uses its part of it")]
#[path = "../tests/support/mod.rs"]
mod support;

use std::{env, sync::Arc, time::Instant};

use anyhow::{Context as _, Result};
use axum::Router;
use finwatch::export::http::{self, App};
use tokio::net::TcpListener;

#[tokio::main]
async fn main() -> Result<()> {
    let mut numbers = env::args().skip(1).map(|number| number.parse::<u32>());
    let mut number = || numbers.next().context("usage: fleet HOSTS PAIRS")?.context("a number");
    let (hosts, pairs) = (number()?, number()?);
    let begun = Instant::now();
    let mut router = Router::new();
    for host in 0..hosts {
        let app = Arc::new(App::starting("not yet"));
        app.ready(mix::exporter(&mix::USUAL, pairs, begun));
        router = router.nest(&format!("/{host}"), http::router(app));
    }
    let listener = TcpListener::bind("127.0.0.1:0").await.context("listening")?;
    println!("{}", listener.local_addr().context("the address")?);
    axum::serve(listener, router).await.context("serving")
}
