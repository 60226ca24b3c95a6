# The images are read a few times and thrown away: what counts is how soon they are made. And they
# are for any machine, as an image that is served must be.
cat >/etc/dracut.conf.d/fast.conf <<'END'
hostonly=no
compress="zstd -1 -T2"
END
