//! Copies an export into memory, as a boot with `landfall.ram=copy` does, and says how long that
//! took: what `cargo xtask bench` compares with other programs.
//!
//! `copy ADDRESS:PORT...`, all of them servers of the same default export.

use std::error::Error;
use std::io::Write;
use std::sync::Arc;
use std::time::{Duration, Instant};

use landfall::root::copy::{self, FullSpeed, Job, Refusals};
use landfall::root::identity::{Identity, Region};
use landfall::root::nbd::client::Connection;
use landfall::root::{Peer, Source};

fn main() -> Result<(), Box<dyn Error>> {
    let mut sources = Vec::new();
    for address in std::env::args().skip(1) {
        let peer = Peer { address: address.parse()?, name: None };
        sources.push(Source { peer, names: vec![String::new()] });
    }
    let first = sources.first().ok_or("which server?")?;
    let started = Instant::now();
    let mut first = Connection::open(&first.peer, &first.names)?;
    let region = Region { offset: 0, length: first.export().size_bytes };
    let identity = Identity::take(&mut first, region)?;
    let job = Job { sources, identity, region, first: Some(first) };
    let copying = copy::start(job, Arc::new(FullSpeed), Refusals::Drop)?;
    copying.wait(Duration::MAX).ok_or("the end of time")??;
    let seconds = started.elapsed().as_secs_f64();
    let bytes = copying.progress().done_bytes;
    drop(copying.finish()?);
    writeln!(std::io::stdout(), "{bytes} bytes in {seconds:.3} s")?;
    Ok(())
}
