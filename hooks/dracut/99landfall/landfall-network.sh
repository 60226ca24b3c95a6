#!/bin/sh
# Sourced by dracut when every module has read root=, in front of those that start a network for
# it. Landfall's network is its own, unless rd.neednet=1 asks for dracut's; that one is adopted.

if [ "${netroot-}" = landfall ]; then
	unset netroot
	if ! getargbool 0 rd.neednet; then
		rm -f /tmp/net.ifaces /tmp/net.bootdev
	elif [ -n "${DRACUT_SYSTEMD-}" ] && systemctl start systemd-network-generator.service; then
		# networkd's own identity is another one than the firmware had and the root will have, so the
		# server would give a second address. Later versions of dracut say this themselves.
		for landfall_file in /run/systemd/network/*.network; do
			if [ -e "$landfall_file" ] && ! grep -q '^ClientIdentifier=' "$landfall_file"; then
				printf '[DHCPv4]\nClientIdentifier=mac\n' >> "$landfall_file"
			fi
		done
		unset landfall_file
		systemctl try-restart systemd-networkd.service
	fi
fi
