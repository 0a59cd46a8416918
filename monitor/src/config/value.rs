//! Single values as they are written on the command line and in the file.

use std::{
    fmt,
    marker::PhantomData,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    str::FromStr,
    time::Duration,
};

use bytesize::ByteSize;
use ipnet::IpNet;
use serde::{
    Deserialize, Deserializer,
    de::{Error, Visitor},
};

/// Longest name the kernel keeps of a process.
const MAX_PROCESS_NAME: usize = 15;
/// Shortest time to live.
const MIN_TTL: Duration = Duration::from_secs(1);
/// Longest time to live.
const MAX_TTL: Duration = Duration::from_hours(30 * 24);

/// A kind of value that both the command line and the file take.
pub trait Value: Sized {
    /// How the file has it.
    const TOML: Toml;

    /// Completes "expected ...": what is valid, with an example where that helps.
    fn expected() -> String;

    /// The value, if the text is a valid one.
    fn parse(text: &str) -> Option<Self>;
}

/// How a value is written in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Toml {
    /// In quotes.
    Text,
    /// As a number.
    Number,
    /// Either way.
    TextOrNumber,
}

/// A valid value that was given by flag or file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Given<T>(pub T);

impl<T: Value> FromStr for Given<T> {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        T::parse(text).map(Self).ok_or_else(|| format!("expected {}", T::expected()))
    }
}

impl<'de, T: Value> Deserialize<'de> for Given<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(GivenVisitor(PhantomData))
    }
}

struct GivenVisitor<T>(PhantomData<T>);

impl<T: Value> Visitor<'_> for GivenVisitor<T> {
    type Value = Given<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&T::expected())
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Given<T>, E> {
        if T::TOML == Toml::Number {
            return Err(E::invalid_type(serde::de::Unexpected::Str(text), &self));
        }
        T::parse(text)
            .map(Given)
            .ok_or_else(|| E::custom(format!("{text:?} is invalid, expected {}", T::expected())))
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<Given<T>, E> {
        if T::TOML == Toml::Text {
            return Err(E::invalid_type(serde::de::Unexpected::Signed(number), &self));
        }
        T::parse(&number.to_string())
            .map(Given)
            .ok_or_else(|| E::custom(format!("{number} is invalid, expected {}", T::expected())))
    }
}

/// A whole number within bounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounded<const MIN: u32, const MAX: u32>(pub u32);

impl<const MIN: u32, const MAX: u32> Value for Bounded<MIN, MAX> {
    const TOML: Toml = Toml::Number;

    fn expected() -> String {
        format!("a whole number from {MIN} to {MAX}")
    }

    fn parse(text: &str) -> Option<Self> {
        text.parse().ok().filter(|number| (MIN..=MAX).contains(number)).map(Self)
    }
}

/// A TCP port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Port(pub u16);

impl Value for Port {
    const TOML: Toml = Toml::Number;

    fn expected() -> String {
        "a port from 1 to 65535".into()
    }

    fn parse(text: &str) -> Option<Self> {
        text.parse().ok().filter(|port| *port != 0).map(Self)
    }
}

impl Value for SocketAddr {
    const TOML: Toml = Toml::Text;

    fn expected() -> String {
        "an address with a port, such as 127.0.0.1:9778, 0.0.0.0:9778 or [::1]:9778".into()
    }

    fn parse(text: &str) -> Option<Self> {
        text.parse().ok()
    }
}

impl Value for Duration {
    const TOML: Toml = Toml::Text;

    fn expected() -> String {
        "a time from 1s to 30days, such as 90s, 15m or 1h 30m".into()
    }

    fn parse(text: &str) -> Option<Self> {
        humantime::parse_duration(text).ok().filter(|time| (MIN_TTL..=MAX_TTL).contains(time))
    }
}

impl Value for IpNet {
    const TOML: Toml = Toml::Text;

    fn expected() -> String {
        "a network or an address, such as 10.0.0.0/8, fc00::/7 or 192.0.2.1".into()
    }

    fn parse(text: &str) -> Option<Self> {
        let net = text.parse().or_else(|_| text.parse::<IpAddr>().map(Self::from)).ok()?;
        Some(canonical(net.trunc()))
    }
}

/// IPv4-mapped networks are IPv4 networks.
fn canonical(net: IpNet) -> IpNet {
    const MAPPED_BITS: u8 = 96;
    let mapped = match net {
        IpNet::V6(v6) => v6.network().to_ipv4_mapped().zip(v6.prefix_len().checked_sub(MAPPED_BITS)),
        IpNet::V4(_) => None,
    };
    mapped.and_then(|(address, bits)| IpNet::new(address.into(), bits).ok()).unwrap_or(net)
}

