//! Idle timeouts of known software and networks. Several share a value: never proof, always a list.

use super::{finding::Candidate, idle::IdleTime};

/// Timers fire late rather than early: a close is seen up to so much before the timeout (jiffies), in seconds.
const EARLY: f64 = 0.3;
/// And up to so much after it, or [`LATE_PART`] of it: event loops and coarse timers.
const LATE: f64 = 0.7;
/// See [`LATE`].
const LATE_PART: f64 = 0.01;

/// What something with a timeout does at its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// It accepts connections and closes them.
    Server,
    /// It opens connections and closes them.
    Client,
    /// It forgets connections that pass through it, without telling either end.
    Forgets,
}

/// An idle timeout.
#[derive(Debug)]
pub struct Known {
    /// In seconds.
    pub seconds: u32,
    /// What happens then.
    pub role: Role,
    /// Product and setting.
    pub product: &'static str,
}

const fn server(seconds: u32, product: &'static str) -> Known {
    Known { seconds, role: Role::Server, product }
}

const fn client(seconds: u32, product: &'static str) -> Known {
    Known { seconds, role: Role::Client, product }
}

const fn forgets(seconds: u32, product: &'static str) -> Known {
    Known { seconds, role: Role::Forgets, product }
}

/// Every timeout known, rising.
pub static KNOWN: [Known; 38] = [
    server(2, "gunicorn, keepalive 2"),
    client(4, "undici (Node.js fetch), keepAliveTimeout 4 s"),
    server(5, "Apache httpd, KeepAliveTimeout 5"),
    server(5, "Node.js of older lines, keepAliveTimeout 5 s"),
    server(5, "uvicorn, --timeout-keep-alive 5"),
    client(5, "CloudFront, origin keep-alive timeout 5 s"),
    client(5, "HAProxy, pool-purge-delay 5s (in steps)"),
    server(6, "Node.js 20.20, 22.19, 24.6 and later, keepAliveTimeout 5 s plus keepAliveTimeoutBuffer 1 s"),
    server(20, "Puma before 7, persistent_timeout 20"),
    server(20, "Tomcat as shipped, connectionTimeout 20000"),
    server(30, "Jetty, idleTimeout 30000"),
    server(60, "AWS ALB, idle_timeout.timeout_seconds 60"),
    server(60, "Tomcat's own default, connectionTimeout 60000"),
    client(60, "AWS ALB, idle_timeout.timeout_seconds 60"),
    client(60, "nginx, keepalive_timeout 60s in upstream {}"),
    server(65, "Puma 7, persistent_timeout 65"),
    server(66, "Node.js 26, keepAliveTimeout 65 s plus keepAliveTimeoutBuffer 1 s"),
    server(75, "nginx, keepalive_timeout 75s"),
    client(90, "Go net/http, Transport.IdleConnTimeout 90 s"),
    client(90, "Heroku router, 90 s"),
    client(120, "Caddy, keepalive 2m in transport http"),
    server(130, "Kestrel, KeepAliveTimeout 130 s"),
    server(180, "Traefik entry point, respondingTimeouts.idleTimeout 180 s"),
    forgets(240, "Azure load balancer, idle timeout 4 min"),
    server(300, "Caddy, idle_timeout 5m"),
    forgets(350, "AWS NAT gateway, 350 s"),
    forgets(350, "AWS NLB, tcp.idle_timeout.seconds 350"),
    client(600, "Google Cloud application load balancer, 600 s"),
    forgets(600, "Google Cloud VPC, connection tracking 10 min"),
    forgets(900, "Linux IPVS (kube-proxy, ipvs mode), tcp timeout 900"),
    server(3600, "Envoy, idle_timeout 1 h"),
    client(3600, "Envoy, idle_timeout 1 h"),
    client(3600, "nginx, keepalive_time 1h (age, not idle time)"),
    forgets(3600, "Cisco ASA, timeout conn 1:00:00"),
    forgets(3600, "FortiGate, session-ttl 3600"),
    forgets(3600, "Palo Alto firewall, TCP timeout 3600"),
    server(28_800, "MySQL and MariaDB, wait_timeout 28800"),
    forgets(432_000, "Linux conntrack, nf_conntrack_tcp_timeout_established 432000"),
];

/// Whose timeout a measured time may be.
pub fn closers(time: &IdleTime, role: Role) -> Vec<Candidate> {
    let known = KNOWN.iter().filter(|known| known.role == role);
    known.filter(|known| fits(time, known.seconds)).map(candidate).collect()
}

/// What may have forgotten a connection that was quiet for up to `seconds`: all of them where that is not known.
pub fn forgetters(quiet: Option<f64>) -> Vec<Candidate> {
    let known = KNOWN.iter().filter(|known| known.role == Role::Forgets);
    known.filter(|known| quiet.is_none_or(|quiet| f64::from(known.seconds) <= quiet)).map(candidate).collect()
}

fn candidate(known: &Known) -> Candidate {
    Candidate::IdleTime { product: known.product.into(), seconds: known.seconds }
}

fn fits(time: &IdleTime, seconds: u32) -> bool {
    let seconds = f64::from(seconds);
    match time.mean {
        Some(mean) => mean >= seconds - EARLY && mean <= seconds + LATE.max(seconds * LATE_PART),
        None => seconds > time.low - EARLY && time.high.is_none_or(|high| seconds < high),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn products(mean: f64, role: Role) -> Vec<String> {
        let time = IdleTime { low: 0.0, high: None, mean: Some(mean), count: 9, of: 9 };
        let candidates = closers(&time, role).into_iter();
        candidates
            .map(|candidate| match candidate {
                Candidate::IdleTime { product, .. } => product,
                Candidate::Listening(process) => process.name,
            })
            .collect()
    }

    #[test]
    fn five_seconds_are_a_list_and_six_another() {
        let five = products(5.01, Role::Server);
        assert!(five.len() == 3 && five.iter().any(|name| name.starts_with("uvicorn")), "{five:?}");
        let six = products(6.0, Role::Server);
        assert!(six.len() == 1 && six[0].starts_with("Node.js 20.20"), "{six:?}");
        assert!(products(7.5, Role::Server).is_empty());
        assert_eq!(products(65.1, Role::Server).len(), 1, "65, not 66");
        assert_eq!(products(66.02, Role::Server).len(), 1, "66, not 65");
        assert_eq!(products(60.1, Role::Client).len(), 2);
    }

    #[test]
    fn a_range_names_all_in_it() {
        let time = IdleTime { low: 4.5, high: Some(5.5), mean: None, count: 9, of: 10 };
        assert_eq!(closers(&time, Role::Server).len(), 3);
    }

    #[test]
    fn only_shorter_memories_have_forgotten() {
        assert_eq!(forgetters(Some(400.0)).len(), 3);
        assert_eq!(forgetters(Some(100.0)).len(), 0);
        assert!(forgetters(None).len() > 5);
        assert!(KNOWN.is_sorted_by_key(|known| known.seconds));
    }
}
