//! What glibc keeps of freed memory, and how it is made to give it back. Other C libraries keep little.

/// One heap for all threads: each of its own would keep what its largest scrape took. To be called before there is a second
/// thread.
pub fn share_heap() {
    #[cfg(target_env = "gnu")]
    // SAFETY: changes a setting of the allocator; it refuses what it does not know.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1);
    }
}

/// Returns to the system what is free: after parsing BTF 17 MiB, after a scrape what it took, that would be kept for good.
pub fn give_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: may be called at any time.
    unsafe {
        libc::malloc_trim(0);
    }
}
