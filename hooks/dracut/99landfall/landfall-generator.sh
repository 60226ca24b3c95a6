#!/bin/sh
# A generator for systemd in an initramfs: if the root is Landfall's, it is Landfall that mounts
# /sysroot. Knows nothing of dracut, so other initramfs generators can install it as well.
#
# A mount unit of that name, because everything else in an initramfs that does something before or
# behind the root is ordered by it. In the early directory, because systemd-fstab-generator makes a
# unit for any root=, and adds a wait and a check of the file system to those below /dev.
# With a drop-in, because dracut's own nbd-generator writes to the early directory, too, and
# generators run at the same time: whoever is last, the drop-in says who mounts, and how.
set -eu

normal=$1
early=$2

status=0
/usr/bin/landfall claims || status=$?
case $status in
0) ;;
1) exit 0 ;;
*) exit "$status" ;;
esac

mkdir -p "$normal/initrd-root-fs.target.requires" "$early/sysroot.mount.d"

# By a rename, so that nobody ever sees half of it.
cat > "$early/.sysroot.mount.landfall" <<- END
	[Unit]
	Description=Root from the Network (Landfall)
	Documentation=man:landfall(1)
	Before=initrd-root-fs.target

	[Mount]
	What=landfall
	Where=/sysroot
	Type=landfall
END
mv "$early/.sysroot.mount.landfall" "$early/sysroot.mount"

# Cards have their final names when dracut's queue is done. Landfall knows itself how long to wait
# for what.
cat > "$early/sysroot.mount.d/landfall.conf" <<- END
	[Unit]
	After=dracut-initqueue.service dracut-pre-mount.service

	[Mount]
	What=landfall
	Type=landfall
	Options=
	TimeoutSec=infinity
END
ln -sf ../sysroot.mount "$normal/initrd-root-fs.target.requires/sysroot.mount"

# Two of them on one card take each other's addresses away. With rd.neednet=1 theirs comes first,
# and Landfall adopts it. Read where Landfall and dracut read it; the last one counts.
words=
for file in /etc/cmdline.d/*.conf /etc/cmdline /proc/cmdline; do
	[ -e "$file" ] || continue
	while read -r line || [ -n "$line" ]; do
		words="$words $line"
	done < "$file"
done
neednet=no
set -f
for word in $words; do
	case $word in
	rd.neednet=0 | rd.neednet=no | rd.neednet=off) neednet=no ;;
	rd.neednet | rd.neednet=*) neednet=yes ;;
	esac
done
if [ "$neednet" = yes ]; then
	cat > "$early/sysroot.mount.d/network.conf" <<- END
		[Unit]
		Wants=network-online.target
		After=network-online.target
	END
else
	for unit in systemd-networkd.service systemd-networkd.socket \
		systemd-networkd-wait-online.service nm-initrd.service nm-wait-online-initrd.service \
		cm-initrd.service cm-wait-online-initrd.service; do
		ln -sf /dev/null "$early/$unit"
	done
fi
