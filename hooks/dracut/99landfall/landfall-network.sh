#!/bin/sh
# Sourced by dracut when every module has read root=, in front of those that start a network for
# it. Landfall's network is its own, unless rd.neednet=1 asks for dracut's; that one is adopted.

if [ "${netroot-}" = landfall ]; then
	unset netroot
	getargbool 0 rd.neednet || rm -f /tmp/net.ifaces /tmp/net.bootdev
fi
