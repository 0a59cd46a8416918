//! What runs on the host, timed: judging the end of a connection, decoding an incident, and writing a scrape of 100, 1,000 and
//! 4,096 pairs.

#[expect(dead_code, reason = "pairs are the usual ones")]
#[path = "../tests/support/mix.rs"]
mod mix;
#[expect(dead_code, reason = "each program uses its part of it")]
#[path = "../tests/support/mod.rs"]
mod support;

use std::{
    hint::black_box,
    io,
    time::{Instant, SystemTime},
};

use criterion::{BenchmarkId, Criterion, Throughput};
use finwatch::{
    kernel::mapped::record,
    model::{
        incident::{IncidentRecord, Surroundings},
        labels::labels,
        names::Names,
    },
};
use finwatch_ebpf::{
    cause::{Cause, judge},
    evidence::Evidence,
    state::ESTABLISHED,
    wire::{CONN_OPENED, CONN_PROXY, CONN_RST, ClosedKey, Connection, Counter, Incident, NO_COUNTER},
};

const PAIRS: [u32; 3] = [100, 1_000, 4_096];
const GOODBYE: u32 = 80;
const HZ: u32 = 250;

/// A proxy's connection that a reset ends while a request waits.
fn cause(criterion: &mut Criterion) {
    let mut conn = Connection::connecting(2, false, &Evidence::default());
    conn.on_established(1);
    conn.flags |= CONN_RST;
    let evidence = Evidence {
        now: 100_000,
        hz: HZ,
        write_seq: 401,
        snd_nxt: 401,
        snd_una: 101,
        rcv_nxt: 201,
        copied_seq: 201,
        lsndtime: 99_000,
        lrcvtime: 90_001,
        data_segs_in: 1,
        bytes_sent: 400,
        bytes_received: 200,
        local_port: 40_000,
        err: 104,
        ..Evidence::default()
    };
    criterion.bench_function("judging the end of a connection", |bencher| {
        bencher.iter(|| {
            let mut conn = conn;
            judge(black_box(&mut conn), ESTABLISHED, black_box(&evidence), GOODBYE)
        });
    });
}

/// From the ring buffer's bytes to the line of JSON.
fn incidents(criterion: &mut Criterion) {
    let key = support::proxy_key(b"nginx", "127.0.0.1", 3_000);
    let incident = Incident {
        key,
        endpoints: ClosedKey {
            netns: 1,
            local_port: 43_512,
            remote_port: 3_000,
            local: key.upstream,
            remote: key.upstream,
        },
        flags: CONN_PROXY | CONN_OPENED | CONN_RST,
        counters: [Counter::ClosedReset as u8, Counter::LostNoFin as u8, NO_COUNTER, NO_COUNTER],
        cause: Cause::RequestWithoutFin as u8,
        death: Cause::RequestWithoutFin as u8,
        state: ESTABLISHED,
        // SAFETY: integers only; all zero is valid.
        ..unsafe { std::mem::zeroed() }
    };
    let pointer: *const Incident = &raw const incident;
    // SAFETY: as many bytes as the value has, which lives for longer.
    let bytes = unsafe { std::slice::from_raw_parts(pointer.cast::<u8>(), size_of::<Incident>()) };
    let names = Names::default();
    criterion.bench_function("an incident to a line of JSON", |bencher| {
        bencher.iter(|| {
            let incident: Incident = record(black_box(bytes)).expect("as many bytes as it has");
            let around = Surroundings {
                id: 1,
                clocks: (SystemTime::UNIX_EPOCH, 0),
                hz: HZ,
                pair: labels(&incident.key, &names, || "nginx.service".to_owned()),
                netns: "host".to_owned(),
                process: None,
                backend: None,
            };
            let record = IncidentRecord::read(&incident, around).expect("an anomaly");
            serde_json::to_string(&record).expect("serialisable")
        });
    });
}

fn scrapes(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("a scrape");
    for pairs in PAIRS {
        let exporter = mix::exporter(&mix::USUAL, pairs, Instant::now());
        group.throughput(Throughput::Elements(pairs.into()));
        group.bench_function(BenchmarkId::from_parameter(pairs), |bencher| {
            bencher.iter(|| exporter.write(&mut io::sink()));
        });
    }
    group.finish();
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    cause(&mut criterion);
    incidents(&mut criterion);
    scrapes(&mut criterion);
    criterion.final_summary();
}
