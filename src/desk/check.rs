//! `landfall check FILE…`: what is wrong with a configuration, before a machine boots with it.

use super::Output;

/// Reads the rest of the command line and does what it asks for.
///
/// # Errors
/// The command line cannot be understood.
pub fn run(parser: &mut lexopt::Parser) -> Result<Output, lexopt::Error> {
    match parser.next()? {
        Some(argument) => Err(argument.unexpected()),
        None => Err("a file is missing".into()),
    }
}
