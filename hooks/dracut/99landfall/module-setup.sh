#!/bin/bash
# Puts Landfall into an image of dracut: the program, the modules and firmware that
# landfall-initramfs names, and either itself as /init or the hooks that let it mount the root.
# What of this is used, /usr/bin/landfall decides at boot.
#
# Numbered behind 99base: without systemd it is that one which installs the /init we move away.

# Nobody gets this module who has not asked for it. Asked for, it never refuses: dracut would make
# an image without it, and say so in one line among many. What is missing ends dracut in install().
check() {
	return 255
}

depends() {
	echo base
}

installkernel() {
	local MODE DRIVERS EXTRA_MODULES modules firmware softdeps
	landfall_settings

	# Not in a pipe, where a failure of the first program would go unnoticed.
	modules=$(landfall_selected modules) || return 1
	firmware=$(landfall_selected firmware) || return 1
	softdeps=$(landfall_selected softdeps) || return 1

	landfall_copy "$modules" "${srcmods:?}" "/lib/modules/${kernel:?}" || return 1
	landfall_copy "$firmware" "" "" || return 1
	mkdir -p "${initdir:?}/usr/lib/modprobe.d"
	echo "$softdeps" > "$initdir/usr/lib/modprobe.d/landfall.conf"
}

install() {
	local MODE DRIVERS EXTRA_MODULES
	landfall_settings

	inst_simple /usr/bin/landfall || landfall_fails "/usr/bin/landfall is not there"
	if [[ $MODE == init ]]; then
		landfall_becomes_init
	else
		landfall_becomes_root_handler
	fi
}

# Sets MODE, DRIVERS and EXTRA_MODULES of the caller.
landfall_settings() {
	local file=${dracutsysrootdir-}/etc/landfall/initramfs.conf
	MODE=init DRIVERS='' EXTRA_MODULES=''
	if [[ -e $file ]]; then
		# shellcheck source-path=SCRIPTDIR source=../../initramfs.conf
		. "$file"
	fi
	[[ $MODE == init || $MODE == handler ]] \
		|| landfall_fails "MODE=$MODE in $file is neither init nor handler"
}

# dracut goes on after an install() that returns false. This leaves the program, which cleans up
# after itself and has not touched the image of before.
landfall_fails() {
	dfatal "landfall: $*"
	exit 1
}

landfall_selected() {
	landfall-initramfs list "$1" --kernel "$srcmods" \
		${DRIVERS:+--drivers "$DRIVERS"} ${EXTRA_MODULES:+--modules "$EXTRA_MODULES"}
}

# Copies files, one a line in $1, to where they are, or from below $2 to below $3 if that is
# elsewhere (dracut --kmoddir).
landfall_copy() {
	local -a paths
	local path
	[[ $1 ]] || return 0
	mapfile -t paths <<< "$1"
	if [[ $(realpath "$2/.") == "$(realpath "$3/." 2> /dev/null)" ]]; then
		inst_multiple "${paths[@]}"
		return
	fi
	for path in "${paths[@]}"; do
		inst_simple "$path" "$3/${path#"$2"/}" || return 1
	done
}

landfall_becomes_init() {
	[[ $(readlink "$initdir/init") == *landfall ]] && return
	[[ -e $initdir/init || -L $initdir/init ]] \
		|| landfall_fails "no module of this image has installed an /init to keep"
	mv "$initdir/init" "$initdir/init.original"
	ln_r /usr/bin/landfall /init
}

landfall_becomes_root_handler() {
	ln_r /usr/bin/landfall /sbin/mount.landfall
	inst_hook cmdline 11 "${moddir:?}/landfall-claim.sh"
	inst_hook cmdline 99 "$moddir/landfall-network.sh"
	inst_hook pre-pivot 99 "$moddir/landfall-init.sh"
	inst_multiple grep cat
	if [[ -e ${initdir:?}/sbin/netroot && ! -e $initdir/sbin/netroot.original ]]; then
		mv "$initdir/sbin/netroot" "$initdir/sbin/netroot.original"
		inst_script "$moddir/landfall-netroot.sh" /sbin/netroot
	fi
	# For what landfall-claim.sh has it wait for.
	dracut_need_initqueue
	if dracut_module_included systemd; then
		inst_script "$moddir/landfall-generator.sh" \
			"${systemdutildir:?}/system-generators/landfall-generator"
	else
		inst_hook mount 01 "$moddir/landfall-mount.sh"
	fi
}
