//! The wire types as plain old data for the agent's maps.
#![expect(unsafe_code, reason = "aya's marker trait is unsafe to implement")]

use aya::Pod;

use crate::{
    levels::{LevelRecord, ListenerEntry, ListenerKey, PortEntry, Process, Walk},
    offsets::Offsets,
    requests::{Exchanges, RequestRecord},
    wire::{ClosedKey, ClosedSet, EndpointKey, Incident, PairKey, PairRecord, Settings, Totals, Tracked},
};

// SAFETY (all): `repr(C)`, integers and arrays of integers only, no padding: any byte pattern is valid.
macro_rules! pod {
    ($($name:ty),+) => {
        $(
            // SAFETY: see above.
            unsafe impl Pod for $name {}
        )+
    };
}

pod!(ClosedSet, ClosedKey, EndpointKey, Incident, Offsets, PairKey, PairRecord, Settings, Totals, Tracked);
pod!(LevelRecord, ListenerEntry, ListenerKey, PortEntry, Process, Walk);
pod!(Exchanges, RequestRecord);
