#!/bin/sh
# Sourced by dracut where there is no systemd, until somebody has mounted the root. Landfall has
# waited and tried again where that can help: after a failure the emergency shell is next.

if [ "${root-}" = landfall ]; then
	/usr/bin/landfall mount-root "${NEWROOT:?}" || die "Landfall has not mounted the root"
fi