/// The accepting ends to which the rules about requests do not apply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EndpointRule {
    /// The address; `None` for every address.
    pub address: Option<IpAddr>,
    /// The port.
    pub port: u16,
}

impl Value for EndpointRule {
    const TOML: Toml = Toml::TextOrNumber;

    fn expected() -> String {
        "a port or an address with a port, such as 8443, 192.0.2.1:8443 or [2001:db8::1]:8443".into()
    }

    fn parse(text: &str) -> Option<Self> {
        if let Some(Port(port)) = Port::parse(text) {
            return Some(Self { address: None, port });
        }
        let address: SocketAddr = text.parse().ok()?;
        (address.port() != 0)
            .then(|| Self { address: Some(address.ip().to_canonical()), port: address.port() })
    }
}

/// A process's name as the kernel keeps it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProcessName(pub String);

impl Value for ProcessName {
    const TOML: Toml = Toml::Text;

    fn expected() -> String {
        format!("a process's name as `ps -o comm` prints it, of 1 to {MAX_PROCESS_NAME} bytes")
    }

    fn parse(text: &str) -> Option<Self> {
        (1..=MAX_PROCESS_NAME).contains(&text.len()).then(|| Self(text.to_owned()))
    }
}

/// A file or directory, named from the root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AbsolutePath(pub PathBuf);

impl Value for AbsolutePath {
    const TOML: Toml = Toml::Text;

    fn expected() -> String {
        "an absolute path, such as /run/finwatch".into()
    }

    fn parse(text: &str) -> Option<Self> {
        Some(Self(PathBuf::from(text))).filter(|path| path.0.is_absolute())
    }
}

/// The size of a file in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileSize(pub u64);

impl Value for FileSize {
    const TOML: Toml = Toml::Text;

    fn expected() -> String {
        "a size from 1KiB to 1TiB, such as 500KiB or 16MiB".into()
    }

    fn parse(text: &str) -> Option<Self> {
        let ByteSize(bytes) = text.parse().ok()?;
        (bytesize::KIB..=bytesize::TIB).contains(&bytes).then_some(Self(bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_are_inclusive() {
        assert_eq!(Bounded::<16, 20>::parse("16"), Some(Bounded(16)));
        assert_eq!(Bounded::<16, 20>::parse("20"), Some(Bounded(20)));
        assert_eq!(Bounded::<16, 20>::parse("15"), None);
        assert_eq!(Bounded::<16, 20>::parse("21"), None);
        assert_eq!(Bounded::<16, 20>::parse("-16"), None);
    }

    #[test]
    fn networks_lose_their_host_bits() {
        let print = |text| <IpNet as Value>::parse(text).map(|net| net.to_string());
        assert_eq!(print("10.1.2.3/8").as_deref(), Some("10.0.0.0/8"));
        assert_eq!(print("192.0.2.1").as_deref(), Some("192.0.2.1/32"));
        assert_eq!(print("::1").as_deref(), Some("::1/128"));
        assert_eq!(print("::ffff:10.0.0.0/104").as_deref(), Some("10.0.0.0/8"));
        assert_eq!(print("10.0.0.0/33"), None);
    }

    #[test]
    fn rules_take_a_port_or_an_endpoint() {
        let parse = <EndpointRule as Value>::parse;
        assert_eq!(parse("8443"), Some(EndpointRule { address: None, port: 8443 }));
        let address = "10.0.0.1".parse().ok();
        assert_eq!(parse("10.0.0.1:443"), Some(EndpointRule { address, port: 443 }));
        assert_eq!(parse("[::ffff:10.0.0.1]:443"), Some(EndpointRule { address, port: 443 }));
        assert_eq!(parse("0"), None);
        assert_eq!(parse("10.0.0.1"), None);
        assert_eq!(parse("web:443"), None);
    }

    #[test]
    fn sizes_have_units_and_bounds() {
        let parse = |text| <FileSize as Value>::parse(text).map(|size| size.0);
        assert_eq!(parse("16MiB"), Some(16 << 20));
        assert_eq!(parse("2MB"), Some(2_000_000));
        assert_eq!(parse("1KiB"), Some(1024));
        assert_eq!(parse("1023"), None);
        assert_eq!(parse("2TiB"), None);
        assert_eq!(parse("much"), None);
    }

    #[test]
    fn times_have_bounds() {
        let parse = <Duration as Value>::parse;
        assert_eq!(parse("1h 30m"), Some(Duration::from_mins(90)));
        assert_eq!(parse("30days"), Some(MAX_TTL));
        assert_eq!(parse("999ms"), None);
        assert_eq!(parse("31days"), None);
        assert_eq!(parse("10"), None);
    }
}
