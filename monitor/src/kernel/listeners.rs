//! Which process listens: the local process of connections that this host accepted.

use std::{
    collections::{HashMap, HashSet},
    fs::File,
    io::{BufRead as _, BufReader},
    path::Path,
    time::{Duration, Instant},
};

use finwatch_ebpf::wire::ClosedKey;

use super::{
    namespaces::{inode, processes},
    processes::{printed_name, sockets},
};
use crate::model::incident::IncidentProcess;

/// For so long an answer stands, be it that there is none.
const KEPT: Duration = Duration::from_secs(10);
/// Answers kept at once.
const MAX_ANSWERS: usize = 1024;
/// What `/proc/net/tcp` calls LISTEN; listening sockets come first in it.
const LISTEN: &str = "0A";

/// Looks up listening processes, each every few seconds at most.
#[derive(Debug, Default)]
pub struct Listeners {
    answers: HashMap<(u32, u16), (Instant, Option<IncidentProcess>)>,
}

impl Listeners {
    /// The process that listens where this connection was accepted: the first that holds a listening socket on its port.
    pub fn process(&mut self, ends: &ClosedKey) -> Option<IncidentProcess> {
        let place = (ends.netns, ends.local_port);
        if let Some((since, answer)) = self.answers.get(&place)
            && since.elapsed() < KEPT
        {
            return answer.clone();
        }
        if self.answers.len() >= MAX_ANSWERS {
            self.answers.clear();
        }
        let answer = look_up(ends.netns, ends.local_port);
        self.answers.insert(place, (Instant::now(), answer.clone()));
        answer
    }
}

fn look_up(netns: u32, port: u16) -> Option<IncidentProcess> {
    let mut listening: Option<HashSet<u64>> = None;
    let inside = |process: &Path| inode(&process.join("ns/net")) == Some(netns);
    for process in processes().filter(|process| inside(process)) {
        // Every process of the namespace sees the same sockets.
        let listening = listening.get_or_insert_with(|| {
            ["net/tcp", "net/tcp6"].iter().flat_map(|file| listeners(&process.join(file), port)).collect()
        });
        if listening.is_empty() {
            return None;
        }
        if sockets(&process).any(|inode| listening.contains(&inode)) {
            let pid = process.file_name()?.to_str()?.parse().ok()?;
            return Some(IncidentProcess { name: printed_name(&process), pid });
        }
    }
    None
}

/// The inode numbers of listening sockets on `port`.
fn listeners(file: &Path, port: u16) -> Vec<u64> {
    let Ok(file) = File::open(file) else { return Vec::new() };
    let lines = BufReader::new(file).lines().map_while(Result::ok).skip(1);
    lines.map_while(|line| listener(&line)).filter(|(at, _)| *at == port).map(|(_, inode)| inode).collect()
}

/// The port and inode number of a listening socket; `None` once others come.
fn listener(line: &str) -> Option<(u16, u64)> {
    let mut fields = line.split_whitespace().skip(1);
    let (_, port) = fields.next()?.rsplit_once(':')?;
    let (state, inode) = (fields.nth(1)?, fields.nth(5)?);
    (state == LISTEN).then_some(())?;
    Some((u16::from_str_radix(port, 16).ok()?, inode.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::loader::own_netns;

    #[test]
    fn our_own_listener_is_ours_and_a_closed_port_nobodys() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = listener.local_addr().expect("bound").port();
        let found = look_up(own_netns(), port).expect("a process");
        assert_eq!(found.pid, std::process::id());
        drop(listener);
        assert_eq!(look_up(own_netns(), port), None);
    }

    #[test]
    fn lines_of_proc_net_tcp() {
        let line = "   0: 0100007F:0BB8 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 24281 1";
        assert_eq!(listener(line), Some((3_000, 24_281)));
        assert_eq!(listener(&line.replace(" 0A ", " 01 ")), None);
    }
}
