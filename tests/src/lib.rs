//! Virtual machines and real servers for the boot tests and the demo.
