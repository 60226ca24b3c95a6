//! What `landfall help check` says.

pub const HELP: &str = "\
landfall check: what is wrong with an lts.conf, for all nodes at once

  landfall check [options] FILE...

FILE is read with what it includes from beside it; - is the standard input.

Options
  --strict             a warning counts, too
  --substitution       commands in values are right: nodes boot with landfall.substitution=on
  --format text|json   json: one object, described below

An error is something that would not be in force; a warning is what may mean something else than
it seems to, or does nothing. Nothing is run, written, or asked of a network.

Exit status
  0  there is no error
  1  there are warnings and no error, and --strict was given
  2  there are errors, a file cannot be read, or the question cannot be understood

JSON
  problems             a list of objects with these members:
    file               its name, as given or as included
    line, column       from 1 on, in characters; both 0 if it is about the file as a whole
    severity           error or warning
    message            what is wrong
    help               what to do about it; missing if there is nothing to say

A reader must take members that it does not know. landfall settings lists what can be set.
";
