# Print an optspec for argparse to handle cmd's options that are independent of any subcommand.
function __fish_landfall_initramfs_global_optspecs
    string join \n h/help V/version
end

function __fish_landfall_initramfs_needs_command
    # Figure out if the current invocation already has a command.
    set -l cmd (commandline -opc)
    set -e cmd[1]
    argparse -s (__fish_landfall_initramfs_global_optspecs) -- $cmd 2>/dev/null
    or return
    if set -q argv[1]
        # Also print the command, so this can be used to figure out what it is.
        echo $argv[1]
        return 1
    end
    return 0
end

function __fish_landfall_initramfs_using_subcommand
    set -l cmd (__fish_landfall_initramfs_needs_command)
    test -z "$cmd"
    and return 1
    contains -- $cmd[1] $argv
end

complete -c landfall-initramfs -n "__fish_landfall_initramfs_needs_command" -s h -l help -d 'Print help'
complete -c landfall-initramfs -n "__fish_landfall_initramfs_needs_command" -s V -l version -d 'Print version'
complete -c landfall-initramfs -n "__fish_landfall_initramfs_needs_command" -f -a "build" -d 'Packs the agent and a kernel\'s modules into one image'
complete -c landfall-initramfs -n "__fish_landfall_initramfs_needs_command" -f -a "list" -d 'Tells what build would take, for hooks that copy it into an image of their own'
complete -c landfall-initramfs -n "__fish_landfall_initramfs_needs_command" -f -a "uki" -d 'Makes one file of a kernel, an image and a command line, which UEFI firmware starts by itself'
complete -c landfall-initramfs -n "__fish_landfall_initramfs_needs_command" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c landfall-initramfs -n "__fish_landfall_initramfs_using_subcommand build" -l kernel -d 'A version, a lib/modules/VERSION directory, or the root of an unpacked kernel package' -r -F
complete -c landfall-initramfs -n "__fish_landfall_initramfs_using_subcommand build" -l drivers -d 'Only these network drivers, names or globs, instead of all Ethernet' -r
complete -c landfall-initramfs -n "__fish_landfall_initramfs_using_subcommand build" -l modules -d 'Further modules: names, globs, or directories of the tree that end with "/"; repeatable' -r
complete -c landfall-initramfs -n "__fish_landfall_initramfs_using_subcommand build" -l firmware -d 'Look for firmware here before /lib/firmware; repeatable' -r -F
complete -c landfall-initramfs -n "__fish_landfall_initramfs_using_subcommand build" -l output -d 'The image to write; one that exists is replaced at the end' -r -F
complete -c landfall-initramfs -n "__fish_landfall_initramfs_using_subcommand build" -l agent -d 'The static landfall binary [default: landfall beside this program]' -r -F
complete -c landfall-initramfs -n "__fish_landfall_initramfs_using_subcommand build" -l ca -d 'Certificates in PEM form for https://; repeatable' -r -F
complete -c landfall-initramfs -n "__fish_landfall_initramfs_using_subcommand build" -l config -d 'An lts.conf for nodes that find none on the network' -r -F
complete -c landfall-initramfs -n "__fish_landfall_initramfs_using_subcommand build" -l rescue-shell -d 'Add a shell for people at the console; the busybox must be static' -r -F
complete -c landfall-initramfs -n "__fish_landfall_initramfs_using_subcommand build" -l add -d 'Add a file or directory; repeatable' -r
complete -c landfall-initramfs -n "__fish_landfall_initramfs_using_subcommand build" -l level -d 'Of zstd, 1 to 22' -r
complete -c landfall-initramfs -n "__fish_landfall_initramfs_using_subcommand build" -l unsigned -d 'Strip signatures and debug data from modules; for test machines: taints the kernel, and Secure Boot refuses them'
complete -c landfall-initramfs -n "__fish_landfall_initramfs_using_subcommand build" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c landfall-initramfs -n "__fish_landfall_initramfs_using_subcommand list" -l kernel -d 'A version, a lib/modules/VERSION directory, or the root of an unpacked kernel package' -r -F
complete -c landfall-initramfs -n "__fish_landfall_initramfs_using_subcommand list" -l drivers -d 'Only these network drivers, names or globs, instead of all Ethernet' -r
complete -c landfall-initramfs -n "__fish_landfall_initramfs_using_subcommand list" -l modules -d 'Further modules: names, globs, or directories of the tree that end with "/"; repeatable' -r
complete -c landfall-initramfs -n "__fish_landfall_initramfs_using_subcommand list" -l firmware -d 'Look for firmware here before /lib/firmware; repeatable' -r -F
complete -c landfall-initramfs -n "__fish_landfall_initramfs_using_subcommand list" -l verbose -d 'Name on standard error the firmware that is not on this system, by driver'
complete -c landfall-initramfs -n "__fish_landfall_initramfs_using_subcommand list" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c landfall-initramfs -n "__fish_landfall_initramfs_using_subcommand uki" -l kernel -d 'The kernel (vmlinuz)' -r -F
complete -c landfall-initramfs -n "__fish_landfall_initramfs_using_subcommand uki" -l initramfs -d 'An image of build, or of another generator; repeatable, the first is unpacked first' -r -F
complete -c landfall-initramfs -n "__fish_landfall_initramfs_using_subcommand uki" -l cmdline -d 'The kernel\'s command line' -r
complete -c landfall-initramfs -n "__fish_landfall_initramfs_using_subcommand uki" -l stub -d 'systemd\'s stub [default: that of the package systemd-boot-efi for the kernel\'s architecture]' -r -F
complete -c landfall-initramfs -n "__fish_landfall_initramfs_using_subcommand uki" -l output -d 'The file to write; one that exists is replaced at the end' -r -F
complete -c landfall-initramfs -n "__fish_landfall_initramfs_using_subcommand uki" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c landfall-initramfs -n "__fish_landfall_initramfs_using_subcommand help; and not __fish_seen_subcommand_from build list uki help" -f -a "build" -d 'Packs the agent and a kernel\'s modules into one image'
complete -c landfall-initramfs -n "__fish_landfall_initramfs_using_subcommand help; and not __fish_seen_subcommand_from build list uki help" -f -a "list" -d 'Tells what build would take, for hooks that copy it into an image of their own'
complete -c landfall-initramfs -n "__fish_landfall_initramfs_using_subcommand help; and not __fish_seen_subcommand_from build list uki help" -f -a "uki" -d 'Makes one file of a kernel, an image and a command line, which UEFI firmware starts by itself'
complete -c landfall-initramfs -n "__fish_landfall_initramfs_using_subcommand help; and not __fish_seen_subcommand_from build list uki help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
