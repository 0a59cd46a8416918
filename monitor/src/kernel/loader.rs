//! Loads the programs, fills their maps and attaches them; dropping [`Kernel`] detaches everything.

use std::{
    fs,
    hash::{BuildHasher as _, RandomState},
    net::IpAddr,
    os::unix::fs::MetadataExt as _,
};

use aya::{
    Btf as AyaBtf, Ebpf, EbpfLoader, Pod,
    maps::{HashMap, LpmTrie, MapData, MapError, RingBuf, Stack, lpm_trie::Key},
};
use finwatch_ebpf::{
    live,
    offsets::Offsets,
    wire::{
        CLOSED_WAYS, EndpointKey, FEATURE_PREEMPTIBLE, FEATURE_REQUESTS, FEATURE_TYPED_CGROUP,
        FEATURE_TYPED_TASK, FILTER_EXCLUDE_NETS, FILTER_EXCLUDE_PORTS, FILTER_INCLUDE_NETS,
        FILTER_INCLUDE_PORTS, FILTER_NETNS, FILTER_NO_REQUEST_RULES, FIRST_FREE_SLOT, PairKey, RULE_EXCLUDE,
        RULE_INCLUDE, Settings,
    },
};
use ipnet::IpNet;

use crate::{memory, model::source::HookMode};

use super::{
    attaching::{Attached, attach},
    btf::Btf,
    error::KernelError,
    expiry::Expiry,
    hooks::{HookKind, Precision, is_required, locate, preemptible, wanted},
    mapped::Tables,
    reader::Reader,
    rights,
    rounds::Parts,
};

/// Where the kernel publishes its types.
pub const BTF_PATH: &str = "/sys/kernel/btf/vmlinux";
/// The eBPF object, built by `build.rs`.
pub(super) static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/finwatch-probes"));
const MAPPED_V4_PREFIX: u32 = 96;

/// What the programs are told, and how large their tables are.
#[derive(Clone, Debug)]
pub struct Options {
    /// Pairs with a record of their own.
    pub max_pairs: u32,
    /// Connections tracked at once.
    pub max_connections: u32,
    /// Bytes after the peer's FIN up to which a protocol's goodbye is assumed.
    pub goodbye_bytes: u32,
    /// Incidents a pair may report per second.
    pub incidents_per_second: u32,
    /// Remote proxies told apart by address.
    pub proxy_ranges: Vec<IpNet>,
    /// Ports of the accepting end; when any is named, all others are left out.
    pub include_ports: Vec<u16>,
    /// Ports of the accepting end that are left out.
    pub exclude_ports: Vec<u16>,
    /// Networks of the remote end; when any is named, all others are left out. The longest prefix decides.
    pub include_nets: Vec<IpNet>,
    /// Networks of the remote end that are left out.
    pub exclude_nets: Vec<IpNet>,
    /// Ports, or addresses with ports, to which the rules about requests do not apply.
    pub no_request_rules: Vec<(Option<IpAddr>, u16)>,
    /// Only the network namespace that the agent runs in.
    pub own_netns_only: bool,
    /// Requests are followed so exactly, or not at all.
    pub requests: Option<Precision>,
    /// Diagnostics from the programs.
    pub debug: bool,
}

/// The programs at work.
pub struct Kernel {
    /// Holds programs, links and maps.
    pub ebpf: Ebpf,
    /// The records.
    pub tables: std::sync::Arc<Tables>,
    /// What is attached.
    pub hooks: Vec<Attached>,
    /// Anomalies on their way here.
    pub incidents: RingBuf<MapData>,
    /// Drops pairs without sockets.
    pub expiry: Expiry,
    /// Reads how things stand; `None` where there is no way to it.
    pub levels: Option<Parts>,
}

