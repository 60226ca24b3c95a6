#!/bin/sh
# Sourced by dracut behind its own first look at root=, in front of everybody else who reads it.
# If the root is Landfall's, it gets a name that none of them knows: they would start a network, an
# nbd-client, or a wait for a device that is not there before the root is mounted.

if /usr/bin/landfall claims; then
	# The second, empty, would be looked for on the command line.
	# shellcheck disable=SC2034
	root=landfall netroot=landfall rootok=1
	# The first look waits for root=/dev/nbd0, where old configurations name one.
	rm -f "${hookdir:?}"/initqueue/finished/devexists-*nbd*.sh "$hookdir"/emergency/80-*nbd*.sh
	# Only then have the network cards their final names.
	echo 'udevadm settle --timeout=0' > "$hookdir/initqueue/finished/landfall-udev.sh"
fi
