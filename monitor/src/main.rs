//! The `finwatch` command.

use finwatch::{
    kernel::loader::{Kernel, Options},
    model::source::PairSource as _,
};
use finwatch_ebpf::wire::Counter;

fn main() {
    let t = std::time::Instant::now();
    let options = Options {
        max_pairs: 4096,
        max_connections: 131072,
        goodbye_bytes: 80,
        incidents_per_second: 10,
        proxy_ranges: [
            "127.0.0.0/8".parse().unwrap(),
            "::1/128".parse().unwrap(),
            "10.0.0.0/8".parse().unwrap(),
        ]
        .to_vec(),
        include_ports: vec![],
        exclude_ports: vec![],
        include_nets: vec![],
        exclude_nets: vec![],
        no_request_rules: vec![],
        host_netns_only: false,
        debug: false,
    };
    let k = match Kernel::start(&options) {
        Ok(k) => k,
        Err(e) => {
            eprintln!("{e}");
            let mut s: &dyn std::error::Error = &e;
            while let Some(n) = s.source() {
                eprintln!("{n}");
                s = n;
            }
            std::process::exit(1)
        }
    };
    eprintln!("ready {:?}", t.elapsed());
    for h in &k.hooks {
        eprintln!("{} {:?} {:?}", h.hook.tracepoint, h.mode, h.error.as_ref().map(|e| e.to_string()));
    }
    for _ in 0..std::env::args().nth(1).map_or(5, |n| n.parse().unwrap()) {
        std::thread::sleep(std::time::Duration::from_secs(1));
    }
    for slot in 0..k.tables.slots() {
        let Some(key) = k.tables.key(slot) else { continue };
        println!(
            "{slot} side {} {} -> {:?}:{} cgroup {} tracked {}",
            key.side,
            String::from_utf8_lossy(&key.proxy),
            std::net::Ipv6Addr::from(key.upstream),
            key.port,
            key.cgroup,
            k.tables.tracked(slot)
        );
        for c in 0..34u8 {
            let c: Counter = unsafe { std::mem::transmute(c) };
            let n = k.tables.counter(slot, c);
            if n > 0 {
                println!("   {c:?} {n}");
            }
        }
    }
    println!("{:?}", k.tables.totals());
    println!("{:?}", finwatch::kernel::programs::statistics(&k.ebpf));
    println!(
        "{}",
        std::fs::read_to_string("/proc/self/status")
            .unwrap()
            .lines()
            .filter(|l| l.starts_with("VmRSS") || l.starts_with("VmHWM"))
            .collect::<Vec<_>>()
            .join(" ")
    );
}