impl Kernel {
    /// Brings everything up: attached on return, or nothing is.
    ///
    /// # Errors
    /// One sentence with the remedy. A hook that is not required and cannot be attached is no error.
    pub fn start(options: &Options) -> Result<Self, KernelError> {
        let missing = rights::missing();
        if !missing.is_empty() {
            return Err(KernelError::Rights(rights::remedy(&missing)));
        }
        if let Some(files) = rights::too_few_files() {
            return Err(KernelError::OpenFiles(files));
        }
        let data = fs::read(BTF_PATH).map_err(KernelError::NoBtf)?;
        let btf = Btf::parse(&data)?;
        let offsets = offsets(&btf)?;
        let hooks = wanted(&btf, options.requests);
        let preemptible = preemptible(&btf);
        let settings = settings(options, features(&btf, preemptible));
        drop(data);
        let aya_btf = AyaBtf::from_sys_fs()?;
        let mut ebpf = load(options, &aya_btf, &offsets, &settings)?;
        let slots = options.max_pairs + FIRST_FREE_SLOT;
        fill(&mut ebpf, options, slots)?;
        let requests = if options.requests.is_some() { Some(map(&ebpf, "REQUESTS")?) } else { None };
        let tables = Tables::map(
            (map(&ebpf, "PAIRS")?, map(&ebpf, "IN_USE")?, slots),
            map(&ebpf, "OWNERS")?,
            map(&ebpf, "TOTALS")?,
            requests,
        );
        let tables = std::sync::Arc::new(tables.map_err(KernelError::Mapping)?);
        let index: HashMap<_, PairKey, u32> = typed(&mut ebpf, "PAIR_INDEX")?;
        let free: Stack<_, u32> = typed(&mut ebpf, "FREE_SLOTS")?;
        let incidents = typed(&mut ebpf, "INCIDENTS")?;
        let expiry = Expiry::new(tables.clone(), index, free);
        let mut hooks = attach(&mut ebpf, &aya_btf, hooks, preemptible)?;
        drop(aya_btf);
        memory::give_back();
        let levels = levels(&mut ebpf, &tables, options, &settings, &mut hooks)?;
        Ok(Self { ebpf, tables, hooks, incidents, expiry, levels })
    }
}

fn offsets(btf: &Btf<'_>) -> Result<Offsets, KernelError> {
    let located = locate(btf);
    let missing: Vec<_> = located
        .iter()
        .filter(|(field, offset)| offset.is_none() && is_required(field))
        .map(|(field, _)| *field)
        .collect();
    if !missing.is_empty() {
        return Err(KernelError::MissingFields(missing));
    }
    let numbers: Vec<u32> = located.iter().map(|(_, offset)| offset.unwrap_or(0)).collect();
    Ok(whole_ways(Offsets::from_slice(&numbers).expect("one number per field")))
}

/// Fields are read one after the other: where one on the way is missing, the programs are told that there is no way at
/// all. They would read something else at its place, or the kernel would refuse them.
fn whole_ways(mut offsets: Offsets) -> Offsets {
    if [offsets.cgroup_kn, offsets.kn_id].contains(&0) {
        offsets.cgroup_data = 0;
    }
    if [offsets.mm, offsets.file_dentry, offsets.dentry_name].contains(&0) {
        offsets.exe_file = 0;
    }
    offsets
}

/// How many sets the table of closed connections has, so that it holds `connections` at least.
fn closed_sets(connections: u32) -> u32 {
    let ways = u32::try_from(CLOSED_WAYS).expect("a handful");
    connections.div_ceil(ways).next_power_of_two()
}

/// How many entries the table of closed connections has room for, where `connections` may be tracked.
pub fn closed_limit(connections: u32) -> u64 {
    u64::from(closed_sets(connections)) * CLOSED_WAYS as u64
}

/// What this kernel lets the programs do in the quick way, and what it lets others do to them.
fn features(btf: &Btf<'_>, preemptible: bool) -> u32 {
    let flag = |set: bool, bit: u32| if set { bit } else { 0 };
    flag(btf.has_function("bpf_get_current_task_btf"), FEATURE_TYPED_TASK)
        | flag(btf.offset_of("sock_cgroup_data", "cgroup").is_some(), FEATURE_TYPED_CGROUP)
        | flag(preemptible, FEATURE_PREEMPTIBLE)
}

fn settings(options: &Options, features: u32) -> Settings {
    let flag = |set: bool, bit: u32| if set { bit } else { 0 };
    Settings {
        hz: jiffies_per_second(),
        goodbye_bytes: options.goodbye_bytes,
        filter: flag(!options.include_ports.is_empty(), FILTER_INCLUDE_PORTS)
            | flag(!options.exclude_ports.is_empty(), FILTER_EXCLUDE_PORTS)
            | flag(!options.include_nets.is_empty(), FILTER_INCLUDE_NETS)
            | flag(!options.exclude_nets.is_empty(), FILTER_EXCLUDE_NETS)
            | flag(!options.no_request_rules.is_empty(), FILTER_NO_REQUEST_RULES)
            | flag(options.own_netns_only, FILTER_NETNS),
        features: features | flag(options.requests.is_some(), FEATURE_REQUESTS),
        closed_mask: closed_sets(options.max_connections) - 1,
        // Of this run's own: nobody outside can choose ends that meet in one set.
        closed_seed: u32::try_from(RandomState::new().hash_one(0_u8) >> 32).expect("half of it"),
        max_pairs: options.max_pairs,
        max_connections: options.max_connections,
        places_mask: live::places(options.max_connections) - 1,
        netns: own_netns(),
        incidents_per_second: options.incidents_per_second,
    }
}

