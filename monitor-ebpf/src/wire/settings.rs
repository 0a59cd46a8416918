//! What the agent tells the programs.

/// [`Settings::filter`]: ports to include are named, all others are left out.
pub const FILTER_INCLUDE_PORTS: u32 = 1;
/// [`Settings::filter`]: ports to exclude are named.
pub const FILTER_EXCLUDE_PORTS: u32 = 1 << 1;
/// [`Settings::filter`]: networks to include are named, all others are left out.
pub const FILTER_INCLUDE_NETS: u32 = 1 << 2;
/// [`Settings::filter`]: networks to exclude are named.
pub const FILTER_EXCLUDE_NETS: u32 = 1 << 3;
/// [`Settings::filter`]: ports or pairs without request rules are named.
pub const FILTER_NO_REQUEST_RULES: u32 = 1 << 4;
/// [`Settings::filter`]: only the network namespace [`Settings::netns`].
pub const FILTER_NETNS: u32 = 1 << 5;

/// [`Settings::features`]: the kernel hands the current task to programs as a typed pointer (from 5.11 on).
pub const FEATURE_TYPED_TASK: u32 = 1;
/// [`Settings::features`]: a socket's cgroup is a typed pointer (from 5.15 on).
pub const FEATURE_TYPED_CGROUP: u32 = 1 << 1;
/// [`Settings::features`]: requests are followed.
pub const FEATURE_REQUESTS: u32 = 1 << 2;
/// Other tasks may run in the midst of a program on a tracepoint.
pub const FEATURE_PREEMPTIBLE: u32 = 1 << 3;

/// Value in `PORTS` and `NETS`: include.
pub const RULE_INCLUDE: u32 = 1;
/// Value in `PORTS` and `NETS`: exclude.
pub const RULE_EXCLUDE: u32 = 2;

/// A pair or port (address zero) to which the rules about requests do not apply.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct EndpointKey {
    /// Address of the accepting end, or zero for every address.
    pub address: [u8; 16],
    /// Port of the accepting end, host byte order.
    pub port: u32,
}

/// What the agent tells the programs before they load; the verifier sees constants.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Jiffies in a second.
    pub hz: u32,
    /// Bytes after the peer's FIN up to which a protocol's goodbye is assumed.
    pub goodbye_bytes: u32,
    /// `FILTER_*` bits.
    pub filter: u32,
    /// `FEATURE_*` bits.
    pub features: u32,
    /// Number of sets in `CLOSED`, a power of two, less one.
    pub closed_mask: u32,
    /// Seed of the hash that spreads closed connections over the sets.
    pub closed_seed: u32,
    /// Slots of `PAIRS`.
    pub max_pairs: u32,
    /// Connections tracked at once.
    pub max_connections: u32,
    /// Number of places in `CONNECTIONS`, a power of two, less one.
    pub places_mask: u32,
    /// With [`FILTER_NETNS`]: the namespace's inode number.
    pub netns: u32,
    /// Incidents a pair may report per second.
    pub incidents_per_second: u32,
}
