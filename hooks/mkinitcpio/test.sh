#!/bin/bash
# Runs the hooks against stand-ins for mkinitcpio's functions, for systems that do not have it:
#   test.sh KERNEL-DIRECTORY       (lib/modules/VERSION; landfall and landfall-initramfs in PATH)
# The stand-ins do what mkinitcpio 39 documents of its own, with files and links; modules are only
# written down.
set -eu
here=$(realpath "$(dirname "$0")")
_d_kmoduledir=$(realpath "$1")
# Read by the install file.
# shellcheck disable=SC2034
KERNELVERSION=${_d_kmoduledir##*/}
generator=$here/../dracut/99landfall/landfall-generator.sh
work=$(mktemp -d)
config=/etc/landfall/initramfs.conf

# What is configured here is not this test's.
[[ ! -e $config ]] || cp -p $config "$work/configured"
restore() {
	if [[ -e $work/configured ]]; then
		cp -p "$work/configured" $config
	else
		rm -f $config
	fi
	rm -rf "$work"
}
trap restore EXIT

add_file() {
	local mode=${3:-644}
	[[ $1 == - ]] && set -- /dev/stdin "$2"
	# The file that goes there, see README.md.
	[[ $1 == /usr/lib/initcpio/landfall-generator ]] && set -- "$generator" "$2"
	install -D -m "$mode" "$1" "$BUILDROOT${2:-$1}"
}
add_binary() { [[ -e $1 ]] && add_file "$1" "${2:-$1}" "${3:-755}"; }
add_symlink() { mkdir -p "$BUILDROOT${1%/*}" && ln -sfn "$2" "$BUILDROOT$1"; }
add_module() { echo "$1" >> "$BUILDROOT/modules"; }
add_runscript() { add_file "$here/hooks/landfall" /hooks/landfall 755; }
die() {
	# shellcheck disable=SC2059 # as theirs
	printf "==> ERROR: $1\n" "${@:2}" >&2
	exit 1
}
fail() {
	echo "FAILED: $*" >&2
	exit 1
}

# build NAME INIT: an image in which a hook before ours has added INIT, a script or a link.
build_image() {
	BUILDROOT=$work/$1
	mkdir -p "$BUILDROOT"
	case $2 in
	script) echo '#!/usr/bin/ash' > "$BUILDROOT/init" ;;
	*) ln -s "$2" "$BUILDROOT/init" ;;
	esac
	# A second time changes nothing: mkinitcpio runs each hook once, people write it twice.
	# shellcheck source-path=SCRIPTDIR source=install/landfall
	(. "$here/install/landfall" && build && build)
}

landfall=$(command -v landfall)
[[ $landfall == /usr/bin/landfall ]] || fail "the hooks take /usr/bin/landfall, not $landfall"
mkdir -p /etc/landfall

echo 'MODE=init DRIVERS=virtio_net' > $config
build_image init script
[[ $(readlink "$work/init/init") == /usr/bin/landfall ]] || fail "/init is not Landfall"
grep -q ash "$work/init/init.original" || fail "/init was not kept"
grep -qx nbd "$work/init/modules" || fail "no nbd"
grep -qx virtio_net "$work/init/modules" || fail "no driver"
for module in bonding 8021q bridge; do
	grep -qx "$module" "$work/init/modules" || fail "no $module, of which links are composed"
done
for module in dm-multipath dm-round-robin dm-verity; do
	grep -qx "$module" "$work/init/modules" || fail "no $module, of which roots are composed"
done
grep -q igb "$work/init/modules" && fail "a driver that nobody asked for"

echo 'MODE=handler DRIVERS=virtio_net' > $config
build_image handler script
[[ -e $work/handler/hooks/landfall ]] || fail "no runtime hook"
[[ ! -L $work/handler/init ]] || fail "handler took /init"

build_image systemd /usr/lib/systemd/systemd
[[ $(readlink "$work/systemd/usr/bin/mount.landfall") == /usr/bin/landfall ]] || fail "no mount.landfall"
cmp "$generator" "$work/systemd/usr/lib/systemd/system-generators/landfall-generator"
[[ -x $work/systemd/usr/lib/systemd/system-generators/landfall-generator ]] || fail "the generator cannot be run"
[[ $(readlink "$work/systemd/init") == /usr/lib/systemd/systemd ]] || fail "handler took systemd's /init"
[[ ! -e $work/systemd/hooks ]] || fail "a runtime hook that nobody would run"

# What cannot be added must not give an image without us.
for broken in 'init add_symlink script' 'init add_file script' 'handler add_runscript script' \
	'handler add_symlink /usr/lib/systemd/systemd'; do
	read -r mode part init <<< "$broken"
	echo "MODE=$mode DRIVERS=virtio_net" > $config
	(eval "$part() { return 1; }" && build_image "$mode-$part" "$init") 2> "$work/said" \
		&& fail "in MODE=$mode a failure of $part was overlooked"
	grep -q 'ERROR: landfall: ' "$work/said" || fail "in MODE=$mode it did not say so: $part"
done
(generator=/none && build_image no-generator /usr/lib/systemd/systemd) 2> "$work/said" \
	&& fail "a generator that is not there was overlooked"
grep -q 'ERROR: landfall: /usr/lib/initcpio/landfall-generator' "$work/said" || fail "it did not say so"

echo 'MODE=handler DRIVERS=no_such_card' > $config
(build_image broken script) 2> "$work/said" && fail "a driver that is not there was overlooked"
grep -q 'ERROR: landfall: no image for' "$work/said" || fail "it did not say so"

# The runtime hook does what Landfall says of the command line, here that of this machine.
mount_handler=default wanted=default
landfall claims && wanted=landfall_mount_handler
# shellcheck source-path=SCRIPTDIR source=hooks/landfall
. "$here/hooks/landfall"
run_hook
[[ $mount_handler == "$wanted" ]] || fail "the hook chose $mount_handler instead of $wanted"
echo ok
