//! What `landfall help plan` says.

pub const HELP: &str = "\
landfall plan: what a node would do with its next boot

  landfall plan 'KERNEL COMMAND LINE'
      What is decided before the first packet.

  landfall plan --config FILE --mac MAC [options]
      Everything, for one node: settings with the line each comes from, files as they would be
      written, services, commands, memory.

  landfall plan --diff OLD NEW --nodes LIST [options]
      Which nodes change, and how, when the configuration OLD becomes NEW.
      LIST has one node a line: MAC address, IP[/PREFIX], host name, in any order, or
      dnsmasq's dhcp-host= lines, of which those for many nodes (*) are left out with a note.

For one node
  --config FILE        its lts.conf
  --mac MAC            its MAC address
  --ip IP[/PREFIX]     the address that DHCP gives it
  --hostname NAME      the name that DHCP gives it
  --uuid UUID          of its firmware
  --lease FILE         /run/landfall/lease.json of the node, instead of all that DHCP gives

For any node
  --cmdline '...'      the kernel command line
  --server ADDRESS     the boot server that DHCP names
  --image IMAGE        its root: a folder or a squashfs, which is only read
  --memory SIZE        of the node: 512M, 64G
  --format text|json   json: see src/desk/plan.schema.json and plan-diff.schema.json

Text is for people: secrets that `landfall check` would find are starred out in it. JSON is
for programs and keeps everything: do not paste it into a ticket.

It writes nothing, mounts nothing, speaks to no network and needs no privileges.
What is not given is assumed to be unknown, and the plan says where that matters.

Exit status
  one node: 0; 2 if the plan has errors
  --diff:   0 if no node changes; 1 if some do; 2 if NEW has errors that OLD has not
  2 as well if the question cannot be understood or a file cannot be read
";
