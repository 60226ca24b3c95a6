# What an administrator types; see hosts.rs for the variables. dracut-network and nbd-client are
# installed, so that dracut's own way to a root from NBD is in the images, where nothing leaves it out.
make() { dracut --quiet --force "$image" "$release"; }
files() { zstd -dc "$image" | cpio --list --quiet | sort >"$out/$1.files"; }

keep plain
files plain

apt-get install --yes "$debs"/landfall_*.deb "$debs"/landfall-dracut_*.deb
keep init

# A kernel without the one module without which nothing is reached: the image that boots must stay,
# and the screen must say what is missing.
nbd=$(find "/lib/modules/$release/" -name 'nbd.ko*')
mv "$nbd" /landfall/
depmod "$release"
status=0
make >"$out/no-nbd.log" 2>&1 || status=$?
echo "$status" >"$out/no-nbd.status"
cmp "$image" "$out/init.img"
mv "/landfall/${nbd##*/}" "$nbd"
depmod "$release"

sed -i 's/^MODE=.*/MODE=handler/' /etc/landfall/initramfs.conf
make
keep handler

# Without dracut's modules for networks, as it is where dracut-network is not installed.
echo 'omit_dracutmodules+=" network nbd ifcfg systemd-networkd network-legacy "' >/etc/dracut.conf.d/alone.conf
make
keep handler-alone
rm /etc/dracut.conf.d/alone.conf

# With dracut's own scripts for networks where the program that they need is still used.
echo 'omit_dracutmodules+=" systemd systemd-networkd nbd "' >/etc/dracut.conf.d/nosystemd.conf
if [ -x /usr/sbin/dhclient ]; then
	echo 'add_dracutmodules+=" network-legacy "' >>/etc/dracut.conf.d/nosystemd.conf
fi
make
keep handler-nosystemd
sed -i 's/^MODE=.*/MODE=init/' /etc/landfall/initramfs.conf
make
keep init-nosystemd
rm /etc/dracut.conf.d/nosystemd.conf

apt-get purge --yes landfall landfall-dracut
keep removed
files removed
