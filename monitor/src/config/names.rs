//! The file's tables `[names.upstreams]` and `[names.proxies]`.

use std::{collections::HashSet, fmt, marker::PhantomData, net::SocketAddr};

use ipnet::IpNet;
use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, Visitor},
};

use super::{
    ConfigError,
    value::{Given, Toml, Value},
};
use crate::model::{
    labels::{EXTERNAL, FOLDED, is_harmful},
    names::{NamedEnd, Names},
};

/// Longest name in bytes.
const MAX_NAME: usize = 64;
/// Names a table may give.
const MAX_NAMES: usize = 4096;

/// Names of addresses as the file gives them.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NameTables {
    /// Of accepting ends.
    pub upstreams: Table<NamedEnd>,
    /// Of addresses that connect to this host.
    pub proxies: Table<IpNet>,
}

impl NameTables {
    /// The names, if no address is named twice and none of the tables is too long.
    pub(super) fn names(self) -> Result<Names, ConfigError> {
        Ok(Names::new(self.upstreams.checked("names.upstreams")?, self.proxies.checked("names.proxies")?))
    }
}

/// A table in the order of the file. A map would drop one of two spellings of an address.
#[derive(Clone, Debug)]
pub struct Table<K>(Vec<(K, String)>);

impl<K> Default for Table<K> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<K: Value + Copy + Eq + std::hash::Hash + fmt::Debug> Table<K> {
    fn checked(self, key: &'static str) -> Result<Vec<(K, String)>, ConfigError> {
        if self.0.len() > MAX_NAMES {
            return Err(ConfigError::TooManyNames { key, len: self.0.len(), limit: MAX_NAMES });
        }
        let mut seen = HashSet::new();
        match self.0.iter().find(|(address, _)| !seen.insert(*address)) {
            Some((_, name)) => Err(ConfigError::NamedTwice { key, name: name.clone() }),
            None => Ok(self.0),
        }
    }
}

impl<'de, K: Value> Deserialize<'de> for Table<K> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(TableVisitor(PhantomData))
    }
}

struct TableVisitor<K>(PhantomData<K>);

impl<'de, K: Value> Visitor<'de> for TableVisitor<K> {
    type Value = Table<K>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a table from {} to a name", K::expected())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut entries = Vec::new();
        while let Some((Given(address), Given(Name(name)))) = map.next_entry::<Given<K>, Given<Name>>()? {
            entries.push((address, name));
        }
        Ok(Table(entries))
    }
}

impl Value for NamedEnd {
    const TOML: Toml = Toml::Text;

    fn expected() -> String {
        "an address with a port, an address or a network, such as 10.0.0.5:8080, 10.0.0.5 or 10.0.0.0/24"
            .into()
    }

    fn parse(text: &str) -> Option<Self> {
        if let Ok(endpoint) = text.parse::<SocketAddr>() {
            let canonical = SocketAddr::new(endpoint.ip().to_canonical(), endpoint.port());
            return (endpoint.port() != 0).then_some(Self::Endpoint(canonical));
        }
        IpNet::parse(text).map(Self::Net)
    }
}

/// What an address is called.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Name(String);

impl Value for Name {
    const TOML: Toml = Toml::Text;

    fn expected() -> String {
        format!(
            "a name of 1 to {MAX_NAME} bytes without control or invisible characters, other than {FOLDED:?} and {EXTERNAL:?}, which \
             mean something else"
        )
    }

    fn parse(text: &str) -> Option<Self> {
        let valid = (1..=MAX_NAME).contains(&text.len()) && !text.contains(is_harmful);
        (valid && ![FOLDED, EXTERNAL].contains(&text)).then(|| Self(text.to_owned()))
    }
}
