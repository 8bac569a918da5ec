//! The allocator of every program that links this crate.

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Gives what was freed back to the operating system at once, where the allocator would keep it for a second.
///
/// For the end of work whose memory nothing will ask for soon, as a segment's columns once it is written: it walks the
/// allocator's arenas, and what is allocated next faults its pages in again.
pub(crate) fn give_back() {
    #[expect(
        unsafe_code,
        reason = "a C function that takes no pointer, and may be called from any thread at any time"
    )]
    unsafe {
        libmimalloc_sys::mi_collect(true);
    }
}
