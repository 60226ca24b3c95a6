#!/bin/sh
# Sourced by dracut when the root is mounted. Where init= names something that Landfall has replaced
# or has not found, systemd is told what Landfall starts instead; left alone, it takes init= as it is.
# Without systemd dracut knows no way to be told.

if [ -n "${DRACUT_SYSTEMD-}" ] && [ -e /run/landfall/init ]; then
	read -r landfall_init < /run/landfall/init
	landfall_asked=$(getarg init=)
	if [ -n "$landfall_asked" ] && [ "$landfall_asked" != "$landfall_init" ]; then
		# systemd's own order, in which it hands its state on to a systemd in the root.
		[ "$landfall_init" = /sbin/init ] && landfall_init='""'
		mkdir -p /run/systemd/system/initrd-switch-root.service.d
		cat > /run/systemd/system/initrd-switch-root.service.d/landfall.conf <<- END
			[Service]
			ExecStart=
			ExecStart=systemctl --no-block switch-root /sysroot $landfall_init
		END
		systemctl daemon-reload
	fi
	unset landfall_init landfall_asked
fi
