//! A program for the inside of a nano guest, which has none: built statically by the tests, sent in by the agent.
//!
//! ```text
//! probe fetch PROXY REQUEST   sends the request (\r\n written as |) to the proxy and prints the answer
//! probe connect ADDRESS       connects and says so, or fails
//! probe write FILE TEXT       writes at the beginning and flushes
//! probe read FILE LENGTH      prints the beginning
//! probe fill FILE MEGABYTES   writes zeros and ones until it is done or fails
//! probe sleep SECONDS
//! ```

use std::fs::File;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

fn main() -> std::io::Result<()> {
    let arguments: Vec<String> = std::env::args().collect();
    let words: Vec<&str> = arguments.iter().skip(1).map(String::as_str).collect();
    match words.as_slice() {
        ["fetch", proxy, request] => {
            let mut stream = TcpStream::connect(proxy)?;
            stream.write_all(request.replace('|', "\r\n").as_bytes())?;
            stream.shutdown(Shutdown::Write)?;
            let mut answer = Vec::new();
            stream.read_to_end(&mut answer)?;
            std::io::stdout().write_all(&answer)
        }
        ["connect", address] => {
            let address = address.parse().map_err(std::io::Error::other)?;
            TcpStream::connect_timeout(&address, Duration::from_secs(5))?;
            println!("connected");
            Ok(())
        }
        ["write", path, text] => {
            let mut file = File::options().write(true).open(path)?;
            // Whole sectors, so that nothing is read before it is written.
            let mut sector = text.as_bytes().to_vec();
            sector.resize(4096, 0);
            file.write_all(&sector)?;
            file.sync_all()
        }
        ["read", path, length] => {
            let mut bytes = vec![0; length.parse().map_err(std::io::Error::other)?];
            File::open(path)?.read_exact(&mut bytes)?;
            std::io::stdout().write_all(&bytes)
        }
        ["fill", path, megabytes] => {
            let mut file = File::options().write(true).open(path)?;
            for number in 0..megabytes.parse::<u32>().map_err(std::io::Error::other)? {
                file.write_all(&vec![1 + (number % 250) as u8; 1 << 20])?;
                file.sync_data()?;
            }
            Ok(())
        }
        ["sleep", seconds] => {
            std::thread::sleep(Duration::from_secs(seconds.parse().map_err(std::io::Error::other)?));
            Ok(())
        }
        other => Err(std::io::Error::other(format!("{other:?}"))),
    }
}