/// The kernel's HZ: the coarse clock ticks once per jiffy.
/// <https://github.com/torvalds/linux/blob/v6.12/kernel/time/posix-timers.c#L229-L233>
pub fn jiffies_per_second() -> u32 {
    const NS_PER_SECOND: i64 = 1_000_000_000;
    let mut resolution = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is to a timespec of ours.
    let result = unsafe { libc::clock_getres(libc::CLOCK_MONOTONIC_COARSE, &raw mut resolution) };
    assert!(result == 0 && resolution.tv_nsec > 0, "every kernel has the coarse clock");
    // TICK_NSEC is rounded, so the division is rounded too.
    let hz = (NS_PER_SECOND + resolution.tv_nsec / 2) / resolution.tv_nsec;
    u32::try_from(hz).expect("HZ is at most 1000")
}

/// The inode number of this host's network namespace: that of PID 1, else our own.
pub fn host_netns() -> u32 {
    netns_of("1").unwrap_or_else(own_netns)
}

/// The inode number of the network namespace that the agent runs in.
pub fn own_netns() -> u32 {
    netns_of("self").unwrap_or(0)
}

fn netns_of(process: &str) -> Option<u32> {
    let inode = fs::metadata(format!("/proc/{process}/ns/net")).ok()?.ino();
    u32::try_from(inode).ok()
}

fn load(
    options: &Options,
    btf: &AyaBtf,
    offsets: &Offsets,
    settings: &Settings,
) -> Result<Ebpf, KernelError> {
    let at_least_one = |entries: usize| u32::try_from(entries.max(1)).unwrap_or(u32::MAX);
    let where_followed = |entries: u32| if options.requests.is_some() { entries } else { 1 };
    let log_level: u8 = if options.debug { aya_log::Level::Debug as u8 } else { 0 };
    let mut loader = EbpfLoader::new();
    loader
        .btf(Some(btf))
        .override_global("OFFSETS", offsets, true)
        .override_global("SETTINGS", settings, true)
        .override_global(aya_log::LEVEL, &log_level, true)
        .map_max_entries("CONNECTIONS", settings.places_mask + 1)
        .map_max_entries("ELSEWHERE", options.max_connections)
        .map_max_entries("CLOSED", settings.closed_mask + 1)
        .map_max_entries("PAIRS", options.max_pairs + FIRST_FREE_SLOT)
        .map_max_entries("IN_USE", options.max_pairs + FIRST_FREE_SLOT)
        .map_max_entries("LEVELS", options.max_pairs + FIRST_FREE_SLOT)
        .map_max_entries("EXCHANGES", where_followed(options.max_connections))
        .map_max_entries("REQUESTS", where_followed(options.max_pairs + FIRST_FREE_SLOT))
        .map_max_entries("PROCESSES", options.max_connections)
        .map_max_entries("PAIR_INDEX", options.max_pairs)
        .map_max_entries("FREE_SLOTS", options.max_pairs)
        .map_max_entries("PROXY_RANGES", at_least_one(options.proxy_ranges.len()))
        .map_max_entries("NETS", at_least_one(options.include_nets.len() + options.exclude_nets.len()))
        .map_max_entries("PORTS", at_least_one(options.include_ports.len() + options.exclude_ports.len()))
        .map_max_entries("NO_REQUEST_RULES", at_least_one(options.no_request_rules.len()));
    Ok(loader.load(OBJECT)?)
}

