//! Standard descriptors before Rust's runtime looks at them.
//!
//! When the kernel cannot open `/dev/console`, descriptors 0 to 2 of PID 1 are closed; std then
//! opens `/dev/null` in their place and aborts when that is missing, which ends in the kernel's
//! "Attempted to kill init". A constructor runs before `main` and makes sure of them.

use std::ffi::CStr;

/// Keeps this module's constructor in the binary: a static in an object file that nothing refers
/// to would be left out of the link.
pub fn ensure() {
    std::hint::black_box(&CONSTRUCTOR);
}

// SAFETY: `.init_array` holds pointers to functions of the C ABI that the C runtime calls before
// `main`; `open_standard_descriptors` is one, and uses nothing of std that needs its runtime.
#[used]
#[unsafe(link_section = ".init_array")]
static CONSTRUCTOR: extern "C" fn() = open_standard_descriptors;

extern "C" fn open_standard_descriptors() {
    const CONSOLE: &CStr = c"/dev/console";
    const NULL: &CStr = c"/dev/null";
    // SAFETY: plain system calls on constant strings and numbers; the worst they do is fail.
    unsafe {
        if libc::getpid() != 1 || libc::fcntl(2, libc::F_GETFD) != -1 {
            return;
        }
        let mut fd = libc::open(CONSOLE.as_ptr(), libc::O_RDWR | libc::O_NOCTTY);
        if fd < 0 {
            libc::mkdir(c"/dev".as_ptr(), 0o755);
            libc::mknod(NULL.as_ptr(), libc::S_IFCHR | 0o666, libc::makedev(1, 3));
            fd = libc::open(NULL.as_ptr(), libc::O_RDWR);
        }
        while (0..2).contains(&fd) {
            fd = libc::dup(fd);
        }
    }
}
