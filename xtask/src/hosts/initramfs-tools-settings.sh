# The images are read a few times and thrown away: what counts is how soon they are made.
cat >/etc/initramfs-tools/conf.d/fast <<'END'
MODULES=most
COMPRESS=zstd
COMPRESSLEVEL=1
END