fn fill(ebpf: &mut Ebpf, options: &Options, slots: u32) -> Result<(), KernelError> {
    let mut free: Stack<_, u32> =
        Stack::try_from(ebpf.map_mut("FREE_SLOTS").ok_or(KernelError::Foreign("FREE_SLOTS"))?)?;
    for slot in (FIRST_FREE_SLOT..slots).rev() {
        free.push(slot, 0)?;
    }
    networks(ebpf, "PROXY_RANGES", &options.proxy_ranges, RULE_INCLUDE)?;
    networks(ebpf, "NETS", &options.include_nets, RULE_INCLUDE)?;
    networks(ebpf, "NETS", &options.exclude_nets, RULE_EXCLUDE)?;
    let include = options.include_ports.iter().map(|port| (port, RULE_INCLUDE));
    let exclude = options.exclude_ports.iter().map(|port| (port, RULE_EXCLUDE));
    for (port, rule) in include.chain(exclude) {
        hash::<u32, u32>(ebpf, "PORTS")?.insert(u32::from(*port), rule, 0)?;
    }
    for (address, port) in &options.no_request_rules {
        let address = address.map_or([0; 16], mapped);
        hash::<EndpointKey, u32>(ebpf, "NO_REQUEST_RULES")?.insert(
            EndpointKey { address, port: u32::from(*port) },
            1,
            0,
        )?;
    }
    Ok(())
}

fn networks(ebpf: &mut Ebpf, name: &'static str, nets: &[IpNet], rule: u32) -> Result<(), KernelError> {
    let mut trie: LpmTrie<_, [u8; 16], u32> =
        LpmTrie::try_from(ebpf.map_mut(name).ok_or(KernelError::Foreign(name))?)?;
    for net in nets {
        let prefix = match net {
            IpNet::V4(net) => MAPPED_V4_PREFIX + u32::from(net.prefix_len()),
            IpNet::V6(net) => u32::from(net.prefix_len()),
        };
        trie.insert(&Key::new(prefix, mapped(net.network())), rule, 0)?;
    }
    Ok(())
}

/// An address as the programs see it: IPv4 as `::ffff:a.b.c.d`.
fn mapped(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped(),
        IpAddr::V6(address) => address,
    }
    .octets()
}

/// What reading the sockets needs: by the iterator, else by netlink. Notes in `hooks` what became of it.
fn levels(
    ebpf: &mut Ebpf,
    tables: &std::sync::Arc<Tables>,
    options: &Options,
    settings: &Settings,
    hooks: &mut [Attached],
) -> Result<Option<Parts>, KernelError> {
    let iterator = hooks.iter_mut().find(|attached| attached.hook.kind == HookKind::Iterator);
    let attached = iterator.ok_or(KernelError::Foreign("iterator"))?;
    if attached.mode != HookMode::Off {
        match Reader::iterator(ebpf, tables) {
            Ok(reader) => return Parts::take(ebpf, reader, tables, options).map(Some),
            Err(error) => attached.error = Some(error),
        }
    }
    match Reader::netlink(ebpf, tables, options, settings) {
        Ok(reader) => {
            attached.mode = HookMode::Partial;
            Parts::take(ebpf, reader, tables, options).map(Some)
        }
        Err(error) => {
            tracing::debug!(%error, "the sockets cannot be listed");
            attached.mode = HookMode::Off;
            Ok(None)
        }
    }
}

fn map<'a>(ebpf: &'a Ebpf, name: &'static str) -> Result<&'a MapData, KernelError> {
    match ebpf.map(name) {
        Some(aya::maps::Map::Array(data)) => Ok(data),
        _ => Err(KernelError::Foreign(name)),
    }
}

fn hash<'a, K: Pod, V: Pod>(
    ebpf: &'a mut Ebpf,
    name: &'static str,
) -> Result<HashMap<&'a mut MapData, K, V>, KernelError> {
    Ok(HashMap::try_from(ebpf.map_mut(name).ok_or(KernelError::Foreign(name))?)?)
}

/// Takes an array out of the object that the agent maps into its memory.
pub(super) fn take_array(ebpf: &mut Ebpf, name: &'static str) -> Result<MapData, KernelError> {
    match ebpf.take_map(name) {
        Some(aya::maps::Map::Array(data)) => Ok(data),
        _ => Err(KernelError::Foreign(name)),
    }
}

/// Takes a map out of the object, as the type the agent uses.
pub(super) fn typed<T>(ebpf: &mut Ebpf, name: &'static str) -> Result<T, KernelError>
where
    T: TryFrom<aya::maps::Map, Error = MapError>,
{
    Ok(T::try_from(ebpf.take_map(name).ok_or(KernelError::Foreign(name))?)?)
}
