//! Kernel modules: which ones a device asks for, and loading them.
