//! Which network namespaces there are, what was last read in each, and which are gone.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    path::{Path, PathBuf},
};

use finwatch_ebpf::levels::MAX_NAMESPACES;

use super::visit::Visit;

/// The namespaces, by inode number. The kernel gives a number anew once its namespace is gone.
#[derive(Default)]
pub(super) struct Known {
    namespaces: BTreeMap<u32, Namespace>,
    refused: HashSet<u32>,
    /// Once read and no longer found. (One that was never found may be out of sight: other rights, another `/proc`.)
    gone: HashSet<u32>,
}

struct Namespace {
    path: PathBuf,
    last: Option<Visit>,
}

impl Known {
    pub(super) fn contains(&self, inode: u32) -> bool {
        self.namespaces.contains_key(&inode)
    }

    pub(super) fn inodes(&self) -> Vec<u32> {
        self.namespaces.keys().copied().collect()
    }

    /// The way to it, and what was read there last.
    pub(super) fn get(&self, inode: u32) -> Option<(&Path, Option<&Visit>)> {
        self.namespaces.get(&inode).map(|known| (known.path.as_path(), known.last.as_ref()))
    }

    /// What was last read, of all.
    pub(super) fn visits(&self) -> impl Iterator<Item = &Visit> {
        self.namespaces.values().filter_map(|known| known.last.as_ref())
    }

    /// Takes in what a search has found, and the way to each; what it has not found is lost.
    pub(super) fn found(&mut self, found: HashMap<u32, PathBuf>) {
        self.refused.retain(|inode| found.contains_key(inode));
        for inode in self.inodes() {
            if !found.contains_key(&inode) {
                self.lost(inode);
            }
        }
        for (inode, path) in found {
            self.namespaces.entry(inode).or_insert(Namespace { path: PathBuf::new(), last: None }).path =
                path;
        }
    }

    /// It has been read.
    pub(super) fn read(&mut self, inode: u32, visit: Visit) {
        if let Some(known) = self.namespaces.get_mut(&inode) {
            // A new one has the number: until it is read, what is tracked there is the old one's.
            self.gone.remove(&inode);
            known.last = Some(visit);
        }
    }

    /// It is not there any more, or there is no way to it.
    pub(super) fn lost(&mut self, inode: u32) {
        let was_read = self.namespaces.remove(&inode).is_some_and(|known| known.last.is_some());
        if was_read && self.gone.len() < MAX_NAMESPACES as usize {
            self.gone.insert(inode);
        }
    }

    /// It may not be entered. Tells whether this is new.
    pub(super) fn refused(&mut self, inode: u32) -> bool {
        self.lost(inode);
        self.refused.insert(inode)
    }

    /// A namespace's last walk, or the last of all where it is gone: that would have met nothing there.
    pub(super) fn last_walk(&self, inode: u32) -> Option<u32> {
        let last = self.namespaces.get(&inode).and_then(|known| known.last.as_ref());
        match last {
            Some(last) => Some(last.id),
            None if self.gone.contains(&inode) => self.visits().map(|last| last.id).max(),
            None => None,
        }
    }

    /// Nothing is tracked in those that are gone.
    pub(super) fn clear_gone(&mut self) {
        self.gone.clear();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::{
        kernel::namespaces::Facts,
        model::{levels::Walked, port_range::PortRange},
    };

    const HOST: u32 = 1;
    const OTHER: u32 = 2;

    fn visit(walk: u32) -> Visit {
        let facts = Facts {
            range: PortRange::parse("32768 60999", "").expect("a range"),
            segments: 0,
            time_wait_limit: 0,
            time_wait_overflow: 0,
        };
        let mut walked = Walked::default();
        walked.walk.id = walk;
        Visit::new(Instant::now(), facts, walked, (String::new(), 1))
    }

    fn there(inodes: &[u32]) -> HashMap<u32, PathBuf> {
        inodes.iter().map(|inode| (*inode, PathBuf::from(format!("/proc/{inode}/ns/net")))).collect()
    }

    /// Both have been read, the other one in the second walk.
    fn known() -> Known {
        let mut known = Known::default();
        known.found(there(&[HOST, OTHER]));
        known.read(HOST, visit(1));
        known.read(OTHER, visit(2));
        known
    }

    #[test]
    fn one_that_is_gone_was_met_by_no_walk_that_came_later() {
        let mut known = known();
        assert_eq!(known.last_walk(OTHER), Some(2));
        known.found(there(&[HOST]));
        known.read(HOST, visit(3));
        assert_eq!(known.last_walk(OTHER), Some(3));
        known.clear_gone();
        assert_eq!(known.last_walk(OTHER), None);
    }

    #[test]
    fn one_that_was_never_read_may_be_out_of_sight() {
        let mut known = known();
        known.found(there(&[HOST, OTHER, 3]));
        known.found(there(&[HOST, OTHER]));
        assert_eq!(known.last_walk(3), None);
    }

    #[test]
    fn a_number_that_comes_again_and_goes_unread_is_still_the_old_ones() {
        let mut known = known();
        known.lost(OTHER);
        known.found(there(&[HOST, OTHER]));
        assert_eq!(known.last_walk(OTHER), Some(1), "not read yet");
        known.lost(OTHER);
        known.read(HOST, visit(3));
        assert_eq!(known.last_walk(OTHER), Some(3));
    }

    #[test]
    fn a_new_one_under_the_number_counts_once_it_is_read() {
        let mut known = known();
        known.lost(OTHER);
        known.found(there(&[HOST, OTHER]));
        known.read(OTHER, visit(4));
        assert_eq!(known.last_walk(OTHER), Some(4));
    }

    #[test]
    fn that_one_may_not_be_entered_is_told_once_for_as_long_as_it_is_there() {
        let mut known = known();
        assert!(known.refused(OTHER));
        known.found(there(&[HOST, OTHER]));
        assert!(!known.refused(OTHER));
        known.found(there(&[HOST]));
        known.found(there(&[HOST, OTHER]));
        assert!(known.refused(OTHER));
    }
}
