# Print an optspec for argparse to handle cmd's options that are independent of any subcommand.
function __fish_landfall_global_optspecs
    string join \n V/version h/help
end

function __fish_landfall_needs_command
    # Figure out if the current invocation already has a command.
    set -l cmd (commandline -opc)
    set -e cmd[1]
    argparse -s (__fish_landfall_global_optspecs) -- $cmd 2>/dev/null
    or return
    if set -q argv[1]
        # Also print the command, so this can be used to figure out what it is.
        echo $argv[1]
        return 1
    end
    return 0
end

function __fish_landfall_using_subcommand
    set -l cmd (__fish_landfall_needs_command)
    test -z "$cmd"
    and return 1
    contains -- $cmd[1] $argv
end

complete -c landfall -n "__fish_landfall_needs_command" -s V -l version
complete -c landfall -n "__fish_landfall_needs_command" -s h -l help -d 'Print help'
complete -c landfall -n "__fish_landfall_needs_command" -f -a "help" -d 'what a command does, and its options'
complete -c landfall -n "__fish_landfall_needs_command" -f -a "check" -d 'what is wrong with an lts.conf'
complete -c landfall -n "__fish_landfall_needs_command" -f -a "plan" -d 'what a node would do with its next boot, and what a new configuration changes for which nodes'
complete -c landfall -n "__fish_landfall_needs_command" -f -a "status" -d 'where the root of this machine is read from, and how its servers are'
complete -c landfall -n "__fish_landfall_needs_command" -f -a "settings" -d 'the table of settings; as the manual page lts.conf(5)'
complete -c landfall -n "__fish_landfall_needs_command" -f -a "keys" -d 'the table of kernel parameters'
complete -c landfall -n "__fish_landfall_needs_command" -f -a "version" -d ''
complete -c landfall -n "__fish_landfall_needs_command" -f -a "claims" -d 'whether the root of this boot is Landfall\'s'
complete -c landfall -n "__fish_landfall_needs_command" -f -a "mount-root" -d 'bring up the network and mount the root'
complete -c landfall -n "__fish_landfall_using_subcommand check" -l format -d 'json: one object, described below' -r -f -a "text\t''
json\t''"
complete -c landfall -n "__fish_landfall_using_subcommand check" -l strict -d 'a warning counts, too'
complete -c landfall -n "__fish_landfall_using_subcommand check" -l substitution -d 'commands in values are right: nodes boot with landfall.substitution=on'
complete -c landfall -n "__fish_landfall_using_subcommand check" -s h -l help -d 'Print help'
complete -c landfall -n "__fish_landfall_using_subcommand plan" -l config -d 'its lts.conf' -r -F
complete -c landfall -n "__fish_landfall_using_subcommand plan" -l mac -d 'its MAC address' -r -f
complete -c landfall -n "__fish_landfall_using_subcommand plan" -l diff -d '' -r -F
complete -c landfall -n "__fish_landfall_using_subcommand plan" -l nodes -d '' -r -F
complete -c landfall -n "__fish_landfall_using_subcommand plan" -l ip -d 'the address that DHCP gives it' -r -f
complete -c landfall -n "__fish_landfall_using_subcommand plan" -l hostname -d 'the name that DHCP gives it' -r -f
complete -c landfall -n "__fish_landfall_using_subcommand plan" -l uuid -d 'of its firmware' -r -f
complete -c landfall -n "__fish_landfall_using_subcommand plan" -l lease -d '/run/landfall/lease.json of the node, instead of all that DHCP gives' -r -F
complete -c landfall -n "__fish_landfall_using_subcommand plan" -l cmdline -d 'the kernel command line' -r -f
complete -c landfall -n "__fish_landfall_using_subcommand plan" -l server -d 'the boot server that DHCP names' -r -f
complete -c landfall -n "__fish_landfall_using_subcommand plan" -l image -d 'its root: a folder or a squashfs, which is only read' -r -F
complete -c landfall -n "__fish_landfall_using_subcommand plan" -l memory -d 'of the node: 512M, 64G' -r -f
complete -c landfall -n "__fish_landfall_using_subcommand plan" -l format -d 'json: see src/desk/plan.schema.json and plan-diff.schema.json' -r -f -a "text\t''
json\t''"
complete -c landfall -n "__fish_landfall_using_subcommand plan" -s h -l help -d 'Print help'
complete -c landfall -n "__fish_landfall_using_subcommand status" -l json -d 'the document itself, for programs'
complete -c landfall -n "__fish_landfall_using_subcommand status" -l watch -d 'once a second, until ctrl-C'
complete -c landfall -n "__fish_landfall_using_subcommand status" -s h -l help -d 'Print help'
complete -c landfall -n "__fish_landfall_using_subcommand settings" -l man -d ''
complete -c landfall -n "__fish_landfall_using_subcommand settings" -s h -l help -d 'Print help'
complete -c landfall -n "__fish_landfall_using_subcommand keys" -s h -l help -d 'Print help'
complete -c landfall -n "__fish_landfall_using_subcommand version" -s h -l help -d 'Print help'
complete -c landfall -n "__fish_landfall_using_subcommand claims" -l cmdline -d 'as if this were the kernel command line' -r -f
complete -c landfall -n "__fish_landfall_using_subcommand claims" -l verbose -d 'say on standard error why it is not'
complete -c landfall -n "__fish_landfall_using_subcommand claims" -s h -l help -d 'Print help'
complete -c landfall -n "__fish_landfall_using_subcommand mount-root" -l print-init -d 'print that path too'
complete -c landfall -n "__fish_landfall_using_subcommand mount-root" -s h -l help -d 'Print help'
