# What an administrator types; see hosts.rs for the variables.
keep plain

# Our hook runs a second time in the same image: it must do no more than once.
twice=/etc/initramfs-tools/hooks/twice
cat >"$twice" <<'END'
#!/bin/sh
[ "$1" = prereqs ] || exec /usr/share/initramfs-tools/hooks/landfall
END
chmod +x "$twice"
apt-get install --yes "$debs"/landfall_*.deb "$debs"/landfall-initramfs-tools_*.deb
keep init
rm "$twice"

# A kernel without the one module without which nothing is reached: the image that boots must stay,
# and the screen must say what is missing.
nbd=$(find "/lib/modules/$release/" -name 'nbd.ko*')
mv "$nbd" /landfall/
depmod "$release"
status=0
update-initramfs -u -k "$release" >"$out/no-nbd.log" 2>&1 || status=$?
echo "$status" >"$out/no-nbd.status"
cmp "$image" "$out/init.img"
mv "/landfall/${nbd##*/}" "$nbd"
depmod "$release"

sed -i 's/^MODE=.*/MODE=handler/' /etc/landfall/initramfs.conf
# The host itself brings the network up when the command line says so, as dropbear-initramfs does.
network=/etc/initramfs-tools/scripts/init-premount/network
cat >"$network" <<'END'
#!/bin/sh
[ "$1" != prereqs ] || exit 0
case $IP in '' | off | none) exit 0 ;; esac
. /scripts/functions
configure_networking
END
chmod +x "$network"
update-initramfs -u -k "$release"
keep handler
rm "$network"

apt-get purge --yes landfall landfall-initramfs-tools
keep removed
