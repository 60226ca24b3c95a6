//! Builds netboot initramfs images.
