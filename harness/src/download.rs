//! `download` steps: the host fetches the file, checks its digest, and hands it to the guest.
//!
//! A recipe chooses the URL, so it must not become a way into the site's inner networks: every name on the way must
//! have public addresses only, unless the URL lies below an origin that the site itself has set up.

use std::io::{Read, Write};
use std::time::Duration;

use recipe_spec::digest::Sha256Digest;
use ureq::Agent;
use ureq::unversioned::transport::DefaultConnector;
use url::Url;

use crate::address::{AddressRefused, PublicOnly};
use crate::error::{HarnessError, escape};
use crate::origin::{RelayPolicy, plain_url};
use crate::proxy::{content_length, redirect};

/// Size and time of a download.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DownloadLimits {
    /// Largest content, in bytes.
    pub bytes: u64,
    /// For the whole of it, redirects included.
    pub time: Duration,
    /// Redirects followed.
    pub redirects: u32,
}

impl DownloadLimits {
    /// 1 GiB within half an hour.
    pub const STANDARD: Self = Self { bytes: 1 << 30, time: Duration::from_secs(1800), redirects: 5 };
}

/// Fetches `url` into `into` and gives the number of bytes. `into` holds the right content only if this succeeds.
///
/// `policy` holds the origins that the site has set up, whether the recipe declares them or not: below their prefixes
/// inner addresses are admitted.
///
/// # Errors
/// [`HarnessError::DownloadRefused`] for a URL or address that is never fetched from, [`HarnessError::DownloadChanged`] if the
/// digest differs, [`HarnessError::RemoteUnavailable`] for everything that may be better tomorrow.
pub fn fetch_download(
    url: &str,
    sha256: &Sha256Digest,
    limits: &DownloadLimits,
    policy: &RelayPolicy,
    into: &mut impl Write,
) -> Result<u64, HarnessError> {
    let unavailable =
        |reason: String| HarnessError::RemoteUnavailable { url: escape(url), reason: escape(&reason) };
    let start = std::time::Instant::now();
    let mut target = plain_url(url).map_err(|error| refusal(url, &error.to_string()))?;
    for _ in 0..=limits.redirects {
        let left = limits.time.saturating_sub(start.elapsed()).max(Duration::from_millis(1));
        let mut response = agent_for(&target, policy, left)
            .get(target.as_str())
            .call()
            .map_err(|error| failure(url, error))?;
        if let Some(location) = redirect(&response) {
            let next = target.join(&location).map_err(|_| unavailable("it redirects to no URL".into()))?;
            let next = plain_url(next.as_str()).map_err(|error| refusal(url, &error.to_string()))?;
            if target.scheme() == "https" && next.scheme() == "http" {
                return Err(refusal(url, "it redirects from https to http"));
            }
            target = next;
            continue;
        }
        if response.status().as_u16() != 200 {
            return Err(unavailable(format!("the server answered {}", response.status())));
        }
        let too_long = || refusal(url, &format!("it is longer than {} bytes", limits.bytes));
        if content_length(&response).is_some_and(|length| length > limits.bytes) {
            return Err(too_long());
        }
        let reader = response.body_mut().as_reader().take(limits.bytes + 1);
        let mut copy = Copying { from: reader, into, written: Ok(()) };
        let (actual, length) =
            Sha256Digest::of_reader(&mut copy).map_err(|error| unavailable(error.to_string()))?;
        copy.written.map_err(|source| HarnessError::process("keep a download", source))?;
        if length > limits.bytes {
            return Err(too_long());
        }
        if actual != *sha256 {
            return Err(HarnessError::DownloadChanged { url: escape(url), expected: *sha256, actual });
        }
        return Ok(length);
    }
    Err(unavailable("it redirects too often".into()))
}

/// Gives what it reads also to a writer, so that what is hashed is what is kept.
struct Copying<'a, R, W> {
    from: R,
    into: &'a mut W,
    written: std::io::Result<()>,
}

impl<R: Read, W: Write> Read for Copying<'_, R, W> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let read = self.from.read(buffer)?;
        if self.written.is_ok() {
            self.written = self.into.write_all(&buffer[..read]);
        }
        // Nothing more is wanted once it cannot be kept.
        Ok(if self.written.is_ok() { read } else { 0 })
    }
}

/// An agent for exactly this URL: no redirects, and no inner address unless the site has set up that place.
fn agent_for(url: &Url, policy: &RelayPolicy, time: Duration) -> Agent {
    let config = Agent::config_builder()
        .max_redirects(0)
        .max_redirects_will_error(false)
        .http_status_as_error(false)
        .user_agent("countersign")
        .timeout_global(Some(time));
    if policy.origins.iter().any(|origin| origin.covers(url)) {
        return config.build().new_agent();
    }
    // Without a proxy from the environment: it would resolve the name itself, and none of this would hold.
    Agent::with_parts(config.proxy(None).build(), DefaultConnector::default(), PublicOnly::default())
}

fn failure(url: &str, error: ureq::Error) -> HarnessError {
    match error {
        ureq::Error::Other(inner) if inner.downcast_ref::<AddressRefused>().is_some() => {
            refusal(url, &inner.to_string())
        }
        error => HarnessError::RemoteUnavailable { url: escape(url), reason: escape(&error.to_string()) },
    }
}

fn refusal(url: &str, reason: &str) -> HarnessError {
    HarnessError::DownloadRefused { url: escape(url), reason: escape(reason) }
}

#[cfg(test)]
#[path = "download_tests.rs"]
mod tests;
